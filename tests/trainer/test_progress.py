"""The rules by which a training validates and comes back from the compiled loop, on numbers alone."""

from __future__ import annotations

import math

import pytest

from mnist_tuner.trainer.progress import NO_END, Limits, Progress, batches_until_due, validation_due, validation_is_extra


@pytest.mark.parametrize(
    ("batch", "every", "steps", "expected"),
    [
        (0, None, [], NO_END),
        (0, math.inf, [], NO_END),
        (0, 10, [], 10),
        (7, 10, [], 3),
        (10, 10, [], 10),
        (7, 10, [4], 1),
        (8, None, [4, 6], 4),
    ],
)
def test_the_loop_comes_back_where_something_is_due(batch: int, every: float | None, steps: list[int], expected: int) -> None:
    assert batches_until_due(Limits(), Progress(batch=batch, total_batches=batch), every, steps) == expected


def test_validations_are_counted_over_epochs_where_that_is_asked_for() -> None:
    limits = Limits(check_val_every_n_epoch=None, val_check_interval=10)
    progress = Progress(epoch=1, batch=2, total_batches=8)
    assert batches_until_due(limits, progress, 10, []) == 2
    progress.advance(2, accumulation=1)
    assert validation_due(limits, progress, 10, at_end=False, stopping=False)
    assert not validation_due(Limits(), progress, 10, at_end=False, stopping=False)


def test_an_epoch_without_validation_has_none_and_one_that_was_made_is_not_due_again() -> None:
    limits = Limits(check_val_every_n_epoch=2)
    due = [validation_due(limits, Progress(epoch, 4, 4), 4, at_end=True, stopping=False) for epoch in range(4)]
    assert due == [False, True, False, True]
    assert not validation_due(limits, Progress(1, 4, 4, validated=True), 4, at_end=True, stopping=False)


def test_a_stop_within_an_epoch_brings_a_validation_that_is_extra() -> None:
    limits, within, at_the_end = Limits(), Progress(batch=3, total_batches=3), Progress(batch=4, total_batches=4)
    assert validation_due(limits, within, 4, at_end=True, stopping=True)
    assert validation_is_extra(limits, within, 4, stopping=True)
    assert not validation_is_extra(limits, at_the_end, 4, stopping=True)
    assert not validation_is_extra(limits, within, 4, stopping=False)
