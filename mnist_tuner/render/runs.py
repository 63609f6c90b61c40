"""The list of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from mnist_tuner.reports.report import SCHEMA_VERSION, RunReport
from mnist_tuner.reports.statistics import Estimate
from mnist_tuner.reports.stored import Listed
from mnist_tuner.trainer.duration import duration_text


def table(listed: Sequence[Listed], parent: Path) -> list[RenderableType]:
    """The runs in a folder, the newest first, each with its folder below it; then the folders that are none."""
    names = ("date", "kind", "net", "data", "status", "test accuracy", "time")
    rows = [(_cells(_row(entry)), entry) for entry in listed if entry.report is not None]
    widths = [max(map(len, column)) for column in zip(names, *(cells for cells, _ in rows), strict=True)]
    parts: list[RenderableType] = [Text(_line(names, widths), style="bold")] if rows else [Text(f"{parent}: no runs")]
    for cells, entry in rows:
        parts.append(Text(_line(cells, widths), style="" if entry.status == "finished" else "yellow"))
        parts.append(Text(f"  {entry.path}", style="dim"))
    if rows:
        note = "train x5: with 5 seeds; search x16: of 16 trials. Accuracy in per cent, with its 95 % interval."
        parts.append(Text(note, style="dim"))
    return [*parts, *(Text(f"skipped: {entry.problem}", style="yellow") for entry in listed if entry.report is None)]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    accuracy, seconds = row["accuracy"], row["seconds"]
    return (
        (row["date"] or "")[5:],
        row["kind"],
        row["net"],
        row["data"][:12],
        row["status"],
        "" if accuracy is None else f"{100 * accuracy.value:.2f} ({100 * accuracy.low:.2f}-{100 * accuracy.high:.2f})",
        "" if seconds is None else duration_text(seconds),
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def document(listed: Sequence[Listed], parent: Path) -> dict[str, Any]:
    """The JSON document; the README has its schema."""
    rows = [_row(entry) for entry in listed if entry.report is not None]
    for row in rows:
        accuracy = row["accuracy"]
        row["accuracy"] = None if accuracy is None else {"value": accuracy.value, "interval95": [accuracy.low, accuracy.high]}
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "runs",
        "folder": str(parent),
        "runs": rows,
        "skipped": [{"path": str(entry.path), "reason": entry.problem} for entry in listed if entry.report is None],
    }


def _row(entry: Listed) -> dict[str, Any]:
    report = entry.report
    assert report is not None
    accuracy: Estimate | None
    if isinstance(report, RunReport):
        kind, net, accuracy = "train", "-".join(map(str, report.config["hidden"])), report.accuracy
        if report.seeds is not None:
            kind = f"train x{len(report.seeds.trainings)}"
    else:
        found = report.winner or report.baseline
        kind, accuracy = f"search x{len(report.trials)}", None if found is None else found.accuracy
        net = "" if found is None else found.name
    return {
        "date": entry.date,
        "kind": kind,
        "net": net,
        "data": "" if report.data is None else report.data.name,
        "status": entry.status,
        "accuracy": accuracy,
        "seconds": None if report.timing is None else report.timing.total_s,
        "run_dir": str(entry.path),
    }
