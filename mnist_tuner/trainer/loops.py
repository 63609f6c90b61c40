"""The passes over data: an epoch of training with its validation, an evaluation, a prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from mnist_tuner.trainer.compiled import CompiledLoop
from mnist_tuner.trainer.datamodule import ArrayLoader, Stage, apply_transform, slice_batch
from mnist_tuner.trainer.logging import MetricLog
from mnist_tuner.trainer.module import Module
from mnist_tuner.trainer.states import RunningStage

if TYPE_CHECKING:
    from mnist_tuner.trainer.trainer import Trainer

_NOUN = {"validate": "validation", "test": "test", "predict": "predict"}


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number.

    Attributes:
        step: the optimizer step, counted from 1.
        epoch: the epoch, counted from 1.
    """

    def __init__(self, step: int, epoch: int) -> None:
        super().__init__(
            f"the training diverged: the loss of step {step:,} (epoch {epoch}) is not finite; try a smaller learning rate"
        )
        self.step, self.epoch = step, epoch


def train_epoch(trainer: Trainer, module: Module, train: ArrayLoader, val: ArrayLoader | None) -> None:
    """One epoch: on_train_epoch_start, the batches, the validation, on_train_epoch_end; then the loggers.

    Raises:
        NonFiniteLossError: the loss became infinite or not a number.
    """
    log = _begin(trainer, module, RunningStage.TRAINING)
    trainer.batches_in_epoch = trainer.rows_in_epoch = 0
    trainer.call("on_train_epoch_start")
    batches = trainer.num_training_batches
    if trainer.max_steps >= 0:
        batches = min(batches, trainer.max_steps - trainer.global_step)
    for stage in _up_to(train.stages(trainer.current_epoch), batches):
        _train_stage(trainer, module, train, stage)
        if trainer.should_stop:
            break
    trainer.callback_metrics |= log.all_values()
    if val is not None:
        evaluate(trainer, module, RunningStage.VALIDATING, val)
        trainer.state.stage = RunningStage.TRAINING
        module._log = log
    trainer.call("on_train_epoch_end", between=lambda: trainer.callback_metrics.update(log.all_values()))
    _write_metrics(trainer, module)
    trainer.current_epoch += 1
    trainer.batches_in_epoch = trainer.rows_in_epoch = 0


def _train_stage(trainer: Trainer, module: Module, train: ArrayLoader, stage: Stage) -> None:
    hooked = trainer.overridden("on_train_batch_start", "on_train_batch_end")
    loop = _train_loop(trainer, module, train, steps_per_call=1 if hooked else trainer.steps_per_call)
    position = 0
    while position < stage.batches and not trainer.should_stop:
        if hooked:
            batch = train.preprocess(slice_batch(stage.rows, position, stage.batch_size))
            trainer.call("on_train_batch_start", batch, stage.first + position)
        trainer.in_call = True
        result = loop.run(stage, position, stage.batches, whole_batches=stage.batch_size == train.batch_size)
        steps = result.next - position
        trainer.global_step += steps
        trainer.batches_in_epoch += steps
        trainer.rows_in_epoch += steps * stage.batch_size
        trainer.in_call, trainer.jit_compiled = False, loop.jit_compiled
        if result.nonfinite is not None:
            raise NonFiniteLossError(trainer.global_step, trainer.current_epoch + 1)
        if hooked:
            trainer.call("on_train_batch_end", result.loss, batch, stage.first + position)
        position = result.next
        trainer.call_callbacks("on_train_steps_end")
        trainer.interrupt.check()


def evaluate(trainer: Trainer, module: Module, stage: RunningStage, loader: ArrayLoader) -> dict[str, float]:
    """One pass of validation or test within its hooks; returns the metrics."""
    with _pass(trainer, module, stage) as log:
        loop = _evaluation_loop(module, stage, loader)
        for rows in _up_to(loader.stages(epoch=0), trainer.limited(stage, loader)):
            position = 0
            while position < rows.batches:
                position = loop.run(rows, position, rows.batches).next
                trainer.interrupt.check()
        trainer.callback_metrics |= log.all_values()
    metrics = log.all_values()  # the hooks at the end may have logged more
    trainer.callback_metrics |= metrics
    return metrics


def predict(trainer: Trainer, module: Module, loader: ArrayLoader) -> list[Any]:
    """One pass of predict_step within its hooks; returns each batch's outputs as numpy arrays."""
    outputs = []
    program = _predict_program(module, loader)
    with _pass(trainer, module, RunningStage.PREDICTING):
        for stage in _up_to(loader.stages(epoch=0), trainer.limited(RunningStage.PREDICTING, loader)):
            for index in range(stage.batches):
                output = program(slice_batch(stage.rows, index, stage.batch_size), tf.constant(stage.first + index))
                outputs.append(tf.nest.map_structure(lambda tensor: tensor.numpy(), output))
                trainer.interrupt.check()
    return outputs


@contextmanager
def _pass(trainer: Trainer, module: Module, stage: RunningStage) -> Iterator[MetricLog]:
    """A pass without training, within its hooks."""
    noun = _NOUN[stage]
    log = _begin(trainer, module, stage)
    trainer.call(f"on_{noun}_start")
    trainer.call(f"on_{noun}_epoch_start")
    yield log
    trainer.call(f"on_{noun}_epoch_end")
    trainer.call(f"on_{noun}_end")


def _begin(trainer: Trainer, module: Module, stage: RunningStage) -> MetricLog:
    trainer.state.stage = stage
    log = logs_of(module).setdefault(stage, MetricLog())
    log.reset()
    module._log = log
    module.reset_metrics()
    return log


def _write_metrics(trainer: Trainer, module: Module) -> None:
    if not trainer.loggers:
        return
    metrics: dict[str, float] = {"epoch": float(trainer.current_epoch)}
    for stage in (RunningStage.TRAINING, RunningStage.VALIDATING):
        if stage in logs_of(module):
            metrics |= logs_of(module)[stage].logger_values()
    for logger in trainer.loggers:
        logger.log_metrics(metrics, trainer.global_step)


# Programs and logs live with the module, so that a later fit of the same module compiles nothing.


def loops_of(module: Module) -> dict[Any, CompiledLoop]:
    """The module's compiled loops; a key begins with the stage."""
    loops: dict[Any, CompiledLoop] = module.__dict__.setdefault("_loops", {})
    return loops


def logs_of(module: Module) -> dict[RunningStage, MetricLog]:
    """What the module logs, by stage."""
    logs: dict[RunningStage, MetricLog] = module.__dict__.setdefault("_logs", {})
    return logs


def _train_loop(trainer: Trainer, module: Module, loader: ArrayLoader, steps_per_call: Any) -> CompiledLoop:
    key = (RunningStage.TRAINING, loader.transform, trainer.jit_compile, steps_per_call)
    if key not in loops_of(module):
        step = _with_batch_size(module, module.optimize)
        loops_of(module)[key] = CompiledLoop(step, _preprocessing(loader), trainer.jit_compile, steps_per_call)
    return loops_of(module)[key]


def _evaluation_loop(module: Module, stage: RunningStage, loader: ArrayLoader) -> CompiledLoop:
    key = (stage, loader.transform)
    if key not in loops_of(module):
        step = module.validation_step if stage is RunningStage.VALIDATING else module.test_step

        def measure(batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
            step(batch, batch_idx)
            return tf.constant(0.0)

        # XLA would not earn back its compile time: a pass over 10,000 digits takes 0.05 s in a plain graph.
        loop = CompiledLoop(_with_batch_size(module, measure), _preprocessing(loader), False, "auto", stop_at_nonfinite=False)
        loops_of(module)[key] = loop
    return loops_of(module)[key]


def _predict_program(module: Module, loader: ArrayLoader) -> Callable[[Any, tf.Tensor], Any]:
    programs: dict[Any, Callable[[Any, tf.Tensor], Any]] = module.__dict__.setdefault("_predict_programs", {})
    if loader.transform not in programs:
        preprocess = _preprocessing(loader)

        def step(batch: Any, batch_idx: tf.Tensor) -> Any:
            return module.predict_step(preprocess(batch), batch_idx)

        programs[loader.transform] = tf.function(step, autograph=False)
    return programs[loader.transform]


def _preprocessing(loader: ArrayLoader) -> Callable[[Any], Any]:
    """The loader's transform without the loader: a program must not keep its data alive."""
    return partial(apply_transform, loader.transform)


def trace_anew_if_changed(module: Module) -> None:
    """Forgets the module's programs if what they were traced with is no longer what it has."""
    objects = module.traced_objects()
    known = module.__dict__.get("_traced", objects)
    if len(known) != len(objects) or any(a is not b for a, b in zip(known, objects, strict=True)):
        for cache in (loops_of(module), logs_of(module), module.__dict__.setdefault("_predict_programs", {})):
            cache.clear()
    module.__dict__["_traced"] = objects


def _with_batch_size(module: Module, step: Callable[[Any, tf.Tensor], tf.Tensor]) -> Callable[[Any, tf.Tensor], tf.Tensor]:
    """Tells `Module.log` the batch's size while the step is traced."""

    def wrapped(batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        module._batch_size = tf.nest.flatten(batch)[0].shape[0]
        try:
            return step(batch, batch_idx)
        finally:
            module._batch_size = None

    return wrapped


def _up_to(stages: Iterator[Stage], batches: int) -> Iterator[Stage]:
    """The stages' first batches."""
    for stage in stages:
        if stage.first >= batches:
            return
        if stage.first + stage.batches > batches:
            stage = Stage(stage.rows, stage.batch_size, stage.first, batches - stage.first)
        yield stage
