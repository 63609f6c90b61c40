"""Small nets and data for the trainer's tests: points in four dimensions, of three classes that overlap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tuner.trainer import ModelCheckpoint, Module, Trainer

Quiet = Callable[..., Trainer]
Points = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def quiet_trainer(**options: Any) -> Trainer:
    """A trainer of one epoch without display, and without logs and checkpoints that were not asked for."""
    callbacks = options.get("callbacks")
    asked = any(isinstance(each, ModelCheckpoint) for each in (callbacks if isinstance(callbacks, list) else [callbacks]))
    silent = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": asked}
    return Trainer(**{**silent, "max_epochs": 1, **options})


def points(rows: int, seed: int = 0) -> Points:
    """So many points, float32 ``(rows, 4)``, and their classes."""
    y = np.arange(rows) % 3
    return (np.random.default_rng(seed).normal(size=(rows, 4)) + y[:, None]).astype(np.float32), y


def net(activation: str | None = None) -> keras.Model:
    """A net of one layer for them, always with the same weights; without an activation it gives logits."""
    layer = keras.layers.Dense(3, activation=activation, kernel_initializer=keras.initializers.GlorotUniform(3))
    return keras.Sequential([keras.Input((4,)), layer])


class Net(Module):
    """The same net in a module."""

    def configure_model(self) -> keras.Model:
        return net()

    def loss(self, batch: Any) -> tf.Tensor:
        assert self.model is not None
        logits = keras.ops.cast(self.model(batch[0]), "float32")
        return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(batch[1], logits, from_logits=True))

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> Any:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: tf.Tensor) -> Any:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: tf.Tensor) -> Any:
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return keras.optimizers.Adam(0.05)
