"""A space of hyperparameters: KerasTuner's, in which a value has one form, and a name one range.

In KerasTuner 1.4.8 a value's type and last bits hang on where it comes from: an Int with "log" sampling lists floats and draws
ints, a default keeps the type that it was given, numpy's numbers cannot be saved, a Choice of booleans becomes one of ints, and a
Float never draws its greatest value where that is so many steps away only up to rounding. What a name's second range says is
passed over there, and two hyperparameters of one name in different conditional scopes lose their values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from decimal import Decimal
from itertools import islice, product
from typing import Any, ClassVar, Self

import keras_tuner
import numpy as np
from keras_tuner.engine import hyperparameters as theirs

from mnist_tuner.errors import InputError

MOST_CONDITIONAL = 5_000
"""A space in which some hyperparameters depend on others is listed up to this size."""
CLOSE = 1e-9
"""Two numbers that differ by less than this share are one."""


def plain(value: Any) -> Any:
    """Numpy's numbers and texts as Python's; those of a list, too."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


class _Number(theirs.HyperParameter):  # type: ignore[misc]  # KerasTuner has no types
    """What an Int and a Float have in common; goes before KerasTuner's class."""

    kind: ClassVar[type] = float

    def __init__(self, name: str, min_value: Any, max_value: Any, step: Any = None, default: Any = None, **options: Any) -> None:
        super().__init__(name, plain(min_value), plain(max_value), step=plain(step), **options)
        self.step: Any = None if self.step is None else self.kind(self.step)
        if self.step is not None and not self.step > 0:
            raise InputError(f"hyperparameter {name!r}: step is {self.step}: expected more than 0")
        try:
            self._default = None if default is None else self.canonical(default)
        except ValueError as error:
            raise InputError(f"hyperparameter {name!r}: default is {error}") from None

    def canonical(self, value: Any) -> Any:
        """The one form of a number, which may lie between those to choose from, or outside.

        Raises:
            ValueError: it is none of this kind.
        """
        number = plain(value)
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise ValueError(f"{value!r}: expected a number")
        if self.kind(number) != number:
            raise ValueError(f"{value!r}: expected an integer")
        number = self.kind(number)
        if self.step is None or not self.min_value <= number <= self.max_value:
            return number
        nearest = self._get_value_by_index(min(round(self._index(number)), self._get_n_values() - 1))
        return nearest if abs(nearest - number) <= CLOSE * (self.step if self.sampling == "linear" else nearest) else number

    def check(self, value: Any) -> Any:
        """The one form of a number within the range.

        Raises:
            ValueError: it is outside.
        """
        number = self.canonical(value)
        if not self.min_value <= number <= self.max_value:
            raise ValueError(f"{value!r}: expected {self.min_value} to {self.max_value}")
        return number

    def prob_to_value(self, prob: float) -> Any:
        """The value at a place in [0, 1)."""
        return self._clip(super().prob_to_value(prob))

    def value_to_prob(self, value: Any) -> float:
        """A value's place in [0, 1); one between two of the grid's lies between theirs."""
        return float(super().value_to_prob(self._clip(value)))

    def _clip(self, value: Any) -> Any:
        return self.kind(min(max(value, self.min_value), self.max_value))

    def _get_n_values(self) -> int:
        low, high, step = self._exact()
        if self.sampling == "linear":
            return int((high - low) / step + Decimal(CLOSE)) + 1
        return int(math.log(high / low, step) + CLOSE) + 1

    def _get_value_by_index(self, index: int) -> Any:
        """With decimal numbers, as they are written: three steps of 0.1 are 0.3. What all but reaches an end is the end."""
        low, high, step = self._exact()
        value = low + index * step if self.sampling == "linear" else low * step**index
        if abs(high - value) <= Decimal(CLOSE) * (step if self.sampling == "linear" else high):
            value = high
        return self._clip(self.kind(high + low - value if self.sampling == "reverse_log" else value))

    def _index(self, value: Any) -> float:
        if self.sampling == "linear":
            return float((value - self.min_value) / self.step)
        if self.sampling == "reverse_log":
            value = self.max_value - value + self.min_value
        return math.log(value / self.min_value, self.step)

    def _to_prob_with_step(self, value: Any) -> float:
        return (self._index(value) + 0.5) / self._get_n_values()

    def _exact(self) -> tuple[Decimal, Decimal, Decimal]:
        low, high, step = (Decimal(repr(number)) for number in (self.min_value, self.max_value, self.step))
        return low, high, step

    def __str__(self) -> str:
        by = f" by {self.step}" if self.step is not None else ""
        sampling = "" if self.sampling == "linear" else f", {self.sampling}"
        return f"{type(self).__name__} {self.min_value} to {self.max_value}{by}{sampling}"


class Int(_Number, theirs.Int):  # type: ignore[misc]
    """KerasTuner's, with ints only."""

    kind = int


class Float(_Number, theirs.Float):  # type: ignore[misc]
    """KerasTuner's, with floats only."""


class Choice(theirs.Choice):  # type: ignore[misc]
    """KerasTuner's, which keeps booleans; a value that is given twice is drawn twice as often, and listed once."""

    def __init__(self, name: str, values: Any, ordered: bool | None = None, default: Any = None, **options: Any) -> None:
        values = plain(values)
        super().__init__(name, values, ordered, plain(default), **options)
        if isinstance(values[0], bool):
            self._values = values
        if default is not None:
            self._default = self.canonical(default)

    @property
    def values(self) -> list[Any]:
        """Each of them once."""
        return list(dict.fromkeys(self._values))

    def canonical(self, value: Any) -> Any:
        """One of the values, in the form that it has there.

        Raises:
            ValueError: it is none.
        """
        if plain(value) not in self._values:
            raise ValueError(f"{value!r}: expected one of {', '.join(map(repr, self.values))}")
        return self._values[self._values.index(plain(value))]

    check = canonical

    def __str__(self) -> str:
        return f"Choice of {', '.join(map(repr, self.values))}"


class Boolean(theirs.Boolean):  # type: ignore[misc]
    """KerasTuner's, with Python's booleans only."""

    def __init__(self, name: str, default: Any = False, **options: Any) -> None:
        super().__init__(name, default, **options)
        self._default = bool(default)

    def canonical(self, value: Any) -> bool:
        """True or False.

        Raises:
            ValueError: it is neither.
        """
        if plain(value) not in (True, False):
            raise ValueError(f"{value!r}: expected True or False")
        return bool(value)

    check = canonical

    def __str__(self) -> str:
        return "Boolean"


class Fixed(theirs.Fixed):  # type: ignore[misc]
    """KerasTuner's, with numpy's numbers, too."""

    def __init__(self, name: str, value: Any, **options: Any) -> None:
        super().__init__(name, plain(value), **options)

    def canonical(self, value: Any) -> Any:
        """The value.

        Raises:
            ValueError: it is another.
        """
        if plain(value) != self.value:
            raise ValueError(f"{value!r}: expected {self.value!r}")
        return self.value

    check = canonical

    def __str__(self) -> str:
        return f"Fixed {self.value!r}"


KINDS: Mapping[str, Any] = {kind.__name__: kind for kind in (Int, Float, Choice, Boolean, Fixed)}


class Space(keras_tuner.HyperParameters):  # type: ignore[misc]
    """KerasTuner's hyperparameters with their values; what a hypermodel's ``build`` is given.

    A name has one range: where it is asked for with another one, unless each belongs to a conditional scope that excludes the
    other, an `InputError` is raised.
    """

    def Choice(  # noqa: N802  # KerasTuner's would make ints of booleans
        self,
        name: str,
        values: Any,
        ordered: bool | None = None,
        default: Any = None,
        parent_name: str | None = None,
        parent_values: Any = None,
    ) -> Any:
        """See KerasTuner."""
        with self._maybe_conditional_scope(parent_name, parent_values):
            return self._retrieve(Choice(self._get_name(name), values, ordered, default, conditions=self._conditions))

    def Fixed(  # noqa: N802
        self, name: str, value: Any, parent_name: str | None = None, parent_values: Any = None
    ) -> Any:
        """See KerasTuner."""
        return super().Fixed(name, plain(value), parent_name, parent_values)

    def conditional_scope(self, parent_name: str, parent_values: Any) -> AbstractContextManager[None]:
        """See KerasTuner."""
        scope: AbstractContextManager[None] = super().conditional_scope(parent_name, plain(parent_values))
        return scope

    def _retrieve(self, hp: Any) -> Any:
        hp = hp if isinstance(hp, tuple(KINDS.values())) else KINDS[type(hp).__name__].from_config(hp.get_config())
        for other in self._hps.get(hp.name, ()):
            together = other.conditions == hp.conditions or (self.is_active(other) and self.is_active(hp))
            if together and _range(other) != _range(hp):
                raise InputError(
                    f"hyperparameter {hp.name!r} is {other} in one place and {hp} in another: give each range a name of its own, "
                    "or a conditional_scope that excludes the other"
                )
        return super()._retrieve(hp)

    def ensure_active_values(self) -> None:
        """Gives what is active and has no value its default, and takes away the values of what is not active."""
        for hp in self.space:
            if self.is_active(hp):
                self.values.setdefault(hp.name, hp.default)
            elif not self.is_active(hp.name):
                self.values.pop(hp.name, None)

    def active(self) -> list[Any]:
        """The hyperparameters that are active, each name once."""
        return list({hp.name: hp for hp in self.space if self.is_active(hp)}.values())

    def settle(self, values: Mapping[str, Any], what: str) -> dict[str, Any]:
        """Values that are given for some of the hyperparameters, in their one form.

        Args:
            values: by name.
            what: they are, for the error.

        Raises:
            InputError: a name is unknown or not active with these values, or a value is outside its range.
        """
        self.values |= values
        self.ensure_active_values()
        active = {hp.name: hp for hp in self.active()}
        settled = {}
        for name, value in values.items():
            if name not in self._hps:
                raise InputError(
                    f"{what} has {name!r}: expected {', '.join(map(repr, self._hps)) or 'nothing, as there are none'}"
                )
            if name not in active:
                raise InputError(f"{what} has {name!r}, which is not active with the other values")
            try:
                settled[name] = active[name].check(value)
            except ValueError as error:
                raise InputError(f"{what}: {name!r} is {error}") from None
        self.values |= settled
        return settled

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """What ``get_config`` gave."""
        hps = cls()
        for each in config["space"]:
            hp = KINDS[each["class_name"]].from_config(dict(each["config"]))
            hps._hps[hp.name].append(hp)
            hps._space.append(hp)
        hps.values = dict(config["values"])
        return hps

    def copy(self) -> Self:
        """Another one with the same values."""
        return self.from_config(self.get_config())


def _range(hp: Any) -> tuple[str, Any]:
    """What there is to choose from, whatever the default."""
    if isinstance(hp, _Number):
        return type(hp).__name__, (hp.min_value, hp.max_value, hp.step, hp.sampling)
    return type(hp).__name__, set(hp.values)


def hyperparameters_of(configs: Iterable[Mapping[str, Any]]) -> list[Any]:
    """KerasTuner's hyperparameters from their configurations."""
    return list(Space.from_config({"space": list(configs), "values": {}}).space)


def points(space: Space, most: int = 100_000) -> list[dict[str, Any]] | None:
    """Every point of a space in which each hyperparameter has a step; None where one has none, or there are more than `most`."""
    if any(getattr(hp, "step", 1) is None for hp in space.space):
        return None
    if any(hp.conditions for hp in space.space):
        every = list(islice(_conditional_points(space.space, {}), min(most, MOST_CONDITIONAL) + 1))
        return None if len(every) > min(most, MOST_CONDITIONAL) else every
    if math.prod(map(_count, space.space)) > most:
        return None
    names = [hp.name for hp in space.space]
    return [dict(zip(names, values, strict=True)) for values in product(*(hp.values for hp in space.space))]


def _conditional_points(hps: list[Any], values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The points that begin with some values, of which a hyperparameter has one where its conditions hold."""
    for number, hp in enumerate(hps):
        if hp.name not in values and all(condition.is_active(values) for condition in hp.conditions):
            for value in hp.values:
                yield from _conditional_points(hps[number + 1 :], {**values, hp.name: value})
            return
    yield values


def _count(hp: Any) -> int:
    """How many values a hyperparameter with a step has, without making a list of them."""
    return int(hp._get_n_values()) if isinstance(hp, _Number) else len(hp.values)
