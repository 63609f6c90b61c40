"""The runner of reports on what lies in folders: one run again, several compared, or the list of all. No TensorFlow."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.text import Text

from mnist_tuner.errors import InputError
from mnist_tuner.render import comparison as comparison_console
from mnist_tuner.render import run as run_console
from mnist_tuner.render import runs as list_console
from mnist_tuner.render import search as search_console
from mnist_tuner.render.page import FIGURES, write_page
from mnist_tuner.reports.comparison import ComparisonReport
from mnist_tuner.reports.report import RunReport
from mnist_tuner.reports.runs import ListedRun, SkippedFolder, compare_runs, list_document, list_runs
from mnist_tuner.reports.search import SearchReport
from mnist_tuner.reports.stored import load_predictions, load_report

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
    found: Report = reports[0] if len(reports) == 1 else compare_runs(reports)
    mistakes = _mistakes(found)
    parts: list[RenderableType]
    match found:
        case RunReport():
            parts = [*run_console.heading(found), *run_console.result(found, mistakes, epochs=True)]
            short: RenderableType = run_console.accuracy_line(found) if found.test is not None else Text("not tested")
        case SearchReport():
            parts, short = [*search_console.heading(found), *search_console.result(found)], search_console.result_line(found)
        case ComparisonReport():
            parts, short = comparison_console.result(found), run_console.line(f"{found.verdict} {found.outlook}".rstrip())
    for part in [short] if quiet else parts:
        screen.print(part)
    if html is not None:
        command = _command(found, folders)
        try:
            write_page(found, mistakes, command, html, html.with_name(f"{html.stem}-{FIGURES}"))
        except OSError as error:
            raise InputError(f"--html {html}: {error.strerror}") from None
        if not quiet:
            screen.print(run_console.line(f"Page {html}"), soft_wrap=True)
    return found.to_dict()


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
    if isinstance(found, ComparisonReport):
        return shlex.join(["mnist-tuner", "report", *map(str, folders)])
    return found.options.command


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
    listed: list[ListedRun | SkippedFolder] = []

    def read() -> Iterator[ListedRun | SkippedFolder]:
        for each in list_runs(parent):
            listed.append(each)
            yield each

    for part in list_console.table(read(), parent, whole=not screen.is_terminal):
        screen.print(part, soft_wrap=True)
    return list_document(listed, parent)
