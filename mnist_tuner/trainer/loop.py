"""The passes over data: an epoch of training with its validation, an evaluation, a prediction."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from mnist_tuner.trainer.compiled import MOST_STEPS_PER_CALL
from mnist_tuner.trainer.data import Loader, Stage
from mnist_tuner.trainer.hooks import call, call_callbacks, overridden
from mnist_tuner.trainer.logging import MetricLog
from mnist_tuner.trainer.module import Module
from mnist_tuner.trainer.programs import batch_program, evaluation_loop, logs_of, step_program, train_loop
from mnist_tuner.trainer.progress import RunningStage
from mnist_tuner.trainer.rhythm import batches_of_epoch, batches_until_due, stopping, validation_due, validation_is_extra
from mnist_tuner.trainer.seed import global_generator
from mnist_tuner.trainer.tracing import logging_from

if TYPE_CHECKING:
    from mnist_tuner.trainer.trainer import Trainer

_NOUN = {"sanity_check": "validation", "validate": "validation", "test": "test", "predict": "predict"}


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number.

    Attributes:
        step: the training batch, counted from 1 over all epochs.
        epoch: the epoch, counted from 1.
    """

    def __init__(self, step: int, epoch: int) -> None:
        super().__init__(
            f"the training diverged: the loss of step {step:,} (epoch {epoch}) is not finite; try a smaller learning rate"
        )
        self.step, self.epoch = step, epoch


class StepOutput(float):
    """What on_train_batch_end gets: the loss, which can also be read as ``outputs["loss"]``.

    Args:
        loss: of the step.
        log: what the training logs.
    """

    def __new__(cls, loss: float, log: MetricLog) -> StepOutput:
        """A float that knows where the logs are."""
        output = super().__new__(cls, loss)
        output._log = log
        return output

    _log: MetricLog

    @cached_property
    def logs(self) -> dict[str, float]:
        """The metrics of the epoch so far, in Keras's order; one dict for all of Keras's callbacks, read when one asks."""
        return dict(sorted(self._log.bare_values().items()))

    def keys(self) -> list[str]:
        """Makes it a mapping."""
        return ["loss"]

    def __getitem__(self, name: str) -> float:
        if name != "loss":
            raise KeyError(name)
        return float(self)


# Training.


def train_epoch(trainer: Trainer, module: Module, train: Loader) -> None:
    """One epoch: on_train_epoch_start, the batches with validations in between, on_train_epoch_end with what is logged then.

    Raises:
        NonFiniteLossError: the loss became infinite or not a number.
    """
    progress, log = trainer.progress, logs_of(module)[RunningStage.TRAINING]
    trainer.rows_in_epoch = 0
    trainer.epoch_metrics = dict(trainer.callback_metrics) if progress.batch else {}
    call(trainer, "on_train_epoch_start")
    _validate_if_due(trainer, module)  # a resumed training may have been stopped just before
    most = batches_of_epoch(trainer)
    for stage in train.stages(progress.epoch, progress.batch, most):
        _train_stage(trainer, module, train, stage)
        if stopping(trainer):
            break
    complete = progress.batch >= trainer.num_training_batches or (progress.batch < most and not stopping(trainer))
    # A validation just because the training stops here, and the end of what was only a part of an epoch, are no part of a
    # training that goes on: a checkpoint must not hold what is logged there.
    goes_on = complete and not validation_is_extra(trainer)
    if not goes_on:
        trainer.snapshot = log.state(), [logger.state_dict() for logger in trainer.loggers]
    trainer.measured(log.all_values())
    _validate_if_due(trainer, module, at_end=complete or stopping(trainer))

    def log_epoch() -> None:
        trainer.measured(log.all_values())
        trainer.epoch_logs = dict(sorted(trainer.epoch_metrics.items()))
        trainer.log_metrics(log.logger_values() | trainer.validation_metrics)
        trainer.validation_metrics = {}
        progress.ended = goes_on

    module._log = log
    call(trainer, "on_train_epoch_end", between=log_epoch)
    module._log = trainer.snapshot = None
    progress.next_epoch()


def _train_stage(trainer: Trainer, module: Module, train: Loader, stage: Stage) -> None:
    progress, profiler = trainer.progress, trainer.profiler
    log = logs_of(module)[RunningStage.TRAINING]
    hooked = overridden(trainer, "on_train_batch_start", "on_train_batch_end")
    loop = train_loop(trainer, module, train, steps_per_call=1 if hooked else trainer.steps_per_call)
    position = 0
    if trainer.checkpoint is not None and not trainer.metrics_restored:  # some make their variables when they are traced
        loop.prepare(stage)
        trainer.metrics_restored = trainer.checkpoint.restore_metrics(module)
        if not trainer.metrics_restored:
            warnings.warn("the state of some metrics does not fit the checkpoint: they start anew within the epoch", stacklevel=5)
            trainer.metrics_restored = True
    while position < stage.batches and not stopping(trainer):
        batch_idx = stage.first + position
        if hooked:
            batch = batch_program(module, train, stage)(stage.rows, tf.constant(position))
            with logging_from(module, batch, batch_idx, None):
                call(trainer, "on_train_batch_start", batch, batch_idx)
        traced_before, compiled_before = loop.trace_seconds, loop.xla_seconds
        trainer.in_call = True
        began = time.perf_counter()
        result = loop.run(stage, position, min(stage.batches, position + batches_until_due(trainer)))
        steps, position = result.next - position, result.next
        progress.advance(steps, trainer.accumulation)
        trainer.rows_in_epoch += steps * stage.batch_size
        trainer.in_call, trainer.jit_compiled = False, loop.jit_compiled
        traced_for, compiled_for = loop.trace_seconds - traced_before, loop.xla_seconds - compiled_before
        profiler.record("train calls", time.perf_counter() - began - traced_for - compiled_for)
        if traced_for:
            profiler.record("trace", traced_for)
            profiler.record("compile", compiled_for)
        if hooked:
            with logging_from(module, batch, batch_idx, None):
                call(trainer, "on_train_batch_end", StepOutput(result.loss, log), batch, batch_idx)
        if result.nonfinite is not None and not (hooked and trainer.should_stop):  # a hook may have ended the training for it
            raise NonFiniteLossError(progress.total_batches, progress.epoch + 1)
        _log_steps(trainer, module, log, steps)
        call_callbacks(trainer, "on_train_steps_end")
        trainer.interrupt.check()
        _validate_if_due(trainer, module)


def _log_steps(trainer: Trainer, module: Module, log: MetricLog, done: int) -> None:
    """The rows of those of the last `done` batches whose step is a multiple of log_every_n_steps."""
    every = trainer.log_every_n_steps * trainer.accumulation
    last, first_of_epoch = trainer.progress.total_batches, trainer.progress.total_batches - trainer.progress.batch
    due = range((last - done) // every * every + every, last + 1, every)
    if not trainer.loggers or not due:
        return
    buffers = log.steps_logged()
    for batches in due:
        place = (batches - first_of_epoch - 1) % MOST_STEPS_PER_CALL
        metrics = {name: float(values[place]) for name, values in buffers.items()}
        step = batches // trainer.accumulation
        for callback in trainer.callbacks:
            metrics |= callback.step_metrics(trainer, module, step)
        if metrics:
            trainer.log_metrics(metrics, step)


def _validate_if_due(trainer: Trainer, module: Module, at_end: bool = False) -> None:
    """The validation after this batch, if there is one.

    Args:
        trainer: the trainer.
        module: its module.
        at_end: whether the epoch ends here: then its own row takes the metrics.
    """
    if not validation_due(trainer, at_end):
        return
    progress, training_log = trainer.progress, module._log
    ends = at_end or progress.batch >= trainer.num_training_batches
    metrics_state = _values(variable for metric in module.metrics for variable in metric.variables)

    def keep(log: MetricLog) -> None:
        # A model's metrics count training and validation with the same variables.
        _assign(metrics_state)
        progress.validated = True
        if ends:
            trainer.validation_metrics = log.logger_values()
        else:
            trainer.log_metrics(log.logger_values())

    with trainer.profiler.profile("validation"):
        try:
            evaluate(trainer, module, RunningStage.VALIDATING, trainer.val_loaders(), at_epoch_end=keep)
        except BaseException:  # Ctrl-C, say: the checkpoint is to hold the training's metrics
            _assign(metrics_state)
            raise
    trainer.state.stage, module._log = RunningStage.TRAINING, training_log


def sanity_check(trainer: Trainer, module: Module, batches: float) -> None:
    """Validates a few batches, to see that it works; leaves metrics and random numbers as they were (but for those of
    `tf.random`'s functions, whose state TensorFlow does not show)."""
    assert module.model is not None
    randomness = random.getstate(), np.random.get_state()
    trainer.state.stage = RunningStage.SANITY_CHECKING
    call_callbacks(trainer, "on_sanity_check_start")
    loaders = trainer.val_loaders()
    if not loaders:  # the data module has none after all
        call_callbacks(trainer, "on_sanity_check_end")
        return
    counted = [variable for metric in module.metrics for variable in metric.variables]
    state = _values([*module.model.non_trainable_variables, *module.own_variables(), *counted, global_generator().state])
    metrics = trainer.callback_metrics
    trainer.callback_metrics = dict(metrics)
    evaluate(trainer, module, RunningStage.SANITY_CHECKING, loaders, most=batches)
    call_callbacks(trainer, "on_sanity_check_end")
    trainer.callback_metrics = metrics
    logs_of(module)[RunningStage.VALIDATING].reset()
    _assign(state)
    random.setstate(randomness[0])
    np.random.set_state(randomness[1])


# The passes without training.


def evaluate(
    trainer: Trainer,
    module: Module,
    stage: RunningStage,
    loaders: Sequence[Loader],
    *,
    most: float = float("inf"),
    at_epoch_end: Callable[[MetricLog], None] = lambda log: None,
) -> list[dict[str, float]]:
    """One pass of validation or test within its hooks; returns the metrics of each loader.

    Args:
        trainer: the trainer.
        module: its module.
        stage: what is done.
        loaders: the data.
        most: at most so many batches of each loader.
        at_epoch_end: called when the metrics are complete, before on_..._end.
    """
    noun, kind = _NOUN[stage], RunningStage.TESTING if stage is RunningStage.TESTING else RunningStage.VALIDATING
    log = begin(trainer, module, stage)
    call(trainer, f"on_{noun}_start")
    call(trainer, f"on_{noun}_epoch_start")
    for number, loader in enumerate(loaders):
        index = number if len(loaders) > 1 else None
        if index:
            module.reset_metrics()
        batches = min(most, trainer.limited(kind, loader))
        if overridden(trainer, f"on_{noun}_batch_start", f"on_{noun}_batch_end"):
            for _ in _one_by_one(trainer, module, kind, loader, batches, index):
                pass
            continue
        loop = evaluation_loop(trainer, module, kind, loader, batches, index)
        for rows in loader.stages(0, stop=batches):
            position = 0
            while position < rows.batches:
                position = loop.run(rows, position, rows.batches).next
                trainer.interrupt.check()
        if kind is RunningStage.VALIDATING:
            trainer.validation_jit_compiled = loop.jit_compiled
    trainer.measured(log.all_values())
    call(trainer, f"on_{noun}_epoch_end")
    metrics = log.all_values()  # the hooks may have logged more
    trainer.measured(metrics)
    module._log = None
    at_epoch_end(log)
    call(trainer, f"on_{noun}_end")
    index_of = {name: name.partition("/dataloader_idx_")[2] for name in metrics}
    return [{name: metrics[name] for name in metrics if index_of[name] in ("", str(i))} for i in range(len(loaders))]


def predict(trainer: Trainer, module: Module, loaders: Sequence[Loader]) -> list[Any]:
    """One pass of predict_step within its hooks; returns each batch's outputs as numpy arrays, of several loaders a list each."""
    begin(trainer, module, RunningStage.PREDICTING)
    module._log = None
    call(trainer, "on_predict_start")
    call(trainer, "on_predict_epoch_start")
    outputs = []
    for number, loader in enumerate(loaders):
        index = number if len(loaders) > 1 else None
        batches = trainer.limited(RunningStage.PREDICTING, loader)
        outputs.append(list(_one_by_one(trainer, module, RunningStage.PREDICTING, loader, batches, index)))
    call(trainer, "on_predict_epoch_end")
    call(trainer, "on_predict_end")
    return outputs if len(outputs) > 1 else outputs[0]


def _one_by_one(
    trainer: Trainer, module: Module, stage: RunningStage, loader: Loader, batches: float, dataloader_idx: int | None
) -> Iterator[Any]:
    """Runs a step of validation, test or prediction a batch at a time within the batch hooks, and gives its outputs."""
    noun = _NOUN[stage]
    hooked = overridden(trainer, f"on_{noun}_batch_start", f"on_{noun}_batch_end")
    for rows in loader.stages(0, stop=batches):
        program = step_program(module, stage, dataloader_idx, differing=rows.spec is not None)
        for position in range(rows.batches):
            batch = batch_program(module, loader, rows)(rows.rows, tf.constant(position))
            batch_idx = rows.first + position
            arguments = (batch, batch_idx, *(() if dataloader_idx is None else (dataloader_idx,)))
            if hooked:
                with logging_from(module, batch, batch_idx, dataloader_idx):
                    call(trainer, f"on_{noun}_batch_start", *arguments)
            outputs = program(batch, tf.constant(batch_idx))
            outputs = tf.nest.map_structure(lambda part: part.numpy() if tf.is_tensor(part) else part, outputs)
            if hooked:
                with logging_from(module, batch, batch_idx, dataloader_idx):
                    call(trainer, f"on_{noun}_batch_end", outputs, *arguments)
            trainer.interrupt.check()
            yield outputs


def begin(trainer: Trainer, module: Module, stage: RunningStage, anew: bool = True) -> MetricLog:
    """Starts a pass, with nothing logged unless it goes on with one that was stopped within."""
    trainer.state.stage = stage
    key = RunningStage.VALIDATING if stage is RunningStage.SANITY_CHECKING else stage
    log = logs_of(module).setdefault(key, MetricLog())
    module._log = log
    if anew:
        log.reset()
        module.reset_metrics()
    return log


def _values(variables: Any) -> list[tuple[Any, Any]]:
    return [(variable, np.array(variable.numpy())) for variable in variables]


def _assign(values: list[tuple[Any, Any]]) -> None:
    for variable, value in values:
        variable.assign(value)
