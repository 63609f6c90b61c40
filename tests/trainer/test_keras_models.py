"""Keras models of every kind: compiled again, with a train_step of their own, lazily built, with state of their own; each
against `keras.Model.fit`, or against what was said of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from rich.console import Console

from mnist_tuner.trainer import (
    ArrayLoader,
    EarlyStopping,
    KerasModule,
    ModelCheckpoint,
    NonFiniteLossError,
    RichModelSummary,
    Trainer,
    read_checkpoint,
)
from tests.support.nets import Quiet
from tests.trainer.conftest import weights

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
X = RNG.random((32, 3), np.float32)
Y = (X @ RNG.random((3, 1))).astype(np.float32)


def loader(x: Any = X, *y: Any, batch_size: int = 8) -> ArrayLoader:
    return ArrayLoader(x, *y, batch_size=batch_size)


def seeded(make: Callable[..., keras.Model], *arguments: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    return make(*arguments)


def by_keras(model: keras.Model, *data: Any, epochs: int = 1, batch_size: int = 8) -> dict[str, list[float]]:
    history: dict[str, list[float]] = model.fit(*data, epochs=epochs, batch_size=batch_size, shuffle=False, verbose=0).history
    return history


def assert_equal(ours: keras.Model, theirs: keras.Model, tolerance: float = 1e-6) -> None:
    """Every variable that Keras counts."""
    for a, b in zip(weights(ours), weights(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)


def last(history: dict[str, list[Any]]) -> dict[str, float]:
    """Of the last epoch; Keras keeps F1Score's as arrays."""
    return {name: float(np.squeeze(values[-1])) for name, values in history.items()}


@pytest.fixture
def plain(quiet: Quiet) -> Quiet:
    """A trainer of a plain graph without a sanity check."""
    return lambda **options: quiet(**{"jit_compile": False, "num_sanity_val_steps": 0, **options})


def net(optimizer: Any = "adam", **options: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(1)])
    model.compile(optimizer, **{"loss": "mse", "jit_compile": False, **options})
    return model


# Compiled again, frozen, with another optimizer.


def test_a_model_compiled_again_trains_clips_averages_and_is_saved_with_its_new_optimizer(plain: Quiet, tmp_path: Path) -> None:
    def averaged(**clipping: Any) -> keras.Optimizer:
        return keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5, **clipping)

    ours, theirs = seeded(net), seeded(net)
    module = KerasModule(ours)
    for _ in range(2):
        ours.compile(averaged(), "mse")
        theirs.compile(averaged(global_clipnorm=1e-3), "mse")
        plain(gradient_clip_val=1e-3, callbacks=ModelCheckpoint(tmp_path, filename="last")).fit(module, loader(X, Y))
        by_keras(theirs, X, Y)
        assert module.optimizer is ours.optimizer
        assert int(ours.optimizer.iterations) == 4
    assert_equal(ours, theirs)
    assert int(read_checkpoint(tmp_path / "last.safetensors").tensors["optimizer/0"]) == 4


def test_a_loss_given_by_a_second_compile_counts_though_optimizer_and_metrics_are_the_same(plain: Quiet) -> None:
    class Last(keras.Sequential):
        @property
        def metrics(self) -> list[keras.Metric]:
            return []

        def train_step(self, data: Any) -> dict[str, Any]:
            return {"loss": self.compute_loss(data[0], data[1], self(data[0]))}

    model = Last([keras.Input((3,)), layers.Dense(1, kernel_initializer="zeros")])
    optimizer = keras.optimizers.SGD(0.0)
    model.compile(optimizer, "mse")
    module, losses = KerasModule(model), []
    for loss in ("mse", "mae"):
        model.compile(optimizer, loss)
        trainer = plain()
        trainer.fit(module, loader(X, Y, batch_size=32))
        losses.append(trainer.callback_metrics["loss"])
    assert losses == pytest.approx([np.mean(Y**2), np.mean(Y)], abs=1e-5)


def test_a_keras_model_takes_no_other_optimizer_than_its_own(plain: Quiet) -> None:
    class Other(KerasModule):
        def configure_optimizers(self) -> keras.Optimizer:
            return keras.optimizers.SGD()

    with pytest.raises(ValueError, match=r"trains with the one that it was compiled with: call model\.compile with this one"):
        plain().fit(Other(net()), loader(X, Y))


def test_a_half_precision_model_compiled_without_loss_scaling_gets_none(plain: Quiet) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    model = net("sgd", auto_scale_loss=False)
    keras.config.set_dtype_policy("float32")
    module = KerasModule(model)
    plain(precision="16-mixed").fit(module, loader(X, Y))
    assert module.optimizer is model.optimizer
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert int(model.optimizer.iterations) == 4


def test_a_layer_that_is_to_be_trained_after_all_asks_for_another_compile(plain: Quiet) -> None:
    model = net()
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    module = KerasModule(model)
    plain().fit(module, loader(X, Y))
    model.layers[0].trainable = True
    with pytest.raises(ValueError, match=r"after a change of trainable, or of the layers, call compile again with a new optim"):
        plain().fit(module, loader(X, Y))


# A train_step of one's own.


class Sampling(layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.random.SeedGenerator(3)

    def call(self, parts: Any) -> Any:
        return parts[0] + ops.exp(0.5 * parts[1]) * keras.random.normal(ops.shape(parts[0]), seed=self.generator)


class Autoencoder(keras.Model):
    """A variational one as on keras.io: without a call()."""

    def __init__(self) -> None:
        super().__init__()
        inputs, code = keras.Input((3,)), keras.Input((2,))
        mean, variance = layers.Dense(2)(inputs), layers.Dense(2)(inputs)
        self.encoder = keras.Model(inputs, [mean, variance, Sampling()([mean, variance])])
        self.decoder = keras.Model(code, layers.Dense(3)(code))
        self.total, self.divergence = keras.metrics.Mean(name="loss"), keras.metrics.Mean(name="kl_loss")

    @property
    def metrics(self) -> list[keras.Metric]:
        return [self.total, self.divergence]

    def train_step(self, data: Any) -> dict[str, Any]:
        assert tf.is_symbolic_tensor(data)
        with tf.GradientTape() as tape:
            mean, variance, code = self.encoder(data)
            divergence = ops.mean(-0.5 * (1 + variance - ops.square(mean) - ops.exp(variance)))
            loss = divergence + ops.mean(ops.square(data - self.decoder(code)))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.total.update_state(loss)
        self.divergence.update_state(divergence)
        return {metric.name: metric.result() for metric in self.metrics}


def autoencoder() -> keras.Model:
    model = Autoencoder()
    model.compile(keras.optimizers.Adam(0.01))
    return model


@pytest.mark.parametrize("data", [lambda: loader(X), lambda: tf.data.Dataset.from_tensor_slices(X).batch(8)])
def test_a_model_without_a_call_trains_as_by_keras(data: Callable[[], Any], plain: Quiet) -> None:
    ours, theirs = seeded(autoencoder), seeded(autoencoder)
    console = Console(file=io.StringIO(), width=100)
    trainer = plain(max_epochs=2, callbacks=RichModelSummary(console))
    trainer.fit(ours, data())
    history = by_keras(theirs, X, epochs=2)
    assert_equal(ours, theirs)
    assert trainer.callback_metrics == pytest.approx(last(history), abs=1e-6)
    assert console.file.getvalue().split()[-2:] == ["total", "25"]


def test_a_model_without_a_call_is_loaded_from_a_checkpoint(plain: Quiet, tmp_path: Path) -> None:
    trained = autoencoder()
    plain(callbacks=ModelCheckpoint(tmp_path, filename="a")).fit(trained, loader(X))
    loaded = KerasModule.load_from_checkpoint(tmp_path / "a.safetensors", model=autoencoder())
    assert_equal(loaded.model, trained, 0)


class Adversarial(keras.Model):
    """Two optimizers, two losses, and a variable that Keras does not count."""

    def __init__(self, nested: bool) -> None:
        super().__init__()
        self.discriminator = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(1)])
        self.generator = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
        self.noise = keras.random.SeedGenerator(7)
        self.steps = tf.Variable(0.0, trainable=False)
        self.means = {name: keras.metrics.Mean(name=name) for name in ("d_loss", "g_loss")}
        self.nested = nested

    def compile(self, optimizer: Any = "rmsprop") -> None:
        super().compile(optimizer)
        own = [keras.optimizers.Adam(0.02), keras.optimizers.SGD(0.1, momentum=0.9)]
        if self.nested:
            self.optimizers = {"d": [own[0]], "g": {"inner": own[1]}}
        else:
            self.d_optimizer, self.g_optimizer = own

    def train_step(self, data: Any) -> dict[str, Any]:
        self.steps.assign_add(1.0)
        entropy = keras.losses.BinaryCrossentropy(from_logits=True)
        size = ops.shape(data)[0]
        ones, zeros = ops.ones((size, 1)), ops.zeros((size, 1))
        d_optimizer = self.optimizers["d"][0] if self.nested else self.d_optimizer
        g_optimizer = self.optimizers["g"]["inner"] if self.nested else self.g_optimizer
        with tf.GradientTape(persistent=True) as tape:
            made = self.generator(keras.random.normal((size, 2), seed=self.noise))
            d_loss = entropy(ones, self.discriminator(data)) + entropy(zeros, self.discriminator(made)) / self.steps
            g_loss = entropy(ones, self.discriminator(made))
        for loss, part, optimizer in (
            (d_loss, self.discriminator, d_optimizer),
            (g_loss, self.generator, g_optimizer),
        ):
            optimizer.apply(tape.gradient(loss, part.trainable_weights), part.trainable_weights)
        self.means["d_loss"].update_state(d_loss)
        self.means["g_loss"].update_state(g_loss)
        return {name: mean.result() for name, mean in self.means.items()}


def adversarial(nested: bool, optimizer: Any = "rmsprop") -> keras.Model:
    model = Adversarial(nested)
    model.compile(optimizer)
    return model


@pytest.mark.parametrize("nested", [False, True])
def test_two_optimizers_train_and_resume_as_if_by_keras_without_a_stop(nested: bool, plain: Quiet, tmp_path: Path) -> None:
    stopped, resumed, theirs = (seeded(adversarial, nested) for _ in range(3))
    plain(max_epochs=2, callbacks=ModelCheckpoint(tmp_path)).fit(stopped, loader(X))
    trainer = plain(max_epochs=4, callbacks=ModelCheckpoint(tmp_path))
    trainer.fit(resumed, loader(X), ckpt_path="last")
    history = by_keras(theirs, X, epochs=4)
    assert_equal(resumed, theirs)
    assert trainer.callback_metrics == pytest.approx(last(history), abs=1e-6)
    assert float(resumed.steps) == 16
    assert not resumed.optimizer.built  # nobody uses it


def test_a_model_needs_no_optimizer_of_keras_where_it_has_its_own(plain: Quiet, tmp_path: Path) -> None:
    model = adversarial(False, None)
    plain(callbacks=ModelCheckpoint(tmp_path, filename="a")).fit(model, loader(X))
    assert int(model.d_optimizer.iterations) == 4
    resumed = adversarial(False, None)
    plain(max_epochs=2).fit(resumed, loader(X), ckpt_path=tmp_path / "a.safetensors")
    assert int(resumed.d_optimizer.iterations) == 8
    with pytest.raises(TypeError, match=r"configure_optimizers returned None"):
        plain().fit(net(None), loader(X, Y))


@pytest.mark.parametrize("argument", [{"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}])
def test_what_cannot_reach_a_models_own_optimizers_is_refused(argument: dict[str, Any], plain: Quiet) -> None:
    with pytest.raises(ValueError, match=r"do not reach the optimizers of Adversarial's own train_step: make these with"):
        plain(**argument).fit(adversarial(True), loader(X))


class Reporting(keras.Sequential):
    """Reports the metrics by their own names, the compiled ones as a dict, and trains with triples only."""

    def train_step(self, data: Any) -> dict[str, Any]:
        _, _, _ = data
        super().train_step(data)
        return {metric.name: metric.result() for metric in self.metrics}

    def test_step(self, data: Any) -> dict[str, Any]:
        _, _ = data
        return {"seen": {"all": {"deep": super().test_step(data)["loss"]}}, "mae": 1}


def reporting() -> keras.Model:
    model = Reporting([layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mse"], jit_compile=False)
    return model


def test_dicts_among_what_the_steps_report_are_laid_out_and_each_step_gets_its_own_data(plain: Quiet) -> None:
    ours, theirs = reporting(), reporting()
    trainer = plain(num_sanity_val_steps=1)
    trainer.fit(ours, loader(X, Y, Y[:, 0]), loader(X, Y))
    history = theirs.fit(X, Y, 8, 1, 0, sample_weight=Y[:, 0], shuffle=False, validation_data=(X, Y)).history
    assert trainer.callback_metrics == pytest.approx(last(history), abs=1e-6)
    assert set(history) == {"loss", "mae", "mse", "val_deep", "val_mae"}
    assert_equal(ours, theirs)


def test_a_loss_that_is_not_finite_is_noticed_by_any_name_and_what_is_no_loss_may_be_so(plain: Quiet) -> None:
    class Reports(keras.Sequential):
        def __init__(self, name: str) -> None:
            super().__init__([keras.Input((3,)), layers.Dense(1)])
            self.reported = name

        def train_step(self, data: Any) -> dict[str, Any]:
            return {"a_loss": 1.0, self.reported: tf.constant(np.nan), "several": tf.constant([1.0, 2.0])}

    def report(name: str) -> Trainer:
        model, trainer = Reports(name), plain()
        model.compile()
        trainer.fit(model, loader(X, Y))
        return trainer

    with pytest.raises(NonFiniteLossError, match="step 1 "):
        report("b_loss")
    trainer = report("score")
    assert trainer.global_step == 4
    assert {"a_loss", "score", "several_0", "several_1"} <= set(trainer.callback_metrics)


def test_a_loss_computed_by_the_model_itself_is_taken_as_by_keras(plain: Quiet) -> None:
    class Computes(keras.Sequential):
        """The example of Keras's compute_loss, in the form that it had before Keras 3.3."""

        def __init__(self) -> None:
            super().__init__([keras.Input((3,)), layers.Dense(1, kernel_initializer="ones")])
            self.loss_tracker = keras.metrics.Mean(name="loss")
            self.resets = tf.Variable(0)

        def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
            loss = ops.mean(ops.abs(y_pred - y) * x[:, :1])
            self.loss_tracker.update_state(loss)
            return loss

        def reset_metrics(self) -> None:
            self.loss_tracker.reset_state()
            self.resets.assign_add(1)

        @property
        def metrics(self) -> list[keras.Metric]:
            return [self.loss_tracker]

    ours, theirs = Computes(), Computes()
    for model in (ours, theirs):
        model.compile(keras.optimizers.Adam(0.01))
    trainer = plain(max_epochs=2)
    trainer.fit(ours, loader(X, Y), loader(X, Y))
    history = theirs.fit(X, Y, 8, 2, 0, shuffle=False, validation_data=(X, Y)).history
    assert trainer.callback_metrics == pytest.approx(last(history), abs=1e-6)
    assert_equal(ours, theirs)
    assert int(ours.resets) == int(theirs.resets)


@pytest.mark.parametrize("x", [X, {"a": X, "b": X}, [X, X]], ids=["array", "dict", "list"])
def test_a_step_gets_an_x_without_y_as_from_keras(x: Any, plain: Quiet) -> None:
    class Looks(keras.Model):
        def train_step(self, data: Any) -> dict[str, Any]:
            self.kinds = type(data), len(data) if isinstance(data, tuple) else 0
            return {"loss": 0.0}

    ours, theirs = Looks(), Looks()
    for model in (ours, theirs):
        model.compile()
    plain().fit(ours, loader(x))
    by_keras(theirs, x)
    assert ours.kinds == theirs.kinds


# Building.


class Counting(layers.Layer):
    """Counts its calls: in a variable of Keras's, and in one that Keras does not count."""

    def build(self, shape: Any) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.kernel = self.add_weight(shape=(shape[-1], 2))  # its seed is drawn here

    def call(self, x: Any) -> Any:
        if not hasattr(self, "hidden"):
            self.hidden = tf.Variable(0.0, trainable=False)
        self.calls.assign_add(1.0)
        self.hidden.assign_add(1.0)
        return x @ self.kernel


class Lazy(keras.Model):
    """Knows no shape before it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = [Counting(), layers.BatchNormalization(), layers.Dropout(0.3, seed=2), layers.Dense(1)]

    def call(self, x: Any, training: bool = False) -> Any:
        for part in self.parts[:-1]:
            x = part(x, training=training) if isinstance(part, (layers.BatchNormalization, layers.Dropout)) else part(x)
        return self.parts[-1](x)


def lazy(rate: float = 0.01) -> keras.Model:
    model = Lazy()
    model.compile(keras.optimizers.SGD(rate), "mse", metrics=["mae", keras.metrics.F1Score(name="f1", threshold=0.5)])
    return model


@pytest.mark.parametrize("rate", [0.0, 0.01])
def test_a_model_that_is_built_on_its_data_is_built_as_by_keras_and_runs_no_step_for_that(rate: float, plain: Quiet) -> None:
    trainer = plain()
    ours = seeded(lazy, rate)
    trainer.fit(ours, loader(X, Y))
    theirs = seeded(lazy, rate)
    history = by_keras(theirs, X, Y)
    assert_equal(ours, theirs, 1e-6 if rate else 0)
    assert float(ours.parts[0].calls) == float(ours.parts[0].hidden) == 4
    assert trainer.callback_metrics == pytest.approx(last(history), abs=1e-5)


def test_a_layer_that_only_the_training_calls_is_trained(plain: Quiet) -> None:
    class Helped(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.auxiliary = layers.Dense(1, kernel_initializer="ones"), layers.Dense(1, kernel_initializer="ones")

        def call(self, x: Any, training: bool = False) -> Any:
            return self.main(x) + self.auxiliary(x) if training else self.main(x)

    def make() -> keras.Model:
        model = Helped()
        model.compile(keras.optimizers.Adam(0.01), "mse")
        return model

    ours, theirs = make(), make()
    plain().fit(ours, loader(X, Y))
    by_keras(theirs, X, Y)
    assert_equal(ours, theirs)
    assert len(weights(ours)) == 4


def test_a_variable_in_a_layer_that_keras_does_not_count_is_kept_in_checkpoints(plain: Quiet, tmp_path: Path) -> None:
    model = lazy()
    plain(callbacks=ModelCheckpoint(tmp_path, filename="a")).fit(model, loader(X, Y))
    resumed = lazy()
    plain(max_epochs=2, num_sanity_val_steps=2).fit(resumed, loader(X, Y), loader(X, Y), ckpt_path=tmp_path / "a.safetensors")
    assert float(resumed.parts[0].calls) == float(resumed.parts[0].hidden) == 12  # 8 in training, 4 in validation


def stateful(batch_size: int) -> keras.Model:
    recurrent = layers.Bidirectional(layers.SimpleRNN(2, stateful=True))
    model = keras.Sequential([keras.Input(batch_shape=(batch_size, 3, 1)), recurrent, layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


@pytest.mark.parametrize("batch_size", [8, 1])
def test_a_layers_state_is_stepped_by_the_training_alone(batch_size: int, plain: Quiet) -> None:
    ours, theirs = seeded(stateful, batch_size), seeded(stateful, batch_size)
    plain(max_epochs=2, num_sanity_val_steps=2).fit(
        ours, loader(X[..., None], Y, batch_size=batch_size), loader(X[..., None], Y, batch_size=batch_size)
    )
    theirs.fit(X[..., None], Y, batch_size, 2, 0, shuffle=False, validation_data=(X[..., None], Y))
    assert_equal(ours, theirs)
    for a, b in zip(ours.layers[0].forward_layer.states, theirs.layers[0].forward_layer.states, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


# Names.


def test_a_metric_with_one_class_keeps_its_name(plain: Quiet) -> None:
    model = net(metrics=[keras.metrics.F1Score(name="f1", threshold=0.5)])
    stopping = EarlyStopping("val_f1", mode="max", stopping_threshold=-1.0)
    trainer = plain(max_epochs=3, callbacks=stopping)
    trainer.fit(model, loader(X, Y.round()), loader(X, Y.round()))
    assert trainer.current_epoch == 1
    assert set(trainer.callback_metrics) == {"loss", "f1", "val_loss", "val_f1"}
