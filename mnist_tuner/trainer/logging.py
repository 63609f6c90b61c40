"""`self.log`: collected within the graph, reduced there, read when somebody asks.

A value logged in a compiled step goes into a TensorFlow variable, made when the step is traced. Sums are kept in float64
in the graph: adding up float32 values in Python would let an epoch's mean depend on how many steps a call made.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tuner.trainer.compiled import MOST_STEPS_PER_CALL

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
    """One name's variables: the last value, what has been reduced so far, and the weight (examples) behind it; where each
    step's value is wanted by the loggers, those of the last call of the loop, too."""

    def __init__(self, options: LogOptions) -> None:
        self.options = options
        self.last = tf.Variable(math.nan, dtype=tf.float64, trainable=False)
        self.reduced = tf.Variable(_START[options.reduce_fx], dtype=tf.float64, trainable=False)
        self.weight = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self.steps: tf.Variable | None = None
        self.traced = False
        if options.on_step and options.logger:
            self.steps = tf.Variable(tf.zeros(MOST_STEPS_PER_CALL, tf.float64), trainable=False)

    def update(self, value: tf.Tensor, batch_size: Any, batch_idx: Any) -> None:
        self.traced |= not tf.executing_eagerly()
        weight = tf.cast(batch_size, tf.float64)
        self.last.assign(value)
        self.weight.assign_add(weight)
        if self.steps is not None and batch_idx is not None:
            place = tf.reshape(tf.math.floormod(batch_idx, MOST_STEPS_PER_CALL), [1])
            self.steps.scatter_update(tf.IndexedSlices(tf.reshape(value, [1]), place))
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
        reduced = float(self.reduced)
        return reduced / float(self.weight) if self.options.reduce_fx == "mean" else reduced


class MetricLog:
    """What one stage has logged since the last reset."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def update(self, name: str, value: Any, options: LogOptions, batch_size: Any, batch_idx: Any = None) -> None:
        """Takes a value, in a graph or outside one.

        Raises:
            ValueError: the value is not a scalar, or the name was logged with other arguments before.
        """
        try:
            tensor = tf.convert_to_tensor(value)
        except (TypeError, ValueError):
            tensor = None
        if tensor is None or not (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool):
            raise ValueError(f"log({name!r}): the value is a {type(value).__name__}; expected a scalar number or tensor")
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
        entry.update(tf.cast(tf.reshape(tensor, []), tf.float64), batch_size, batch_idx)

    def reset(self) -> None:
        """Forgets the values, keeps the names."""
        for entry in self._entries.values():
            entry.reset()

    def begin(self) -> None:
        """Forgets what an earlier run has logged; the names that its traced steps log are still logged in their way."""
        self._entries = {name: entry for name, entry in self._entries.items() if entry.traced}
        self.reset()

    def epoch_values(self) -> dict[str, float]:
        """The reduced values of the names logged with on_epoch; under ``name_epoch`` where on_step is set too."""
        return {
            _forked(name, "_epoch") if entry.options.on_step else name: entry.epoch_value()
            for name, entry in self._logged()
            if entry.options.on_epoch
        }

    def step_values(self) -> dict[str, float]:
        """The last values of the names logged with on_step; under ``name_step`` where on_epoch is set too."""
        return {
            _forked(name, "_step") if entry.options.on_epoch else name: float(entry.last)
            for name, entry in self._logged()
            if entry.options.on_step
        }

    def bare_values(self) -> dict[str, float]:
        """Every name as it was written: its epoch's value so far where it has one, otherwise its last."""
        return {name: entry.epoch_value() if entry.options.on_epoch else float(entry.last) for name, entry in self._logged()}

    def steps_logged(self) -> dict[str, npt.NDArray[np.float64]]:
        """For the loggers: each name logged with on_step and its values, that of batch i at i modulo the array's length."""
        return {
            _forked(name, "_step") if entry.options.on_epoch else name: entry.steps.numpy()
            for name, entry in self._logged()
            if entry.steps is not None
        }

    def state(self) -> dict[str, Any]:
        """What has been logged since the last reset, as JSON values."""
        return {
            name: {**asdict(entry.options), "values": [float(v) for v in (entry.last, entry.reduced, entry.weight)]}
            for name, entry in self._logged()
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to such a state."""
        for name, saved in state.items():
            options = LogOptions(**{key: value for key, value in saved.items() if key != "values"})
            if name not in self._entries or self._entries[name].options != options:
                self._entries[name] = _Entry(options)
            entry = self._entries[name]
            for variable, value in zip((entry.last, entry.reduced, entry.weight), saved["values"], strict=True):
                variable.assign(value)

    def _logged(self) -> list[tuple[str, _Entry]]:
        return [(name, entry) for name, entry in self._entries.items() if float(entry.weight) > 0]

    def all_values(self) -> dict[str, float]:
        """Everything under every name: as it was written, per step, per epoch."""
        return self.bare_values() | self.step_values() | self.epoch_values()

    def prog_bar_values(self) -> dict[str, float]:
        """What the progress display shows."""
        return {name: value for name, value in self.bare_values().items() if self._entries[name].options.prog_bar}

    def logger_values(self) -> dict[str, float]:
        """What the loggers get at an epoch's end: the reduced values."""
        return {
            _forked(name, "_epoch") if entry.options.on_step else name: entry.epoch_value()
            for name, entry in self._logged()
            if entry.options.on_epoch and entry.options.logger
        }


def _forked(name: str, ending: str) -> str:
    """The name with an ending, which comes before that of a dataloader."""
    base, separator, index = name.partition("/dataloader_idx_")
    return f"{base}{ending}{separator}{index}"
