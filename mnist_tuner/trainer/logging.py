"""`self.log`: collected within the graph, reduced there, read when somebody asks.

A value logged in a compiled step goes into a TensorFlow variable, made when the step is traced. Sums are kept in float64
in the graph: adding up float32 values in Python would let an epoch's mean depend on how many steps a call made.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

Reduction = Literal["mean", "sum", "min", "max", "last"]
_START = {"mean": 0.0, "sum": 0.0, "min": math.inf, "max": -math.inf, "last": math.nan}


@dataclass(frozen=True)
class LogOptions:
    """The arguments with which a name is logged; see `Module.log`."""

    prog_bar: bool
    logger: bool
    on_step: bool
    on_epoch: bool
    reduce_fx: Reduction


class _Entry:
    """One name's variables: the last value, what has been reduced so far, and the weight (examples) behind it."""

    def __init__(self, options: LogOptions) -> None:
        self.options = options
        self.last = tf.Variable(math.nan, dtype=tf.float64, trainable=False)
        self.reduced = tf.Variable(_START[options.reduce_fx], dtype=tf.float64, trainable=False)
        self.weight = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def update(self, value: tf.Tensor, batch_size: Any) -> None:
        weight = tf.cast(batch_size, tf.float64)
        self.last.assign(value)
        self.weight.assign_add(weight)
        if not self.options.on_epoch:
            return
        match self.options.reduce_fx:
            case "mean":
                self.reduced.assign_add(value * weight)
            case "sum":
                self.reduced.assign_add(value)
            case "min":
                self.reduced.assign(tf.minimum(self.reduced, value))
            case "max":
                self.reduced.assign(tf.maximum(self.reduced, value))
            case "last":
                self.reduced.assign(value)

    def reset(self) -> None:
        self.last.assign(math.nan)
        self.reduced.assign(_START[self.options.reduce_fx])
        self.weight.assign(0.0)

    def epoch_value(self) -> float:
        reduced, weight = float(self.reduced), float(self.weight)
        return reduced / weight if self.options.reduce_fx == "mean" else reduced


class MetricLog:
    """What one stage has logged since the last reset."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def update(self, name: str, value: Any, options: LogOptions, batch_size: Any) -> None:
        """Takes a value, in a graph or outside one.

        Raises:
            ValueError: the value is not a scalar, or the name was logged with other arguments before.
        """
        tensor = tf.convert_to_tensor(value)
        if tensor.shape.rank != 0 and tensor.shape.num_elements() != 1:
            raise ValueError(f"log({name!r}): the value has shape {tensor.shape}; expected a scalar: reduce it first")
        if name not in self._entries:
            # Met for the first time, perhaps within a trace. Its variables are made in a thread of their own, where no
            # trace is going on: tf.function would trace everything a second time after a trace that made variables.
            with ThreadPoolExecutor(1) as outside:
                self._entries[name] = outside.submit(_Entry, options).result()
        entry = self._entries[name]
        if entry.options != options:
            raise ValueError(f"log({name!r}): logged before with {entry.options}, now with {options}; use one or the other")
        entry.update(tf.cast(tf.reshape(tensor, []), tf.float64), batch_size)

    def reset(self) -> None:
        """Forgets the values, keeps the names."""
        for entry in self._entries.values():
            entry.reset()

    def epoch_values(self) -> dict[str, float]:
        """The reduced values of the names logged with on_epoch; under ``name_epoch`` where on_step is set too."""
        return {
            f"{name}_epoch" if entry.options.on_step else name: entry.epoch_value()
            for name, entry in self._logged()
            if entry.options.on_epoch
        }

    def step_values(self) -> dict[str, float]:
        """The last values of the names logged with on_step; under ``name_step`` where on_epoch is set too."""
        return {
            f"{name}_step" if entry.options.on_epoch else name: float(entry.last)
            for name, entry in self._logged()
            if entry.options.on_step
        }

    def bare_values(self) -> dict[str, float]:
        """Every name as it was written: its epoch's value so far where it has one, otherwise its last."""
        return {name: entry.epoch_value() if entry.options.on_epoch else float(entry.last) for name, entry in self._logged()}

    def _logged(self) -> list[tuple[str, _Entry]]:
        return [(name, entry) for name, entry in self._entries.items() if float(entry.weight) > 0]

    def all_values(self) -> dict[str, float]:
        """Everything under every name: as it was written, per step, per epoch."""
        return self.bare_values() | self.step_values() | self.epoch_values()

    def prog_bar_values(self) -> dict[str, float]:
        """What the progress display shows."""
        return {name: value for name, value in self.bare_values().items() if self._entries[name].options.prog_bar}

    def logger_values(self) -> dict[str, float]:
        """What the loggers get."""
        unwanted = {name for name, entry in self._entries.items() if not entry.options.logger}
        values = self.step_values() | self.epoch_values()
        return {
            name: value
            for name, value in values.items()
            if not unwanted & {name, name.removesuffix("_step"), name.removesuffix("_epoch")}
        }
