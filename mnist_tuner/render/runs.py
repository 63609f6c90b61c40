"""The list of runs on the console."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from rich.text import Text

from mnist_tuner.render.run import line
from mnist_tuner.render.text import limits, points
from mnist_tuner.reports.report import HELD_OUT
from mnist_tuner.reports.runs import ListedRun, SkippedFolder
from mnist_tuner.trainer.duration import duration_text

AHEAD = 50
"""So many runs are looked at before the columns' widths are chosen; a wider one that comes later makes them wider."""


def table(listed: Iterable[ListedRun | SkippedFolder], parent: Path, *, whole: bool) -> Iterator[Text]:
    """The runs in a folder, the newest first, each with its folder below it; then the folders that are none.

    Args:
        listed: they, which are read as the table grows.
        parent: the folder.
        whole: whether all of them are read first, so that the columns are right from the first line on.

    Yields:
        Some lines at a time.
    """
    names = ("date", "kind", "net", "data", "status", "test accuracy", "time")
    widths = [len(name) for name in names]
    skipped: list[SkippedFolder] = []
    begun, held_out, rest = False, False, iter(listed)
    while part := list(islice(rest, None if whole else AHEAD)):
        rows = [(_cells(run), run) for run in part if isinstance(run, ListedRun)]
        skipped += (each for each in part if isinstance(each, SkippedFolder))
        widths = [max(column) for column in zip(widths, *(map(len, cells) for cells, _ in rows), strict=True)]
        lines = [] if begun or not rows else [Text(_line(names, widths), style="bold")]
        begun = begun or bool(rows)
        held_out = held_out or any(run.held_out and run.accuracy for _, run in rows)
        for cells, run in rows:
            lines.append(line(_line(cells, widths), "" if run.status == "finished" else "yellow"))
            lines.append(line(f"  {run.run_dir}", "dim"))
        yield from _joined(lines)
    if held_out:
        yield Text(f"*: on images {HELD_OUT}, since no test images came with the data", style="dim")
    if begun:
        note = "train x5: with 5 seeds; search x16: of 16 trials. Accuracy in per cent, with its 95 % interval."
        yield Text(note, style="dim")
    else:
        yield line(f"{parent}: no runs")
    yield from _joined([line(f"skipped: {each.reason}", "yellow") for each in skipped])


def _joined(lines: Sequence[Text]) -> Iterator[Text]:
    """Lines as some pieces: each takes the console a moment, however short it is."""
    for i in range(0, len(lines), 2 * AHEAD):
        yield Text("\n").join(lines[i : i + 2 * AHEAD])


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
