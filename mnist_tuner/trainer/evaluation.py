"""The passes over data without training: a validation, a test, a prediction, the sanity check."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mnist_tuner.trainer.base import TrainerBase, call, call_callbacks, overridden
from mnist_tuner.trainer.compiled import CompiledLoop
from mnist_tuner.trainer.data import Loader
from mnist_tuner.trainer.lifecycle import Verb
from mnist_tuner.trainer.logging import MetricLog
from mnist_tuner.trainer.module import Module, model_of
from mnist_tuner.trainer.module_state import log_of, logging_from, logging_to
from mnist_tuner.trainer.programs import batch_program, decided_jit, evaluation_loop, step_program
from mnist_tuner.trainer.progress import RunningStage
from mnist_tuner.trainer.resume import make_ready
from mnist_tuner.trainer.seed import global_generator
from mnist_tuner.trainer.xla import planned_epochs

_NOUN = {"sanity_check": "validation", "validate": "validation", "test": "test", "predict": "predict"}


def evaluate(trainer: TrainerBase, verb: Verb, loaders: Sequence[Loader]) -> list[dict[str, float]]:
    """One pass of validation or test within its hooks; returns the metrics of each loader."""
    stage = RunningStage(str(verb.fn))
    log = measure(trainer, verb, stage, loaders)
    metrics = log.all_values()
    trainer.log_metrics(log.logger_values())
    call_end(trainer, verb, stage)
    index_of = {name: name.partition("/dataloader_idx_")[2] for name in metrics}
    return [{name: metrics[name] for name in metrics if index_of[name] in ("", str(i))} for i in range(len(loaders))]


def measure(
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
        trainer.take_metrics(log.all_values())
        call(trainer, f"on_{noun}_epoch_end")
        trainer.take_metrics(log.all_values())
    return log


def _measure_loader(
    trainer: TrainerBase, verb: Verb, stage: RunningStage, loader: Loader, batches: float, dataloader_idx: int | None
) -> None:
    """The calls of the compiled loop over a loader's batches."""
    loop = evaluation_loop(verb.module, stage, loader, trainer.jit_compile, dataloader_idx)
    plan_compilation(loop, trainer, verb, batches)
    for chunk in loader.chunks(0, stop=batches):
        position = 0
        while position < chunk.batches:
            position = loop.run(chunk, position, chunk.batches).next
            verb.interrupt.check()
    if stage is RunningStage.VALIDATING:
        trainer.validation_jit_compiled = loop.jit_compiled


def call_end(trainer: TrainerBase, verb: Verb, stage: RunningStage) -> None:
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
        state, trainer.callback_metrics = values_of(kept), dict(metrics)
        measure(trainer, verb, RunningStage.SANITY_CHECKING, loaders, batches)
        call_end(trainer, verb, RunningStage.SANITY_CHECKING)
    call_callbacks(trainer, trainer.callbacks, "on_sanity_check_end")
    trainer.callback_metrics = metrics
    log_of(module, RunningStage.VALIDATING).reset()
    assign(state)
    random.setstate(randomness[0])
    np.random.set_state(randomness[1])


# What these passes share with the training.


def begin(trainer: TrainerBase, module: Module, stage: RunningStage, anew: bool = True) -> MetricLog:
    """Begins a pass, with nothing logged unless it goes on with one that was stopped within. Returns what it logs to."""
    trainer.state.stage = stage
    log = log_of(module, stage)
    if anew:
        log.reset()
        module.reset_metrics()
    return log


def plan_compilation(loop: CompiledLoop, trainer: TrainerBase, verb: Verb, batches: float) -> None:
    """Tells a loop what it chooses by between XLA and a plain graph."""
    loop.planned_steps = _planned_epochs(trainer, verb) * batches
    loop.decided = decided_jit(verb.module, None if verb.resumed is None else verb.resumed.header, trainer.training)


def _planned_epochs(trainer: TrainerBase, verb: Verb) -> float:
    """How many epochs there are to be; one where it is no fit."""
    if not verb.fitting:
        return 1
    epochs = math.inf if trainer.max_epochs == -1 else max(trainer.max_epochs, planned_epochs.get())
    if trainer.max_steps == -1:
        return epochs
    return min(epochs, trainer.max_steps * trainer.accumulation / max(1, trainer.num_training_batches))


def values_of(variables: Any) -> list[tuple[Any, Any]]:
    """The variables, each with a copy of its value."""
    return [(variable, np.array(variable.numpy())) for variable in variables]


def assign(values: list[tuple[Any, Any]]) -> None:
    """Gives the variables these values back."""
    for variable, value in values:
        variable.assign(value)
