"""The inner loop: many steps per call, compiled by XLA.

Python is back between calls only, to refresh the display and to look whether to stop. A call takes about 100 ms, found by
timing. All state lives in variables, so a result does not depend on the calls' lengths.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from mnist_tuner.trainer.datamodule import Stage, slice_batch

JitCompile = Literal["auto"] | bool
TARGET_CALL_SECONDS = 0.1
MOST_STEPS_PER_CALL = 2048
"""A call makes no more, so that the values logged per step fit into a buffer of this size."""


@dataclass(frozen=True)
class CallResult:
    """What one call did.

    Attributes:
        next: the batch of the stage at which to go on.
        loss: what the last step returned.
        nonfinite: the batch of the stage whose loss was the first that was not finite, or None.
    """

    next: int
    loss: float
    nonfinite: int | None


class CompiledLoop:
    """Runs a step over the batches of a stage.

    Args:
        step: traced into the graph; takes a preprocessed batch and its index within the epoch, returns a scalar.
        preprocess: traced into the graph before it.
        jit_compile: True for XLA, False for a plain graph, "auto" for XLA with a plain graph where XLA refuses.
        steps_per_call: a number, or "auto" for calls of about 100 ms.
        stop_at_nonfinite: whether a loss that is not finite ends the call.
    """

    def __init__(
        self,
        step: Callable[[Any, tf.Tensor], tf.Tensor],
        preprocess: Callable[[Any], Any],
        jit_compile: JitCompile,
        steps_per_call: Literal["auto"] | int,
        stop_at_nonfinite: bool = True,
    ) -> None:
        self._step = step
        self._preprocess = preprocess
        self._jit_compile = jit_compile
        self._fixed_steps = None if steps_per_call == "auto" else min(steps_per_call, MOST_STEPS_PER_CALL)
        self._stop_at_nonfinite = stop_at_nonfinite
        self._programs: dict[Any, Callable[..., Any]] = {}
        self._steps = 1
        self.trace_seconds = 0.0
        self.xla_seconds = 0.0

    @property
    def compile_seconds(self) -> float:
        """What tracing and compiling have cost so far."""
        return self.trace_seconds + self.xla_seconds

    @property
    def jit_compiled(self) -> bool:
        """Whether XLA runs the loop (as far as is known before the first call)."""
        return self._jit_compile is not False

    def run(self, stage: Stage, start: int, stop: int) -> CallResult:
        """One call: steps from batch `start` of the stage on, to `stop` at most.

        Args:
            stage: the batches.
            start: the first batch of the stage to take.
            stop: the batch of the stage to end before.
        """
        # An epoch's short last batch comes once an epoch: a plain graph is cheaper than compiling a second program.
        program = self._program(stage, jit=stage.whole and self.jit_compiled)
        length = self._fixed_steps or self._steps
        began = time.perf_counter()
        position, nonfinite, loss = program(
            stage.rows, tf.constant(start), tf.constant(min(stop, start + length)), tf.constant(stage.first)
        )
        result = CallResult(int(position), float(loss), None if (bad := int(nonfinite)) < 0 else bad)
        done = result.next - start
        if stage.whole and done:
            fitting = TARGET_CALL_SECONDS * done / (time.perf_counter() - began)
            self._steps = max(1, min(round(fitting), 8 * done, MOST_STEPS_PER_CALL))
        return result

    def prepare(self, stage: Stage) -> None:
        """Traces and compiles what a call for this stage needs, without a step."""
        self._program(stage, jit=stage.whole and self.jit_compiled)

    def _program(self, stage: Stage, jit: bool) -> Callable[..., Any]:
        key = (jit, tuple((tuple(t.shape), t.dtype) for t in tf.nest.flatten(stage.rows)), stage.batch_size)
        if key not in self._programs:
            program = self._build(stage, jit)
            key = (jit and self.jit_compiled, *key[1:])  # XLA may have refused
            self._programs[key] = program
        return self._programs[key]

    def _build(self, stage: Stage, jit: bool) -> Callable[..., Any]:
        batch_size = stage.batch_size

        def loop(rows: Any, start: tf.Tensor, stop: tf.Tensor, first: tf.Tensor) -> Any:
            def proceed(index: tf.Tensor, nonfinite: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
                return (index < stop) & (nonfinite < 0)

            def body(index: tf.Tensor, nonfinite: tf.Tensor, _: tf.Tensor) -> Any:
                batch = self._preprocess(slice_batch(rows, index, batch_size))
                loss = tf.cast(tf.reshape(self._step(batch, first + index), []), tf.float32)
                if self._stop_at_nonfinite:
                    nonfinite = tf.where(tf.math.is_finite(loss), nonfinite, index)
                return index + 1, nonfinite, loss

            # A tensor counter: with tf.range XLA would take start and stop as constants and compile for each of them.
            return tf.while_loop(proceed, body, (start, tf.constant(-1), tf.constant(0.0)), parallel_iterations=1)

        arguments = (stage.rows, tf.constant(0), tf.constant(0), tf.constant(stage.first))
        function = tf.function(loop, jit_compile=jit, autograph=False)
        began = time.perf_counter()
        program: Callable[..., Any] = function.get_concrete_function(*tf.nest.map_structure(tf.TensorSpec.from_tensor, arguments))
        traced = time.perf_counter()
        self.trace_seconds += traced - began
        try:
            program(*arguments)  # no step: XLA compiles now, and if it refuses, no variable has been touched
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not jit or self._jit_compile is True:
                raise
            refused = re.search(r"on XLA_\w+: (\w+) \(", error.message)
            reason = f"it has no {refused[1]} operation" if refused else error.message.splitlines()[0][:200]
            warnings.warn(
                f"XLA cannot compile this step: {reason}. It runs as a plain graph, which is slower; to silence this, pass "
                "jit_compile=False",
                stacklevel=2,
            )
            self._jit_compile = False
            return self._build(stage, jit=False)
        self.xla_seconds += time.perf_counter() - traced
        return program
