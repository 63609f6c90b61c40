"""Calling hooks: every callback's in order, then the module's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mnist_tuner.trainer.callbacks.callback import Callback
from mnist_tuner.trainer.module import Module

if TYPE_CHECKING:
    from mnist_tuner.trainer.trainer import Trainer


def call(trainer: Trainer, hook: str, *arguments: Any, between: Callable[[], None] = lambda: None) -> None:
    """Every callback's hook, then the module's; at an epoch's end `between` and then the callbacks that run last."""
    late = hook == "on_train_epoch_end"
    call_callbacks(trainer, hook, *arguments, which=(lambda callback: not callback.runs_last) if late else lambda callback: True)
    with trainer.profiler.profile(f"{type(trainer.module).__name__}.{hook}"):
        getattr(trainer.module, hook)(*arguments)
    if late:
        between()
        call_callbacks(trainer, hook, *arguments, which=lambda callback: callback.runs_last)


def call_callbacks(
    trainer: Trainer, hook: str, *arguments: Any, which: Callable[[Callback], bool] = lambda callback: True
) -> None:
    """The callbacks' hook."""
    for callback in trainer.callbacks:
        if which(callback):
            began = time.perf_counter()
            getattr(callback, hook)(trainer, trainer.module, *arguments)
            seconds = time.perf_counter() - began
            trainer.profiler.record(f"{type(callback).__name__}.{hook}", seconds)
            if callback.displays:
                trainer.profiler.record("display", seconds)


def overridden(trainer: Trainer, *hooks: str) -> bool:
    """Whether the module or a callback overrides one of these hooks, in its class or in itself."""
    return any(
        hook in vars(owner) or getattr(type(owner), hook) is not getattr(base, hook)
        for hook in hooks
        for owner, base in [(trainer.module, Module), *((callback, Callback) for callback in trainer.callbacks)]
    )
