"""Several runs: listed, or compared with one another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mnist_tuner.config import TrainConfig
from mnist_tuner.errors import InputError
from mnist_tuner.options import options_of
from mnist_tuner.reports.comparison import ComparisonReport, compare_all, contestant, net_name
from mnist_tuner.reports.report import HELD_OUT, SCHEMA_VERSION, RunReport
from mnist_tuner.reports.search import SearchReport
from mnist_tuner.reports.statistics import Estimate
from mnist_tuner.reports.stored import TestPredictions, load_predictions, load_report
from mnist_tuner.runs import is_locked


@dataclass(frozen=True)
class ListedRun:
    """A run in a list.

    Attributes:
        date: when it was begun, as the folder's name says; None where it does not.
        kind: the command; "train x5" with 5 seeds, "search x16" of 16 trials.
        net: its widths, such as "100-100"; of a search those of the net that it ended with, or "".
        data: the name, or "".
        status: that of the report; "killed" where it says that it is running and no process has the folder.
        accuracy: of the net on the test images; None until the test.
        seconds: that it took; None where it has not ended.
        run_dir: its folder.
        held_out: whether its test images did not come with the data.
    """

    date: str | None
    kind: str
    net: str
    data: str
    status: str
    accuracy: Estimate | None
    seconds: float | None
    run_dir: str
    held_out: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        known = self.accuracy
        accuracy = None if known is None else {"value": known.value, "interval95": [known.low, known.high]}
        return {**vars(self), "accuracy": accuracy}


@dataclass(frozen=True)
class SkippedFolder:
    """A folder among the runs that is none, and why."""

    path: str
    reason: str


def list_runs(parent: Path) -> Iterator[ListedRun | SkippedFolder]:
    """The folders in a folder, the newest run first.

    Raises:
        InputError: there is no such folder.
    """
    try:
        with os.scandir(parent) as entries:
            folders = sorted((each.name for each in entries if each.name[0] != "." and each.is_dir()), reverse=True)
    except OSError as error:
        raise InputError(f"{parent}: {error.strerror}") from None
    for path in map(parent.joinpath, folders):
        try:
            yield _listed(path, load_report(path))
        except InputError as error:
            yield SkippedFolder(str(path), str(error))
        except OSError as error:
            yield SkippedFolder(str(path), f"{error.filename}: {error.strerror}")


def _listed(path: Path, report: RunReport | SearchReport) -> ListedRun:
    try:
        day, time = path.name[:15].split("-")
        date = datetime.fromisoformat(f"{day}T{time}").strftime("%Y-%m-%d %H:%M")
    except ValueError:
        date = None
    if isinstance(report, RunReport):
        kind = "train" if report.seeds is None else f"train x{len(report.seeds.trainings)}"
        net, accuracy = net_name(report.units), report.accuracy
    else:
        kind, found = f"search x{len(report.trials)}", report.net
        net, accuracy = ("", None) if found is None else (found.name, found.accuracy)
    return ListedRun(
        date,
        kind,
        net,
        "" if report.data is None else report.data.name,
        "killed" if report.status == "running" and not is_locked(path) else report.status,
        accuracy,
        None if report.timing is None else report.timing.total_s,
        str(path),
        report.data is not None and report.data.held_out,
    )


def list_document(listed: Sequence[ListedRun | SkippedFolder], parent: Path) -> dict[str, Any]:
    """The JSON document of the list; README.md in this folder has its schema."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "runs",
        "folder": str(parent),
        "runs": [run.to_dict() for run in listed if isinstance(run, ListedRun)],
        "skipped": [asdict(each) for each in listed if isinstance(each, SkippedFolder)],
    }


def compare_runs(reports: Sequence[RunReport | SearchReport]) -> ComparisonReport:
    """Compares runs' nets (of a search, the winner's) on the test images.

    Raises:
        InputError: they have been measured on different images, or not at all; or a run is given twice.
    """
    for report in reports:
        if report.test is None:
            raise InputError(f"{report.run_dir}: the run has not been tested: there is nothing to compare")
    if len({Path(report.run_dir).resolve() for report in reports}) < len(reports):
        raise InputError("the same run is given twice: there is nothing to compare")
    predictions = [load_predictions(report) for report in reports]
    data = _same_test_images(reports, predictions)
    names, labels = _names(reports), predictions[0].labels
    nets = [
        contestant(name, report.units, report.parameters, made.seeds, made.labels, made.predicted)
        for name, report, made in zip(names, reports, predictions, strict=True)
    ]
    order = sorted(range(len(nets)), key=lambda i: -nets[i].accuracy.value)
    return ComparisonReport(
        data,
        len(labels),
        tuple(reports[i].run_dir for i in order),
        tuple(nets[i] for i in order),
        compare_all([names[i] for i in order], labels, [predictions[i].predicted for i in order]),
        _differences([reports[i] for i in order], [predictions[i] for i in order]),
    )


def _same_test_images(reports: Sequence[RunReport | SearchReport], predictions: Sequence[TestPredictions]) -> str:
    """The name of the data that all have been measured on.

    Raises:
        InputError: they have not been measured on the same.
    """
    first = reports[0]
    if first.data is None:
        raise InputError(f"{first.run_dir}: its run.json does not say what data it was measured on")
    tested = {name: digest for name, digest in first.data.sha256.items() if name.startswith("t10k")}
    for report, made in zip(reports[1:], predictions[1:], strict=True):
        other = report.data
        if other is None or any(other.sha256.get(name) != digest for name, digest in tested.items()):
            name = other.name if other is not None else "unknown data"
            raise InputError(
                f"{report.run_dir}: measured on other test images ({name}) than {first.run_dir} ({first.data.name}): only runs "
                "on the same ones can be compared"
            )
        if made.labels.shape != predictions[0].labels.shape:
            raise InputError(f"{report.run_dir}: measured on {len(made.labels):,} test images, and {first.run_dir} on others")
    return first.data.name + (f" ({HELD_OUT})" if first.data.held_out else "")


def _names(reports: Sequence[RunReport | SearchReport]) -> list[str]:
    """The nets' widths; where two are the same, the run's folder, too."""
    nets = [net_name(report.units) for report in reports]
    folders = [Path(report.run_dir).resolve() for report in reports]
    alone = len({folder.name for folder in folders}) == len(folders)
    return [
        net if nets.count(net) == 1 else f"{net} ({folder.name if alone else folder})"
        for net, folder in zip(nets, folders, strict=True)
    ]


def _differences(reports: Sequence[RunReport | SearchReport], predictions: Sequence[TestPredictions]) -> tuple[str, ...]:
    """What the runs differ in besides their widths and seeds: the verdict is about that, too."""
    found: list[str] = []
    for name, option in options_of(TrainConfig).items():
        values = [str(report.config.get(name, option.default)) for report in reports]  # a search's nets are trained by default
        if option.shapes_result and name not in ("hidden", "seed") and len(set(values)) > 1:
            found.append(f"{name.replace('_', ' ')} ({', '.join(values)})")
    trained = {
        () if report.data is None else (report.data.train, *sorted(report.data.sha256.items()))
        for report in reports
        if isinstance(report, RunReport)
    }
    if len(trained) > 1 and "val fraction" not in " ".join(found):
        found.append("training data")
    notes = [f"The runs also differ in {', '.join(found)}: the verdict is about all of that together."] if found else []
    if len({report.units for report in reports}) < len(reports) and not found:
        notes.append("Runs with the same widths are the same net: between them there is nothing but their seeds.")
    if len({len(made.seeds) == 1 for made in predictions}) > 1:
        notes.append(
            "Where a net was trained once, it is taken to vary with its seed as much as the one that it is compared with."
        )
    return tuple(notes)
