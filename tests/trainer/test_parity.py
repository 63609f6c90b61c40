"""One epoch of our trainer against one of `keras.Model.fit`, from equal weights and in the same order."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from mnist_tuner import build_baseline
from mnist_tuner.mnist.data import Dataset
from mnist_tuner.trainer import ArrayLoader, Trainer
from tests.trainer.conftest import Digits, weights

pytestmark = pytest.mark.slow

N = 3008
"""Images: 94 batches of 32."""


def normalized_net(seed: int) -> keras.Model:
    """Batch normalisation, and a dropout that drops nothing."""
    initializers = [keras.initializers.GlorotUniform(seed + i) for i in range(2)]
    return keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(32, kernel_initializer=initializers[0]),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.0),
            keras.layers.Dense(10, activation="softmax", kernel_initializer=initializers[1]),
        ]
    )


def compiled(make: Callable[[int], keras.Model], optimizer: str, jit: bool = False) -> keras.Model:
    """A net from seed 7 with one of the optimizers under test; `jit` is what Keras's own fit does, not what ours does."""
    optimizers = {
        "adam": lambda: keras.optimizers.Adam(0.001),
        "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
        "schedule": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.002, 100), clipnorm=1.0),
        "averaged": lambda: keras.optimizers.Adam(0.001, use_ema=True, ema_momentum=0.9),
    }
    model = make(7)
    model.compile(optimizers[optimizer](), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=jit)
    return model


def baseline(seed: int) -> keras.Model:
    return build_baseline(seed=seed)


def assert_agree(ours: keras.Model, trainer: Trainer, theirs: keras.Model, history: dict[str, list[float]]) -> None:
    """Loss within 1e-4, accuracy within 1e-3, weights within 2e-3."""
    assert trainer.callback_metrics["loss"] == pytest.approx(history["loss"][0], abs=1e-4)
    assert trainer.callback_metrics["accuracy"] == pytest.approx(history["accuracy"][0], abs=1e-3)
    for a, b in zip(weights(ours), weights(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "schedule", "averaged"])
def test_the_baseline_agrees_with_keras_fit(
    optimizer: str, mnist: Dataset, digits: Digits, quiet: Callable[..., Trainer]
) -> None:
    ours, theirs = compiled(baseline, optimizer), compiled(baseline, optimizer)
    untrained = weights(ours)
    trainer = quiet()
    trainer.fit(ours, digits(N))
    x = mnist.train_images[:N] * np.float32(1 / 255)
    history = theirs.fit(x, mnist.train_labels[:N], batch_size=32, shuffle=False, verbose=0).history
    assert_agree(ours, trainer, theirs, history)
    assert max(np.abs(a - b).max() for a, b in zip(weights(ours), untrained, strict=True)) > 0.01  # it did train


def test_batch_normalisation_agrees_with_keras_compiled_fit(mnist: Dataset, quiet: Callable[..., Trainer]) -> None:
    x, y = mnist.train_images[:N] * np.float32(1 / 255), mnist.train_labels[:N]
    ours, theirs = compiled(normalized_net, "momentum"), compiled(normalized_net, "momentum", jit=True)
    trainer = quiet()
    trainer.fit(ours, ArrayLoader(x, y))
    history = theirs.fit(x, y, batch_size=32, shuffle=False, verbose=0).history
    assert_agree(ours, trainer, theirs, history)


def test_a_short_last_batch_is_trained_on_as_keras_does(mnist: Dataset, digits: Digits, quiet: Callable[..., Trainer]) -> None:
    ours, theirs = compiled(baseline, "momentum"), compiled(baseline, "momentum")
    trainer = quiet()
    trainer.fit(ours, digits(35))  # so few that its share in the weights cannot hide
    assert trainer.global_step == 2
    x = mnist.train_images[:35] * np.float32(1 / 255)
    history = theirs.fit(x, mnist.train_labels[:35], batch_size=32, shuffle=False, verbose=0).history
    assert trainer.callback_metrics["loss"] == pytest.approx(history["loss"][0], abs=1e-5)
    for a, b in zip(weights(ours), weights(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_validation_and_test_agree_with_keras_evaluate(mnist: Dataset, digits: Digits, quiet: Callable[..., Trainer]) -> None:
    model = build_baseline(seed=1)
    trainer = quiet(jit_compile=False, num_sanity_val_steps=0)
    trainer.fit(model, digits(320), digits(770, batch_size=500))
    x = mnist.train_images[:770] * np.float32(1 / 255)
    loss, accuracy = model.evaluate(x, mnist.train_labels[:770], verbose=0)
    assert trainer.callback_metrics["val_loss"] == pytest.approx(loss, abs=1e-5)
    assert trainer.callback_metrics["val_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    (tested,) = trainer.test(model, digits(770, batch_size=500))
    assert tested == pytest.approx({"test_loss": loss, "test_accuracy": accuracy}, abs=1e-5)
    (validated,) = trainer.validate(model, digits(770, batch_size=500))
    assert validated == pytest.approx({"val_loss": loss, "val_accuracy": accuracy}, abs=1e-5)


def test_predictions_are_the_models_own(mnist: Dataset, digits: Digits, quiet: Callable[..., Trainer]) -> None:
    model = build_baseline(seed=1)
    outputs = quiet().predict(model, digits(100))
    assert [len(output) for output in outputs] == [32, 32, 32, 4]
    expected = model.predict(mnist.train_images[:100] * np.float32(1 / 255), verbose=0)
    np.testing.assert_allclose(np.concatenate(outputs), expected, atol=1e-6)


def test_a_model_comes_back_usable_by_plain_keras(mnist: Dataset, digits: Digits, quiet: Callable[..., Trainer]) -> None:
    model = build_baseline(seed=1)
    optimizer = model.optimizer
    quiet(jit_compile=False).fit(model, digits(640))
    assert model.optimizer is optimizer
    assert int(optimizer.iterations) == 20
    x, y = mnist.train_images[:640] * np.float32(1 / 255), mnist.train_labels[:640]
    history = model.fit(x, y, verbose=0).history
    assert set(history) == {"loss", "accuracy"}
    assert int(optimizer.iterations) == 40
    assert model.evaluate(x, y, verbose=0)[1] > 0.8


def test_an_overridden_train_step_is_used(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    class Frozen(keras.Model):
        def train_step(self, data: object) -> dict[str, object]:
            x, y = data  # type: ignore[misc]
            return {"loss": keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, self(x)))}

    inner = build_baseline(seed=1)
    model = Frozen(inner.inputs, inner.outputs)
    model.compile("adam", "sparse_categorical_crossentropy")
    before = weights(model)
    quiet(jit_compile=False).fit(model, digits(320))
    for a, b in zip(weights(model)[:6], before[:6], strict=True):
        np.testing.assert_array_equal(a, b)


def test_sample_weights_reach_the_loss(mnist: Dataset, quiet: Callable[..., Trainer]) -> None:
    x, y = mnist.train_images[:N] * np.float32(1 / 255), mnist.train_labels[:N]
    weight = np.where(y < 5, 0.0, 2.0).astype(np.float32)
    ours, theirs = compiled(baseline, "momentum"), compiled(baseline, "momentum")
    quiet().fit(ours, ArrayLoader(x, y, weight))
    theirs.fit(x, y, sample_weight=weight, batch_size=32, shuffle=False, verbose=0)
    for a, b in zip(weights(ours), weights(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_an_uncompiled_model_is_refused(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    with pytest.raises(ValueError, match=r"not compiled: call model\.compile"):
        quiet().fit(normalized_net(0), digits(64))
