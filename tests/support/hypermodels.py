"""Hypermodels and data that cost next to nothing, for the search's tests. Workers import this file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import numpy.typing as npt

from mnist_tuner.search import Observer, TrialSummary

Array = npt.NDArray[Any]


def blobs(count: int = 120) -> tuple[Array, Array, tuple[Array, Array]]:
    """Points around three centres: x, y and validation_data."""
    rng = np.random.default_rng(3)
    y = np.arange(count) % 3
    x = (rng.normal(size=(count, 4)) + 2 * np.eye(3, 4)[y]).astype(np.float32)
    cut = count * 3 // 4
    return x[:cut], y[:cut], (x[cut:], y[cut:])


def accuracy(model: keras.Model, data: tuple[Array, Array]) -> float:
    """The share of rows that the model gets right."""
    return float((np.argmax(model(data[0]), axis=-1) == data[1]).mean())


def net(*layers: keras.layers.Layer, optimizer: Any = "adam") -> keras.Model:
    """A compiled net for `blobs`."""
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(3, activation="softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def trained(hp: keras_tuner.HyperParameters) -> keras.Model:
    """A net whose training is a real one, about a second long."""
    return net(keras.layers.Dense(hp.Int("units", 2, 8, step=2, default=5), activation="relu"))


class Wandering(keras_tuner.HyperModel):  # type: ignore[misc]  # KerasTuner has no types
    """In each epoch the weights take a random step: instead of a training, something that takes no time.

    What comes of it depends on the seeds, on the first weights and on all epochs before, as with a training.

    Args:
        log: a file that gets a line for each fit.
        fails: for which values (of "units") a fit raises.
    """

    widest = 16

    def __init__(self, log: Path | None = None, fails: Callable[[int], bool] | None = None) -> None:
        super().__init__()
        self.log, self.fails = log, fails

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        return net(
            keras.layers.Dense(
                hp.Int("units", 2, self.widest, step=2, default=5), activation=hp.Choice("activation", ["relu", "tanh"])
            ),
            optimizer="sgd",
        )

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, x: Array, y: Array, **options: Any) -> Any:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{hp.values}\n")
        if self.fails is not None and self.fails(hp.get("units")):
            raise LookupError(f"units of {hp.get('units')} cannot be had")
        history = keras.callbacks.History()
        callbacks = [*options["callbacks"], history]
        for callback in callbacks:
            callback.set_model(model)
            callback.on_train_begin()
        model.optimizer.build(model.trainable_variables)
        images, labels = (np.concatenate(pair) for pair in zip((x, y), options["validation_data"], strict=True))
        for epoch in range(options.get("initial_epoch", 0), options["epochs"]):
            for variable in model.trainable_variables:
                variable.assign_add(0.1 * np.random.normal(size=variable.shape))
            right = np.argmax(model(images), axis=-1) == labels
            logs = {"accuracy": float(right[: len(x)].mean()), "val_accuracy": float(right[len(x) :].mean())}
            for callback in callbacks:
                callback.on_epoch_end(epoch, dict(logs))
        return history


class Layered(Wandering):
    """A space that grows as it is looked at."""

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        layers = hp.Int("layers", 1, 3)
        return net(*(keras.layers.Dense(hp.Int(f"units_{i}", 2, 4, step=2)) for i in range(layers)), optimizer="sgd")


class Heard(Observer):
    """Remembers what it hears, and raises where it is asked to.

    Args:
        event: the name of the method that raises.
        number: at which of its calls, from 0.
        error: what it raises.
    """

    def __init__(self, event: str = "", number: int = 0, error: type[BaseException] = InterruptedError) -> None:
        self.event, self.number, self.error = event, number, error
        self.ended: list[TrialSummary] = []
        self.restored: list[str] = []
        self.again: list[tuple[str, str]] = []
        self.started: list[str] = []

    def _count(self, event: str) -> None:
        if event == self.event:
            self.number -= 1
            if self.number < 0:
                raise self.error("stopped by the test")

    def on_trial_started(self, trial_id: str, attempt: int, worker: str) -> None:
        self._count("on_trial_started")
        self.started.append(trial_id)

    def on_epoch(self, trial_id: str, replicate: int, epoch: int, value: float | None) -> None:
        self._count("on_epoch")

    def on_trial_again(self, trial_id: str, reason: str) -> None:
        self.again.append((trial_id, reason))

    def on_trial_ended(self, summary: TrialSummary, *, restored: bool) -> None:
        self._count("on_trial_ended")
        self.ended.append(summary)
        if restored:
            self.restored.append(summary.trial_id)


class Asking(Wandering):
    """One hyperparameter is first asked for while a trial trains."""

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, x: Array, y: Array, **options: Any) -> Any:
        hp.Choice("speed", [1, 2])
        return super().fit(hp, model, x, y, **options)
