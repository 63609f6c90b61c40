"""Data and models for the trainer's tests."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import numpy.typing as npt
import pytest

from mnist_tuner.mnist.data import Dataset, scale_pixels
from mnist_tuner.trainer import ArrayLoader, KerasModule
from mnist_tuner.trainer.module_state import state_of
from tests.support.nets import Quiet, quiet_trainer

Digits = Callable[..., ArrayLoader]
Weights = list[npt.NDArray[np.float32]]


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
def quiet() -> Quiet:
    """Makes a trainer without display, and without logs and checkpoints that were not asked for."""
    return quiet_trainer


class Reused:
    """Gives one compiled model again and again, each time put back to how it was made: its loops are traced but once.

    A test that compares two trainings of it must copy what the first came to.
    """

    def __init__(self, make: Callable[[], keras.Model]) -> None:
        model = make()
        model.optimizer.build(model.trainable_variables)
        self._module = KerasModule(model)
        self._made = [(variable, np.array(variable.numpy())) for variable in (*model.variables, *model.optimizer.variables)]

    def __call__(self) -> KerasModule:
        for variable, value in self._made:
            variable.assign(value)
        self._module.reset_metrics()
        for log in state_of(self._module).logs.values():
            log.reset()
        return self._module


def weights(model: keras.Model) -> Weights:
    """Every variable of a model, copied."""
    return [np.array(variable.numpy()) for variable in model.variables]


def assert_same_bits(*models: keras.Model | Weights) -> None:
    """The variables of two models, or what was copied of them, are equal to the bit."""
    left, right = (model if isinstance(model, list) else weights(model) for model in models)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)
