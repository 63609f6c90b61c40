"""An epoch of training, with its validation."""

from __future__ import annotations

import time
import warnings
from functools import cached_property

import tensorflow as tf

from mnist_tuner.trainer.base import TrainerBase, call, call_callbacks, call_module, overridden
from mnist_tuner.trainer.compiled import MOST_STEPS_PER_CALL, CompiledLoop
from mnist_tuner.trainer.data import Chunk, Loader
from mnist_tuner.trainer.evaluation import assign, call_end, measure, plan_compilation, values_of
from mnist_tuner.trainer.lifecycle import Verb
from mnist_tuner.trainer.logging import MetricLog
from mnist_tuner.trainer.module import Module
from mnist_tuner.trainer.module_state import log_of, logging_from
from mnist_tuner.trainer.programs import batch_program, train_loop
from mnist_tuner.trainer.progress import RunningStage, batches_until_due, validation_due, validation_is_extra
from mnist_tuner.trainer.resume import logged_state


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
    end = trainer.limits.epoch_stop(progress, trainer.num_training_batches, trainer.accumulation)
    for chunk in loader.chunks(progress.epoch, progress.batch, end):
        _train_chunk(trainer, verb, loader, chunk, log)
        if trainer.stopping:
            break
    # The data may also have ended before it was expected to.
    complete = progress.batch >= trainer.num_training_batches or (progress.batch < end and not trainer.stopping)
    trainer.stops_within_epoch = not complete or validation_is_extra(
        trainer.limits, progress, verb.val_check_batches, stopping=trainer.stopping
    )
    if trainer.stops_within_epoch:  # a checkpoint must not hold what is logged from here on
        verb.snapshot = logged_state(trainer, verb.module)
    trainer.take_metrics(log.all_values())
    _validate_if_due(trainer, verb, at_end=complete or trainer.stopping)
    call_callbacks(trainer, [each for each in trainer.callbacks if not each.runs_last], "on_train_epoch_end")
    call_module(trainer, "on_train_epoch_end")
    _log_epoch(trainer, log)
    call_callbacks(trainer, [each for each in trainer.callbacks if each.runs_last], "on_train_epoch_end")
    verb.snapshot, trainer.stops_within_epoch = None, False
    progress.next_epoch()


def _log_epoch(trainer: TrainerBase, log: MetricLog) -> None:
    """The epoch's metrics for the callbacks that run last, and its row for the loggers."""
    trainer.take_metrics(log.all_values())
    trainer.epoch_logs = dict(sorted(trainer.epoch_metrics.items()))
    trainer.log_metrics(log.logger_values() | trainer.progress.validation)
    trainer.progress.validation = {}
    trainer.progress.ended = not trainer.stops_within_epoch


def _train_chunk(trainer: TrainerBase, verb: Verb, loader: Loader, chunk: Chunk, log: MetricLog) -> None:
    """The calls of the compiled loop over a chunk of batches, with what is due between them."""
    module, progress = verb.module, trainer.progress
    hooked = overridden(trainer, "on_train_batch_start", "on_train_batch_end")
    loop = train_loop(module, loader, trainer.jit_compile, 1 if hooked else trainer.steps_per_call, trainer.gradient_clipping)
    plan_compilation(loop, trainer, verb, trainer.num_training_batches)
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


def _restore_metrics(verb: Verb, loop: CompiledLoop, chunk: Chunk) -> None:
    """The state of those metrics of a resumed epoch that make their variables when they are traced."""
    if verb.metrics_restored or verb.checkpoint is None:
        return
    loop.prepare(chunk)
    if not verb.checkpoint.restore_metrics(verb.module):
        warnings.warn("the state of some metrics does not fit the checkpoint: they start anew within the epoch", stacklevel=5)
    verb.metrics_restored = True


def _batches_until_due(trainer: TrainerBase, verb: Verb) -> int:
    """`batches_until_due` with the steps at which callbacks want to be called."""
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
    counted = values_of(variable for metric in verb.module.metrics for variable in metric.variables)
    with trainer.profiler.profile("validation"):
        try:
            log = measure(trainer, verb, RunningStage.VALIDATING, loaders)
        finally:  # after a Ctrl-C, too: the checkpoint is to hold the training's metrics
            assign(counted)
        progress.validated = True
        if at_end or progress.batch >= trainer.num_training_batches:
            progress.validation = log.logger_values()
        else:
            trainer.log_metrics(log.logger_values())
        call_end(trainer, verb, RunningStage.VALIDATING)
    trainer.state.stage = RunningStage.TRAINING
