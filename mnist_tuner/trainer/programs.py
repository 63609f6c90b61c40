"""The compiled programs of a module. They live with it, so that a later fit of it compiles nothing."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import tensorflow as tf

from mnist_tuner.trainer.checkpoint import CheckpointHeader
from mnist_tuner.trainer.compiled import CompiledLoop, JitCompile
from mnist_tuner.trainer.data import Chunk, Loader, apply_transform
from mnist_tuner.trainer.module import Module, model_of
from mnist_tuner.trainer.module_state import loops_of, state_of
from mnist_tuner.trainer.progress import RunningStage
from mnist_tuner.trainer.tracing import traced
from mnist_tuner.trainer.xla import without_gpu


def train_loop(
    module: Module, loader: Loader, jit_compile: JitCompile, steps_per_call: Any, gradient_clipping: tuple[str, float] | None
) -> CompiledLoop:
    """The loop over training batches.

    Args:
        module: whose training_step it runs.
        loader: whose batches it takes.
        jit_compile, steps_per_call: see `CompiledLoop`.
        gradient_clipping: as the optimizer has it: the loop is traced with it.
    """
    key = (RunningStage.TRAINING, _loader_key(loader), jit_compile, steps_per_call, gradient_clipping)
    if key not in loops_of(module):
        step = traced(module, module.optimize)
        loops_of(module)[key] = CompiledLoop(step, _preprocessing(module, loader), jit_compile, steps_per_call)
    loop: CompiledLoop = loops_of(module)[key]
    return loop


def evaluation_loop(
    module: Module, stage: RunningStage, loader: Loader, jit_compile: JitCompile, dataloader_idx: int | None
) -> CompiledLoop:
    """The loop over batches of validation or test; arguments as those of `train_loop`, and which of several loaders it is."""
    jit: JitCompile = "auto" if needs_xla(module) else jit_compile and "auto"
    key = (stage, _loader_key(loader), jit, dataloader_idx)
    if key not in loops_of(module):
        step = traced(module, _step(module, stage), dataloader_idx)

        def measure(batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
            step(batch, batch_idx)
            return tf.constant(0.0)

        loops_of(module)[key] = CompiledLoop(measure, _preprocessing(module, loader), jit, "auto", stop_at_nonfinite=False)
    loop: CompiledLoop = loops_of(module)[key]
    return loop


def decided_jit(module: Module, resumed: CheckpointHeader | None, training: bool) -> bool | None:
    """What a loop takes with jit_compile="auto", whether it pays or not; see `CompiledLoop.decided`.

    Args:
        module: whose loop it is.
        resumed: of the checkpoint that a training goes on from: it goes on as it began.
        training: whether it is the loop over training batches.
    """
    if needs_xla(module):
        return True
    if resumed is not None:
        return resumed.jit_compiled if training else resumed.validation_jit_compiled
    return True if model_of(module).jit_compile else None  # as the model was compiled


def needs_xla(module: Module) -> bool:
    """On a CPU TensorFlow's own float16 products are a hundred times slower than XLA's."""
    return model_of(module).compute_dtype == "float16" and without_gpu()


def step_program(
    module: Module, stage: RunningStage, dataloader_idx: int | None, differing: bool
) -> Callable[[Any, tf.Tensor], Any]:
    """A step of validation, test or prediction for one batch.

    Args:
        module: whose step it is.
        stage: which it is.
        dataloader_idx: the number of one of several loaders.
        differing: whether the batches differ in shape.
    """
    key = (stage, "step", dataloader_idx, differing)
    if key not in loops_of(module):
        step, jit = traced(module, _step(module, stage), dataloader_idx), True if needs_xla(module) else None
        loops_of(module)[key] = tf.function(step, autograph=False, jit_compile=jit, reduce_retracing=differing)
    program: Callable[[Any, tf.Tensor], Any] = loops_of(module)[key]
    return program


def batch_program(module: Module, loader: Loader, chunk: Chunk) -> Callable[[Any, tf.Tensor], Any]:
    """Cuts a batch out of a chunk's rows and preprocesses it: one graph, where several operations would cost several times."""
    key = ("batch", _loader_key(loader), chunk.key)
    if key not in loops_of(module):
        preprocess, cut = _preprocessing(module, loader), chunk.cut
        signature = (chunk.signature, tf.TensorSpec([], tf.int32))
        loops_of(module)[key] = tf.function(
            lambda rows, index: preprocess(cut(rows, index)), autograph=False, input_signature=signature
        )
    program: Callable[[Any, tf.Tensor], Any] = loops_of(module)[key]
    return program


def _step(module: Module, stage: RunningStage) -> Callable[..., Any]:
    name = {"validate": "validation_step", "test": "test_step", "predict": "predict_step"}[stage]
    step: Callable[..., Any] = getattr(module, name)
    return step


def _loader_key(loader: Loader) -> Any:
    """What stands for a loader in a key: a program keeps its transform alive, so that its id is its own."""
    return loader.of_arrays, loader.transform if isinstance(loader.transform, Hashable) else id(loader.transform)


def _preprocessing(module: Module, loader: Loader) -> Callable[[Any], Any]:
    """The loader's transform, and what the module makes of its batches, without the loader: a program must not keep its data
    alive."""
    of_arrays, transform = loader.of_arrays, loader.transform
    return lambda batch: module.receives(apply_transform(transform, batch), of_arrays)


def trace_anew_if_changed(module: Module) -> None:
    """Forgets the module's programs if what they were traced with is no longer what it has."""
    state, (objects, constants) = state_of(module), (module.traced_objects(), module.traced_constants())
    known, known_constants = state.traced_with or (objects, constants)
    same = len(known) == len(objects) and all(a is b for a, b in zip(known, objects, strict=True))
    if not same or constants != known_constants:
        state.loops.clear()
        state.logs.clear()
    state.traced_with = objects, constants
