"""The runner of reports on what lies in folders: one run again, several compared, or the list of all. No TensorFlow."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.text import Text

from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.errors import InputError
from mnist_tuner.render import comparison as comparison_console
from mnist_tuner.render import run as console
from mnist_tuner.render import runs as index
from mnist_tuner.render import search as search_console
from mnist_tuner.render.page import FIGURES, write_page
from mnist_tuner.reports.comparison import ComparisonReport, compare_all, contestant
from mnist_tuner.reports.report import RunReport
from mnist_tuner.reports.search import SearchReport
from mnist_tuner.reports.stored import TestPredictions, list_runs, load_predictions, load_report

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Report = RunReport | SearchReport | ComparisonReport


def report(
    folders: Sequence[Path], screen: Console | None = None, *, html: Path | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Prints a run's report again; of several runs, a comparison.

    Args:
        folders: of the runs.
        screen: where it is printed; by default the standard output, or the notebook's cell.
        html: where the page is written, if it is wanted; its figures go into a folder beside it.
        quiet: whether it is just the result.

    Returns:
        The JSON document.

    Raises:
        InputError: a folder holds no run, a damaged one, or runs that cannot be compared; or the page cannot be written.
    """
    screen = screen or Console()
    reports = [load_report(folder) for folder in folders]
    found: Report = reports[0] if len(reports) == 1 else compared(reports)
    mistakes = _mistakes(found)
    parts: list[RenderableType]
    match found:
        case RunReport():
            parts = [*console.heading(found), *console.result(found, mistakes, epochs=True)]
            short: RenderableType = console.accuracy_line(found) if found.test is not None else Text("not tested")
        case SearchReport():
            parts, short = [*search_console.heading(found), *search_console.result(found)], search_console.result_line(found)
        case ComparisonReport():
            parts, short = comparison_console.result(found), Text(f"{found.verdict} {found.outlook}".rstrip())
    for part in [short] if quiet else parts:
        screen.print(part)
    if html is not None:
        command = _command(found, folders)
        try:
            write_page(found, mistakes, command, html, html.with_name(f"{html.stem}-{FIGURES}"))
        except OSError as error:
            raise InputError(f"--html {html}: {error.strerror}") from None
        if not quiet:
            screen.print(Text(f"Page {html}"), soft_wrap=True)
    return found.to_dict()


def compared(reports: Sequence[RunReport | SearchReport]) -> ComparisonReport:
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
    names = _names(reports)
    nets = [
        contestant(name, _units(report), _parameters(report), made.seeds, made.labels, made.predicted)
        for name, report, made in zip(names, reports, predictions, strict=True)
    ]
    order = sorted(range(len(nets)), key=lambda i: -nets[i].accuracy.value)
    notes = _differences([reports[i] for i in order], [predictions[i] for i in order])
    comparisons = compare_all([names[i] for i in order], predictions[0].labels, [predictions[i].predicted for i in order])
    return ComparisonReport(
        first.data.name,
        len(predictions[0].labels),
        tuple(reports[i].run_dir for i in order),
        tuple(nets[i] for i in order),
        comparisons,
        notes,
    )


def _units(report: RunReport | SearchReport) -> tuple[int, ...]:
    if isinstance(report, RunReport):
        return tuple(report.config["hidden"])
    net = report.winner or report.baseline
    return net.units if net is not None else ()


def _parameters(report: RunReport | SearchReport) -> int | None:
    if isinstance(report, RunReport):
        return report.parameters
    net = report.winner or report.baseline
    return net.parameters if net is not None else None


def _differences(reports: Sequence[RunReport | SearchReport], predictions: Sequence[TestPredictions]) -> tuple[str, ...]:
    """What the runs differ in besides their widths and seeds: the verdict is about that, too."""
    found: list[str] = []
    options = [{**_COMMON, **{name: report.config[name] for name in _COMMON if name in report.config}} for report in reports]
    for name in _COMMON:
        values = [str(each[name]) for each in options]
        if len(set(values)) > 1:
            found.append(f"{name.replace('_', ' ')} ({', '.join(values)})")
    data = [() if report.data is None else (report.data.train, *sorted(report.data.sha256.items())) for report in reports]
    trained = [each for each, report in zip(data, reports, strict=True) if isinstance(report, RunReport)]
    if len(set(trained)) > 1 and "val fraction" not in " ".join(found):
        found.append("training data")
    notes = [f"The runs also differ in {', '.join(found)}: the verdict is about all of that together."] if found else []
    units = [_units(report) for report in reports]
    if len(set(units)) < len(units) and not found:
        notes.append("Runs with the same widths are the same net: between them there is nothing but their seeds.")
    if len({len(made.seeds) == 1 for made in predictions}) > 1:
        notes.append(
            "Where a net was trained once, it is taken to vary with its seed as much as the one that it is compared with."
        )
    return tuple(notes)


_COMMON = {
    "epochs": None,
    "batch_size": 32,
    "learning_rate": 0.001,
    "val_fraction": 0.0,
    "precision": "32-true",
    "early_stopping": None,
}
"""The options of a training, with what a search's comparison has of them."""


def _names(reports: Sequence[RunReport | SearchReport]) -> list[str]:
    """The nets' widths; where two are the same, the run's folder, too."""
    units = ["-".join(map(str, _units(report))) for report in reports]
    folders = [Path(report.run_dir).resolve() for report in reports]
    alone = len({folder.name for folder in folders}) == len(folders)
    return [
        unit if units.count(unit) == 1 else f"{unit} ({folder.name if alone else folder})"
        for unit, folder in zip(units, folders, strict=True)
    ]


def _mistakes(found: Report) -> npt.NDArray[np.uint8] | None:
    """The images of a report's mistakes, where they are to be had: without them the rest is still shown."""
    if isinstance(found, ComparisonReport) or found.test is None:
        return None
    with suppress(InputError):
        images = load_predictions(found).mistakes
        if len(images) == len(found.test.mistakes):
            return images
    return None


def _command(found: Report, folders: Sequence[Path]) -> str:
    match found:
        case RunReport():
            return TrainConfig.from_dict(found.config).command
        case SearchReport():
            return SearchConfig.from_dict(found.config).command
        case ComparisonReport():
            return shlex.join(["mnist-tuner", "report", *map(str, folders)])


def runs(parent: Path = Path("runs"), screen: Console | None = None) -> dict[str, Any]:
    """Lists the runs in a folder.

    Args:
        parent: the folder.
        screen: where they are listed; by default the standard output, or the notebook's cell.

    Returns:
        The JSON document.

    Raises:
        InputError: there is no such folder.
    """
    screen = screen or Console()
    listed = list(list_runs(parent))
    for part in index.table(listed, parent):
        screen.print(part, soft_wrap=True)
    return index.document(listed, parent)
