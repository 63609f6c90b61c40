"""Where a trainer is, how far it is to go, and the rules by which it stops and validates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from numbers import Integral

NO_END = 2**31 - 1
"""More batches than a call of the loop ever makes; it still fits into a tensor of int32."""


class TrainerFn(StrEnum):
    """The method that was called."""

    FITTING = "fit"
    VALIDATING = "validate"
    TESTING = "test"
    PREDICTING = "predict"


class RunningStage(StrEnum):
    """What is being done at the moment: fitting alternates between training and validation."""

    TRAINING = "train"
    SANITY_CHECKING = "sanity_check"
    VALIDATING = "validate"
    TESTING = "test"
    PREDICTING = "predict"


class TrainerStatus(StrEnum):
    """How it stands; "interrupted" after any exception, as in Lightning: `Trainer.interrupted` tells Ctrl-C apart."""

    INITIALIZING = "initializing"
    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"


@dataclass
class TrainerState:
    """A trainer's status, function and stage."""

    status: TrainerStatus = TrainerStatus.INITIALIZING
    fn: TrainerFn | None = None
    stage: RunningStage | None = None


@dataclass
class Progress:
    """How far a training has come: what a checkpoint needs in order to go on from there, besides variables and logs.

    Attributes:
        epoch: the running epoch, from 0.
        batch: batches of that epoch that have been trained on.
        total_batches: batches trained on since the training began.
        global_step: optimizer steps taken since then; fewer than batches where gradients are accumulated.
        validated: whether the validation that is due after `batch` has been made.
        ended: whether the epoch's end has come, its hooks and its row in the logs included.
        validation: metrics of a validation at the epoch's end that wait for its row in the logs.
        data_seed: of the order of the training's rows; None where no loader shuffles them.
    """

    epoch: int = 0
    batch: int = 0
    total_batches: int = 0
    global_step: int = 0
    validated: bool = False
    ended: bool = False
    validation: dict[str, float] = field(default_factory=dict)
    data_seed: int | None = None

    def advance(self, batches: int, accumulation: int) -> None:
        """Counts batches that have been trained on."""
        self.batch += batches
        self.total_batches += batches
        self.global_step = self.total_batches // accumulation
        self.validated = False

    def next_epoch(self) -> None:
        """Goes to the start of the next epoch."""
        self.epoch += 1
        self.batch, self.validated, self.ended = 0, True, False


_SHORT = {
    RunningStage.TRAINING: "train",
    RunningStage.VALIDATING: "val",
    RunningStage.TESTING: "test",
    RunningStage.PREDICTING: "predict",
}


@dataclass
class Limits:
    """The arguments of a `Trainer` of this kind, under the same names.

    Raises:
        ValueError: one is out of its range, or two contradict each other.
    """

    max_epochs: int = 1000
    min_epochs: int | None = None
    max_steps: int = -1
    min_steps: int | None = None
    limit_train_batches: int | float = 1.0
    limit_val_batches: int | float = 1.0
    limit_test_batches: int | float = 1.0
    limit_predict_batches: int | float = 1.0
    check_val_every_n_epoch: int | None = 1
    val_check_interval: int | float = 1.0
    shares: dict[RunningStage, int | float] = field(init=False)

    def __post_init__(self) -> None:
        self.max_steps = -1 if self.max_steps is None else self.max_steps
        for name in ("max_epochs", "max_steps", "min_epochs", "min_steps"):
            value, low = getattr(self, name), -1 if name.startswith("max") else 0
            if value is not None and (not isinstance(value, Integral) or value < low):
                raise ValueError(f"{name} is {value!r}: expected {'-1 (no cap), ' if low else ''}0 or more")
        if self.check_val_every_n_epoch is not None and self.check_val_every_n_epoch < 1:
            raise ValueError(f"check_val_every_n_epoch is {self.check_val_every_n_epoch}: expected 1 or more, or None")
        interval = self.val_check_interval
        if not interval > 0 or (not isinstance(interval, Integral) and interval > 1.0):
            raise ValueError(f"val_check_interval is {interval!r}: expected batches (int, 1 or more) or a share (float, to 1.0)")
        if self.check_val_every_n_epoch is None and not isinstance(interval, Integral):
            raise ValueError("check_val_every_n_epoch is None: then val_check_interval must be a number of batches")
        if self.min_steps is not None and self.min_epochs is None:
            self.min_epochs = 1
        names = {stage: f"limit_{short}_batches" for stage, short in _SHORT.items()}
        self.shares = {stage: _checked_share(name, getattr(self, name)) for stage, name in names.items()}

    def reached(self, progress: Progress) -> bool:
        """Whether max_epochs or max_steps have been done."""
        return 0 <= self.max_epochs <= progress.epoch or 0 <= self.max_steps <= progress.global_step

    def may_stop(self, progress: Progress) -> bool:
        """Whether min_epochs and min_steps have been done, so that should_stop counts."""
        return progress.epoch >= (self.min_epochs or 0) and progress.global_step >= (self.min_steps or 0)

    def batches(self, stage: RunningStage, available: float) -> float:
        """How many of the available batches a stage takes.

        Raises:
            ValueError: the limit is a share that leaves none, or one of an unknown number.
        """
        limit, name = self.shares[stage], f"limit_{_SHORT[stage]}_batches"
        if isinstance(limit, int):
            return min(limit, available)
        if limit == 1.0:
            return available
        if math.isinf(available):
            raise ValueError(f"{name}: the limit is {limit} of an unknown number of batches: give a number of batches")
        batches = int(limit * available)
        if limit > 0 and batches == 0:
            raise ValueError(f"{name}: the limit {limit} of {available} batches leaves none: raise it, or give a number")
        return batches

    def batches_between_validations(self, training_batches: float) -> float:
        """Training batches from one validation to the next.

        Raises:
            ValueError: more than an epoch has, or a share of an unknown number.
        """
        interval = self.val_check_interval
        if isinstance(interval, Integral):
            if interval > training_batches and self.check_val_every_n_epoch is not None:
                raise ValueError(
                    f"val_check_interval is {interval}, but an epoch has {training_batches} batches: lower it, or count over "
                    "epochs with check_val_every_n_epoch=None"
                )
            return int(interval)
        if interval == 1.0:
            return training_batches
        if math.isinf(training_batches):
            raise ValueError(f"val_check_interval is {interval} of a number of batches that is not known: give a number")
        return max(1, int(training_batches * interval))

    def validates_in(self, epoch: int) -> bool:
        """Whether an epoch, from 0, has validations."""
        return self.check_val_every_n_epoch is None or (epoch + 1) % self.check_val_every_n_epoch == 0

    @property
    def validates_once(self) -> bool:
        """Whether such an epoch has one, at its end."""
        return isinstance(self.val_check_interval, float) and self.val_check_interval == 1.0

    def epoch_stop(self, progress: Progress, batches: float, accumulation: int) -> float:
        """The batch of the epoch to end before: at its end, or where max_steps is reached.

        Args:
            progress: how far the training has come.
            batches: of a whole epoch.
            accumulation: batches per optimizer step.
        """
        if self.max_steps < 0:
            return batches
        return min(batches, progress.batch + self.max_steps * accumulation - progress.total_batches)


def _checked_share(name: str, limit: int | float) -> int | float:
    if not limit >= 0 or (not isinstance(limit, Integral) and limit > 1.0):
        raise ValueError(f"{name} is {limit}: expected a number of batches (int, 0 or more) or a share (float, 0.0 to 1.0)")
    return int(limit) if isinstance(limit, Integral) else float(limit)


# When a training validates, and comes back from the compiled loop. `every` is `Limits.batches_between_validations`, or None
# where there is no validation data.


def validation_due(limits: Limits, progress: Progress, every: float | None, *, at_end: bool, stopping: bool) -> bool:
    """Whether to validate after the batch that has been trained on.

    Args:
        limits: the trainer's.
        progress: how far it has come.
        every: batches from one validation to the next.
        at_end: whether the epoch ends here, complete or because it is stopped.
        stopping: whether the training stops.
    """
    if every is None or progress.validated or not limits.validates_in(progress.epoch):
        return False
    # The data may have ended before they were expected to.
    if at_end and (stopping or math.isinf(every) or limits.validates_once):
        return True
    counted = _batches_counted(limits, progress)
    return counted > 0 and counted % every == 0


def validation_is_extra(limits: Limits, progress: Progress, every: float | None, *, stopping: bool) -> bool:
    """Whether there is a validation now for no other reason than that the training stops."""
    if not stopping or every is None or math.isinf(every):
        return False
    due = [validation_due(limits, progress, every, at_end=at_end, stopping=True) for at_end in (True, False)]
    return due == [True, False]


def batches_until_due(limits: Limits, progress: Progress, every: float | None, steps: Sequence[int]) -> int:
    """So many batches may be trained on before there is something to do between two.

    Args:
        limits: the trainer's.
        progress: how far it has come.
        every: batches from one validation to the next.
        steps: numbers of batches, at whose multiples there is something else to do.
    """
    due = [math.inf, *(number - progress.total_batches % number for number in steps)]
    if every is not None and limits.validates_in(progress.epoch):
        due.append(every - _batches_counted(limits, progress) % every)
    return int(min(*due, NO_END)) if len(due) > 1 else NO_END


def _batches_counted(limits: Limits, progress: Progress) -> int:
    return progress.total_batches if limits.check_val_every_n_epoch is None else progress.batch
