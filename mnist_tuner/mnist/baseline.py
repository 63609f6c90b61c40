"""The baseline network."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from mnist_tuner.trainer.optimization import POLICIES


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
    *body, output = model.layers
    hidden = images
    for layer in body:
        hidden = layer(hidden)
    logits = tf.matmul(tf.cast(hidden, output.kernel.dtype), output.kernel) + output.bias
    return tf.sigmoid(logits), tf.nn.softmax(logits)
