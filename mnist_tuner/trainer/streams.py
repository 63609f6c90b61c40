"""Batches that somebody else makes: tf.data, Keras's PyDataset, any iterable. They need not fit into memory.

Consecutive batches are put together to a chunk of about a hundred, over which the compiled loop runs: a call per batch would
cost several times the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain, count, islice
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tuner.trainer.data import CHUNK_BYTES, Chunk, DataModule, Loader, as_in_keras, bytes_of, one_ahead
from mnist_tuner.trainer.seed import current_seed

CHUNK_BATCHES = 100
Shape = tuple[tuple[tuple[int | None, ...], Any], ...]
_BEGUN: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""How many iterations over a source have been begun, by whichever loader."""


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
    """Batches of a source, in order. Where they differ in shape, or are ragged, they run in a plain graph, open in what differs.

    Resuming in mid-epoch is exact where the source gives equal batches in equal epochs: always with a seeded
    `tf.data.Dataset.shuffle`, whose order in an epoch depends on how often it has been iterated over: that is made up for.

    Args:
        source: a `tf.data.Dataset` of batches, a `keras.utils.PyDataset`, or an iterable of batches.
        shuffle: whether a `keras.utils.PyDataset` that ends gives its batches in an order of its own in each epoch, which
            follows from the seed given to `seed_everything`.
    """

    def __init__(self, source: Any, shuffle: bool = False) -> None:
        self.source = source
        self.shuffle = shuffle
        self.seed_given, self.seed = False, current_seed()
        self._begun = 0
        with suppress(TypeError):  # a list has no order of its own to remember
            self._begun = _BEGUN.get(source, 0)
        self._batches: Iterator[Any] = iter(())
        self._position: tuple[int | None, int] | None = None
        """The epoch and the index of the next of these batches; no epoch where they have been looked at only."""
        self._shapes: list[Shape] = []
        """Those that are traced for themselves: of the first batch, and one other, as an epoch's last batch is often short."""
        self._common: Shape = ()
        """What all others have in common, traced together."""
        self._differ: bool | None = None
        """Whether all are; None before it is known."""
        self._capacity = 0
        """Batches of a chunk of the first shape: always so many, since each number of them would be traced anew."""
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

    def first_batch(self) -> Any:
        """The first batch, preprocessed."""
        batch = self._first()
        if batch is None:
            raise ValueError(f"the {type(self.source).__name__} gives no batches")
        return self.preprocess(tf.nest.map_structure(_as_tensor, batch))

    def fixed(self, batches: int) -> StreamLoader:
        """The first batches, kept in memory."""
        loader = StreamLoader(list(islice(self._read(0, 0), batches)))
        loader.transform = self.transform
        return loader

    def chunks(self, epoch: int, start: int = 0, stop: float = math.inf) -> Iterator[Chunk]:
        """The epoch's batches from `start` on, to `stop`. An epoch that begins where one was left goes on with its batches."""
        if not self._shapes:
            self._first()
        used, self._used = self._used, True
        self._begin_epoch(epoch)
        try:
            yield from one_ahead(self._grouped(epoch, start, stop), at_once=used)
        finally:  # also where the epoch is left before its end
            if isinstance(self.source, keras.utils.PyDataset):
                self.source.on_epoch_end()

    @cached_property
    def _sizes_differ(self) -> bool:
        """Whether there may be batches of several sizes: only a `tf.data.Dataset` says that there are none."""
        if not isinstance(self.source, tf.data.Dataset):
            return True
        shapes = [getattr(part, "shape", tf.TensorShape(None)) for part in tf.nest.flatten(self.source.element_spec)]
        return any(shape.rank is None or shape[:1] == [None] for shape in shapes)

    # Reading.

    def begin(self) -> None:
        """Begins an iteration over the source, which may have another order in each."""
        self._batches, self._position = map(_arrays, self.source), (None, 0)
        self._count()

    def _read(self, epoch: int, start: int) -> Iterator[Any]:
        """The batches of an epoch as structures of numpy arrays (and ragged tensors)."""
        if isinstance(self.source, keras.utils.PyDataset):
            number = self.source.num_batches
            order: Iterable[Any] = count(start) if number is None else range(start, number)
            if self.shuffle and number is not None:
                order = np.random.default_rng([self.seed, epoch]).permutation(number)[start:].tolist()
            yield from (_arrays(self.source[index]) for index in order)
            return
        if self._position != (epoch, start):
            if self._position != (None, 0) or self._begun <= epoch:
                self.begin()
            while self._begun <= epoch:  # resumed: a shuffled source must come to the order of this epoch
                if not isinstance(self.source, tf.data.Dataset):  # others may draw it only now
                    next(self._batches, None)
                self.begin()
            for _ in islice(self._batches, start):
                pass
        for index, batch in enumerate(self._batches, start + 1):
            self._position = epoch, index
            yield batch
        self._position = None

    def _first(self) -> Any:
        """The first batch of the source, or None; the next epoch begins with it, so that no order of a source is passed over."""
        if isinstance(self.source, keras.utils.PyDataset):
            batch = None if self.source.num_batches == 0 else _arrays(self.source[0])
        else:
            if self._position != (None, 0):
                self.begin()
            batch = next(self._batches, None)
            self._batches = chain([] if batch is None else [batch], self._batches)
        if batch is not None and not self._shapes:
            self.batch_size = self._batch_size_of(batch)
            self._shapes = [_shape(batch)]
            self._capacity = int(max(1, min(CHUNK_BATCHES, self.num_batches, CHUNK_BYTES // max(1, _bytes_of(batch)))))
        return batch

    def _begin_epoch(self, epoch: int) -> None:
        if isinstance(self.source, keras.utils.PyDataset):
            while self._begun < epoch:  # resumed: it may change from epoch to epoch
                self.source.on_epoch_begin()
                self.source.on_epoch_end()
                self._count()
            self.source.on_epoch_begin()
            self._count()

    def _count(self) -> None:
        self._begun += 1
        with suppress(TypeError):
            _BEGUN[self.source] = self._begun

    def _batch_size_of(self, batch: Any) -> int:
        parts = tf.nest.flatten(batch)
        if not all(len(part.shape) for part in parts) or len({part.shape[0] for part in parts}) != 1:
            raise ValueError(
                f"the {type(self.source).__name__} gives {tf.nest.map_structure(np.shape, batch)}: expected batches, "
                "arrays whose first dimension is the examples; of a tf.data.Dataset of examples take dataset.batch(32)"
            )
        return int(parts[0].shape[0])

    # Putting together.

    def _grouped(self, epoch: int, start: int, stop: float) -> Iterator[Chunk]:
        batches = self._read(epoch, start)
        if min(self.num_batches, stop) < math.inf:
            batches = islice(batches, max(0, int(min(self.num_batches, stop)) - start))
        group: list[Any] = []
        kind: Shape | None = None
        group_bytes, first = 0, start
        for batch in self._looked_ahead(batches, start) if self._differ is None else batches:
            batch_bytes = _bytes_of(batch)
            next_kind = self._kind(_shape(batch))
            if kind is None:
                full = len(group) == CHUNK_BATCHES or group_bytes + batch_bytes > CHUNK_BYTES
            else:
                full = len(group) == (self._capacity if kind == self._shapes[0] else 1)
            if group and (full or next_kind != kind):
                yield self._chunk(group, first, kind)
                group, group_bytes, first = [], 0, first + len(group)
            group.append(batch)
            group_bytes, kind = group_bytes + batch_bytes, next_kind
        if group:
            yield self._chunk(group, first, kind)

    def _looked_ahead(self, batches: Iterator[Any], start: int) -> Iterator[Any]:
        """The batches, after a look at so many as a chunk holds: where a tenth is not like the first, none is worth compiling."""
        ahead: list[Any] = []
        size = 0
        while size < CHUNK_BYTES and len(ahead) < CHUNK_BATCHES and (batch := next(batches, None)) is not None:
            ahead.append(batch)
            size += _bytes_of(batch)
        others = [shape for shape in map(_shape, ahead) if shape != self._shapes[0]]
        differ = len(others) > max(1, len(ahead) // 10) or any(map(_ragged, tf.nest.flatten(ahead[:1])))
        enough = not start and (size >= CHUNK_BYTES or len(ahead) >= min(CHUNK_BATCHES, self.num_batches))
        self._differ = differ or (False if enough else None)  # a sanity check sees too little, or the end of an epoch
        for shape in others if self._differ else []:
            self._kind(shape)
        return chain(ahead, batches)

    def _kind(self, shape: Shape) -> Shape | None:
        """The shape where batches of it are traced for themselves, else None."""
        if not self._differ and (shape in self._shapes or len(self._shapes) < 2):
            self._shapes = [*self._shapes, *([] if shape in self._shapes else [shape])]
            return shape
        self._common = _in_common(self._common or shape, shape)
        return None

    def _chunk(self, group: list[Any], first: int, kind: Shape | None) -> Chunk:
        sizes = [self._batch_size_of(batch) for batch in group]
        if kind is None:
            rows = tuple(map(_packed, zip(*map(_parts, group), strict=True)))
            return Chunk(rows, round(np.mean(sizes)), first, len(group), whole=False, spec=_spec(group[0], self._common))
        whole = kind == self._shapes[0]
        padding = group[:1] * (self._capacity - len(group)) if whole else []
        rows = tf.nest.map_structure(lambda *parts: tf.convert_to_tensor(np.concatenate(parts)), *group, *padding)
        return Chunk(rows, sizes[0], first, len(group), whole, sizes_differ=self._sizes_differ)


def _arrays(batch: Any) -> Any:
    """The batch as numpy arrays (and ragged tensors), tensors in their own type, as in Keras; without a y that is None."""

    def convert(part: Any) -> Any:
        if _ragged(part):
            return part
        if isinstance(part, np.ndarray) and part.ndim:  # first, since to be asked whether it is a tensor takes its time
            return as_in_keras(part, "a batch")
        array = np.asarray(tf.sparse.to_dense(part) if isinstance(part, tf.SparseTensor) else part)
        return as_in_keras(array, "a batch") if array.ndim and not tf.is_tensor(part) else array

    while isinstance(batch, (tuple, list)) and len(batch) > 1 and batch[-1] is None:
        batch = batch[:-1]
    return keras.tree.lists_to_tuples(keras.tree.map_structure(convert, batch))


def _ragged(part: Any) -> bool:
    return isinstance(part, tf.RaggedTensor)


def _as_tensor(part: Any) -> Any:
    return part if _ragged(part) else tf.convert_to_tensor(part)


def _parts(batch: Any) -> list[npt.NDArray[Any]]:
    """All arrays of a batch: a ragged tensor's values and the ends of its rows are some of them."""
    return [np.asarray(part) for part in tf.nest.flatten(batch, expand_composites=True)]


def _bytes_of(batch: Any) -> int:
    return sum(map(bytes_of, _parts(batch)))


def _shape(batch: Any) -> Shape:
    return tuple((part.shape, part.dtype) for part in _parts(batch))


def _in_common(shape: Shape, other: Shape) -> Shape:
    """Two shapes, open where they differ.

    Raises:
        ValueError: they differ in more than the sizes.
    """
    if [(len(dims), dtype) for dims, dtype in shape] != [(len(dims), dtype) for dims, dtype in other]:
        raise ValueError(f"the batches differ in type or rank: there are {shape} and {other}")
    return tuple(
        (tuple(a if a == b else None for a, b in zip(dims, others, strict=True)), dtype)
        for (dims, dtype), (others, _) in zip(shape, other, strict=True)
    )


def _spec(batch: Any, common: Shape) -> Any:
    """What batches like this one have in common, as a structure of `tf.TypeSpec`."""
    shapes = iter(common)

    def spec(part: Any) -> Any:
        dims, dtype = next(shapes)
        if not _ragged(part):
            return tf.TensorSpec(dims, tf.as_dtype(dtype))
        for _ in range(part.ragged_rank):
            next(shapes)
        return tf.RaggedTensorSpec([None, *part.shape[1:]], part.dtype, part.ragged_rank, part.row_splits.dtype)

    return tf.nest.map_structure(spec, batch)


def _packed(parts: Sequence[npt.NDArray[Any]]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Arrays of several shapes as values, shapes and starts; see `Chunk.spec`."""
    sizes = [part.size for part in parts]
    values = np.concatenate([part.ravel() for part in parts])
    shapes, starts = np.array([part.shape for part in parts], np.int32), np.cumsum([0, *sizes[:-1]], dtype=np.int32)
    return tf.convert_to_tensor(values), tf.convert_to_tensor(shapes), tf.convert_to_tensor(starts)
