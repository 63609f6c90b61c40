"""Metrics as a table that any program reads."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_tuner.trainer.files import atomic_write
from mnist_tuner.trainer.loggers.logger import Logger


class CSVLogger(Logger):
    """Writes ``metrics.csv``: a row per epoch, per logged step and per validation within an epoch, and the columns epoch (from
    0), step and the metrics' names.

    The file holds no clock times, so equal trainings write equal files. A row is added at the end of the file; a metric
    that appears late makes the whole file be written anew, atomically. When a training is resumed, the rows that it will write
    again are cut off.

    Args:
        path: the file; one that exists is replaced, unless the training is resumed.
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
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self.path, self._text(self._rows, header=True))
        else:
            with self.path.open("a", newline="") as file:
                file.write(self._text([row], header=False))

    def state_dict(self) -> dict[str, Any]:
        """The number of rows, and the columns."""
        return {"rows": len(self._rows), "columns": list(self._columns)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Cuts the file back to these rows."""
        rows = []
        if self.path.is_file():
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))[: state_dict["rows"]]
        if len(rows) < state_dict["rows"]:
            warnings.warn(f"{self.path} holds {len(rows)} rows of the {state_dict['rows']} at the checkpoint", stacklevel=2)
        # An empty cell is a metric that was not there; what a line torn in mid-write lacks is None.
        self._rows = [{name: value for name, value in row.items() if name in state_dict["columns"] and value} for row in rows]
        self._columns = list(state_dict["columns"])
        if rows:
            atomic_write(self.path, self._text(self._rows, header=True))
        else:
            self.path.unlink(missing_ok=True)
            self._columns = []

    def _text(self, rows: list[dict[str, str]], header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
