"""What the trainer keeps with a module: it stays there, so that a later fit of the module compiles nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tuner.trainer.hooks import ModuleHooks
from mnist_tuner.trainer.logging import MetricLog
from mnist_tuner.trainer.progress import RunningStage

STATE = "_mnist_tuner"
"""The attribute of a module under which it is kept."""


class HyperParameters(dict[str, Any]):
    """Names and values, which are also attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no hyperparameter {name!r}: there are {', '.join(self) or 'none'}") from None


class BatchPlace(NamedTuple):
    """The batch that is worked on: its size, its index within the epoch, and of which of several loaders it is."""

    size: Any
    batch_idx: Any
    dataloader_idx: int | None


@dataclass
class ModuleState:
    """What the trainer knows of a module.

    Attributes:
        hparams: what `Module.save_hyperparameters` has kept.
        configured: whether configure_model has been called.
        fitted: whether a fit of a Keras model has begun.
        loops: the compiled loops and programs; a key begins with the stage.
        traced_with: what they were traced with, see `Module.traced_objects` and `traced_constants`.
        logs: what has been logged, by stage.
        log: where `Module.log` writes at the moment; None where nothing is measured.
        batch: which batch that is of; None in the hooks of an epoch.
        randomness: Keras's global generator as the last verb found it: a checkpoint keeps it where it has been drawn from.
    """

    hparams: HyperParameters = field(default_factory=HyperParameters)
    configured: bool = False
    fitted: bool = False
    loops: dict[Any, Any] = field(default_factory=dict)
    traced_with: tuple[list[Any], dict[str, Any]] | None = None
    logs: dict[RunningStage, MetricLog] = field(default_factory=dict)
    log: MetricLog | None = None
    batch: BatchPlace | None = None
    randomness: npt.NDArray[np.int64] | None = None


def state_of(module: ModuleHooks) -> ModuleState:
    """What is kept with a module, which may have an ``__init__`` that knows nothing of it."""
    known: ModuleState | None = module.__dict__.get(STATE)
    return module.__dict__.setdefault(STATE, ModuleState()) if known is None else known


def loops_of(module: ModuleHooks) -> dict[Any, Any]:
    """The module's compiled loops and programs; a key begins with the stage."""
    return state_of(module).loops


def log_of(module: ModuleHooks, stage: RunningStage) -> MetricLog:
    """What the module logs in a stage; a sanity check is a validation."""
    key = RunningStage.VALIDATING if stage is RunningStage.SANITY_CHECKING else stage
    return state_of(module).logs.setdefault(key, MetricLog())


@contextmanager
def logging_to(module: ModuleHooks, log: MetricLog | None) -> Iterator[None]:
    """Within the block `Module.log` writes there; with None it refuses to."""
    state = state_of(module)
    before, state.log = state.log, log
    try:
        yield
    finally:
        state.log = before


@contextmanager
def logging_from(module: ModuleHooks, batch: Any, batch_idx: Any, dataloader_idx: int | None) -> Iterator[None]:
    """Within the block the values that `Module.log` gets are those of a batch."""
    part, state = tf.nest.flatten(batch)[0], state_of(module)
    state.batch = BatchPlace(tf.shape(part)[0] if part.shape[0] is None else part.shape[0], batch_idx, dataloader_idx)
    try:
        yield
    finally:
        state.batch = None
