"""Ends a training when its time is up."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from mnist_tuner.trainer.checked import checked
from mnist_tuner.trainer.duration import parse_duration
from mnist_tuner.trainer.hooks import Callback

if TYPE_CHECKING:
    from mnist_tuner.trainer.base import TrainerBase
    from mnist_tuner.trainer.module import Module


class Timer(Callback):
    """Measures the stages' time and, with a duration, stops the training when that is over.

    Args:
        duration: "DD:HH:MM:SS", "90s", "10m", "1.5h", a `timedelta` or a dict with its arguments; None for no limit. The time
            of a resumed training counts from its first start.
        interval: "step" to look after each call of the compiled loop, "epoch" after each epoch.

    Raises:
        ValueError: the duration cannot be read, or the interval is neither.
    """

    def __init__(
        self, duration: str | timedelta | dict[str, float] | None = None, interval: Literal["step", "epoch"] = "step"
    ) -> None:
        if interval not in ("step", "epoch"):
            raise ValueError(f"interval is {interval!r}: expected 'step' or 'epoch'")
        self._duration = None if duration is None else parse_duration(duration).total_seconds()
        self._interval = interval
        self._elapsed: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def time_elapsed(self, stage: str = "train") -> float:
        """Seconds that a stage ("train", "validate" or "test") has run; training includes its validation."""
        running = time.monotonic() - self._since[stage] if stage in self._since else 0.0
        return self._elapsed.get(stage, 0.0) + running

    def time_remaining(self, stage: str = "train") -> float | None:
        """Seconds left; None without a duration."""
        return None if self._duration is None else self._duration - self.time_elapsed(stage)

    def state_dict(self) -> dict[str, Any]:
        """The time so far."""
        return {"time_elapsed": {stage: self.time_elapsed(stage) for stage in self._elapsed.keys() | self._since.keys()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Counts from there."""
        self._elapsed = checked(dict[str, float], state_dict["time_elapsed"])

    def on_train_start(self, trainer: TrainerBase, module: Module) -> None:
        """The training's time begins to run; a resumed training whose time is over stops."""
        self._start("train")
        self._stop_if_over(trainer)

    def on_train_steps_end(self, trainer: TrainerBase, module: Module) -> None:
        """With the interval "step": the training stops where its time is over."""
        if self._interval == "step":
            self._stop_if_over(trainer)

    def on_train_epoch_end(self, trainer: TrainerBase, module: Module) -> None:
        """With the interval "epoch": the training stops where its time is over."""
        if self._interval == "epoch":
            self._stop_if_over(trainer)

    def on_train_end(self, trainer: TrainerBase, module: Module) -> None:
        """The training's time stands still, as that of the other stages at their ends."""
        self._stop("train")

    def on_exception(self, trainer: TrainerBase, module: Module, exception: BaseException) -> None:
        """All times stand still."""
        for stage in list(self._since):
            self._stop(stage)

    def on_validation_start(self, trainer: TrainerBase, module: Module) -> None:
        self._start("validate")

    def on_validation_end(self, trainer: TrainerBase, module: Module) -> None:
        self._stop("validate")

    def on_test_start(self, trainer: TrainerBase, module: Module) -> None:
        self._start("test")

    def on_test_end(self, trainer: TrainerBase, module: Module) -> None:
        self._stop("test")

    def _start(self, stage: str) -> None:
        self._since[stage] = time.monotonic()

    def _stop(self, stage: str) -> None:
        self._elapsed[stage] = self.time_elapsed(stage)
        self._since.pop(stage, None)

    def _stop_if_over(self, trainer: TrainerBase) -> None:
        remaining = self.time_remaining()
        if remaining is not None and remaining <= 0:
            trainer.should_stop = True
