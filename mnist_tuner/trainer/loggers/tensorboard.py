"""Metrics and hyperparameters for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mnist_tuner.trainer.files import atomic_path
from mnist_tuner.trainer.loggers.logger import Logger


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
