"""Ends a training that no longer gets better."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from mnist_tuner.trainer.callbacks.monitor import MonitorCallback
from mnist_tuner.trainer.checked import checked

if TYPE_CHECKING:
    from mnist_tuner.trainer.base import TrainerBase
    from mnist_tuner.trainer.module import Module


@dataclass
class _State:
    wait_count: int
    best_score: float
    stopped_epoch: int
    stopping_reason_message: str | None


class EarlyStopping(MonitorCallback):
    """Stops when a metric has not improved for some checks.

    It checks after each training epoch; where validation runs several times an epoch or not after each one, after each
    validation. What is only a part of an epoch (the training is stopped within it) is not checked.

    Args:
        monitor: the metric's name, such as "val_loss".
        min_delta: what counts as an improvement must be more than this.
        patience: how many checks without improvement to allow.
        verbose: whether to say why it stops.
        mode: "min" or "max": what is better.
        strict: whether it is an error if there is no such metric.
        check_finite: stop when the metric is infinite or not a number.
        stopping_threshold: stop as soon as the metric is better than this.
        divergence_threshold: stop as soon as it is worse than this.
        check_on_train_epoch_end: True or False to say when to check; None as above.

    Attributes:
        wait_count: checks since the last improvement.
        best_score: the best value so far.
        stopped_epoch: the epoch, from 0, in which it stopped the training; 0 while it has not.
        stopping_reason_message: why it stopped it; None while it has not.

    Raises:
        ValueError: the mode is neither "min" nor "max".
        RuntimeError: strict, and there is no such metric.
    """

    monitor: str

    def __init__(
        self,
        monitor: str,
        min_delta: float = 0.0,
        patience: int = 3,
        verbose: bool = False,
        mode: Literal["min", "max"] = "min",
        strict: bool = True,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        self.min_delta = abs(min_delta)
        self.patience = patience
        self.verbose = verbose
        self.strict = strict
        self.check_finite = check_finite
        self.stopping_threshold = stopping_threshold
        self.divergence_threshold = divergence_threshold
        self.check_on_train_epoch_end = check_on_train_epoch_end
        self.wait_count = 0
        self.best_score = math.inf if mode == "min" else -math.inf
        self.stopped_epoch = 0
        self.stopping_reason_message: str | None = None
        self._resumed = False

    @property
    def state_key(self) -> str:
        """One for each metric and mode."""
        return f"EarlyStopping({self.monitor}, {self.mode})"

    def state_dict(self) -> dict[str, Any]:
        """The counts and the best score."""
        return {each.name: getattr(self, each.name) for each in fields(_State)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them back."""
        vars(self).update(vars(checked(_State, state_dict)))
        self._resumed = True

    def on_train_start(self, trainer: TrainerBase, module: Module) -> None:
        """A training that it had stopped stays stopped, unless it may now wait longer."""
        waiting = self.wait_count > 0
        if self._resumed and self.stopping_reason_message is not None and (not waiting or self.wait_count >= self.patience):
            trainer.should_stop = True
        self._resumed = False

    def on_train_epoch_end(self, trainer: TrainerBase, module: Module) -> None:
        """Checks, where epochs are what it checks and this one is complete."""
        if self.judges_epochs(trainer, self.check_on_train_epoch_end) and trainer.progress.ended:
            self._check(trainer)

    def on_validation_end(self, trainer: TrainerBase, module: Module) -> None:
        """Checks, where validations are what it checks and this one is no extra at the training's end."""
        if self.judges_validation(trainer, self.check_on_train_epoch_end) and not trainer.stops_within_epoch:
            self._check(trainer)

    def _check(self, trainer: TrainerBase) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            if self.strict:
                raise RuntimeError(self.no_such_metric(trainer))
            if self.verbose:
                warnings.warn(self.no_such_metric(trainer), stacklevel=2)
            return
        reason = self._reason_to_stop(value)
        if reason is not None:
            trainer.should_stop = True
            self.stopped_epoch, self.stopping_reason_message = trainer.current_epoch, f"{self.monitor} {reason}"
            if self.verbose:
                print(f"Stopping early: {self.stopping_reason_message}")

    def _reason_to_stop(self, value: float) -> str | None:
        """Takes a value into account; says why the training should stop, or None."""
        sign = self.sign
        if self.check_finite and not math.isfinite(value):
            return f"is {value}"
        if self.stopping_threshold is not None and sign * value < sign * self.stopping_threshold:
            return f"is {value:.4g}, better than {self.stopping_threshold}"
        if self.divergence_threshold is not None and sign * value > sign * self.divergence_threshold:
            return f"is {value:.4g}, worse than {self.divergence_threshold}"
        if sign * value + self.min_delta < sign * self.best_score:
            self.best_score, self.wait_count = value, 0
            return None
        self.wait_count += 1
        if self.wait_count < self.patience:
            return None
        return f"has not improved on {self.best_score:.4g} in {self.wait_count} checks"
