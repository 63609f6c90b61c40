"""`keras.Model.fit`'s arguments and result, with our loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mnist_tuner.trainer.datamodule import ArrayLoader, DataModule
from mnist_tuner.trainer.states import Progress
from mnist_tuner.trainer.trainer import Trainer


def fit_keras_model(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    validation_data: Any = None,
    validation_split: float = 0.0,
    validation_batch_size: int | None = None,
    batch_size: int = 32,
    steps_per_epoch: int | None = None,
    epochs: int = 1,
    initial_epoch: int = 0,
    shuffle: bool = True,
    transform: Callable[..., Any] | None = None,
    callbacks: Sequence[Any] | Any = (),
    verbose: Any = 0,
) -> keras.callbacks.History:
    """Trains a compiled model as ``model.fit`` does, with the compiled loop.

    The loop is kept with the model, so that a second call compiles nothing. The order of the rows follows from the seed given
    to `seed_everything` (or the `DataModule`'s own) and the number of the epoch: calls for epochs 0 to 2 and 2 to 5 do what one
    call for 0 to 5 does.

    Args:
        model: compiled; trained in place, with the optimizer as it stands.
        x: an array ``(n, ...)`` or a structure of them, or a `DataModule`, or whatever else `Trainer.fit` takes as loader.
        y, sample_weight: arrays ``(n, ...)``.
        class_weight: a weight for each class, where y holds their numbers.
        validation_data: ``(x, y)`` or ``(x, y, sample_weight)``, or a loader.
        validation_split: instead, the share of the arrays, from their end, that is held out.
        validation_batch_size: of the validation's arrays; by default 500, or batch_size if that is more.
        batch_size: of arrays.
        steps_per_epoch: at most so many batches an epoch.
        epochs: the epoch to end before.
        initial_epoch: the epoch to begin with, from 0.
        shuffle: whether arrays are shuffled anew each epoch.
        transform: for arrays, a function of the batch's parts that returns them changed, traced into the graph.
        callbacks: Keras's or ours.
        verbose: 0 or "auto" for silence, 1 or 2 for a progress display.

    Returns:
        Keras's History.

    Raises:
        ValueError: an argument is out of its range.
        NonFiniteLossError: the loss became infinite or not a number.
    """
    if not 0 <= validation_split < 1 or (validation_split and (y is None or validation_data is not None)):
        raise ValueError(f"validation_split is {validation_split}: expected 0 to less than 1, with arrays and no validation_data")
    if not 0 <= initial_epoch < epochs:
        raise ValueError(f"initial_epoch is {initial_epoch} and epochs {epochs}: expected 0 <= initial_epoch < epochs")
    history = keras.callbacks.History()
    given = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[*map(_without_idle_batch_hooks, given), history],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=verbose in (1, 2),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_train_batches=1.0 if steps_per_epoch is None else steps_per_epoch,
    )
    trainer.progress, trainer.verbose = Progress(epoch=initial_epoch), verbose
    if isinstance(x, DataModule):
        if y is not None or validation_data is not None:
            raise ValueError("a DataModule brings its own labels and validation data: leave out y and validation_data")
        trainer.fit(model, datamodule=x)
    else:
        train, validation = x, validation_data
        held_out = validation_batch_size or max(batch_size, 500)
        if y is not None:
            weights = _weights_of(y, sample_weight, class_weight)
            rows = np.arange(len(tf.nest.flatten(y)[0]))
            cut = round(len(rows) * (1 - validation_split))
            taken = rows[:cut] if validation_split else None
            train = ArrayLoader(x, y, weights, indices=taken, batch_size=batch_size, shuffle=shuffle, transform=transform)
            if validation_split:
                validation = ArrayLoader(x, y, sample_weight, indices=rows[cut:], batch_size=held_out, transform=transform)
        arrays = isinstance(validation_data, list) and all(isinstance(part, np.ndarray) for part in validation_data)
        if isinstance(validation_data, tuple) or arrays:
            validation = ArrayLoader(*validation_data, batch_size=held_out, transform=transform)
        trainer.fit(model, train, validation)
    return history


def _weights_of(y: Any, sample_weight: Any, class_weight: Mapping[int, float] | None) -> Any:
    if class_weight is None:
        return sample_weight
    weights = np.array([class_weight.get(int(label), 1.0) for label in np.ravel(y)], np.float32)
    return weights if sample_weight is None else weights * np.asarray(sample_weight)


class _Epochs(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """The part of KerasTuner's callback that does something."""

    def __init__(self, callback: keras.callbacks.Callback) -> None:
        super().__init__()
        self.callback = callback

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self.callback.set_model(model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.callback.on_epoch_end(epoch, logs)


def _without_idle_batch_hooks(callback: Any) -> Any:
    """KerasTuner 1.4.8 hands every batch on to methods of its tuner that do nothing unless somebody overrides them; a batch
    hook makes the loop run one step per call, six times as slow."""
    tuner = getattr(callback, "tuner", None)
    if type(callback).__name__ != "TunerCallback" or tuner is None:
        return callback
    idle = all(getattr(type(tuner), name).__module__.startswith("keras_tuner.") for name in ("on_batch_begin", "on_batch_end"))
    return _Epochs(callback) if idle else callback
