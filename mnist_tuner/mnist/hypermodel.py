"""The baseline with its two widths as hyperparameters."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

import keras
import keras_tuner
import numpy as np

from mnist_tuner.mnist.baseline import build_baseline
from mnist_tuner.mnist.data import scale_pixels
from mnist_tuner.trainer.keras_fit import fit_keras_model


class WidthHyperModel(keras_tuner.HyperModel):  # type: ignore[misc]  # KerasTuner has no types
    """An ordinary KerasTuner hypermodel: `units_1` and `units_2`, the widths of the baseline's hidden layers.

    It works in KerasTuner's own tuners as in ours::

        tuner = keras_tuner.RandomSearch(WidthHyperModel(), objective="val_accuracy", max_trials=10)
        tuner.search(MNISTDataModule(val_fraction=0.1), epochs=5)

    Args:
        low, high, step: the widths to choose from, both ends included.
        default: the width of both layers that the search begins with; it need not be among those.
        input_shape: height and width of the images.
        classes: the number of outputs.
        learning_rate: Adam's.
    """

    fit_can_be_repeated = True
    """`fit` keeps its compiled loop with the model: put back to new weights, it is not compiled again."""

    def __init__(
        self,
        low: int = 32,
        high: int = 512,
        step: int = 32,
        *,
        default: int = 100,
        input_shape: tuple[int, ...] = (28, 28),
        classes: int = 10,
        learning_rate: float = 0.001,
    ) -> None:
        super().__init__(name="widths")
        self.low, self.high, self.step, self.default = low, high, step, default
        self.input_shape = input_shape
        self.classes = classes
        self.learning_rate = learning_rate

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Registers both widths."""
        self.widths(hp)

    def widths(self, hp: keras_tuner.HyperParameters) -> tuple[int, int]:
        """The widths that the hyperparameters hold."""
        first, second = (hp.Int(f"units_{i}", self.low, self.high, step=self.step, default=self.default) for i in (1, 2))
        return first, second

    def parameters(self, hp: keras_tuner.HyperParameters) -> int:
        """How many parameters the model has; known without building it."""
        return sum((a + 1) * b for a, b in pairwise((prod(self.input_shape), *self.widths(hp), self.classes)))

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The compiled baseline with these widths; its first weights come from Keras's global seed."""
        return build_baseline(
            self.widths(hp), input_shape=self.input_shape, classes=self.classes, learning_rate=self.learning_rate
        )

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, x: Any = None, y: Any = None, **options: Any
    ) -> keras.callbacks.History:
        """Trains the model with the compiled loop.

        Args:
            hp: the hyperparameters.
            model: what `build` returned for them.
            x: a `DataModule`, or the images: uint8 from 0 to 255 (scaled within the graph), or floats that are scaled.
            y: the labels.
            options: those of `fit_keras_model`: validation_data, epochs, initial_epoch, batch_size, callbacks.

        Returns:
            Keras's History, with one value per epoch for each metric.
        """
        if isinstance(x, np.ndarray) and x.dtype == np.uint8:
            options = {"transform": scale_pixels, **options}
        return fit_keras_model(model, x, y, **options)
