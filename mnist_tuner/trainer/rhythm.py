"""When the training stops, validates, and comes back from the compiled loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_tuner.trainer.trainer import Trainer


def stopping(trainer: Trainer) -> bool:
    """Whether should_stop is set and counts."""
    return trainer.should_stop and trainer.limits.may_stop(trainer.progress)


def done(trainer: Trainer) -> bool:
    """Whether there is no further epoch to train."""
    return trainer.limits.reached(trainer.progress) or stopping(trainer)


def batches_of_epoch(trainer: Trainer) -> float:
    """The batch of the epoch to end before: at its end, or where max_steps is reached."""
    if trainer.limits.max_steps < 0:
        return trainer.num_training_batches
    left = trainer.limits.max_steps * trainer.accumulation - trainer.progress.total_batches
    return min(trainer.num_training_batches, trainer.progress.batch + left)


def validation_due(trainer: Trainer, at_end: bool) -> bool:
    """Whether to validate after the batch that has been trained on.

    Args:
        trainer: the trainer.
        at_end: whether the epoch ends here, complete or because it is stopped.
    """
    progress, limits, every = trainer.progress, trainer.limits, trainer.val_check_batches
    if progress.validated or not trainer.validates or not limits.validates_in(progress.epoch):
        return False
    once = isinstance(limits.val_check_interval, float) and limits.val_check_interval == 1.0
    if at_end and (stopping(trainer) or math.isinf(every) or once):  # the data may have ended before they were expected to
        return True
    counted = progress.total_batches if limits.check_val_every_n_epoch is None else progress.batch
    return counted > 0 and counted % every == 0


def validation_is_extra(trainer: Trainer) -> bool:
    """Whether there is a validation now for no other reason than that the training stops."""
    endless = math.isinf(trainer.val_check_batches)
    due = stopping(trainer) and not endless and validation_due(trainer, at_end=True)
    return due and not validation_due(trainer, at_end=False)


def batches_until_due(trainer: Trainer) -> int:
    """So many batches may be trained on before there is something to do between two."""
    progress, limits = trainer.progress, trainer.limits
    due = [math.inf]
    if trainer.validates and limits.validates_in(progress.epoch):
        counted = progress.total_batches if limits.check_val_every_n_epoch is None else progress.batch
        due.append(trainer.val_check_batches - counted % trainer.val_check_batches)
    steps = [callback.every_n_train_steps for callback in trainer.callbacks if callback.every_n_train_steps]
    if trainer.should_stop and limits.min_steps:  # it goes on until these have been done, and no further
        steps.append(limits.min_steps)
    for every in (number * trainer.accumulation for number in steps):
        due.append(every - progress.total_batches % every)
    return int(min(*due, 2**31 - 1)) if len(due) > 1 else 2**31 - 1
