"""Where a trainer is, in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
    """How it stands."""

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
    """How far a training has come; what a checkpoint needs in order to go on from there.

    Attributes:
        epoch: the running epoch, from 0.
        batch: batches of that epoch that have been trained on.
        total_batches: batches trained on since the training began.
        global_step: optimizer steps taken since then; fewer than batches where gradients are accumulated.
        validated: whether the validation that is due after `batch` has been made.
        ended: whether the epoch's end has come, on_train_epoch_end included.
    """

    epoch: int = 0
    batch: int = 0
    total_batches: int = 0
    global_step: int = 0
    validated: bool = False
    ended: bool = False

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
