"""The data of a search: what can be given, how it travels to a worker, and what a training there takes."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import psutil

from mnist_tuner.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

NAMES = ("x", "y", "sample_weight", "validation_data")
"""Arguments of ``fit`` that may be functions, which each training calls."""
MEMORY_SHARE = 0.25
"""A dataset that is sent may take this share of the memory that is free."""


class Given(Protocol):
    """What this needs to know of an experiment."""

    @property
    def hypermodel(self) -> Any:
        """KerasTuner's."""

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Those of ``fit``."""

    @property
    def options(self) -> dict[str, Any]:
        """Its options."""

    @property
    def has_own_fit(self) -> bool:
        """Whether that is the hypermodel's own."""


AnyGiven = TypeVar("AnyGiven", bound=Given)


def check_data(experiment: Given) -> None:
    """Refuses what only the first training would find whole.

    Raises:
        InputError: an argument can be gone through only once.
    """
    for name, value in _named(experiment).items():
        if isinstance(value, Iterator) and not hasattr(value, "__getitem__"):  # which some of Keras's PyDatasets have
            raise InputError(
                f"{name} is a {type(value).__name__}, which can be gone through once, and a search trains often: give the "
                f"function that makes it, such as {name}=make_batches and not {name}=make_batches()"
            )


def as_sent(experiment: AnyGiven) -> tuple[AnyGiven, list[str]]:
    """An experiment that can be sent to workers, and what there is to say of it: a `tf.data.Dataset` goes as its elements.

    Raises:
        InputError: a dataset is infinite or too large, or gives other elements each time.
    """
    notes: list[str] = []
    most = MEMORY_SHARE * psutil.virtual_memory().available

    def sent(value: Any, name: str) -> Any:
        if not _is_dataset(value):
            return value
        elements = Elements.of(value, name, most)
        size = f"{len(elements.rows):,} elements, {elements.megabytes}"
        notes.append(f"{name}: a tf.data.Dataset is sent to the workers as its {size}")
        return elements

    return _mapped(experiment, sent), notes


def check_sendable(experiment: Given) -> None:
    """Finds what cannot be pickled.

    Raises:
        InputError: something cannot be; it is named.
    """
    from distributed.protocol.pickle import dumps

    for name, value in {"hypermodel": experiment.hypermodel, **_named(experiment)}.items():
        try:
            dumps(value)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            ways = f"give a function that makes it there, such as {name}=make_{name}"
            if name in NAMES:
                ways += ", or a DataModule"
            elif name != "callbacks":
                ways = "make what it refers to where it is used, in build or fit"
            raise InputError(
                f"{name}: a {type(value).__name__} cannot be sent to a worker ({reason}): {ways}; or search in this process, "
                "with workers=0"
            ) from None


def for_training(experiment: Given, options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments and options of one training's ``fit``: functions are called, and elements are a dataset again.

    Args:
        experiment: what was given.
        options: those of the experiment, and the training's own.
    """
    import keras

    def made(value: Any, name: str) -> Any:
        if isinstance(value, Elements):
            return value.dataset()
        if name not in NAMES or not callable(value):
            return value
        found = value()
        return Again(value) if isinstance(found, Iterator) and not experiment.has_own_fit else found

    taken = _mapped(_replaced(experiment, experiment.arguments, options), made)
    arguments, options = taken.arguments, taken.options
    names, x = _named(taken), _named(experiment).get("x")
    if callable(x) and isinstance(names["x"], tuple) and names.get("y") is None:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(names["x"])
        arguments, options = (x, *arguments[1:]) if arguments else (), {**options, **({} if arguments else {"x": x}), "y": y}
        if weight is not None:
            options["sample_weight"] = weight
    return arguments, options


@dataclass(frozen=True, eq=False)
class Again:
    """Batches that a function makes anew each time they are gone through."""

    function: Callable[[], Iterator[Any]]

    def __iter__(self) -> Iterator[Any]:
        return self.function()


@dataclass(frozen=True)
class Elements:
    """A `tf.data.Dataset` that can be pickled.

    Attributes:
        rows: of each element its tensors, those that ragged and sparse ones consist of.
        spec: the dataset's ``element_spec``.
    """

    rows: list[list[Any]]
    spec: Any

    @classmethod
    def of(cls, dataset: tf.data.Dataset, name: str, most: float) -> Elements:
        """Reads a dataset, more than once: a shuffle of few elements may give the same order again.

        Args:
            dataset: to be read.
            name: what it was given as.
            most: as many bytes it may have.

        Raises:
            InputError: it is infinite or has more, or gives something else the second time.
        """
        import tensorflow as tf

        way = f"give a function that makes it, such as {name}=make_dataset; each training calls it in its worker"
        if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise InputError(f"{name} is an infinite tf.data.Dataset, which cannot be sent to a worker: {way}")
        rows: list[list[Any]] = []
        size, sums = 0, []
        for row in _rows(dataset):
            rows.append(row)
            sums.append(_checksum(row))
            size += _bytes_of(row)
            if size > most:
                raise InputError(f"{name}: a tf.data.Dataset of more than {most / 1e6:,.0f} MB is not sent to a worker: {way}")
        bits = math.lgamma(len(rows) + 1) / math.log(2)  # of the number of their orders
        again = math.ceil(20 / bits) if bits else 1  # chance is one in a million
        if any(sums != [_checksum(row) for row in _rows(dataset)] for _ in range(again)):
            raise InputError(
                f"{name} is a tf.data.Dataset that gives something else each time (it shuffles, say), and sent to a worker it "
                f"would be the same in each epoch: {way}"
            )
        return cls(rows, dataset.element_spec)

    @property
    def megabytes(self) -> str:
        """Its size."""
        return f"{sum(map(_bytes_of, self.rows)) / 1e6:,.1f} MB"

    def dataset(self) -> tf.data.Dataset:
        """A dataset of the same elements, in the same order."""
        import tensorflow as tf

        spec = self.spec
        flat = tuple(tf.nest.flatten(spec, expand_composites=True))
        made = tf.data.Dataset.from_generator(lambda: map(tuple, self.rows), output_signature=flat)
        made = made.map(lambda *parts: tf.nest.pack_sequence_as(spec, parts, expand_composites=True))
        return made.apply(tf.data.experimental.assert_cardinality(len(self.rows)))


def _rows(dataset: tf.data.Dataset) -> Iterator[list[Any]]:
    import tensorflow as tf

    for element in dataset:
        yield [part.numpy() for part in tf.nest.flatten(element, expand_composites=True)]


def _checksum(row: Sequence[Any]) -> bytes:
    import numpy as np

    digest = hashlib.sha256()
    for part in map(np.asarray, row):
        digest.update(f"{part.dtype}{part.shape}".encode())
        digest.update(repr(part.tolist()).encode() if part.dtype.hasobject else part.tobytes())
    return digest.digest()


def _bytes_of(row: Sequence[Any]) -> int:
    import numpy as np

    return sum(sum(map(len, part.flat)) if part.dtype.hasobject else part.nbytes for part in map(np.asarray, row))


def _is_dataset(value: Any) -> bool:
    import tensorflow as tf

    return isinstance(value, tf.data.Dataset)


def _named(experiment: Given) -> Mapping[str, Any]:
    """The arguments and options by their names."""
    return {**dict(zip(_positions(experiment), experiment.arguments, strict=False)), **experiment.options}


def _positions(experiment: Given) -> list[str]:
    """The names of the arguments that are given by their place."""
    names = ["x", "y"]
    if experiment.has_own_fit:
        parameters = list(inspect.signature(experiment.hypermodel.fit).parameters.values())[2:]
        own = [each.name for each in parameters if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        passes_on = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters)
        names = [*own, *names[len(own) :]] if passes_on else own
    return [*names, *(f"argument {number + 1}" for number in range(len(names), len(experiment.arguments)))]


def _mapped(experiment: AnyGiven, change: Callable[[Any, str], Any]) -> AnyGiven:
    """The same with changed arguments and options; those in a list or a tuple of them likewise."""

    def changed(value: Any, name: str) -> Any:
        if type(value) in (list, tuple):
            return type(value)(change(part, name) for part in value)
        return change(value, name)

    arguments = tuple(changed(value, name) for name, value in zip(_positions(experiment), experiment.arguments, strict=False))
    other: AnyGiven = _replaced(experiment, arguments, {n: changed(value, n) for n, value in experiment.options.items()})
    return other


def _replaced(experiment: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return replace(experiment, arguments=arguments, options=options)
