"""EarlyStopping: after which epoch a sequence of values ends the training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from mnist_tuner.trainer import EarlyStopping, LambdaCallback, ModelCheckpoint
from tests.conformance.conftest import Quiet, Scripted, ScriptedValidation, Tiny, batches

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("values", "options", "epochs", "stopped", "waited", "best"),
    [
        # Patience counts the checks without improvement.
        ([5, 4, 3, 2, 1], {}, 5, 0, 0, 1),
        ([1, 1, 1, 1, 1, 1], {}, 4, 3, 3, 1),
        ([1, 2, 3, 4, 5], {"patience": 1}, 2, 1, 1, 1),
        ([1, 2, 3], {"patience": 0}, 2, 1, 1, 1),
        ([1, 2, 3], {"patience": 3}, 3, 0, 2, 1),
        ([4, 2, 3, 1, 2, 3, 4, 5], {"patience": 3}, 7, 6, 3, 1),
        ([5, 4, 4, 3, 3, 3], {"patience": 2}, 6, 5, 2, 3),
        # An improvement must be more than min_delta.
        ([4, 3.75, 3.5, 3.25, 3], {"min_delta": 0.5, "patience": 2}, 3, 2, 2, 4),
        ([1, 0.75, 0.5, 0.25], {"min_delta": 0.25, "patience": 1}, 2, 1, 1, 1),
        ([1, 0.5, 0.25, 0.125], {"min_delta": 0.25, "patience": 1}, 3, 2, 1, 0.5),
        ([1, 1.5, 1.75, 2], {"min_delta": 0.25, "patience": 1, "mode": "max"}, 3, 2, 1, 1.5),
        # The mode says what is better.
        ([1, 2, 3, 3, 3, 3], {"mode": "max", "patience": 2}, 5, 4, 2, 3),
        ([3, 2, 1, 0], {"mode": "max", "patience": 3}, 4, 3, 3, 3),
        ([-1, -2, -3], {"mode": "min", "patience": 1}, 3, 0, 0, -3),
        # What is not finite ends the training, unless told otherwise; then it never is an improvement.
        ([2, NAN, 1, 0], {}, 2, 1, 0, 2),
        ([2, INF, 1], {}, 2, 1, 0, 2),
        ([2, -INF, 1], {}, 2, 1, 0, 2),
        ([NAN, 1], {}, 1, 0, 0, INF),
        ([1, NAN, NAN, NAN, NAN], {"check_finite": False, "patience": 2}, 3, 2, 2, 1),
        ([1, NAN, 0.5, 0.25, NAN], {"check_finite": False, "patience": 2}, 5, 0, 1, 0.25),
        ([INF, INF, INF, 1], {"check_finite": False, "patience": 2}, 2, 1, 2, INF),
        # Thresholds end it at once when they are passed, not when they are met.
        ([1, 0.5, 0.125, 0], {"stopping_threshold": 0.25}, 3, 2, 0, 0.5),
        ([1, 0.5, 0.25, 0.125], {"stopping_threshold": 0.25}, 4, 3, 0, 0.25),
        ([0.5, 0.75, 1, 1], {"mode": "max", "stopping_threshold": 0.875}, 3, 2, 0, 0.75),
        ([1, 2, 6, 1], {"divergence_threshold": 5}, 3, 2, 1, 1),
        ([1, 2, 5, 6], {"divergence_threshold": 5, "patience": 9}, 4, 3, 2, 1),
        ([1, 0.5, 0.125, 1], {"mode": "max", "divergence_threshold": 0.25}, 3, 2, 1, 1),
        ([1, 0, 1], {"mode": "max", "divergence_threshold": 0.25, "stopping_threshold": 0.5}, 1, 0, 0, -INF),
    ],
)
def test_a_sequence_of_values_ends_the_training_after_an_epoch(
    values: list[float],
    options: dict[str, Any],
    epochs: int,
    stopped: int,
    waited: int,
    best: float,
    traced: Scripted,
    quiet: Quiet,
) -> None:
    stopping = EarlyStopping("x", **options)
    trainer, traced.values = quiet(callbacks=stopping, max_epochs=len(values)), [float(value) for value in values]
    trainer.fit(traced, batches(1))
    assert (trainer.current_epoch, stopping.stopped_epoch, stopping.wait_count) == (epochs, stopped, waited)
    assert stopping.best_score == best
    # Where the first check ends the training, stopped_epoch is 0 as well: the reason tells.
    assert trainer.should_stop == (stopping.stopping_reason_message is not None)
    assert trainer.should_stop or epochs == len(values)


@pytest.mark.parametrize(
    ("values", "minimum", "epochs", "stopped", "waited", "best"),
    [([1, 2, 3, 4, 5, 6], {"min_epochs": 5}, 5, 4, 4, 1), ([1, 2, 3, 0.5, 0.25, 0], {"min_epochs": 4}, 4, 2, 0, 0.5)],
)
def test_the_minimum_of_epochs_comes_first_and_takes_nothing_back(
    values: list[float], minimum: dict[str, Any], epochs: int, stopped: int, waited: int, best: float, quiet: Quiet
) -> None:
    stopping = EarlyStopping("x", patience=2)
    trainer = quiet(callbacks=stopping, max_epochs=9, **minimum)
    trainer.fit(Scripted([float(value) for value in values]), batches(1))
    assert (trainer.current_epoch, stopping.stopped_epoch, stopping.wait_count) == (epochs, stopped, waited)
    assert stopping.best_score == best


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        ({"patience": 1}, "x has not improved on 1"),
        ({"stopping_threshold": 4}, "x is 1, better than 4"),
        ({"divergence_threshold": 1.5}, "x is 2, worse than 1.5"),
    ],
)
def test_the_reason_is_kept_and_said_if_wished(
    options: dict[str, Any], saying: str, quiet: Quiet, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = EarlyStopping("x", verbose=True, **options)
    quiet(callbacks=stopping, max_epochs=3).fit(Scripted([1.0, 2.0, 3.0]), batches(1))
    assert (stopping.stopping_reason_message or "").startswith(saying)
    assert saying in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "when", "epochs", "steps"),
    [
        ({"val_check_interval": 0.5}, None, 2, 6),  # two checks an epoch: the third is at step 6
        ({"val_check_interval": 0.5}, False, 2, 6),
        ({"val_check_interval": 0.5}, True, 3, 12),  # after epochs
        ({"check_val_every_n_epoch": 2}, None, 6, 24),
        ({}, None, 3, 12),
        ({}, False, 3, 12),
    ],
)
def test_it_checks_after_validations_where_these_have_a_rhythm_of_their_own(
    options: dict[str, Any], when: bool | None, epochs: int, steps: int, quiet: Quiet
) -> None:
    stopping = EarlyStopping("x", patience=2, check_on_train_epoch_end=when)
    trainer = quiet(callbacks=stopping, max_epochs=9, **options)
    trainer.fit(ScriptedValidation([float(value) for value in range(20)]), batches(4), batches(1))
    assert (trainer.current_epoch, trainer.global_step) == (epochs, steps)


def test_neither_the_sanity_check_nor_another_verb_is_a_check(quiet: Quiet) -> None:
    stopping, module = EarlyStopping("val_loss", patience=1, check_on_train_epoch_end=False), Tiny()
    trainer = quiet(callbacks=stopping)
    trainer.validate(module, batches(1))
    trainer.fit(module, batches(1), batches(1))
    trainer.validate(module, batches(1))
    assert (stopping.wait_count, trainer.should_stop) == (0, False)
    assert math.isfinite(stopping.best_score)


def test_a_metric_that_is_missing_is_an_error_that_names_those_there_are(quiet: Quiet) -> None:
    trainer = quiet(callbacks=EarlyStopping("val_los"))
    with pytest.raises(RuntimeError, match=r"monitor='val_los'.*there are.*val_loss, x"):
        trainer.fit(Scripted([1.0]), batches(1), batches(1))


def test_a_metric_that_is_missing_is_passed_over_where_that_is_allowed(quiet: Quiet) -> None:
    stopping = EarlyStopping("nothing", strict=False, patience=1)
    trainer = quiet(callbacks=stopping, max_epochs=3)
    trainer.fit(Tiny(), batches(1))
    assert (trainer.current_epoch, stopping.wait_count) == (3, 0)


def test_a_mode_that_is_neither_is_an_error() -> None:
    with pytest.raises(ValueError, match="mode is 'auto'"):
        EarlyStopping("x", mode="auto")  # type: ignore[arg-type]


def test_its_state_goes_over_to_another_one(quiet: Quiet) -> None:
    first, second = EarlyStopping("x", patience=3), EarlyStopping("x", patience=3)
    quiet(callbacks=first, max_epochs=3).fit(Scripted([1.0, 2.0, 2.0]), batches(1))
    second.load_state_dict(first.state_dict())
    assert (second.wait_count, second.best_score) == (2, 1)
    trainer = quiet(callbacks=second, max_epochs=3)
    trainer.fit(Scripted([1.0, 0.5, 0.5]), batches(1))
    assert (trainer.current_epoch, second.stopped_epoch) == (1, 0)


def test_a_resumed_training_stops_where_an_uninterrupted_one_does(tmp_path: Path, quiet: Quiet) -> None:
    values = [3.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    quiet(callbacks=[EarlyStopping("x", patience=3), ModelCheckpoint(tmp_path)], max_epochs=3).fit(Scripted(values), batches(1))
    stopping = EarlyStopping("x", patience=3)
    trainer = quiet(callbacks=[stopping, ModelCheckpoint(tmp_path)], max_epochs=7)
    trainer.fit(Scripted(values), batches(1), ckpt_path="last")
    assert (trainer.current_epoch, stopping.stopped_epoch, stopping.best_score) == (5, 4, 1)


def test_two_of_them_watch_two_metrics(quiet: Quiet) -> None:
    other = LambdaCallback(on_train_epoch_end=lambda trainer, module: module.log("y", float(trainer.current_epoch)))
    patient, hasty = EarlyStopping("x", patience=9), EarlyStopping("y", patience=2)
    trainer = quiet(callbacks=[patient, hasty, other], max_epochs=9)
    trainer.fit(Scripted([1.0] * 9), batches(1))
    assert (trainer.current_epoch, patient.stopped_epoch, hasty.stopped_epoch) == (3, 0, 2)
