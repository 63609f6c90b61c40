"""When a fit validates, and that the training does not notice it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from mnist_tuner.trainer import Callback, Module, Trainer
from tests.conformance.conftest import Quiet, Rows, Scripted, Tiny, batches


class NotesValidations(Callback):
    """The steps after which there was a validation."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_validation_start(self, trainer: Trainer, module: Module) -> None:
        self.steps.append(trainer.global_step)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [4, 8, 12]),
        ({"check_val_every_n_epoch": 2}, [8]),
        ({"check_val_every_n_epoch": 3}, [12]),
        ({"check_val_every_n_epoch": 4}, []),
        ({"val_check_interval": 0.5}, [2, 4, 6, 8, 10, 12]),
        ({"val_check_interval": 0.25}, list(range(1, 13))),
        ({"val_check_interval": 0.3}, list(range(1, 13))),
        ({"val_check_interval": 0.75}, [3, 7, 11]),
        ({"val_check_interval": 1.0}, [4, 8, 12]),
        ({"val_check_interval": 1}, list(range(1, 13))),
        ({"val_check_interval": 2}, [2, 4, 6, 8, 10, 12]),
        ({"val_check_interval": 3}, [3, 7, 11]),
        ({"val_check_interval": 4}, [4, 8, 12]),
        ({"val_check_interval": 0.1}, list(range(1, 13))),
        ({"val_check_interval": 0.5, "check_val_every_n_epoch": 2}, [6, 8]),
        ({"val_check_interval": 3, "check_val_every_n_epoch": None}, [3, 6, 9, 12]),
        ({"val_check_interval": 5, "check_val_every_n_epoch": None}, [5, 10]),
        ({"val_check_interval": 20, "check_val_every_n_epoch": None}, []),
        ({"val_check_interval": 2, "limit_train_batches": 3}, [2, 5, 8]),
        ({"max_steps": 6}, [4]),
        ({"max_steps": 8}, [4, 8]),
        ({"max_steps": 6, "val_check_interval": 3}, [3]),
        ({"max_steps": 6, "val_check_interval": 2}, [2, 4, 6]),
        ({"limit_val_batches": 0}, []),
    ],
)
def test_a_fit_validates_in_its_rhythm(options: dict[str, Any], steps: list[int], traced: Scripted, quiet: Quiet) -> None:
    notes = NotesValidations()
    trainer = quiet(callbacks=notes, max_epochs=3, num_sanity_val_steps=0, **options)
    trainer.fit(traced, batches(4), batches(1))
    assert notes.steps == steps


@pytest.mark.parametrize("steps_per_call", [1, 2, 3, 100])
@pytest.mark.parametrize(("options", "steps"), [({"val_check_interval": 3}, [3, 8]), ({"check_val_every_n_epoch": 2}, [10])])
def test_the_rhythm_does_not_depend_on_the_calls_of_the_loop(
    options: dict[str, Any], steps: list[int], steps_per_call: int, traced: Scripted, quiet: Quiet
) -> None:
    notes = NotesValidations()
    trainer = quiet(callbacks=notes, max_epochs=2, num_sanity_val_steps=0, steps_per_call=steps_per_call, **options)
    trainer.fit(traced, batches(5), batches(1))
    assert notes.steps == steps


def test_an_interval_longer_than_an_epoch_is_an_error_that_says_what_to_do(quiet: Quiet) -> None:
    with pytest.raises(ValueError, match=r"val_check_interval is 5, but an epoch has 4 batches.*check_val_every_n_epoch=None"):
        quiet(val_check_interval=5).fit(Tiny(), batches(4), batches(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_check_interval": 1.5}, "val_check_interval is 1.5"),
        ({"val_check_interval": 0}, "val_check_interval is 0"),
        ({"val_check_interval": 0.0}, "val_check_interval is 0.0"),
        ({"val_check_interval": -1}, "val_check_interval is -1"),
        ({"check_val_every_n_epoch": 0}, "check_val_every_n_epoch is 0"),
        ({"check_val_every_n_epoch": -1}, "check_val_every_n_epoch is -1"),
        ({"val_check_interval": 0.5, "check_val_every_n_epoch": None}, "val_check_interval must be a number of batches"),
        ({"check_val_every_n_epoch": None}, "val_check_interval must be a number of batches"),
    ],
)
def test_a_rhythm_that_cannot_be_is_an_error_that_names_the_argument(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(**options)


def compiled() -> keras.Model:
    """A Keras model of one unit that counts its error in training and validation."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse", metrics=["mae"])
    return model


@pytest.mark.slow
@pytest.mark.parametrize("interval", [0.25, 0.5, 3])
def test_the_training_metrics_of_a_keras_model_survive_a_validation_within_the_epoch(interval: Any, quiet: Quiet) -> None:
    plain, within = quiet(), quiet(val_check_interval=interval)
    plain.fit(compiled(), batches(4))
    model = compiled()
    within.fit(model, batches(4), batches(3))
    for name in ("loss", "mae"):
        assert within.callback_metrics[name] == plain.callback_metrics[name]
    # A validation after the last step measures the final weights; the one with the interval 3 came a step before.
    if interval != 3:
        measured = model.evaluate(
            np.concatenate([x for x, _ in batches(3)]), np.concatenate([y for _, y in batches(3)]), verbose=0
        )
        assert [within.callback_metrics["val_loss"], within.callback_metrics["val_mae"]] == pytest.approx(measured, rel=1e-5)


class Counts(Tiny):
    """Logs the numbers of the training batches, and measures with a Keras metric of its own."""

    def __init__(self) -> None:
        self.error = keras.metrics.Mean()

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        for reduction in ("mean", "min", "max", "sum"):
            self.log(reduction, tf.cast(batch_idx, tf.float32) + 1, on_step=False, on_epoch=True, reduce_fx=reduction)
        self.error.update_state(tf.cast(batch_idx, tf.float32))
        self.log("error", self.error, on_step=False, on_epoch=True)
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
        self.error.update_state(100.0)
        self.log("val_error", self.error)


def test_what_a_module_logs_over_an_epoch_survives_a_validation_within_it(quiet: Quiet) -> None:
    trainer = quiet(val_check_interval=0.25, max_epochs=2)
    trainer.fit(Counts(), batches(4), batches(2))
    expected = {"mean": 2.5, "min": 1, "max": 4, "sum": 10, "error": 1.5, "val_error": 100}
    assert trainer.callback_metrics == pytest.approx(expected)


@pytest.mark.slow
def test_validations_change_nothing_that_is_trained(quiet: Quiet) -> None:
    kernels = []
    for options in ({"limit_val_batches": 0}, {"val_check_interval": 1}):
        keras.utils.set_random_seed(1)
        module = Tiny()
        quiet(max_epochs=2, **options).fit(module, batches(4), batches(2))
        kernels.append(module.kernel)
    np.testing.assert_array_equal(kernels[0], kernels[1])


def test_a_validation_within_the_epoch_has_a_row_of_its_own_and_one_at_its_end_shares_the_epochs(quiet: Quiet) -> None:
    rows = Rows()
    quiet(logger=rows, val_check_interval=0.5, max_epochs=2).fit(Counts(), batches(4), batches(2))
    assert rows.of("val_error") == [(2, 100), (4, 100), (6, 100), (8, 100)]
    assert rows.of("sum") == [(4, 10), (8, 10)]
    assert [metrics["epoch"] for _, metrics in rows.rows] == [0, 0, 1, 1]


def test_the_stage_is_training_again_after_a_validation(quiet: Quiet) -> None:
    class Stages(Callback):
        def __init__(self) -> None:
            self.seen: list[tuple[str, bool]] = []

        def on_train_batch_start(self, trainer: Trainer, module: Module, batch: Any, batch_idx: int) -> None:
            self.seen.append((str(trainer.state.stage), trainer.training))

        def on_validation_epoch_start(self, trainer: Trainer, module: Module) -> None:
            self.seen.append((str(trainer.state.stage), trainer.training))

    stages = Stages()
    quiet(callbacks=stages, val_check_interval=1, num_sanity_val_steps=0).fit(Tiny(), batches(2), batches(1))
    assert stages.seen == [("train", True), ("validate", False)] * 2
