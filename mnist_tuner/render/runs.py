"""The list of runs on the console."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from mnist_tuner.render.text import limits, points
from mnist_tuner.reports.report import HELD_OUT
from mnist_tuner.reports.runs import ListedRun, SkippedFolder
from mnist_tuner.trainer.duration import duration_text


def table(listed: Sequence[ListedRun | SkippedFolder], parent: Path) -> list[RenderableType]:
    """The runs in a folder, the newest first, each with its folder below it; then the folders that are none."""
    names = ("date", "kind", "net", "data", "status", "test accuracy", "time")
    rows = [(_cells(run), run) for run in listed if isinstance(run, ListedRun)]
    widths = [max(map(len, column)) for column in zip(names, *(cells for cells, _ in rows), strict=True)]
    parts: list[RenderableType] = [Text(_line(names, widths), style="bold")] if rows else [Text(f"{parent}: no runs")]
    for cells, run in rows:
        parts.append(Text(_line(cells, widths), style="" if run.status == "finished" else "yellow"))
        parts.append(Text(f"  {run.run_dir}", style="dim"))
    if any(run.held_out and run.accuracy for _, run in rows):
        parts.append(Text(f"*: on images {HELD_OUT}, since no test images came with the data", style="dim"))
    if rows:
        note = "train x5: with 5 seeds; search x16: of 16 trials. Accuracy in per cent, with its 95 % interval."
        parts.append(Text(note, style="dim"))
    return [*parts, *(Text(f"skipped: {each.reason}", style="yellow") for each in listed if isinstance(each, SkippedFolder))]


def _cells(run: ListedRun) -> tuple[str, ...]:
    return (
        (run.date or "")[5:],
        run.kind,
        run.net,
        run.data[:12],
        run.status,
        "" if run.accuracy is None else f"{points(run.accuracy.value)} ({limits(run.accuracy, '-')})" + "*" * run.held_out,
        "" if run.seconds is None else duration_text(run.seconds),
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
