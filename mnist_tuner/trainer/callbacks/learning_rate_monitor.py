"""Logs the learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import keras

from mnist_tuner.trainer.hooks import Callback

if TYPE_CHECKING:
    from mnist_tuner.trainer.base import TrainerBase
    from mnist_tuner.trainer.module import Module


class LearningRateMonitor(Callback):
    """Logs the learning rate as ``lr-<Optimizer>``, such as ``lr-Adam``.

    Args:
        logging_interval: "step" for the rate of each logged step (see log_every_n_steps), "epoch" for that at each epoch's
            start; None for both where there is a schedule, and for "epoch" where there is none.

    Raises:
        ValueError: the interval is none of these.
        RuntimeError: the trainer has no logger.
    """

    def __init__(self, logging_interval: Literal["step", "epoch"] | None = None) -> None:
        if logging_interval not in (None, "step", "epoch"):
            raise ValueError(f"logging_interval is {logging_interval!r}: expected 'step', 'epoch' or None")
        self.logging_interval = logging_interval

    def on_train_start(self, trainer: TrainerBase, module: Module) -> None:
        """Sees that there is a logger, and how many steps the optimizer has made before."""
        inner = _inner(module)
        self._before = int(inner.iterations) * trainer.accumulation - trainer.progress.total_batches
        if not trainer.loggers and not trainer.fast_dev_run:
            raise RuntimeError("LearningRateMonitor needs a logger: give the Trainer one, such as logger=CSVLogger(path)")

    def on_train_epoch_start(self, trainer: TrainerBase, module: Module) -> None:
        """Logs the rate of the epoch's first step."""
        rate = self._rate(module, trainer.progress.total_batches)
        trainer.callback_metrics |= rate
        if self.logging_interval != "step" and trainer.progress.batch == 0:
            trainer.log_metrics(rate)

    def step_metrics(self, trainer: TrainerBase, module: Module, step: int) -> dict[str, float]:
        """The rate with which that step was made."""
        rate = self._rate(module, step * trainer.accumulation - 1)
        trainer.callback_metrics |= rate
        schedule = isinstance(_inner(module)._learning_rate, keras.optimizers.schedules.LearningRateSchedule)
        return rate if self.logging_interval == "step" or (self.logging_interval is None and schedule) else {}

    def _rate(self, module: Module, batch: int) -> dict[str, float]:
        optimizer = _inner(module)
        rate = optimizer._learning_rate
        value = (
            rate(max(0, self._before + batch))
            if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
            else optimizer.learning_rate
        )
        return {f"lr-{type(optimizer).__name__}": float(value)}


def _inner(module: Module) -> keras.optimizers.Optimizer:
    """The optimizer, out of the loss scaling around it."""
    return getattr(module.optimizer, "inner_optimizer", module.optimizer)
