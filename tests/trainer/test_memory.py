"""What is kept from one fit to the next: nothing is traced twice, nothing stale is used, and nothing stays behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph  # TensorFlow has no public name for what it traces to

from mnist_tuner.trainer import ArrayLoader, Callback, KerasModule, Module, Trainer, fit_keras_model
from tests.support.nets import Quiet
from tests.trainer.conftest import assert_same_bits, weights

pytestmark = pytest.mark.slow

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(48, 3)).astype(np.float32)
Y = X.sum(1, keepdims=True)


def data() -> ArrayLoader:
    """Three batches."""
    return ArrayLoader(X, Y, batch_size=16)


def compiled(rate: float = 0.1) -> keras.Model:
    """A unit, always with the same weights."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "mse", metrics=["mae"])
    return model


class Net(Module):
    """The same in a module."""

    def configure_model(self) -> keras.Model:
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")])

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        assert self.model is not None
        return keras.ops.mean(keras.ops.square(self.model(batch[0]) - batch[1]))

    def validation_step(self, batch: Any, batch_idx: tf.Tensor) -> None:
        assert self.model is not None
        self.log("val_mean", keras.ops.mean(self.model(batch[0])))

    def configure_optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(0.1, momentum=0.9)


def graphs() -> int:
    """How many graphs TensorFlow keeps."""
    gc.collect()
    return sum(isinstance(each, FuncGraph) for each in gc.get_objects())


@pytest.mark.parametrize("make", [compiled, Net])
def test_ten_further_fits_of_new_trainers_trace_nothing(make: Callable[[], Any], quiet: Quiet) -> None:
    model = make()

    def fit() -> tuple[float, int]:
        trainer = quiet(max_epochs=2, jit_compile=False)
        trainer.fit(model, data(), data())
        return trainer.compile_seconds, graphs()

    seconds, kept = fit()
    assert [fit() for _ in range(10)] == [(seconds, kept)] * 10


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("make", [compiled, Net])
def test_fits_of_new_models_leave_no_graph_behind(make: Callable[[], Any], jit_compile: bool, quiet: Quiet) -> None:
    def fit() -> int:
        quiet(jit_compile=jit_compile).fit(make(), data(), data())
        return graphs()

    first = fit()
    assert [fit() for _ in range(3)] == [first] * 3


def test_a_model_is_traced_once_for_the_trainer_and_for_fit_keras_model(quiet: Quiet) -> None:
    model = compiled()
    fit_keras_model(model, X, Y, batch_size=16, shuffle=False)
    kept = graphs()
    trainer = quiet()
    trainer.fit(model, data())
    assert graphs() == kept
    assert trainer.module is KerasModule.of(model)


def recompiled(model: keras.Model) -> None:
    model.compile(model.optimizer, "mae")


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (recompiled, {}),
        (lambda model: model.compile(keras.optimizers.Adam(0.01), "mse"), {}),
        (lambda model: None, {"gradient_clip_val": 0.01}),
    ],
    ids=["loss", "optimizer", "clipping"],
)
def test_what_has_changed_since_an_earlier_fit_counts(
    change: Callable[[keras.Model], None], options: dict[str, Any], quiet: Quiet
) -> None:
    again, new = compiled(), compiled()
    quiet(jit_compile=False).fit(again, data())
    quiet(jit_compile=False).fit(new, data())
    del new.__dict__["_mnist_tuner_module"]  # as if it had been trained elsewhere
    for model in (again, new):
        change(model)
        quiet(**{"jit_compile": False, "max_epochs": 2, **options}).fit(model, data())
    assert_same_bits(again, new)
    plain = compiled()
    for _ in range(2):
        quiet(jit_compile=False, max_epochs=3).fit(plain, data())
    assert any(not np.array_equal(a, b) for a, b in zip(weights(again), weights(plain), strict=True))


class ShowsItsOwn(keras.Model):
    """Shows other metrics than `compile` makes."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.seen = keras.layers.Dense(1, kernel_initializer="zeros"), keras.metrics.Mean("loss")

    def call(self, x: Any) -> Any:
        return self.dense(x)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.seen]


def test_another_loss_counts_where_the_model_shows_only_its_own_metrics(quiet: Quiet) -> None:
    ours, theirs = ShowsItsOwn(), ShowsItsOwn()
    for loss in ("mse", "mae"):
        for model in (ours, theirs):
            model.compile(keras.optimizers.SGD(0.1) if loss == "mse" else model.optimizer, loss, jit_compile=False)
        quiet(jit_compile=False).fit(ours, data())
        theirs.fit(X, Y, batch_size=16, shuffle=False, verbose=0)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


class Notes(Callback):
    """Logs a number in a way of its own."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        self.log("note", 1.0, **self.options)


def test_another_trainers_callback_may_log_a_name_in_another_way(quiet: Quiet) -> None:
    model = compiled()
    quiet(callbacks=Notes(), jit_compile=False).fit(model, data())
    second = quiet(callbacks=Notes(prog_bar=True), jit_compile=False)
    second.fit(model, data())
    assert second.progress_bar_metrics["note"] == 1.0
    third = quiet(jit_compile=False)
    third.fit(model, data())
    assert set(third.callback_metrics) == {"loss", "mae"}


def test_a_model_keeps_neither_the_trainer_nor_its_callbacks_nor_its_data(quiet: Quiet) -> None:
    model = compiled()

    def fit() -> list[weakref.ref[Any]]:
        callback, loader = Notes(), data()
        trainer = quiet(callbacks=[callback, keras.callbacks.EarlyStopping("loss")], jit_compile=False)
        trainer.fit(model, loader)
        return [weakref.ref(each) for each in (trainer, callback, loader)]

    left = fit()
    gc.collect()
    assert [reference() for reference in left] == [None] * 3


@pytest.mark.parametrize("make", [compiled, Net])
def test_a_model_and_its_module_go_with_their_last_user(make: Callable[[], Any], quiet: Quiet) -> None:
    def fit() -> list[weakref.ref[Any]]:
        trainer, history = quiet(jit_compile=False), keras.callbacks.History()
        trainer.fit(model := make(), data(), data())
        trainer.test(trainer.module, data()) if make is compiled else trainer.validate(trainer.module, data())
        assert trainer.module is not None
        return [weakref.ref(each) for each in (model, trainer.module, trainer.module.model, trainer, history)]

    left = fit()
    gc.collect()
    assert [reference() for reference in left] == [None] * 5
