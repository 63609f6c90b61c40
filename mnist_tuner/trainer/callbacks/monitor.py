"""What the callbacks share that judge a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mnist_tuner.trainer.hooks import Callback
from mnist_tuner.trainer.progress import TrainerFn

if TYPE_CHECKING:
    from mnist_tuner.trainer.base import TrainerBase


class MonitorCallback(Callback):
    """Judges a metric after each training epoch; where validation runs several times an epoch or not after each one, after each
    validation.

    Args:
        monitor: the metric's name; None where none is looked at.
        mode: "min" or "max": what is better.

    Raises:
        ValueError: the mode is neither "min" nor "max".
    """

    runs_last = True

    def __init__(self, monitor: str | None, mode: Literal["min", "max"]) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode is {mode!r}: expected 'min' or 'max'")
        self.monitor = monitor
        self.mode = mode

    @property
    def sign(self) -> int:
        """1, or -1 where more is better: times this, what is better is less."""
        return 1 if self.mode == "min" else -1

    def judges_epochs(self, trainer: TrainerBase, asked: bool | None) -> bool:
        """Whether it judges after the epochs, and not after the validations: as was asked for, with None as said above."""
        return trainer.validates_at_each_epochs_end if asked is None else asked

    def judges_validation(self, trainer: TrainerBase, asked: bool | None) -> bool:
        """Whether it judges now, at the end of a validation."""
        fitting = trainer.state.fn is TrainerFn.FITTING and not trainer.sanity_checking
        return fitting and not self.judges_epochs(trainer, asked)

    def no_such_metric(self, trainer: TrainerBase) -> str:
        """The message where there is nothing under the metric's name."""
        known = ", ".join(sorted(trainer.callback_metrics)) or "none"
        return f"{type(self).__name__}(monitor={self.monitor!r}): there is no such metric; there are {known}"
