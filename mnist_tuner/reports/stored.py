"""Reports read back from the folders of runs. What lies there is data: nothing of it can run code."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import numpy.typing as npt
from annotated_types import MaxLen, Predicate

from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.errors import DAMAGES, InputError, brief
from mnist_tuner.reports.report import SCHEMA_VERSION, RunReport
from mnist_tuner.reports.search import SearchReport
from mnist_tuner.reports.statistics import Count, Finite, Positive, Share
from mnist_tuner.runs import RunDirectory
from mnist_tuner.search.trial import TrialSummary
from mnist_tuner.trainer.checked import checked, what_is_wrong
from mnist_tuner.trainer.files import atomic_write, check_sizes, open_file


def load_report(folder: Path) -> RunReport | SearchReport:
    """The report of a run's folder.

    Raises:
        InputError: it is no run's folder, or its ``run.json`` is damaged or of another version.
    """
    run, document = RunDirectory.open(folder)
    if document.get("schema_version") != SCHEMA_VERSION or document.get("command") not in ("train", "search"):
        raise InputError(f"{run / 'run.json'}: not a run of mnist-tuner that this version can read")
    try:
        report = _search(document) if document["command"] == "search" else _run(document)
        _check(report)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{run / 'run.json'}: damaged: {what_is_wrong(error)}") from None
    return replace(report, run_dir=str(folder))  # it may have been moved


_OPTIONS = {
    "train": ("hidden", "epochs", "batch_size", "learning_rate"),
    "search": ("strategy", "widths", "epochs", "replicates", "scheduler"),
}
"""The options that reports speak of."""


@lru_cache
def _check_options(command: str, config: str) -> None:
    """Whether a configuration is one. Of thousands of runs most have the same."""
    (SearchConfig if command == "search" else TrainConfig).from_dict(json.loads(config))


def _check(report: RunReport | SearchReport) -> None:
    """Whether what reports rely on fits together.

    Raises:
        ValueError: it does not.
    """
    missing = [name for name in _OPTIONS[report.command] if name not in report.config]
    if missing:
        raise ValueError(f"its configuration says nothing of {missing[0]}")
    _check_options(report.command, json.dumps(report.config))
    for name in ("mnist_tuner", "tensorflow", "keras", "python"):
        if name not in report.versions:
            raise ValueError(f"it does not say the version of {name}")
    test = report.test
    if test is None:
        return
    classes = len(test.matrix)
    names = report.data.class_names if report.data is not None else ()
    pairs = [(each.label, each.predicted) for each in test.confusions] + [(each.label, each.predicted) for each in test.mistakes]
    if (
        any(len(row) != classes for row in test.matrix)
        or [score.label for score in test.classes] != list(range(classes))
        or not all(max(pair) < classes for pair in pairs)
        or len(names) not in (0, classes)
        or (isinstance(report, RunReport) and (test.wilson95 is None) != bool(report.seeds))
    ):
        raise ValueError("its test does not fit together")


def _run(document: dict[str, Any]) -> RunReport:
    seeds = document["seeds"]
    values = {
        **document,
        "run_dir": "",
        "parameters": document["model"]["parameters"],
        "seeds": None if seeds is None else {**seeds, "mean": _estimate(seeds["mean"], seeds["interval95"])},
    }
    return checked(RunReport, values)


def _search(document: dict[str, Any]) -> SearchReport:
    final = document["final"] or {**dict.fromkeys(("baseline", "winner", "comparison")), "looked_before": []}
    values = {
        **document,
        "run_dir": "",
        "trials": [each.summary() for each in checked(tuple[_Trial, ...], document["trials"])],
        "baseline": _contestant(final["baseline"]),
        "winner": _contestant(final["winner"]),
        "comparison": _comparison(final["comparison"]),
        "looked_before": final["looked_before"],
    }
    return checked(SearchReport, values)


@dataclass(frozen=True)
class _Replicate:
    seed: Count
    val_accuracy: Share
    epochs: Count


@dataclass(frozen=True)
class _Trial:
    """A trial as it is stored."""

    id: Annotated[str, Predicate(str.isdecimal), MaxLen(9)]
    units: tuple[Positive, Positive]
    parameters: Count | None
    replicates: tuple[_Replicate, ...]
    seconds: Finite
    status: Literal["completed", "failed"]
    reason: str | None = None

    def summary(self) -> TrialSummary:
        """What a report has of it."""
        if bool(self.replicates) != (self.status == "completed"):
            raise ValueError(f"trial {self.id} is {self.status} and has {len(self.replicates)} scores")
        return TrialSummary(
            trial_id=self.id,
            values={f"units_{number}": width for number, width in enumerate(self.units, 1)},
            status=self.status,
            seeds=tuple(replicate.seed for replicate in self.replicates),
            scores=tuple(replicate.val_accuracy for replicate in self.replicates),
            epochs=max((replicate.epochs for replicate in self.replicates), default=0),
            parameters=self.parameters,
            seconds=self.seconds,
            worker="",
            reason=self.reason,
        )


def _estimate(value: Any, interval: Any) -> dict[str, Any]:
    low, high = interval
    return {"value": value, "low": low, "high": high}


def _contestant(values: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if values is None else {**values, "accuracy": _estimate(values["mean"], values["interval95"])}


def _comparison(values: dict[str, Any] | None) -> dict[str, Any] | None:
    if values is None:
        return None
    names = [name for name in ("difference", "bootstrap") if values[name] is not None]
    return {**values, **{name: _estimate(values[name]["value"], values[name]["interval"]) for name in names}}


@dataclass(frozen=True)
class TestPredictions:
    """What a run's net made of the test images.

    Attributes:
        labels: uint8, shape ``(n,)``.
        predicted: uint8, shape ``(trainings, n)``.
        seeds: of the trainings.
        mistakes: the images of the report's mistakes, uint8 ``(mistakes, height, width)``.
    """

    labels: npt.NDArray[np.uint8]
    predicted: npt.NDArray[np.uint8]
    seeds: tuple[int, ...]
    mistakes: npt.NDArray[np.uint8]


def save_predictions(folder: RunDirectory, **arrays: npt.ArrayLike) -> None:
    """Writes ``test_predictions.npz``.

    Args:
        folder: the run's.
        arrays: by name.

    Raises:
        OSError: it could not be written.
    """
    content = io.BytesIO()
    np.savez(content, **cast(dict[str, Any], arrays))  # its only other argument has a name that nobody gives
    atomic_write(folder / "test_predictions.npz", content.getvalue())


def load_predictions(report: RunReport | SearchReport) -> TestPredictions:
    """The predictions of a run's net: of a search, the winner's.

    Raises:
        InputError: there are none, or the file is damaged.
    """
    path = Path(report.run_dir, "test_predictions.npz")
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            check_sizes(archive)
            file.seek(0)
            arrays = np.load(file, allow_pickle=False)
            single = "seed" in arrays  # of one training
            labels, predicted, mistakes = (arrays[name] for name in ("labels", "predicted", "mistakes"))
            seeds = arrays["seed"] if single else arrays["seeds"]
    except FileNotFoundError:
        raise InputError(f"{path}: there is none: the run has not been tested") from None
    except DAMAGES as error:
        raise InputError(f"{path}: damaged ({what_is_wrong(error)})") from None
    shapes = ", ".join(f"{array.dtype} {array.shape}" for array in (labels, predicted, seeds, mistakes))
    searched = isinstance(report, SearchReport)
    fits = predicted.ndim == 3 and seeds.ndim == 2 and not single if searched else True
    if single:
        predicted, seeds = predicted[None], seeds[None]
    elif searched and fits and len(seeds) and len(predicted):  # the first net is the winner
        predicted, seeds = predicted[0], seeds[0]
    fits = fits and np.issubdtype(seeds.dtype, np.integer) and labels.dtype == predicted.dtype == mistakes.dtype == np.uint8
    fits = fits and (labels.ndim, seeds.ndim, mistakes.ndim) == (1, 1, 3) and predicted.shape == (len(seeds), len(labels))
    if not fits or not predicted.size or 0 in mistakes.shape[1:]:
        raise InputError(f"{path}: damaged: arrays of {brief(shapes)}")
    return TestPredictions(labels, predicted, tuple(int(seed) for seed in seeds), mistakes)
