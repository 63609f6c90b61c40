"""What is trained on: data modules, loaders, and batches of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnist_tuner.trainer.seed import current_seed

if TYPE_CHECKING:
    import tensorflow as tf

CHUNK_BYTES = 16 * 2**20
"""How much data is put in order for the compiled loop at a time: small enough for the memory to be used again."""


class DataModule:
    """The data of a training: how to get it, and a loader for each stage.

    Override what is needed. A loader is an `ArrayLoader`, a `tf.data.Dataset` of batches, a `keras.utils.PyDataset`, or
    anything else that gives the same batches each time it is iterated over; of all but the training loaders there may be a
    list. A hook that returns None has no such data.
    """

    def prepare_data(self) -> None:
        """Downloads or converts, once; keeps no state."""

    def setup(self, stage: str) -> None:
        """Loads and splits. `stage` is "fit", "validate", "test" or "predict"."""

    def train_dataloader(self) -> Any:
        """The training batches."""
        return None

    def val_dataloader(self) -> Any:
        """The validation batches."""
        return None

    def test_dataloader(self) -> Any:
        """The test batches."""
        return None

    def predict_dataloader(self) -> Any:
        """The batches to predict."""
        return None

    def teardown(self, stage: str) -> None:
        """Cleans up after `stage`."""

    def on_exception(self, exception: BaseException) -> None:
        """Called when a stage ends with an exception."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint is to keep of it: JSON values and numpy arrays."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave, when a training is resumed."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive batches, in order and in memory, for one or more calls of the compiled loop.

    Attributes:
        rows: a structure of tensors, each ``(at least batches * batch_size, ...)``.
        batch_size: examples per batch; of batches that differ, about so many.
        first: the index within the epoch of the first batch.
        batches: how many batches there are; rows beyond them are padding.
        whole: False for batches of a shape that is not worth compiling for, such as an epoch's short last one.
        spec: of batches that differ in shape, what they have in common: a structure of `tf.TypeSpec`. Then `rows` has, for each
            tensor that they consist of, ``(values, shapes, starts)``: all its values ``(n,)``, and for each batch its shape
            ``(batches, rank)`` and the place of its first value ``(batches,)``.
        sizes_differ: whether there are batches of another size, too, such as a short last one: then a plain graph is traced once
            for all sizes.
    """

    rows: Any
    batch_size: int
    first: int
    batches: int
    whole: bool = True
    spec: Any = None
    sizes_differ: bool = False

    @cached_property
    def signature(self) -> Any:
        """What rows are to a program that serves all chunks like this one: a structure of `tf.TensorSpec`."""
        import tensorflow as tf

        if self.spec is None:
            return tf.nest.map_structure(tf.TensorSpec.from_tensor, self.rows)
        return self.open_signature

    @cached_property
    def open_signature(self) -> Any:
        """What rows are to a program that takes any number of them."""
        import tensorflow as tf

        return tf.nest.map_structure(lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), self.rows)

    @cached_property
    def open_key(self) -> str:
        """The same for all chunks that a program for any number of rows serves."""
        return repr(self.open_signature)

    @cached_property
    def key(self) -> tuple[str, str, int]:
        """The same for all chunks that a program serves."""
        return repr(self.signature), repr(self.spec), self.batch_size if self.spec is None else 0

    @property
    def cut(self) -> Callable[[Any, Any], Any]:
        """Takes such rows and an index, returns that batch; it knows nothing of this chunk's own rows."""
        return partial(slice_batch, batch_size=self.batch_size) if self.spec is None else partial(_slice_differing, self.spec)


class Loader:
    """Batches in chunks. `ArrayLoader` and `StreamLoader` fill in the rest."""

    batch_size: int
    transform: Callable[..., Any] | None = None
    of_arrays = False
    """Whether the batches are rows of arrays, always a tuple of x, y and sample_weight as far as they were given."""

    @property
    def num_batches(self) -> float:
        """Batches per epoch; infinite where nobody knows."""
        raise NotImplementedError

    def chunks(self, epoch: int, start: int = 0, stop: float = math.inf) -> Iterator[Chunk]:
        """The epoch's batches from `start` on, to `stop`."""
        raise NotImplementedError

    def first_batch(self) -> Any:
        """A first batch, preprocessed; used to build what depends on the data's shape."""
        raise NotImplementedError

    def fixed(self, batches: int) -> Loader:
        """A loader whose first `batches` batches are the same at each epoch."""
        raise NotImplementedError

    def preprocess(self, batch: Any) -> Any:
        """Applies `transform`."""
        return apply_transform(self.transform, batch)

    def __iter__(self) -> Iterator[Any]:
        """The batches of epoch 0, preprocessed, as tensors."""
        for chunk in self.chunks(epoch=0):
            for index in range(chunk.batches):
                yield self.preprocess(chunk.cut(chunk.rows, index))


class ArrayLoader(Loader):
    """Batches of arrays that are in memory, shuffled anew each epoch, preprocessed within the compiled graph.

    The order of an epoch is a pure function of (seed, epoch). A short last batch is kept.

    Args:
        x: an array or tensor ``(n, ...)``, or a structure of them: of numbers or of strings. As in Keras, floats become
            `keras.config.floatx()`.
        y: the same for the targets, or None.
        sample_weight: the same for the weights, or None.
        indices: int, shape ``(m,)``: the rows to use, in this order; None for all. The arrays are not copied.
        batch_size: examples per batch.
        shuffle: whether each epoch takes its own order.
        seed: of that order; None for the one given to `seed_everything`.
        transform: a function of the batch's parts that returns them changed: cast, scale, augment. It is traced into the
            graph, so it must use TensorFlow's operations.

    Raises:
        TypeError: something is no dense array of numbers or strings.
        ValueError: the arrays' lengths differ, there are no rows, or an argument is out of its range.
    """

    of_arrays = True

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        indices: npt.NDArray[np.integer[Any]] | None = None,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int | None = None,
        transform: Callable[..., Any] | None = None,
    ) -> None:
        import tensorflow as tf

        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: expected 1 or more")
        if sample_weight is not None and y is None:
            raise ValueError("sample_weight was given without y")
        self._arrays = tuple(
            dense_arrays(part, name) for name, part in (("x", x), ("y", y), ("sample_weight", sample_weight)) if part is not None
        )
        lengths = {len(array) for array in tf.nest.flatten(self._arrays)}
        if len(lengths) != 1:
            raise ValueError(f"the arrays have different lengths: {sorted(lengths)}")
        (rows,) = lengths
        self._row_bytes = max(1, sum(map(bytes_of, tf.nest.flatten(self._arrays))) // max(1, rows))
        self._indices = np.arange(rows, dtype=np.int32) if indices is None else _checked_indices(indices, rows)
        self._contiguous = indices is None
        if not len(self._indices):
            raise ValueError("there are no rows")
        if seed is not None and seed < 0:
            raise ValueError(f"seed is {seed}: expected 0 or more")
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed_given = seed is not None
        self.seed = current_seed() if seed is None else seed
        self.transform = transform
        self._used = False

    def __len__(self) -> int:
        """The number of batches, a short last one included."""
        return -(-len(self._indices) // self.batch_size)

    @property
    def num_batches(self) -> float:
        """Batches per epoch."""
        return len(self)

    def fixed(self, batches: int) -> ArrayLoader:
        """The same rows without shuffling."""
        loader = copy(self)
        loader.shuffle = False
        return loader

    def first_batch(self) -> Any:
        """The first examples in storage order, preprocessed; used to build what depends on the data's shape."""
        return self.preprocess(self._gather(self._indices[: self.batch_size]))

    def order(self, epoch: int) -> npt.NDArray[np.int32]:
        """The rows of an epoch in the order in which it takes them, int32, shape ``(rows,)``."""
        if not self.shuffle:
            return self._indices
        return np.random.default_rng([self.seed, epoch]).permutation(self._indices)

    def chunks(self, epoch: int, start: int = 0, stop: float = math.inf) -> Iterator[Chunk]:
        """The epoch's batches from `start` on, to `stop`: chunks of one shape, so that one program serves all, then the short
        batch."""
        order, size = self.order(epoch), self.batch_size
        full = len(order) // size
        capacity = max(1, min(full, CHUNK_BYTES // (self._row_bytes * size)))
        end = int(min(full, stop))
        spans = [(first, min(end - first, capacity), size) for first in range(start, end, capacity)]
        if len(order) > full * size and start <= full < stop:
            spans.append((full, 1, len(order) - full * size))

        def fetch(first: int, batches: int, batch_size: int) -> Chunk:
            rows = order[first * size : first * size + batches * batch_size]
            padding = (capacity - batches) * size if batch_size == size else 0
            gathered = self._gather(np.concatenate([rows, np.zeros(padding, np.int32)]) if padding else rows)
            short = 0 < full < len(self)
            return Chunk(gathered, batch_size, first, batches, whole=batch_size == size, sizes_differ=short)

        used, self._used = self._used, True
        yield from one_ahead((fetch(*span) for span in spans), at_once=used)

    def _gather(self, rows: npt.NDArray[np.int32]) -> Any:
        import tensorflow as tf

        if self._contiguous and not self.shuffle and rows[-1] - rows[0] == len(rows) - 1:
            return tf.nest.map_structure(lambda array: tf.convert_to_tensor(array[rows[0] : rows[-1] + 1]), self._arrays)
        return tf.nest.map_structure(lambda array: tf.convert_to_tensor(np.take(array, rows, axis=0)), self._arrays)


def one_ahead(chunks: Iterator[Chunk], at_once: bool) -> Iterator[Chunk]:
    """The chunks, of which a thread puts the next one in order while one is trained on.

    Args:
        chunks: what makes them.
        at_once: whether to begin with the first. Not so at a loader's first use: then the loop is traced. TensorFlow numbers
            functions with a counter that tensors use, too, so that a thread making tensors meanwhile gives the function
            another name each time, by which XLA's cache of compiled programs does not know it again.
    """
    with ThreadPoolExecutor(1) as thread:
        pending: Future[Chunk | None] | None = None
        while True:
            chunk = next(chunks, None) if pending is None else pending.result()
            if chunk is None:
                return
            pending = thread.submit(next, chunks, None) if at_once else None
            at_once = True
            yield chunk


def apply_transform(transform: Callable[..., Any] | None, batch: Any) -> Any:
    """The batch after a transform of its parts; unchanged where there is none."""
    if transform is None:
        return batch
    return transform(*batch) if isinstance(batch, tuple) else transform(batch)


def slice_batch(rows: Any, index: int | tf.Tensor, batch_size: int | tf.Tensor) -> Any:
    """Batch number `index` of a chunk's rows.

    ``tf.slice``, with a static size where XLA compiles it: of ``rows[i * n : i * n + n]`` it makes something 75 times slower.
    """
    import tensorflow as tf

    def cut(tensor: tf.Tensor) -> tf.Tensor:
        begin = [index * batch_size] + [0] * (len(tensor.shape) - 1)
        return tf.slice(tensor, begin, [batch_size, *tensor.shape[1:]])

    return tf.nest.map_structure(cut, rows)


def _slice_differing(spec: Any, rows: Any, index: int | tf.Tensor) -> Any:
    """Batch number `index` of rows that differ in shape; see `Chunk.spec`."""
    import tensorflow as tf

    parts = []
    for part, (values, shapes, starts) in zip(tf.nest.flatten(spec, expand_composites=True), rows, strict=True):
        shape = shapes[index]
        parts.append(tf.reshape(tf.slice(values, [starts[index]], [tf.reduce_prod(shape)]), shape))
        parts[-1].set_shape(part.shape)
    return tf.nest.pack_sequence_as(spec, parts, expand_composites=True)


def dense_arrays(values: Any, name: str) -> Any:
    """Numbers or strings as numpy arrays, lists of them as tuples, as Keras takes them.

    Args:
        values: an array or tensor ``(n, ...)``, or a structure of them.
        name: what it was given as.

    Raises:
        TypeError: it is something else, sparse or ragged, or holds other objects than strings.
    """
    import keras
    import tensorflow as tf

    def convert(part: Any) -> npt.NDArray[Any]:
        array = np.asarray(part) if hasattr(part, "__array__") else np.empty(())
        if not array.ndim:
            raise TypeError(
                f"{name} holds a {type(part).__name__}: expected dense arrays or tensors (n, ...). Make an array of Python's "
                "numbers with numpy.asarray, and of what is sparse or ragged a tf.data.Dataset of batches"
            )
        return as_in_keras(array, name)

    return tf.nest.map_structure(convert, keras.tree.lists_to_tuples(values))


def as_in_keras(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """The array with strings as bytes, and floats as `keras.config.floatx()`.

    Raises:
        TypeError: it holds other objects than strings.
    """
    import keras
    import tensorflow as tf

    if array.dtype.kind in "OSU":
        try:
            strings: npt.NDArray[Any] = tf.convert_to_tensor(array, tf.string).numpy()
        except ValueError:
            raise TypeError(f"{name} holds an array of Python objects: expected numbers or strings") from None
        return strings
    floatx = keras.config.floatx()
    if array.dtype.kind in "biu" or array.dtype.name == floatx or not tf.as_dtype(array.dtype).is_floating:
        return array
    return array.astype(floatx)


def bytes_of(array: npt.NDArray[Any]) -> int:
    """How much memory an array takes as a tensor."""
    return sum(map(len, array.flat)) + 24 * array.size if array.dtype.hasobject else int(array.nbytes)


def _checked_indices(indices: npt.NDArray[Any], rows: int) -> npt.NDArray[np.int32]:
    if not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"indices are of type {indices.dtype}: expected integers; of a mask take np.flatnonzero")
    if len(indices) and not 0 <= indices.min() <= indices.max() < rows:
        raise ValueError(f"indices go from {indices.min()} to {indices.max()}: expected 0 to {rows - 1}")
    return indices.astype(np.int32)
