"""What surrounds each of the trainer's verbs: set-up, tear-down, and the hooks of an exception."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import tensorflow as tf

from mnist_tuner.trainer.data import DataModule
from mnist_tuner.trainer.defaults import as_callbacks, checkpoints_last, without_saving_and_stopping
from mnist_tuner.trainer.hooks import call_callbacks
from mnist_tuner.trainer.interrupt import deferred_interrupt
from mnist_tuner.trainer.module import Module
from mnist_tuner.trainer.progress import TrainerFn, TrainerState, TrainerStatus

if TYPE_CHECKING:
    from mnist_tuner.trainer.trainer import Trainer


@contextmanager
def running(trainer: Trainer, fn: TrainerFn, module: Module, datamodule: DataModule | None) -> Iterator[None]:
    """Runs the block within set-up and tear-down, on the trainer's device, with Ctrl-C put off to the next safe point.

    After an exception: on_exception of callbacks and datamodule, loggers finalized as "failed", tear-down; then it goes on.
    """
    trainer.state = TrainerState(TrainerStatus.RUNNING, fn)
    teardown = _teardown(trainer, fn, module, datamodule)
    try:
        with tf.device(trainer.device), deferred_interrupt() as trainer.interrupt:
            _take_callbacks(trainer, module)
            if datamodule is not None:
                datamodule.prepare_data()
            module.prepare_data()
            if datamodule is not None:
                datamodule.setup(fn)
            call_callbacks(trainer, "setup", str(fn))
            module.setup(fn)
            yield
            trainer.interrupt.check()
        module._log = trainer.state.stage = None
        for part in teardown:
            part()
    except BaseException as exception:
        trainer.state.status = TrainerStatus.INTERRUPTED
        trainer.interrupted = isinstance(exception, KeyboardInterrupt)
        module._log = None
        _clean_up(trainer, exception, module, datamodule, teardown)
        raise
    finally:
        module._log = trainer.state.stage = None
        while trainer.undo:
            trainer.undo.pop()()
    for logger in trainer.loggers:
        logger.finalize("success")
    trainer.state.status = TrainerStatus.FINISHED
    trainer.profiler.report()


def _take_callbacks(trainer: Trainer, module: Module) -> None:
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


def _clean_up(
    trainer: Trainer,
    exception: BaseException,
    module: Module,
    datamodule: DataModule | None,
    teardown: Iterator[Callable[[], None]],
) -> None:
    """Calls everything that must hear of the exception; what fails on the way is noted on it and hinders nothing."""
    parts: list[Callable[[], None]] = [
        *(partial(callback.on_exception, trainer, module, exception) for callback in trainer.callbacks),
        *([partial(datamodule.on_exception, exception)] if datamodule is not None else []),
        *(partial(logger.finalize, "failed") for logger in trainer.loggers),
        *teardown,
    ]
    for part in parts:
        try:
            part()
        except Exception as error:
            exception.add_note(f"while cleaning up: {type(error).__name__}: {error}")


def _teardown(trainer: Trainer, fn: TrainerFn, module: Module, datamodule: DataModule | None) -> Iterator[Callable[[], None]]:
    if datamodule is not None:
        yield partial(datamodule.teardown, str(fn))
    for callback in trainer.callbacks:
        yield partial(callback.teardown, trainer, module, str(fn))
    yield partial(module.teardown, str(fn))
