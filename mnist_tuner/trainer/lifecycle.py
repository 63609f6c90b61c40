"""What surrounds each of the trainer's verbs: set-up, tear-down, Ctrl-C, and the hooks of an exception."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import tensorflow as tf

from mnist_tuner.trainer.arguments import as_callbacks, checkpoints_last, without_saving_and_stopping
from mnist_tuner.trainer.base import TrainerBase, call_callbacks
from mnist_tuner.trainer.checkpoint import Checkpoint
from mnist_tuner.trainer.module import Module
from mnist_tuner.trainer.module_state import logging_to
from mnist_tuner.trainer.progress import TrainerFn, TrainerState, TrainerStatus
from mnist_tuner.trainer.sources import Sources


class Interrupt:
    """Remembers a Ctrl-C until somebody asks."""

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raises KeyboardInterrupt if there was a Ctrl-C."""
        if self.requested:
            self.requested = False
            raise KeyboardInterrupt


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Within the block, a first Ctrl-C is remembered and a second one raises at once.

    A KeyboardInterrupt raised just after the compiled loop has come back would lose the count of the steps that it made:
    the counters in Python would lag behind the weights. Outside the main thread signals cannot be handled, and a Ctrl-C
    reaches the main thread as ever.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def remember(number: int, frame: FrameType | None) -> None:
        if interrupt.requested:
            raise KeyboardInterrupt
        interrupt.requested = True

    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.default_int_handler:  # somebody else's arrangement, or signals ignored: leave it
        yield interrupt
        return
    signal.signal(signal.SIGINT, remember)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)


@dataclass
class Verb:
    """What lives for one call of fit, validate, test or predict, and is dropped at its end.

    Attributes:
        fn: which it is.
        module: what it is about.
        sources: where its data comes from.
        interrupt: whether there was a Ctrl-C.
        undo: what is to be undone at the end.
        checkpoint: what it goes on from, or takes the weights of; None for nothing.
        ready: whether model and optimizer are built, and the checkpoint is restored.
        metrics_restored: whether the state of the metrics is, too: some make their variables only when they are traced.
        val_check_batches: training batches from one validation to the next; None where there is no validation data.
        snapshot: the state of logs and loggers that a checkpoint is to hold, where what is logged now is no part of a training
            that goes on.
    """

    fn: TrainerFn
    module: Module
    sources: Sources
    interrupt: Interrupt = field(default_factory=Interrupt)
    undo: ExitStack = field(default_factory=ExitStack)
    checkpoint: Checkpoint | None = None
    ready: bool = False
    metrics_restored: bool = True
    val_check_batches: float | None = None
    snapshot: tuple[dict[str, Any], list[Any]] | None = None

    @property
    def fitting(self) -> bool:
        """Whether it is fit."""
        return self.fn is TrainerFn.FITTING

    @property
    def resumed(self) -> Checkpoint | None:
        """The checkpoint of a training that goes on; None where there is none, or no training."""
        return self.checkpoint if self.fitting else None


@contextmanager
def running(trainer: TrainerBase, verb: Verb, device: str | None) -> Iterator[None]:
    """Runs the block within set-up and tear-down, on the trainer's device, with Ctrl-C put off to the next safe point.

    After an exception: on_exception of callbacks and datamodule, loggers finalized as "failed", tear-down; then it goes on.
    """
    module, datamodule, stage = verb.module, trainer.datamodule, str(verb.fn)
    trainer.state = TrainerState(TrainerStatus.RUNNING, verb.fn)
    teardown = _teardown(trainer, module, stage)  # a generator: what an exception leaves of it, _clean_up does
    with verb.undo, logging_to(module, None):
        try:
            with tf.device(device), deferred_interrupt() as verb.interrupt:
                _take_callbacks(trainer, module)
                if datamodule is not None:
                    datamodule.prepare_data()
                module.prepare_data()
                if datamodule is not None:
                    datamodule.setup(stage)
                call_callbacks(trainer, trainer.callbacks, "setup", stage)
                module.setup(stage)
                yield
                verb.interrupt.check()
            trainer.state.stage = None
            for part in teardown:
                part()
        except BaseException as exception:
            trainer.state.status = TrainerStatus.INTERRUPTED
            trainer.interrupted = isinstance(exception, KeyboardInterrupt)
            _clean_up(trainer, exception, module, teardown)
            raise
        finally:
            trainer.state.stage = None
    for logger in trainer.loggers:
        logger.finalize("success")
    trainer.state.status = TrainerStatus.FINISHED
    trainer.profiler.report()


def _take_callbacks(trainer: TrainerBase, module: Module) -> None:
    """The module's callbacks take the place of the trainer's of the same class."""
    own = as_callbacks(module.configure_callbacks())
    if trainer.fast_dev_run:
        own = without_saving_and_stopping(own)
    if trainer.state.fn is not TrainerFn.FITTING:  # those that a fit has left know more
        own = [callback for callback in own if type(callback) not in {type(each) for each in trainer.callbacks}]
    kinds = {type(callback) for callback in own}
    kept = (callback for callback in trainer.callbacks if type(callback) not in kinds)
    trainer.callbacks = checkpoints_last([*kept, *own])
    for callback in trainer.callbacks:
        callback.log = module.log


def _clean_up(trainer: TrainerBase, exception: BaseException, module: Module, teardown: Iterator[Callable[[], None]]) -> None:
    """Calls everything that must hear of the exception; what fails on the way is noted on it and hinders nothing."""
    parts: list[Callable[[], None]] = [
        *(partial(callback.on_exception, trainer, module, exception) for callback in trainer.callbacks),
        *([] if trainer.datamodule is None else [partial(trainer.datamodule.on_exception, exception)]),
        *(partial(logger.finalize, "failed") for logger in trainer.loggers),
        *teardown,
    ]
    for part in parts:
        try:
            part()
        except Exception as error:
            exception.add_note(f"while cleaning up: {type(error).__name__}: {error}")


def _teardown(trainer: TrainerBase, module: Module, stage: str) -> Iterator[Callable[[], None]]:
    if trainer.datamodule is not None:
        yield partial(trainer.datamodule.teardown, stage)
    for callback in trainer.callbacks:
        yield partial(callback.teardown, trainer, module, stage)
    yield partial(module.teardown, stage)
