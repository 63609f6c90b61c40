"""The compiled programs of a module, and what it logs: both live with it, so that a later fit of it compiles nothing."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from mnist_tuner.trainer.compiled import CompiledLoop, JitCompile
from mnist_tuner.trainer.data import Loader, Stage, apply_transform
from mnist_tuner.trainer.logging import MetricLog
from mnist_tuner.trainer.module import Module
from mnist_tuner.trainer.optimization import needs_xla
from mnist_tuner.trainer.progress import RunningStage, TrainerFn
from mnist_tuner.trainer.tracing import traced

if TYPE_CHECKING:
    from mnist_tuner.trainer.trainer import Trainer


def loops_of(module: Module) -> dict[Any, Any]:
    """The module's compiled loops and programs; a key begins with the stage."""
    loops: dict[Any, Any] = module.__dict__.setdefault("_loops", {})
    return loops


def logs_of(module: Module) -> dict[RunningStage, MetricLog]:
    """What the module logs, by stage."""
    logs: dict[RunningStage, MetricLog] = module.__dict__.setdefault("_logs", {})
    return logs


def train_loop(trainer: Trainer, module: Module, loader: Loader, steps_per_call: Any) -> CompiledLoop:
    key = (RunningStage.TRAINING, _known(loader), trainer.jit_compile, steps_per_call, trainer.gradient_clipping)
    if key not in loops_of(module):
        step = traced(module, module.optimize)
        loops_of(module)[key] = CompiledLoop(step, _preprocessing(module, loader), trainer.jit_compile, steps_per_call)
    return _planned(trainer, module, loops_of(module)[key], trainer.num_training_batches)


def evaluation_loop(
    trainer: Trainer, module: Module, stage: RunningStage, loader: Loader, batches: float, dataloader_idx: int | None
) -> CompiledLoop:
    jit: JitCompile = "auto" if needs_xla(module) else trainer.jit_compile and "auto"
    key = (stage, _known(loader), jit, dataloader_idx)
    if key not in loops_of(module):
        step = traced(module, _step(module, stage), dataloader_idx)

        def measure(batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
            step(batch, batch_idx)
            return tf.constant(0.0)

        loops_of(module)[key] = CompiledLoop(measure, _preprocessing(module, loader), jit, "auto", stop_at_nonfinite=False)
    return _planned(trainer, module, loops_of(module)[key], batches)


def _planned(trainer: Trainer, module: Module, loop: CompiledLoop, batches: float) -> CompiledLoop:
    """The loop, told what it chooses between XLA and a plain graph by."""
    assert module.model is not None
    loop.planned_steps = trainer.planned_epochs * batches
    resumed = trainer.checkpoint if trainer.state.fn is TrainerFn.FITTING else None
    if needs_xla(module):
        loop.preferred = True
    elif resumed is not None:  # it goes on as it began
        training = trainer.state.stage is RunningStage.TRAINING
        loop.preferred = resumed.header.jit_compiled if training else resumed.header.validation_jit_compiled
    else:
        loop.preferred = True if module.model.jit_compile else None  # as the model was compiled
    return loop


def step_program(
    module: Module, stage: RunningStage, dataloader_idx: int | None, differing: bool
) -> Callable[[Any, tf.Tensor], Any]:
    key = (stage, "step", dataloader_idx, differing)
    if key not in loops_of(module):
        step, jit = traced(module, _step(module, stage), dataloader_idx), True if needs_xla(module) else None
        loops_of(module)[key] = tf.function(step, autograph=False, jit_compile=jit, reduce_retracing=differing)
    program: Callable[[Any, tf.Tensor], Any] = loops_of(module)[key]
    return program


def batch_program(module: Module, loader: Loader, stage: Stage) -> Callable[[Any, tf.Tensor], Any]:
    """Cuts a batch out of a stage's rows and preprocesses it: one graph, where several operations would cost several times."""
    key = ("batch", _known(loader), stage.key)
    if key not in loops_of(module):
        preprocess, cut = _preprocessing(module, loader), stage.cut
        signature = (stage.signature, tf.TensorSpec([], tf.int32))
        loops_of(module)[key] = tf.function(
            lambda rows, index: preprocess(cut(rows, index)), autograph=False, input_signature=signature
        )
    program: Callable[[Any, tf.Tensor], Any] = loops_of(module)[key]
    return program


def _step(module: Module, stage: RunningStage) -> Callable[..., Any]:
    name = {"validate": "validation_step", "test": "test_step", "predict": "predict_step"}[stage]
    step: Callable[..., Any] = getattr(module, name)
    return step


def _known(loader: Loader) -> Any:
    """What stands for a loader in a key: a program keeps its transform alive, so that its id is its own."""
    return loader.of_arrays, loader.transform if isinstance(loader.transform, Hashable) else id(loader.transform)


def _preprocessing(module: Module, loader: Loader) -> Callable[[Any], Any]:
    """The loader's transform, and what the module makes of its batches, without the loader: a program must not keep its data
    alive."""
    of_arrays, transform = loader.of_arrays, loader.transform
    return lambda batch: module.receives(apply_transform(transform, batch), of_arrays)


def trace_anew_if_changed(module: Module) -> None:
    """Forgets the module's programs if what they were traced with is no longer what it has."""
    objects, constants = module.traced_objects(), module.traced_constants()
    known, known_constants = module.__dict__.get("_traced", (objects, constants))
    same = len(known) == len(objects) and all(a is b for a, b in zip(known, objects, strict=True))
    if not same or constants != known_constants:
        loops_of(module).clear()
        logs_of(module).clear()
    module.__dict__["_traced"] = objects, constants
