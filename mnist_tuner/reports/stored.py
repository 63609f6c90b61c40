"""Reports read back from the folders of runs. What lies there is data: nothing of it can run code."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.errors import DAMAGES, InputError
from mnist_tuner.reports.report import SCHEMA_VERSION, RunReport
from mnist_tuner.reports.search import OBJECTIVE, SearchReport
from mnist_tuner.runs import RunDirectory
from mnist_tuner.trainer.files import atomic_write


def load_report(folder: Path) -> RunReport | SearchReport:
    """The report of a run's folder.

    Raises:
        InputError: it is no run's folder, or its ``run.json`` is damaged or of another version.
    """
    from pydantic import ValidationError  # it takes its time: a run that only writes its predictions does without

    run, document = RunDirectory.open(folder)
    if document.get("schema_version") != SCHEMA_VERSION or document.get("command") not in ("train", "search"):
        raise InputError(f"{run / 'run.json'}: not a run of mnist-tuner that this version can read")
    document["run_dir"] = str(folder)  # it may have been moved
    try:
        _check(document)
        return _search(document) if document["command"] == "search" else _run(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise InputError(f"{run / 'run.json'}: damaged: {place}: {first['msg']}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{run / 'run.json'}: damaged ({type(error).__name__}: {error})") from None


_OPTIONS = {
    "train": ("hidden", "epochs", "batch_size", "learning_rate"),
    "search": ("strategy", "widths", "epochs", "replicates", "scheduler"),
}
"""The options that reports speak of."""


def _check(document: dict[str, Any]) -> None:
    """Whether what reports rely on fits together, besides the types.

    Raises:
        ValueError: it does not.
    """
    missing = [name for name in _OPTIONS[document["command"]] if name not in document["config"]]
    if missing:
        raise ValueError(f"its configuration says nothing of {missing[0]}")
    (SearchConfig if document["command"] == "search" else TrainConfig).from_dict(document["config"])
    for name in ("mnist_tuner", "tensorflow", "keras", "python"):
        if not isinstance(document["versions"].get(name), str):
            raise ValueError(f"it does not say the version of {name}")
    timing = document["timing"] or {}
    if not all(value is None or math.isfinite(value) for value in timing.values()):
        raise ValueError("a time is not finite")
    names = (document["data"] or {}).get("class_names") or []
    test = document["test"]
    if test is None:
        return
    classes = len(test["matrix"])
    numbers = [each[name] for part in ("confusions", "mistakes") for each in test[part] for name in ("label", "predicted")]
    if (
        not test["total"] > 0
        or classes < 2
        or any(len(row) != classes for row in test["matrix"])
        or [score["label"] for score in test["classes"]] != list(range(classes))
        or not all(0 <= number < classes for number in numbers)
        or len(names) not in (0, classes)
        or (document["command"] == "train" and (test["wilson95"] is None) != bool(document["seeds"]))
    ):
        raise ValueError("its test does not fit together")
    if document.get("seeds") and len(document["seeds"]["trainings"]) < 2:
        raise ValueError("it says several seeds, and has fewer than two")


def _run(document: dict[str, Any]) -> RunReport:
    from pydantic import TypeAdapter

    seeds = document["seeds"]
    values = {
        **document,
        "parameters": document["model"]["parameters"],
        "seeds": None if seeds is None else {**seeds, "mean": _estimate(seeds["mean"], seeds["interval95"])},
    }
    return TypeAdapter(RunReport).validate_python(values)


def _search(document: dict[str, Any]) -> SearchReport:
    from pydantic import TypeAdapter

    final = document["final"] or {**dict.fromkeys(("baseline", "winner", "comparison")), "looked_before": []}
    values = {
        **document,
        "trials": [_trial(trial) for trial in document["trials"]],
        "baseline": _contestant(final["baseline"]),
        "winner": _contestant(final["winner"]),
        "comparison": _comparison(final["comparison"]),
        "looked_before": final["looked_before"],
    }
    return TypeAdapter(SearchReport).validate_python(values)


def _trial(values: dict[str, Any]) -> dict[str, Any]:
    replicates = values["replicates"]
    return {
        **values,
        "trial_id": values["id"],
        "values": {f"units_{number}": width for number, width in enumerate(values["units"], 1)},
        "seeds": [replicate["seed"] for replicate in replicates],
        "scores": [replicate[OBJECTIVE] for replicate in replicates],
        "epochs": max((replicate["epochs"] for replicate in replicates), default=0),
        "worker": "",
        "reason": values.get("reason"),
    }


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
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            single = "seed" in arrays  # of one training
            labels, predicted, mistakes = (arrays[name] for name in ("labels", "predicted", "mistakes"))
            seeds = arrays["seed"] if single else arrays["seeds"]
    except FileNotFoundError:
        raise InputError(f"{path}: there is none: the run has not been tested") from None
    except DAMAGES as error:
        raise InputError(f"{path}: damaged ({error})") from None
    shapes = ", ".join(f"{array.dtype} {array.shape}" for array in (labels, predicted, seeds, mistakes))
    searched = isinstance(report, SearchReport)
    fits = predicted.ndim == 3 and seeds.ndim == 2 and not single if searched else True
    if single:
        predicted, seeds = predicted[None], seeds[None]
    elif searched and fits and len(seeds):  # the first net is the winner
        predicted, seeds = predicted[0], seeds[0]
    fits = fits and all(np.issubdtype(array.dtype, np.integer) for array in (labels, predicted, seeds, mistakes))
    if not fits or labels.ndim != 1 or seeds.ndim != 1 or mistakes.ndim != 3 or predicted.shape != (len(seeds), len(labels)):
        raise InputError(f"{path}: damaged: arrays of {shapes}")
    return TestPredictions(labels, predicted, tuple(int(seed) for seed in seeds), mistakes)
