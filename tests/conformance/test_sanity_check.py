"""The few validation batches before the training: how many they are, and that they leave no trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from mnist_tuner.trainer import Callback, LambdaCallback, Module, Trainer, seed_everything
from tests.conformance.conftest import Quiet, Rows, Tiny, batches

pytestmark = pytest.mark.slow


class SanityBatches(Callback):
    """The batches of the sanity check, by loader."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def on_validation_batch_start(
        self, trainer: Trainer, module: Module, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.sanity_checking:
            self.seen.append((dataloader_idx, batch_idx))


@pytest.mark.parametrize(
    ("steps", "limit", "seen"),
    [(0, 1.0, 0), (1, 1.0, 1), (2, 1.0, 2), (9, 1.0, 4), (-1, 1.0, 4), (2, 1, 1), (-1, 2, 2), (2, 0, 0), (-1, 0.75, 3)],
)
def test_the_check_takes_so_many_batches_as_validation_has(steps: int, limit: int | float, seen: int, quiet: Quiet) -> None:
    sees = SanityBatches()
    trainer = quiet(callbacks=sees, num_sanity_val_steps=steps, limit_val_batches=limit)
    trainer.fit(Tiny(), batches(1), batches(4))
    assert sees.seen == [(0, index) for index in range(seen)]


def test_the_check_takes_two_batches_of_each_loader_by_default(quiet: Quiet) -> None:
    sees = SanityBatches()
    quiet(callbacks=sees).fit(Tiny(), batches(1), [batches(3), batches(1), batches(4)])
    assert sees.seen == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]


@pytest.mark.parametrize("steps", [-2, 1.5])
def test_a_number_of_batches_out_of_range_is_an_error_that_names_the_argument(steps: Any) -> None:
    with pytest.raises(ValueError, match=f"num_sanity_val_steps is {steps}"):
        Trainer(num_sanity_val_steps=steps)


class Moves(Tiny):
    """Its validation changes everything that a validation can change: it normalizes as in training, and draws at random."""

    def __init__(self) -> None:
        self.seeds = keras.random.SeedGenerator(3)
        self.count = tf.Variable(0.0)
        self.error = keras.metrics.Mean()

    def configure_model(self) -> keras.Model:
        keras.utils.set_random_seed(4)
        layers = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5, seed=5), keras.layers.Dense(1)]
        return keras.Sequential([keras.Input((4,)), *layers])

    def validation_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
        assert self.model is not None
        self.model(batch[0], training=True)
        self.count.assign_add(keras.random.uniform((), seed=self.seeds))
        self.error.update_state(1.0)
        self.log("val_error", self.error)
        self.log("val_sum", 1.0, reduce_fx="sum")


def test_the_check_leaves_weights_and_state_as_they_were(quiet: Quiet) -> None:
    module, seen = Moves(), []

    def note(trainer: Trainer, module: Any) -> None:
        variables = [*module.model.variables, module.seeds.state, module.count, *module.error.variables]
        seen.append([np.array(variable.numpy()) for variable in variables])

    quiet(callbacks=LambdaCallback(on_fit_start=note, on_train_start=note)).fit(module, batches(1), batches(3))
    for before, after in zip(*seen, strict=True):
        np.testing.assert_array_equal(after, before)


def test_the_check_does_reach_what_it_is_to_leave(quiet: Quiet) -> None:
    module = Moves()
    quiet().validate(module, batches(3))
    assert float(module.count) > 0
    assert float(module.error.result()) == 1


def test_the_check_leaves_the_numbers_that_are_logged_as_they_were(quiet: Quiet) -> None:
    trainer = quiet()
    trainer.fit(Moves(), batches(1), batches(3))
    assert trainer.callback_metrics == {"val_error": 1, "val_sum": 3}


RANDOM: dict[str, Callable[[], float]] = {
    "Python": random.random,
    "NumPy": lambda: float(np.random.default_rng(np.random.randint(2**31)).random()),
    "Keras": lambda: float(keras.random.uniform(())),
}


@pytest.mark.parametrize("draw", RANDOM.values(), ids=RANDOM.keys())
def test_the_check_leaves_the_random_numbers_as_they_were(draw: Callable[[], float], quiet: Quiet) -> None:
    drawn: list[list[float]] = []
    for steps in (0, 2):
        numbers: list[float] = []
        seed_everything(7)

        def note(trainer: Trainer, module: Module, numbers: list[float] = numbers) -> None:
            numbers.extend([draw(), draw()])

        hooks: dict[str, Callable[..., Any]] = {"on_validation_epoch_start": lambda *_: draw(), "on_train_start": note}
        quiet(callbacks=LambdaCallback(**hooks), num_sanity_val_steps=steps).fit(Tiny(), batches(1), batches(2))
        drawn.append(numbers)
    assert drawn[0] == drawn[1]


def test_the_dropout_of_the_training_does_not_depend_on_the_check(quiet: Quiet) -> None:
    kernels = []
    for steps in (0, 2):
        module = Moves()
        trainer = quiet(num_sanity_val_steps=steps)
        trainer.fit(module, batches(4), batches(2))
        assert module.model is not None
        kernels.append(module.model.layers[-1].kernel.numpy())
    np.testing.assert_array_equal(kernels[0], kernels[1])


def test_the_check_logs_nothing(quiet: Quiet) -> None:
    rows, early = Rows(), []

    def note(trainer: Trainer, module: Module) -> None:
        early.append((list(rows.rows), dict(trainer.callback_metrics), dict(trainer.logged_metrics)))

    trainer = quiet(logger=rows, callbacks=LambdaCallback(on_train_start=note))
    trainer.fit(Tiny(), batches(1), batches(3))
    assert early == [([], {}, {})]
    assert [step for step, _ in rows.of("val_loss")] == [1]


def test_the_progress_display_shows_nothing_of_the_check(quiet: Quiet) -> None:
    class Shows(Tiny):
        def validation_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
            self.log("shown", 1.0, prog_bar=True)

    shown: list[dict[str, float]] = []
    note = LambdaCallback(on_train_start=lambda trainer, module: shown.append(trainer.progress_bar_metrics))
    trainer = quiet(callbacks=note)
    trainer.fit(Shows(), batches(1), batches(3))
    assert shown == [{}]
    assert trainer.progress_bar_metrics == {"shown": 1}


def test_metrics_given_to_the_loggers_within_the_check_are_dropped(quiet: Quiet) -> None:
    rows = Rows()
    gives = LambdaCallback(on_validation_end=lambda trainer, module: trainer.log_metrics({"given": 1.0}))
    quiet(logger=rows, callbacks=gives).fit(Tiny(), batches(1), batches(3))
    assert rows.of("given") == [(1, 1.0)]


def test_the_check_leaves_the_metrics_of_a_keras_model_at_nothing(quiet: Quiet) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    counted: list[float] = []

    def note(trainer: Trainer, module: Module) -> None:
        counted.extend(float(value) for value in model.get_metrics_result().values())

    quiet(callbacks=LambdaCallback(on_train_start=note)).fit(model, batches(1), batches(3))
    assert counted == [0, 0]


def test_the_check_says_that_it_is_one(quiet: Quiet) -> None:
    said: list[tuple[bool, str]] = []

    def note(trainer: Trainer, module: Module) -> None:
        said.append((trainer.sanity_checking, str(trainer.state.stage)))

    hooks = dict.fromkeys(("on_sanity_check_start", "on_validation_end", "on_sanity_check_end", "on_train_start"), note)
    quiet(callbacks=LambdaCallback(**hooks)).fit(Tiny(), batches(1), batches(3))
    assert said == [(True, "sanity_check")] * 3 + [(False, "train"), (False, "validate")]
