"""The passes over data: an epoch of training with its validation, an evaluation, a prediction."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from mnist_tuner.trainer.base import TrainerBase, call, call_callbacks, call_module, overridden
from mnist_tuner.trainer.compiled import MOST_STEPS_PER_CALL, CompiledLoop
from mnist_tuner.trainer.data import Chunk, Loader
from mnist_tuner.trainer.lifecycle import Verb
from mnist_tuner.trainer.logging import MetricLog
from mnist_tuner.trainer.module import Module, model_of
from mnist_tuner.trainer.module_state import log_of, logging_from, logging_to
from mnist_tuner.trainer.programs import batch_program, evaluation_loop, preferred_jit, step_program, train_loop
from mnist_tuner.trainer.progress import RunningStage, batches_until_due, validation_due, validation_is_extra
from mnist_tuner.trainer.resume import logged_state, make_ready
from mnist_tuner.trainer.seed import global_generator

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


def train_epoch(trainer: TrainerBase, verb: Verb, loader: Loader) -> None:
    """One epoch::

        X on_train_epoch_start
        for each chunk of batches that is put in order in memory:
            for each call of the compiled loop:
                [X on_train_batch_start,] training_step of its batches [, X on_train_batch_end]
                on_train_steps_end
                VALIDATION if it is due
        VALIDATION if it is due at the epoch's end
        on_train_epoch_end of the callbacks, of the module
        the epoch's row in the logs
        on_train_epoch_end of the callbacks that run last

    Raises:
        NonFiniteLossError: the loss became infinite or not a number.
    """
    progress, log = trainer.progress, log_of(verb.module, RunningStage.TRAINING)
    trainer.rows_in_epoch = 0
    trainer.epoch_metrics = dict(trainer.callback_metrics) if progress.batch else {}
    verb.metrics_restored |= not progress.batch
    call(trainer, "on_train_epoch_start")
    _validate_if_due(trainer, verb)  # a resumed training may have been stopped just before
    end = trainer.limits.end_of_epoch(progress, trainer.num_training_batches, trainer.accumulation)
    for chunk in loader.chunks(progress.epoch, progress.batch, end):
        _train_chunk(trainer, verb, loader, chunk, log)
        if trainer.stopping:
            break
    complete = progress.batch >= trainer.num_training_batches or (progress.batch < end and not trainer.stopping)
    trainer.stops_within_epoch = not complete or validation_is_extra(
        trainer.limits, progress, verb.val_check_batches, stopping=trainer.stopping
    )
    if trainer.stops_within_epoch:  # a checkpoint must not hold what is logged from here on
        verb.snapshot = logged_state(trainer, verb.module)
    trainer.measured(log.all_values())
    _validate_if_due(trainer, verb, at_end=complete or trainer.stopping)
    call_callbacks(trainer, [each for each in trainer.callbacks if not each.runs_last], "on_train_epoch_end")
    call_module(trainer, "on_train_epoch_end")
    _log_epoch(trainer, log)
    call_callbacks(trainer, [each for each in trainer.callbacks if each.runs_last], "on_train_epoch_end")
    verb.snapshot, trainer.stops_within_epoch = None, False
    progress.next_epoch()


def _log_epoch(trainer: TrainerBase, log: MetricLog) -> None:
    """The epoch's metrics for the callbacks that run last, and its row for the loggers."""
    trainer.measured(log.all_values())
    trainer.epoch_logs = dict(sorted(trainer.epoch_metrics.items()))
    trainer.log_metrics(log.logger_values() | trainer.progress.validation)
    trainer.progress.validation = {}
    trainer.progress.ended = not trainer.stops_within_epoch


def _train_chunk(trainer: TrainerBase, verb: Verb, loader: Loader, chunk: Chunk, log: MetricLog) -> None:
    """The calls of the compiled loop over a chunk of batches, with what is due between them."""
    module, progress = verb.module, trainer.progress
    hooked = overridden(trainer, "on_train_batch_start", "on_train_batch_end")
    loop = train_loop(module, loader, trainer.jit_compile, 1 if hooked else trainer.steps_per_call, trainer.gradient_clipping)
    _plan(loop, trainer, verb, trainer.num_training_batches)
    _restore_metrics(verb, loop, chunk)
    position = 0
    while position < chunk.batches and not trainer.stopping:
        batch_idx, stop = chunk.first + position, min(chunk.batches, position + _batches_until_due(trainer, verb))
        if hooked:
            batch = batch_program(module, loader, chunk)(chunk.rows, tf.constant(position))
            with logging_from(module, batch, batch_idx, None):
                call(trainer, "on_train_batch_start", batch, batch_idx)
        steps, loss, nonfinite = _call_loop(trainer, loop, chunk, position, stop)
        position += steps
        if hooked:
            with logging_from(module, batch, batch_idx, None):
                call(trainer, "on_train_batch_end", StepOutput(loss, log), batch, batch_idx)
        if nonfinite and not (hooked and trainer.should_stop):  # a hook may have ended the training for it
            raise NonFiniteLossError(progress.total_batches, progress.epoch + 1)
        _log_steps(trainer, module, log, steps)
        call_callbacks(trainer, trainer.callbacks, "on_train_steps_end")
        verb.interrupt.check()
        _validate_if_due(trainer, verb)


def _call_loop(trainer: TrainerBase, loop: CompiledLoop, chunk: Chunk, start: int, stop: int) -> tuple[int, float, bool]:
    """One call of the compiled loop. Returns the steps that it made, the loss of the last, and whether that is not finite."""
    traced_before, compiled_before = loop.trace_seconds, loop.xla_seconds
    trainer.in_call = True
    began = time.perf_counter()
    result = loop.run(chunk, start, stop)
    steps = result.next - start
    trainer.progress.advance(steps, trainer.accumulation)
    trainer.rows_in_epoch += steps * chunk.batch_size
    trainer.in_call, trainer.jit_compiled = False, loop.jit_compiled
    traced_for, compiled_for = loop.trace_seconds - traced_before, loop.xla_seconds - compiled_before
    trainer.profiler.record("train calls", time.perf_counter() - began - traced_for - compiled_for)
    if traced_for:
        trainer.profiler.record("trace", traced_for)
        trainer.profiler.record("compile", compiled_for)
    return steps, result.loss, result.nonfinite is not None


def _plan(loop: CompiledLoop, trainer: TrainerBase, verb: Verb, batches: float) -> None:
    """Tells a loop what it chooses by between XLA and a plain graph."""
    loop.planned_steps = trainer.planned_epochs * batches
    loop.preferred = preferred_jit(verb.module, None if verb.resumed is None else verb.resumed.header, trainer.training)


def _restore_metrics(verb: Verb, loop: CompiledLoop, chunk: Chunk) -> None:
    """The state of those metrics of a resumed epoch that make their variables when they are traced."""
    if verb.metrics_restored or verb.checkpoint is None:
        return
    loop.prepare(chunk)
    if not verb.checkpoint.restore_metrics(verb.module):
        warnings.warn("the state of some metrics does not fit the checkpoint: they start anew within the epoch", stacklevel=5)
    verb.metrics_restored = True


def _batches_until_due(trainer: TrainerBase, verb: Verb) -> int:
    """So many batches may be trained on before there is something to do between two."""
    steps = [callback.every_n_train_steps for callback in trainer.callbacks if callback.every_n_train_steps]
    if trainer.should_stop and trainer.limits.min_steps:  # it goes on until these have been done, and no further
        steps.append(trainer.limits.min_steps)
    steps = [number * trainer.accumulation for number in steps]
    return batches_until_due(trainer.limits, trainer.progress, verb.val_check_batches, steps)


def _log_steps(trainer: TrainerBase, module: Module, log: MetricLog, done: int) -> None:
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


# Validation within a fit.


def _validate_if_due(trainer: TrainerBase, verb: Verb, at_end: bool = False) -> None:
    """The validation after this batch, if there is one.

    Args:
        trainer: the trainer.
        verb: its fit.
        at_end: whether the epoch ends here: then its own row takes the metrics.
    """
    limits, progress = trainer.limits, trainer.progress
    if not validation_due(limits, progress, verb.val_check_batches, at_end=at_end, stopping=trainer.stopping):
        return
    loaders = verb.sources.loaders(RunningStage.VALIDATING)
    if not loaders:  # the data module has none after all
        verb.val_check_batches = None
        return
    # A model's metrics count training and validation with the same variables.
    counted = _values(variable for metric in verb.module.metrics for variable in metric.variables)
    with trainer.profiler.profile("validation"):
        try:
            log = _measure(trainer, verb, RunningStage.VALIDATING, loaders)
        finally:  # after a Ctrl-C, too: the checkpoint is to hold the training's metrics
            _assign(counted)
        progress.validated = True
        if at_end or progress.batch >= trainer.num_training_batches:
            progress.validation = log.logger_values()
        else:
            trainer.log_metrics(log.logger_values())
        _end(trainer, verb, RunningStage.VALIDATING)
    trainer.state.stage = RunningStage.TRAINING


def sanity_check(trainer: TrainerBase, verb: Verb, batches: float) -> None:
    """Validates a few batches, to see that it works; leaves metrics and random numbers as they were (but for those of
    `tf.random`'s functions, whose state TensorFlow does not show)."""
    randomness = random.getstate(), np.random.get_state()
    trainer.state.stage = RunningStage.SANITY_CHECKING
    call_callbacks(trainer, trainer.callbacks, "on_sanity_check_start")
    loaders = verb.sources.loaders(RunningStage.VALIDATING)
    module, state, metrics = verb.module, [], trainer.callback_metrics
    if loaders:  # otherwise the data module has none after all
        make_ready(verb, loaders[0])
        counted = [variable for metric in module.metrics for variable in metric.variables]
        kept = [*model_of(module).non_trainable_variables, *module.own_variables(), *counted, global_generator().state]
        state, trainer.callback_metrics = _values(kept), dict(metrics)
        _measure(trainer, verb, RunningStage.SANITY_CHECKING, loaders, batches)
        _end(trainer, verb, RunningStage.SANITY_CHECKING)
    call_callbacks(trainer, trainer.callbacks, "on_sanity_check_end")
    trainer.callback_metrics = metrics
    log_of(module, RunningStage.VALIDATING).reset()
    _assign(state)
    random.setstate(randomness[0])
    np.random.set_state(randomness[1])


# The passes without training.


def evaluate(trainer: TrainerBase, verb: Verb, loaders: Sequence[Loader]) -> list[dict[str, float]]:
    """One pass of validation or test within its hooks; returns the metrics of each loader."""
    stage = RunningStage(str(verb.fn))
    log = _measure(trainer, verb, stage, loaders)
    metrics = log.all_values()
    trainer.log_metrics(log.logger_values())
    _end(trainer, verb, stage)
    index_of = {name: name.partition("/dataloader_idx_")[2] for name in metrics}
    return [{name: metrics[name] for name in metrics if index_of[name] in ("", str(i))} for i in range(len(loaders))]


def _measure(
    trainer: TrainerBase, verb: Verb, stage: RunningStage, loaders: Sequence[Loader], most: float = float("inf")
) -> MetricLog:
    """A pass of validation or test from on_..._start to on_..._epoch_end.

    Args:
        trainer: the trainer.
        verb: to which the pass belongs.
        stage: what is done.
        loaders: the data.
        most: at most so many batches of each loader.

    Returns:
        What has been logged; what those hooks have logged last is in it.
    """
    noun, kind = _NOUN[stage], RunningStage.TESTING if stage is RunningStage.TESTING else RunningStage.VALIDATING
    log = begin(trainer, verb.module, stage)
    with logging_to(verb.module, log):
        call(trainer, f"on_{noun}_start")
        call(trainer, f"on_{noun}_epoch_start")
        for number, loader in enumerate(loaders):
            if number:
                verb.module.reset_metrics()
            index = number if len(loaders) > 1 else None
            batches = min(most, verb.sources.batches(kind, loader))
            if overridden(trainer, f"on_{noun}_batch_start", f"on_{noun}_batch_end"):
                for _ in _one_by_one(trainer, verb, kind, loader, batches, index):
                    pass
            else:
                _measure_loader(trainer, verb, kind, loader, batches, index)
        trainer.measured(log.all_values())
        call(trainer, f"on_{noun}_epoch_end")
        trainer.measured(log.all_values())
    return log


def _measure_loader(
    trainer: TrainerBase, verb: Verb, stage: RunningStage, loader: Loader, batches: float, dataloader_idx: int | None
) -> None:
    """The calls of the compiled loop over a loader's batches."""
    loop = evaluation_loop(verb.module, stage, loader, trainer.jit_compile, dataloader_idx)
    _plan(loop, trainer, verb, batches)
    for chunk in loader.chunks(0, stop=batches):
        position = 0
        while position < chunk.batches:
            position = loop.run(chunk, position, chunk.batches).next
            verb.interrupt.check()
    if stage is RunningStage.VALIDATING:
        trainer.validation_jit_compiled = loop.jit_compiled


def _end(trainer: TrainerBase, verb: Verb, stage: RunningStage) -> None:
    """on_..._end of a validation or test, in which nothing can be logged any more."""
    with logging_to(verb.module, None):
        call(trainer, f"on_{_NOUN[stage]}_end")


def predict(trainer: TrainerBase, verb: Verb, loaders: Sequence[Loader]) -> list[Any]:
    """One pass of predict_step within its hooks; returns each batch's outputs as numpy arrays, of several loaders a list each."""
    begin(trainer, verb.module, RunningStage.PREDICTING)
    call(trainer, "on_predict_start")
    call(trainer, "on_predict_epoch_start")
    outputs = []
    for number, loader in enumerate(loaders):
        index = number if len(loaders) > 1 else None
        batches = verb.sources.batches(RunningStage.PREDICTING, loader)
        outputs.append(list(_one_by_one(trainer, verb, RunningStage.PREDICTING, loader, batches, index)))
    call(trainer, "on_predict_epoch_end")
    call(trainer, "on_predict_end")
    return outputs if len(outputs) > 1 else outputs[0]


def _one_by_one(
    trainer: TrainerBase, verb: Verb, stage: RunningStage, loader: Loader, batches: float, dataloader_idx: int | None
) -> Iterator[Any]:
    """Runs a step of validation, test or prediction a batch at a time within the batch hooks, and gives its outputs."""
    noun, module = _NOUN[stage], verb.module
    hooked = overridden(trainer, f"on_{noun}_batch_start", f"on_{noun}_batch_end")
    for chunk in loader.chunks(0, stop=batches):
        program = step_program(module, stage, dataloader_idx, differing=chunk.spec is not None)
        for position in range(chunk.batches):
            batch = batch_program(module, loader, chunk)(chunk.rows, tf.constant(position))
            batch_idx = chunk.first + position
            arguments = (batch, batch_idx, *(() if dataloader_idx is None else (dataloader_idx,)))
            if hooked:
                with logging_from(module, batch, batch_idx, dataloader_idx):
                    call(trainer, f"on_{noun}_batch_start", *arguments)
            outputs = program(batch, tf.constant(batch_idx))
            outputs = tf.nest.map_structure(lambda part: part.numpy() if tf.is_tensor(part) else part, outputs)
            if hooked:
                with logging_from(module, batch, batch_idx, dataloader_idx):
                    call(trainer, f"on_{noun}_batch_end", outputs, *arguments)
            verb.interrupt.check()
            yield outputs


def begin(trainer: TrainerBase, module: Module, stage: RunningStage, anew: bool = True) -> MetricLog:
    """Begins a pass, with nothing logged unless it goes on with one that was stopped within. Returns what it logs to."""
    trainer.state.stage = stage
    log = log_of(module, stage)
    if anew:
        log.reset()
        module.reset_metrics()
    return log


def _values(variables: Any) -> list[tuple[Any, Any]]:
    return [(variable, np.array(variable.numpy())) for variable in variables]


def _assign(values: list[tuple[Any, Any]]) -> None:
    for variable, value in values:
        variable.assign(value)
