"""`keras.Model.fit`'s arguments and result, with our loop."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from mnist_tuner.trainer.arguments import check_choices, check_numbers
from mnist_tuner.trainer.callbacks import ModelCheckpoint
from mnist_tuner.trainer.data import ArrayLoader, Chunk, DataModule, Loader, apply_transform, dense_arrays
from mnist_tuner.trainer.progress import Progress
from mnist_tuner.trainer.streams import StreamLoader, as_loader
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
    validation_steps: int | None = None,
    validation_freq: int = 1,
    batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    epochs: int = 1,
    initial_epoch: int = 0,
    shuffle: bool = True,
    transform: Callable[..., Any] | None = None,
    callbacks: Sequence[Any] | Any = (),
    verbose: Literal["auto", 0, 1, 2] = 0,
) -> keras.callbacks.History:
    """Trains a compiled model as ``model.fit`` does, with the compiled loop.

    The loop is kept with the model, so that a second call compiles nothing. The order of the rows follows from the seed given
    to `seed_everything` (or the `DataModule`'s own) and the number of the epoch: calls for epochs 0 to 2 and 2 to 5 do what one
    call for 0 to 5 does, to the bit where XLA is chosen for all of them or for none (see `Trainer`'s jit_compile).

    Args:
        model: compiled; trained in place, with the optimizer as it stands.
        x: an array ``(n, ...)`` or a structure of them, or a `DataModule`, or whatever else `Trainer.fit` takes as loader.
        y, sample_weight: arrays ``(n, ...)`` or structures of them; a loader's batches hold their own.
        class_weight: a weight for each class, where y holds their numbers, ``(n,)`` or ``(n, 1)``, or is one-hot.
        validation_data: arrays ``(x, y)`` or ``(x, y, sample_weight)``, or one loader or several.
        validation_split: instead, the share of the arrays, from their end, that is held out.
        validation_batch_size: of the validation's arrays; by default batch_size.
        validation_steps: at most so many batches a validation.
        validation_freq: validate after every so many epochs.
        batch_size: of arrays; by default such that there are steps_per_epoch (or validation_steps) batches, or 32.
        steps_per_epoch: so many batches an epoch, of which the next goes on where one has ended, until the data have; of a
            `DataModule` the first ones in each.
        epochs: the epoch to end before.
        initial_epoch: the epoch to begin with, from 0.
        shuffle: whether arrays are shuffled anew each epoch, and the batches of a `keras.utils.PyDataset` that ends.
        transform: for arrays, a function of the batch's parts that returns them changed, traced into the graph.
        callbacks: Keras's or ours.
        verbose: 0 or "auto" for silence, 1 or 2 for a progress display.

    Returns:
        Keras's History.

    Raises:
        TypeError: the data is of a kind that the trainer does not know.
        ValueError: an argument is out of its range, or does not go with another.
        NonFiniteLossError: the loss became infinite or not a number.
    """
    check_choices(verbose=(verbose, ("auto", 0, 1, 2)), shuffle=(shuffle, (True, False)))
    numbers = {"batch_size": batch_size, "steps_per_epoch": steps_per_epoch, "validation_freq": validation_freq}
    numbers |= {"validation_steps": validation_steps, "validation_batch_size": validation_batch_size}
    check_numbers(**{name: (number, 1) for name, number in numbers.items() if number is not None})
    if not 0 <= validation_split < 1 or (validation_split and validation_data is not None):
        raise ValueError(f"validation_split is {validation_split}: expected 0 to less than 1, with arrays and no validation_data")
    if not 0 <= initial_epoch < epochs:
        raise ValueError(f"initial_epoch is {initial_epoch} and epochs {epochs}: expected 0 <= initial_epoch < epochs")
    for_arrays = {"y": y, "sample_weight": sample_weight, "validation_split": validation_split or None, "transform": transform}
    if isinstance(x, DataModule):
        more = {"class_weight": class_weight, "validation_data": validation_data}
        _refuse(for_arrays | more, "x is a DataModule, which brings its own data: leave out {}")
    elif not _are_arrays(x):
        _refuse(for_arrays, f"x is a {type(x).__name__}: {{}} goes with arrays; a loader's batches are (x, y, sample_weight)")
    history = keras.callbacks.History()
    given = callbacks if isinstance(callbacks, Sequence) else [] if callbacks is None else [callbacks]
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[*map(_without_idle_batch_hooks, given), history],
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in given),
        enable_progress_bar=verbose in (1, 2),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_train_batches=steps_per_epoch if steps_per_epoch and isinstance(x, DataModule) else 1.0,
        limit_val_batches=validation_steps or 1.0,
        check_val_every_n_epoch=validation_freq,
    )
    trainer.progress, trainer.verbose = Progress(epoch=initial_epoch), verbose
    if isinstance(x, DataModule):
        trainer.fit(model, datamodule=x)
        return history
    if validation_split:
        (x, y, sample_weight), validation_data = _halves((x, y, sample_weight), validation_split)
    if _are_arrays(x):
        size = batch_size or _batch_size(x, steps_per_epoch)
        train: Loader = ArrayLoader(x, y, sample_weight, batch_size=size, shuffle=shuffle, transform=transform)
    elif isinstance(x, keras.utils.PyDataset):
        x.on_epoch_end()  # as Keras 3.15 does before its first epoch: some put their rows in order there
        train = StreamLoader(x, shuffle)
    else:
        train = as_loader(x, "x")
    if class_weight:
        train = copy(train)
        train.transform = _Weighted(train.transform, _checked(class_weight))
    validation = validation_data
    if _are_arrays(validation_data):
        parts = keras.utils.unpack_x_y_sample_weight(validation_data)
        size = validation_batch_size or batch_size or _batch_size(parts[0], validation_steps)
        validation = ArrayLoader(*parts, batch_size=size, transform=transform)
    trainer.fit(model, _FitEpochs(train, steps_per_epoch), validation)
    return history


def _refuse(arguments: dict[str, Any], reason: str) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(reason.format(name))


def _are_arrays(data: Any) -> bool:
    """Whether it is an array or a structure of them (with None for what is left out), and not a list of batches."""
    if isinstance(data, list) and all(isinstance(part, (list, tuple, dict)) for part in data):
        return False
    parts = [part for part in tf.nest.flatten(data) if part is not None]
    return bool(parts) and all(hasattr(part, "__array__") for part in parts)


def _halves(arrays: tuple[Any, ...], share: float) -> tuple[Any, Any]:
    """The first rows of x, y and sample_weight, and the share of the last.

    Raises:
        ValueError: one of the two has no rows.
    """
    names = ("x", "y", "sample_weight")
    given = [None if part is None else dense_arrays(part, name) for name, part in zip(names, arrays, strict=True)]
    rows = len(tf.nest.flatten(given[0])[0])
    cut = math.floor(rows * (1 - share))
    if not 0 < cut < rows:
        raise ValueError(
            f"validation_split is {share} of {rows} rows, which leaves {cut} and {rows - cut}: expected some of each"
        )

    def some(rows: slice) -> tuple[Any, ...]:
        return tuple(None if part is None else tf.nest.map_structure(lambda array: array[rows], part) for part in given)

    return some(slice(cut)), some(slice(cut, None))


def _batch_size(x: Any, steps: int | None) -> int:
    """Such that there are so many batches."""
    rows = tf.nest.flatten(x)[0].shape[0]
    return math.ceil(rows / steps) if steps else 32


@dataclass(frozen=True)
class _Weighted:
    """A transform that gives each example the weight of its class, after another transform.

    Two with equal weights are equal, so that the loop that is compiled with the one serves the other.
    """

    transform: Callable[..., Any] | None
    weights: tuple[tuple[int, float], ...]

    def __call__(self, *batch: Any) -> tuple[Any, Any, tf.Tensor]:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(apply_transform(self.transform, batch))
        if y is None or tf.nest.is_nested(y) or weight is not None:
            came = "several outputs" if tf.nest.is_nested(y) else "no y" if y is None else "a sample_weight as well"
            raise ValueError(f"class_weight was given, and the batches hold {came}: expected (x, y) with one y")
        classes = tf.convert_to_tensor(y)
        classes = tf.cast(classes, tf.int32) if classes.dtype.is_bool else tf.round(classes)
        if classes.shape.rank > 1:
            classes = tf.squeeze(classes, -1) if classes.shape[-1] == 1 else tf.argmax(classes, -1)
        lowest, highest = self.weights[0][0], self.weights[-1][0]
        table = np.ones(highest - lowest + 1, keras.config.floatx())
        for label, value in self.weights:
            table[label - lowest] = value
        place = tf.cast(classes, tf.int32) - lowest
        inside = (place >= 0) & (place < len(table))
        return x, y, tf.where(inside, tf.gather(table, tf.where(inside, place, 0)), tf.ones([], table.dtype))


def _checked(class_weight: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    try:
        weights = sorted((int(label), float(value)) for label, value in class_weight.items())
        whole = all(int(label) == label for label in class_weight)  # int() would make 1 of "1" and of 1.5
    except (AttributeError, TypeError, ValueError):
        whole = False
    if not whole:
        raise ValueError(f"class_weight is {class_weight!r}: expected a dict, a weight for each class's number")
    return tuple(weights)


class _FitEpochs(Loader):
    """A loader's batches in the epochs that `fit` makes of them.

    Args:
        loader: of the batches.
        steps: so many an epoch, of which the next goes on where one has ended, until the data have; None for all.
    """

    def __init__(self, loader: Loader, steps: int | None) -> None:
        self.loader, self.steps, self.transform = loader, steps, loader.transform
        self.of_arrays = loader.of_arrays
        known = loader.num_batches < math.inf
        self._epochs_per_pass = math.ceil(loader.num_batches / steps) if steps and known else None
        self._begins_at = 0 if known else None
        # At the end of a dataset whose length is known Keras 3.15 begins an iteration over it, which without steps_per_epoch
        # it leaves for another one: a dataset that is shuffled is in the order of every other iteration.
        whole = known and isinstance(loader, StreamLoader) and isinstance(loader.source, tf.data.Dataset)
        self._dataset: Any = loader if whole else None

    @property
    def num_batches(self) -> float:
        """Batches per epoch."""
        return self.steps or self.loader.num_batches

    def first_batch(self) -> Any:
        """The loader's."""
        return self.loader.first_batch()

    def chunks(self, epoch: int, start: int = 0, stop: float = math.inf) -> Iterator[Chunk]:
        """The epoch's batches from `start` on, to `stop`."""
        if self.steps is None:
            iteration, first = epoch * (2 if self._dataset else 1), 0
        else:
            if self._begins_at is None:
                self._begins_at = epoch
            iteration, part = divmod(epoch - self._begins_at, self._epochs_per_pass or 2**31)
            first = part * self.steps
        done, end = start, min(stop, self.num_batches)
        for chunk in self.loader.chunks(iteration, first + start, first + end):
            done = chunk.first + chunk.batches - first
            yield replace(chunk, first=chunk.first - first)
        if self._dataset and first + done == self.loader.num_batches:
            self._dataset.begin()
        if self.steps and done < end:
            self._epochs_per_pass = self._epochs_per_pass or part + 1
            warnings.warn(
                f"the data ended after {done} of the {self.steps} steps of epoch {epoch + 1}; the next epoch begins them anew. "
                "To have steps_per_epoch in each, repeat them (dataset.repeat())",
                stacklevel=2,
            )


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
