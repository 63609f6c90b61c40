"""Metrics as a table that any program reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from mnist_tuner.trainer.atomic import atomic_write
from mnist_tuner.trainer.loggers.logger import Logger


class CSVLogger(Logger):
    """Writes ``metrics.csv``: one row per epoch, and the columns epoch, step and the metrics' names.

    The file holds no clock times, so equal trainings write equal files. A row is added at the end of the file; a metric
    that appears late makes the whole file be written anew, atomically.

    Args:
        path: the file; one that exists is replaced.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Writes a row."""
        row = {"epoch": str(int(metrics["epoch"])), "step": str(step)}
        row |= {name: repr(float(value)) for name, value in metrics.items() if name != "epoch"}
        self._rows.append(row)
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            atomic_write(self.path, self._text(self._rows, header=True))
        else:
            with self.path.open("a", newline="") as file:
                file.write(self._text([row], header=False))

    def _text(self, rows: list[dict[str, str]], header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
