"""Batches that somebody else makes: tf.data, Keras's PyDataset, any iterable. They need not fit into memory.

Consecutive batches are put together to a stage of about a hundred, over which the compiled loop runs: a call per batch would
cost several times the step.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mnist_tuner.trainer.datamodule import STAGE_BYTES, DataModule, Loader, Stage, one_ahead

STAGE_BATCHES = 100
Shape = list[tuple[tuple[int, ...], Any]]


def as_loader(data: Any, argument: str) -> Loader:
    """The data as the trainer takes it.

    Args:
        data: a loader, a `tf.data.Dataset` of batches, a `keras.utils.PyDataset`, or an iterable of batches that can be read
            again and again.
        argument: what the data was given as.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(data, Loader):
        return data
    if isinstance(data, DataModule):
        raise TypeError(f"a DataModule was given as {argument}: pass it as datamodule=")
    if isinstance(data, Iterator):
        raise TypeError(
            f"{argument} is a {type(data).__name__}, which can be read only once: make a tf.data.Dataset of it "
            "(tf.data.Dataset.from_generator), or give arrays in an ArrayLoader"
        )
    arrays = isinstance(data, (list, tuple)) and not all(isinstance(batch, (list, tuple, dict)) for batch in data)
    if (
        arrays
        or isinstance(data, (np.ndarray, tf.Tensor, str, bytes, dict))
        or not isinstance(data, (Iterable, keras.utils.PyDataset))
    ):
        raise TypeError(
            f"{argument} is a {type(data).__name__}: expected an ArrayLoader (of arrays x, y), a tf.data.Dataset of batches "
            "or a keras.utils.PyDataset"
        )
    return StreamLoader(data)


class StreamLoader(Loader):
    """Batches of a source, in order; of batches that differ in shape, those like the first run fastest.

    Resuming in mid-epoch is exact where the source gives equal batches in equal epochs: always with a seeded
    `tf.data.Dataset.shuffle`, whose order in an epoch depends on how often it has been iterated over: that is made up for.

    Args:
        source: a `tf.data.Dataset` of batches, a `keras.utils.PyDataset`, or an iterable of batches.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self._shape: Shape | None = None
        self._shapes: set[str] = set()
        self._epochs_begun = 0
        self._used = False

    @property
    def num_batches(self) -> float:
        """Batches per epoch; infinite where nobody knows."""
        if isinstance(self.source, tf.data.Dataset):
            cardinality = int(self.source.cardinality())
            return cardinality if cardinality >= 0 else float("inf")
        if isinstance(self.source, keras.utils.PyDataset):
            return self.source.num_batches if self.source.num_batches is not None else float("inf")
        return len(self.source) if hasattr(self.source, "__len__") else float("inf")

    def first_batch(self, size: int | None = None) -> Any:
        """The first batch, or its first `size` examples."""
        batch = next(self._batches(0), None)
        if batch is None:
            raise ValueError(f"the {type(self.source).__name__} gives no batches")
        self._batch_size_of(batch)
        return tf.nest.map_structure(lambda part: part[:size], batch)

    def fixed(self, batches: int) -> StreamLoader:
        """The first batches, kept in memory."""
        return StreamLoader([batch for batch, _ in zip(self._batches(0), range(batches), strict=False)])

    def stages(self, epoch: int, start: int = 0, stop: float = math.inf) -> Iterator[Stage]:
        """The epoch's batches from `start` on, to `stop`, in stages of equal shapes."""
        while self._epochs_begun < epoch:  # resumed: a shuffled source must come to the order of this epoch
            self._begin_epoch()
            next(self._batches(0), None)
            self._end_epoch()
            self._epochs_begun += 1
        self._epochs_begun += 1
        used, self._used = self._used, True
        self._begin_epoch()
        try:
            yield from one_ahead(self._grouped(start, stop), at_once=used)
        finally:  # also where the epoch is left before its end
            self._end_epoch()

    def _grouped(self, start: int, stop: float) -> Iterator[Stage]:
        group: list[Any] = []
        shape: Shape = []
        capacity = 0
        first, most = start, min(self.num_batches, stop)
        for batch in self._batches(start) if most == math.inf else islice(self._batches(start), max(0, int(most) - start)):
            size = self._batch_size_of(batch)
            if group and (len(group) == capacity or _shape(batch) != shape):
                yield self._stage(group, first, capacity)
                first, group = first + len(group), []
            if not group:
                shape = _shape(batch)
                batch_bytes = sum(int(part.nbytes) for part in tf.nest.flatten(batch))
                capacity = int(max(1, min(STAGE_BATCHES, most, STAGE_BYTES // max(1, batch_bytes))))
                if self._shape is None:
                    self._shape, self.batch_size = shape, size
            group.append(batch)
        if group:
            yield self._stage(group, first, capacity)

    def _stage(self, group: list[Any], first: int, capacity: int) -> Stage:
        shape = _shape(group[0])
        if str(shape) not in self._shapes:
            self._shapes.add(str(shape))
            if len(self._shapes) == 3:  # two are usual: an epoch's last batch is often short
                warnings.warn(
                    f"the batches have changing shapes (the third is {shape[0][0]}): each is traced anew, and only those like "
                    "the first are compiled by XLA. Pad them to one shape to be faster",
                    stacklevel=2,
                )
        whole = shape == self._shape
        padding = group[:1] * (capacity - len(group)) if whole else []
        rows = tf.nest.map_structure(lambda *parts: tf.convert_to_tensor(np.concatenate(parts)), *group, *padding)
        return Stage(rows, shape[0][0][0], first, len(group), whole)

    def _batches(self, start: int) -> Iterator[Any]:
        """The source's batches as structures of numpy arrays."""
        if isinstance(self.source, tf.data.Dataset):
            batches: Iterator[Any] = (self.source.skip(start) if start else self.source).as_numpy_iterator()
            return batches
        if isinstance(self.source, keras.utils.PyDataset):
            number = self.source.num_batches
            indices: Iterable[int] = count(start) if number is None else range(start, number)
            return (_arrays(self.source[index]) for index in indices)
        return (_arrays(batch) for batch in islice(self.source, start, None))

    def _begin_epoch(self) -> None:
        if isinstance(self.source, keras.utils.PyDataset):
            self.source.on_epoch_begin()

    def _end_epoch(self) -> None:
        if isinstance(self.source, keras.utils.PyDataset):
            self.source.on_epoch_end()

    def _batch_size_of(self, batch: Any) -> int:
        parts = tf.nest.flatten(batch)
        dense = all(isinstance(part, np.ndarray) and part.ndim and not part.dtype.hasobject for part in parts)
        if not dense or len({len(part) for part in parts}) != 1:
            raise ValueError(
                f"the {type(self.source).__name__} gives {tf.nest.map_structure(np.shape, batch)}: expected batches, dense "
                "arrays whose first dimension is the examples; of a tf.data.Dataset of examples take dataset.batch(32)"
            )
        return len(parts[0])


def _shape(batch: Any) -> Shape:
    return [(part.shape, part.dtype) for part in tf.nest.flatten(batch)]


def _arrays(batch: Any) -> Any:
    """The batch as numpy arrays; float64 becomes float32, as in Keras."""

    def convert(part: Any) -> Any:
        array = np.asarray(part)
        return array.astype(np.float32) if array.dtype == np.float64 else array

    return tf.nest.map_structure(convert, batch if not isinstance(batch, list) else tuple(batch))
