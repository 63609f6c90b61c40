"""How often a step is traced, and for batches of what sizes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from mnist_tuner.trainer import ArrayLoader, KerasModule
from tests.support.nets import Net, Quiet, net, points
from tests.trainer.conftest import assert_same_bits, weights

X, Y = points(72)  # with batches of 16: four, and a short one


class Sized(Net):
    """Writes down the batch size that each trace of a step finds; may need to know it."""

    def __init__(self, needs_size: bool = False) -> None:
        self.traced: dict[str, list[int | None]] = {"train": [], "val": []}
        self.needs_size = needs_size

    def loss(self, batch: Any) -> tf.Tensor:
        loss = super().loss(batch)
        return loss * batch[0].shape[0] / batch[0].shape[0] if self.needs_size else loss

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> Any:
        self.traced["train"].append(batch[0].shape[0])
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: tf.Tensor) -> Any:
        self.traced["val"].append(batch[0].shape[0])
        super().validation_step(batch, batch_idx)


def dataset(drop_remainder: bool = False) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(16, drop_remainder=drop_remainder)


@pytest.mark.parametrize(
    ("data", "jit_compile", "sizes"),
    [
        (ArrayLoader(X, Y, batch_size=16), "auto", [None]),
        (ArrayLoader(X, Y, batch_size=16), False, [None]),
        (ArrayLoader(X, Y, batch_size=18), False, [18]),
        (ArrayLoader(X, Y, batch_size=100), False, [72]),
        (dataset(), False, [None]),
        (dataset(drop_remainder=True), False, [16]),
        (ArrayLoader(X, Y, batch_size=16), True, [16, 8]),
    ],
    ids=["auto", "plain", "whole batches", "one batch", "dataset", "dataset of whole batches", "XLA"],
)
def test_a_plain_graph_is_traced_once_for_whole_batches_and_a_short_one(
    quiet: Quiet, data: Any, jit_compile: Any, sizes: list[int | None]
) -> None:
    module = Sized()
    quiet(max_epochs=2, jit_compile=jit_compile, num_sanity_val_steps=0).fit(module, data, data)
    assert module.traced["train"] == sizes
    assert module.traced["val"] == (sizes if jit_compile is not True else [None])


def test_a_step_that_needs_to_know_the_size_is_traced_for_each(quiet: Quiet) -> None:
    module, other = Sized(needs_size=True), Net()
    for each in (module, other):
        quiet(max_epochs=2, jit_compile=False).fit(each, ArrayLoader(X, Y, batch_size=16))
    assert module.traced["train"] == [None, 16, 8]
    np.testing.assert_allclose(weights(module.model)[0], weights(other.model)[0], rtol=1e-6)


class Failing(Net):
    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> Any:
        raise LookupError("the step's own")


def test_the_error_of_a_step_comes_as_it_is(quiet: Quiet) -> None:
    with pytest.raises(LookupError, match="the step's own"):
        quiet(jit_compile=False).fit(Failing(), ArrayLoader(X, Y, batch_size=16))


def test_batches_of_two_sizes_train_as_in_keras(quiet: Quiet) -> None:
    ours, theirs = net("softmax"), net("softmax")
    for model in (ours, theirs):
        model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    trainer = quiet(max_epochs=3)
    trainer.fit(KerasModule(ours), ArrayLoader(X, Y, batch_size=16))
    history = theirs.fit(X, Y, batch_size=16, epochs=3, shuffle=False, verbose=0).history
    assert_same_bits(weights(ours), weights(theirs))
    assert trainer.callback_metrics["loss"] == history["loss"][-1]
