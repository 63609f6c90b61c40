"""Metrics and hyperparameters for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_tuner.trainer.loggers.logger import Logger


class TensorBoardLogger(Logger):
    """Writes event files that ``tensorboard --logdir`` shows: scalars by global step, and the run among the HParams.

    Args:
        log_dir: the folder; by default ``tensorboard`` in the working directory. What other runs have left there stays.
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
        """The last step."""
        return {"step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Tells TensorBoard to forget what was logged after that step."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.finalize("success")
        self._step = int(state_dict["step"])
        writer = EventFileWriter(str(self.log_dir), filename_suffix=".resumed")
        writer.add_event(Event(step=self._step + 1, session_log=SessionLog(status=SessionLog.START)))
        writer.close()

    def _events(self) -> Any:
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self.log_dir))
        return self._writer
