"""The baseline network: how it is built, and how it is judged. Keras is imported when it is needed."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnist_tuner.config import TrainConfig
from mnist_tuner.errors import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from mnist_tuner.mnist.data import Dataset, MNISTDataModule
    from mnist_tuner.trainer import Trainer


def build_baseline(
    units: Sequence[int] = (100, 100),
    *,
    input_shape: tuple[int, ...] = (28, 28),
    classes: int = 10,
    learning_rate: float = 0.001,
    seed: int | None = None,
    precision: str = "32-true",
) -> keras.Model:
    """The classic digit classifier: Flatten, a Dense ReLU layer per width, a Dense sigmoid layer; compiled.

    With the default widths and MNIST's shapes it has 89,610 parameters. Optimizer: Adam; loss: sparse categorical
    cross-entropy; metric: accuracy.

    Keras keeps the logits behind a sigmoid and computes this loss from them, so what is trained is the softmax of the
    logits; see `class_probabilities`.

    Args:
        units: the hidden layers' widths.
        input_shape: height and width of the images; the model takes float32 ``(n, height, width)``.
        classes: the number of outputs.
        learning_rate: Adam's.
        seed: of the initial weights; None for Keras's global seed.
        precision: "32-true", "16-mixed" or "bf16-mixed": what the hidden layers compute in. Weights and output stay float32.

    Returns:
        A compiled `keras.Model`; its output is float32 ``(n, classes)``, each between 0 and 1.
    """
    import keras

    from mnist_tuner.trainer.optimization import POLICIES

    seeds = [None] * (len(units) + 1) if seed is None else np.random.SeedSequence(seed).generate_state(len(units) + 1)
    policy = POLICIES[precision]

    def dense(width: int, activation: str, name: str, layer_seed: np.uint32 | None, dtype: str) -> keras.layers.Dense:
        initializer = keras.initializers.GlorotUniform(None if layer_seed is None else int(layer_seed))
        return keras.layers.Dense(width, activation=activation, kernel_initializer=initializer, name=name, dtype=dtype)

    model = keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(name="flatten"),
            *(dense(width, "relu", f"hidden_{i + 1}", seeds[i], policy) for i, width in enumerate(units)),
            dense(classes, "sigmoid", "output", seeds[-1], "float32"),
        ],
        name="baseline",
    )
    model.dtype_policy = policy  # by which compile decides whether to scale the loss
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def class_probabilities(model: keras.Model, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The baseline's outputs, and what they are worth as probabilities.

    Args:
        model: from `build_baseline`.
        images: float32, shape ``(n, height, width)``.

    Returns:
        The model's own outputs (sigmoids) and the softmax of the logits behind them, which is what the loss trains; both
        float32 ``(n, classes)``.
    """
    import tensorflow as tf

    *body, output = model.layers
    hidden = images
    for layer in body:
        hidden = layer(hidden)
    logits = tf.matmul(tf.cast(hidden, output.kernel.dtype), output.kernel) + output.bias
    return tf.sigmoid(logits), tf.nn.softmax(logits)


def build(config: TrainConfig, dataset: Dataset) -> keras.Model:
    """The model that the options want, with its first weights."""
    return build_baseline(
        config.hidden,
        input_shape=dataset.image_shape,
        classes=dataset.classes,
        learning_rate=config.learning_rate,
        seed=config.seed,
        precision=config.precision,
    )


def judging_module(model: keras.Model) -> Any:
    """A module that predicts with the probabilities beside the model's own outputs, and counts the loss as Keras's test does."""
    from mnist_tuner.trainer import KerasModule

    class Judge(KerasModule):
        def predict_step(self, batch: Any, batch_idx: Any, dataloader_idx: int = 0) -> Any:
            self.model.test_step(batch)
            return class_probabilities(self.model, batch[0])

    return Judge(model)


def judge(trainer: Trainer, module: Any, data: MNISTDataModule) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], float]:
    """Measures a model on the test images, in one pass: `Trainer.test` and `predict` after each other trace two graphs.

    Args:
        trainer: which has trained it.
        module: the model's `judging_module`.
        data: with the test images.

    Returns:
        The class that each image was read as, uint8 ``(n,)``; the softmax of the logits, float32 ``(n, classes)``; the mean loss.

    Raises:
        ArithmeticError: of an image it makes no finite number.
    """
    outputs = trainer.predict(module, datamodule=data)
    own, probabilities = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    check_finite(probabilities)
    return own.argmax(axis=1).astype(np.uint8), probabilities, float(module.model.get_metrics_result()["loss"])


def check_finite(probabilities: npt.NDArray[np.float32]) -> None:
    """What is not finite is no answer.

    Args:
        probabilities: shape ``(n, classes)``.

    Raises:
        ArithmeticError: some are not, as after a training that diverged.
    """
    bad = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if bad:
        raise ArithmeticError(
            f"for {bad:,} of {len(probabilities):,} images the net makes no finite number: it has diverged or is damaged"
        )


def check_memory(option: str, hidden: Sequence[int], batch_size: int, dataset: Dataset, processes: int = 1) -> None:
    """Refuses a model that cannot fit, before the machine begins to swap.

    Args:
        option: by which the widths were given.
        hidden: the hidden layers' widths.
        batch_size: images per optimizer step.
        dataset: what it is trained on.
        processes: that train such a model at the same time.

    Raises:
        InputError: it needs more than the machine has.
    """
    widths = [math.prod(dataset.image_shape), *hidden, dataset.classes]
    parameters = sum((a + 1) * b for a, b in pairwise(widths))
    # float32: weights, gradients, Adam's two moments and a copy to save; for each image its activations and their gradients
    needed = processes * (20 * parameters + 12 * batch_size * sum(widths))
    if hasattr(os, "sysconf") and needed > (there := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        raise InputError(
            f"{option} makes {parameters:,} parameters, which with a batch size of {batch_size} need {needed / 2**30:,.0f} GiB "
            f"to train{f' in {processes} processes' if processes > 1 else ''}; this machine has {there / 2**30:,.0f} GiB"
        )
