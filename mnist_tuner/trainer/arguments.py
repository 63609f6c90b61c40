"""What a trainer's arguments come to: checks, its callbacks and its loggers."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from mnist_tuner.trainer.callbacks import (
    EarlyStopping,
    KerasCallback,
    ModelCheckpoint,
    RichModelSummary,
    RichProgressBar,
    Timer,
)
from mnist_tuner.trainer.hooks import Callback
from mnist_tuner.trainer.loggers import CSVLogger, Logger


def check_choices(**arguments: tuple[Any, tuple[Any, ...]]) -> None:
    """Each argument with the values allowed.

    Raises:
        ValueError: one has another value.
    """
    for name, (value, allowed) in arguments.items():
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}: expected {', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}")


def check_numbers(**arguments: tuple[Any, int]) -> None:
    """Each argument with the lowest number allowed.

    Raises:
        ValueError: one is lower, or no int.
    """
    for name, (value, low) in arguments.items():
        if not isinstance(value, Integral) or value < low:
            raise ValueError(f"{name} is {value!r}: expected an int of {low} or more")


def device_of(accelerator: str) -> str | None:
    """The device that "auto", "cpu" or "gpu" means; None for TensorFlow's choice.

    Raises:
        ValueError: there is no such device.
    """
    if accelerator == "gpu" and not tf.config.list_physical_devices("GPU"):
        raise ValueError("accelerator is 'gpu', but TensorFlow sees none: take 'auto', or install tensorflow[and-cuda]")
    return {"auto": None, "cpu": "/CPU:0", "gpu": "/GPU:0"}[accelerator]


def callback_list(
    given: Any, *, max_time: Any, summary: bool, progress_bar: bool, checkpointing: bool, fast_dev_run: bool
) -> list[Callback]:
    """The callbacks in the order in which they are called; `ModelCheckpoint` is always last.

    Raises:
        TypeError: one is no callback.
        ValueError: there is a ModelCheckpoint, but no checkpointing is wanted.
    """
    callbacks = as_callbacks(given)
    if fast_dev_run:
        callbacks = without_saving_and_stopping(callbacks)
    kinds = {type(callback) for callback in callbacks}

    def missing(kind: type[Callback]) -> bool:
        return not any(issubclass(present, kind) for present in kinds)

    if not checkpointing and not missing(ModelCheckpoint):
        raise ValueError(
            "enable_checkpointing is False, but there is a ModelCheckpoint among the callbacks: leave one of them out"
        )
    if summary and missing(RichModelSummary):
        callbacks.insert(0, RichModelSummary())
    if max_time is not None:
        callbacks.append(Timer(max_time))
    keras_own = any(isinstance(getattr(each, "callback", None), keras.callbacks.ProgbarLogger) for each in callbacks)
    if progress_bar and missing(RichProgressBar) and not keras_own:
        callbacks.append(RichProgressBar())
    if checkpointing and not fast_dev_run and missing(ModelCheckpoint):
        callbacks.append(ModelCheckpoint())
    return checkpoints_last(callbacks)


def as_callbacks(given: Any) -> list[Callback]:
    """One callback or several as a list, Keras's wrapped."""
    several = given if isinstance(given, Sequence) else [] if given is None else [given]
    wrapped = [KerasCallback(callback) if isinstance(callback, keras.callbacks.Callback) else callback for callback in several]
    for callback in wrapped:
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks holds a {type(callback).__name__}: expected callbacks, ours or Keras's (an object, no class)"
            )
    return wrapped


def without_saving_and_stopping(callbacks: list[Callback]) -> list[Callback]:
    """The callbacks that a fast_dev_run leaves in."""
    own = (ModelCheckpoint, EarlyStopping)
    keras_own = (keras.callbacks.ModelCheckpoint, keras.callbacks.EarlyStopping, keras.callbacks.BackupAndRestore)
    return [callback for callback in callbacks if not isinstance(getattr(callback, "callback", callback), (*own, *keras_own))]


def checkpoints_last(callbacks: list[Callback]) -> list[Callback]:
    """The callbacks in order, but each `ModelCheckpoint` after all others."""
    return sorted(callbacks, key=lambda callback: isinstance(callback, ModelCheckpoint))


def logger_list(given: Any, root: Path) -> list[Logger]:
    """The loggers; True is one for ``metrics.csv``.

    Raises:
        TypeError: one is no logger.
    """
    if given is True:
        return [CSVLogger(root / "metrics.csv")]
    several = list(given) if isinstance(given, Sequence) else [] if given in (None, False) else [given]
    for logger in several:
        if not isinstance(logger, Logger):
            raise TypeError(f"logger holds a {type(logger).__name__}: expected loggers, True or False")
    return several
