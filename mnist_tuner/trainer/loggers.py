"""Where metrics are written to: the base class of loggers, a table, TensorBoard."""

from __future__ import annotations

import csv
import io
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mnist_tuner.trainer.checked import checked
from mnist_tuner.trainer.files import atomic_path, atomic_write


class Logger:
    """Takes what is measured."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Takes the metrics measured at a global step, "epoch" (from 0) among them."""

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Takes the hyperparameters, once per fit."""

    def finalize(self, status: str) -> None:
        """Closes; `status` is "success" or "failed"."""

    def state_dict(self) -> dict[str, Any]:
        """How much has been logged, as JSON values; kept in checkpoints."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Forgets what was logged after that state, when a training is resumed."""


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
            try:
                with self.path.open("a", newline="") as file:
                    file.write(self._text([row], header=False))
            except OSError as error:  # a full disk does not say what did not fit
                error.filename = error.filename or str(self.path)
                raise

    def state_dict(self) -> dict[str, Any]:
        """The number of rows, and the columns."""
        return {"rows": len(self._rows), "columns": list(self._columns)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Cuts the file back to these rows."""
        count, columns, rows = checked(int, state_dict["rows"]), checked(list[str], state_dict["columns"]), []
        if self.path.is_file():
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))[:count]
        if len(rows) < count:
            warnings.warn(f"{self.path} holds {len(rows)} rows of the {count} at the checkpoint", stacklevel=2)
        # An empty cell is a metric that was not there; what a line torn in mid-write lacks is None.
        self._rows = [{name: value for name, value in row.items() if name in columns and value} for row in rows]
        self._columns = columns
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


class TensorBoardLogger(Logger):
    """Writes event files that ``tensorboard --logdir`` shows: scalars by global step, and the run among the HParams.

    Args:
        log_dir: the folder, for one run; by default ``tensorboard`` in the working directory. When a training is resumed, what
            it will write again is cut from the files that are there; a TensorBoard that is open meanwhile shows it twice until it
            is started anew.
    """

    def __init__(self, log_dir: str | Path = "tensorboard") -> None:
        self.log_dir = Path(log_dir)
        self._writer: Any = None
        self._step = -1

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Writes a scalar per metric."""
        import tensorflow as tf

        with self._events().as_default():
            for name, value in metrics.items():
                tf.summary.scalar(name, value, step=step)
        self._step = step

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Writes them for the HParams page; what is no number, text or truth value becomes a text."""
        from tensorboard.plugins.hparams import api

        values = {name: value if isinstance(value, (bool, int, float, str)) else str(value) for name, value in params.items()}
        if values:
            with self._events().as_default():
                api.hparams(values, trial_id=str(self.log_dir.resolve()))

    def finalize(self, status: str) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, Any]:
        """The last step; what has been logged is on the disk then."""
        if self._writer is not None:
            self._writer.flush()
        return {"step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Cuts the files back to that step, so that nothing is shown twice."""
        import tensorflow as tf
        from tensorboard.compat.proto.event_pb2 import Event

        self.finalize("success")
        self._step = int(state_dict["step"])
        for path in self.log_dir.glob("events.out.tfevents.*"):
            kept = []
            with suppress(tf.errors.DataLossError):  # killed while it wrote the last one
                for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                    if Event.FromString(record).step <= self._step:
                        kept.append(record)
            with atomic_path(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as file:
                for record in kept:
                    file.write(record)

    def _events(self) -> Any:
        import tensorflow as tf

        if self._writer is None:
            # Readers take a folder's files in the order of their names, in which the second of their beginning comes first.
            now = time.time()
            if any(path.name.split(".")[3] == str(int(now)) for path in self.log_dir.glob("events.out.tfevents.*.*")):
                time.sleep(1 - now % 1)
            self._writer = tf.summary.create_file_writer(str(self.log_dir))
        return self._writer
