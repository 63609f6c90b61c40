"""Data and models for the trainer's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from mnist_tuner.data import Dataset, scale_pixels
from mnist_tuner.trainer import ArrayLoader, ModelCheckpoint, Trainer

Digits = Callable[..., ArrayLoader]


@pytest.fixture
def digits(mnist: Dataset) -> Digits:
    """Makes a loader of the first training images."""

    def make(n: int = 1000, batch_size: int = 32, shuffle: bool = False, seed: int = 0) -> ArrayLoader:
        return ArrayLoader(
            mnist.train_images[:n],
            mnist.train_labels[:n],
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            transform=scale_pixels,
        )

    return make


@pytest.fixture
def quiet() -> Callable[..., Trainer]:
    """Makes a trainer without display, and without logs and checkpoints that were not asked for."""

    def make(**options: Any) -> Trainer:
        callbacks = options.get("callbacks")
        asked = any(isinstance(each, ModelCheckpoint) for each in (callbacks if isinstance(callbacks, list) else [callbacks]))
        silent = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": asked}
        return Trainer(**{**silent, "max_epochs": 1, **options})

    return make


def weights(model: keras.Model) -> list[npt.NDArray[np.float32]]:
    """Every variable of a model, copied."""
    return [np.array(variable.numpy()) for variable in model.variables]


def assert_same_bits(left: keras.Model, right: keras.Model) -> None:
    """The two models' variables are equal to the bit."""
    for a, b in zip(weights(left), weights(right), strict=True):
        np.testing.assert_array_equal(a, b)
