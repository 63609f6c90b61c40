"""The inner loop: many steps per call, in a graph, which XLA compiles where that pays.

Python is back between calls only, to refresh the display and to look whether to stop. A call takes about 100 ms, found by
timing. All state lives in variables, so a result does not depend on the calls' lengths.
"""

from __future__ import annotations

import math
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import tensorflow as tf

from mnist_tuner.trainer.data import Chunk, slice_batch
from mnist_tuner.trainer.xla import Cost, cost_of, kept_programs, quick_random_numbers, takes_strings, without_gpu

JitCompile = Literal["auto"] | bool
TARGET_CALL_SECONDS = 0.1
MOST_STEPS_PER_CALL = 2048
"""A call makes no more, so that the values logged per step fit into a buffer of this size."""


@dataclass(frozen=True)
class CallResult:
    """What one call did.

    Attributes:
        next: the batch of the chunk at which to go on.
        loss: what the last step returned.
        nonfinite: the batch of the chunk whose loss was the first that was not finite, or None.
    """

    next: int
    loss: float
    nonfinite: int | None


class CompiledLoop:
    """Runs a step over the batches of a chunk.

    Args:
        step: traced into the graph; takes a preprocessed batch and its index within the epoch, returns a scalar.
        preprocess: traced into the graph before it.
        jit_compile: True for XLA, False for a plain graph, "auto" for XLA where it pays, see `xla`.
        steps_per_call: a number, or "auto" for calls of about 100 ms.
        stop_at_nonfinite: whether a loss that is not finite ends the call.

    Attributes:
        planned_steps: how many are to be run in all, for "auto".
        decided: for "auto", what is taken whether it pays or not, such as what a resumed training began with; None for nothing.
        jit_compiled: whether XLA runs the loop; None before it is known.
        trace_seconds, xla_seconds: what tracing and compiling have cost so far.
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
        self._programs: dict[Any, Any] = {}
        self._cost: Cost | None = None
        self._steps = 1
        self._takes_any_size = True
        self.planned_steps = math.inf
        self.decided: bool | None = None
        self.jit_compiled: bool | None = None if jit_compile == "auto" else jit_compile
        self.trace_seconds = 0.0
        self.xla_seconds = 0.0

    @property
    def compile_seconds(self) -> float:
        """What tracing and compiling have cost so far."""
        return self.trace_seconds + self.xla_seconds

    def run(self, chunk: Chunk, start: int, stop: int) -> CallResult:
        """One call: steps from batch `start` of the chunk on, to `stop` at most.

        Args:
            chunk: the batches.
            start: the first batch of the chunk to take.
            stop: the batch of the chunk to end before.
        """
        program = self._program(chunk)
        length = self._fixed_steps or self._steps
        began = time.perf_counter()
        position, nonfinite, loss = program(*_arguments(chunk, start, min(stop, start + length)))
        result = CallResult(int(position), float(loss), None if (bad := int(nonfinite)) < 0 else bad)
        done = result.next - start
        if chunk.batches > 1 and done:  # a short last batch says nothing of the others' speed
            fitting = TARGET_CALL_SECONDS * done / (time.perf_counter() - began)
            self._steps = max(1, min(round(fitting), 8 * done, MOST_STEPS_PER_CALL))
        return result

    def prepare(self, chunk: Chunk) -> None:
        """Traces and compiles what a call for this chunk needs, without a step."""
        self._program(chunk)

    def _program(self, chunk: Chunk) -> Any:
        # An epoch's short last batch comes once an epoch: a plain graph is cheaper than compiling a second program.
        if not chunk.whole:
            return self._plain(chunk)
        self.jit_compiled = self._takes_xla(chunk)
        return self._compiled(chunk) if self.jit_compiled else self._plain(chunk)

    def _takes_xla(self, chunk: Chunk) -> bool:
        if self._jit_compile != "auto":
            return self._jit_compile
        if self.decided is not None:
            return self.decided
        if not without_gpu():
            return True
        if self._cost is None:
            self._cost = cost_of(self._plain(chunk).graph)
        return self._cost.pays(self.planned_steps)

    def _plain(self, chunk: Chunk) -> Any:
        # Batches of all sizes by one program: to trace it costs as much as an epoch of a small net.
        if chunk.sizes_differ and self._takes_any_size and self._jit_compile is not True:
            key: tuple[Any, ...] = ("plain", chunk.open_key)
            try:
                return self._programs.get(key) or self._add(key, chunk, any_size=True)
            except Exception:  # the step may need to know the size; if it fails for another reason, it will fail again
                self._takes_any_size = False
        key = ("plain", *chunk.key)
        return self._programs.get(key) or self._add(key, chunk, any_size=False)

    def _add(self, key: tuple[Any, ...], chunk: Chunk, any_size: bool) -> Any:
        program = self._traced(self._loop(None if any_size else chunk.cut), chunk, any_size=any_size)
        program(*_arguments(chunk, 0, 0))
        self._programs[key] = program
        return program

    def _compiled(self, chunk: Chunk) -> Any:
        """The program that XLA has compiled; where it refuses, and may, the plain one."""
        key = ("XLA", *chunk.key)
        if key in self._programs:
            return self._programs[key]
        known = self._programs.get(("plain", *key[1:]))
        loop = self._loop(chunk.cut)
        if known is not None and self._cost is not None and not self._cost.random:
            loop = lambda *arguments: known(*arguments)  # what has been traced is not traced again  # noqa: E731
        try:
            self._programs[key] = self._by_xla(loop, chunk)
        except (ValueError, tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if self._jit_compile is True:
                raise
            refused = re.search(r"on XLA_\w+: (\w+) \(", str(error))
            reason = f"it has no {refused[1]} operation" if refused else str(error).splitlines()[0][:200]
            warnings.warn(
                f"XLA cannot compile this step: {reason}. It runs as a plain graph, which is slower; to silence this, pass "
                "jit_compile=False",
                stacklevel=2,
            )
            self._jit_compile = self.jit_compiled = False
            return self._plain(chunk)
        return self._programs[key]

    def _by_xla(self, loop: Callable[..., Any], chunk: Chunk) -> Any:
        """What XLA makes of it; without what it had kept on the disk, if with that it fails."""
        try:
            return self._by_xla_once(loop, chunk)
        except Exception:
            folder = kept_programs()
            if folder is None:
                raise
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            program = self._by_xla_once(loop, chunk)
            warnings.warn(f"{folder}: a compiled program was damaged; all have been deleted, and are compiled anew", stacklevel=2)
            return program

    def _by_xla_once(self, loop: Callable[..., Any], chunk: Chunk) -> Any:
        with quick_random_numbers():
            program = self._traced(loop, chunk, jit=True)
        began = time.perf_counter()
        if takes_strings(program.graph):
            raise ValueError("XLA cannot compile this step: it takes strings")
        program(*_arguments(chunk, 0, 0))  # no step: XLA compiles now, and if it refuses, no variable has been touched
        self.xla_seconds += time.perf_counter() - began
        return program

    def _traced(self, loop: Callable[..., Any], chunk: Chunk, jit: bool = False, any_size: bool = False) -> Any:
        began = time.perf_counter()
        function = tf.function(loop, jit_compile=jit, autograph=False)
        scalars = tf.nest.map_structure(tf.TensorSpec.from_tensor, _arguments(chunk, 0, 0)[1:])
        with without_all_reduce():
            program = function.get_concrete_function(chunk.open_signature if any_size else chunk.signature, *scalars)
        self.trace_seconds += time.perf_counter() - began
        return program

    def _loop(self, cut: Callable[[Any, tf.Tensor], Any] | None) -> Callable[..., Any]:
        """What is traced; without `cut` the batches have the size that is an argument."""

        def loop(rows: Any, start: tf.Tensor, stop: tf.Tensor, first: tf.Tensor, size: tf.Tensor) -> Any:
            take = cut or partial(slice_batch, batch_size=size)

            def proceed(index: tf.Tensor, nonfinite: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
                return (index < stop) & (nonfinite < 0)

            def body(index: tf.Tensor, nonfinite: tf.Tensor, _: tf.Tensor) -> Any:
                batch = self._preprocess(take(rows, index))
                loss = tf.cast(tf.reshape(self._step(batch, first + index), []), tf.float32)
                if self._stop_at_nonfinite:
                    nonfinite = tf.where(tf.math.is_finite(loss), nonfinite, index)
                return index + 1, nonfinite, loss

            # A tensor counter: with tf.range XLA would take start and stop as constants and compile for each of them.
            return tf.while_loop(proceed, body, (start, tf.constant(-1), tf.constant(0.0)), parallel_iterations=1)

        return loop


@contextmanager
def without_all_reduce() -> Iterator[None]:
    """While something is traced and there is but one replica, its gradients are their own sum.

    Keras's optimizers sum them over all replicas in any case. TensorFlow 2.21 does that by a gradient function of its own, which
    it never forgets, nor the graph that it is in: some 3 MB of each small net that is trained.
    """
    context = None if tf.distribute.has_strategy() else tf.distribute.get_replica_context()
    if context is None or "all_reduce" in vars(context):
        yield
        return
    context.all_reduce = lambda reduce_op, value, options=None: tf.nest.map_structure(tf.identity, value)
    try:
        yield
    finally:
        del context.all_reduce


def _arguments(chunk: Chunk, start: int, stop: int) -> tuple[Any, ...]:
    """Those of a call from one batch of the chunk to another."""
    return chunk.rows, tf.constant(start), tf.constant(stop), tf.constant(chunk.first), tf.constant(chunk.batch_size)
