"""The callbacks of a search: each training has copies of its own, which write into a place of its own."""

from __future__ import annotations

import copy
import os
import posixpath
from pathlib import Path
from typing import Any

from mnist_tuner.errors import InputError


def copies(given: Any, place: str) -> list[Any]:
    """A training's own callbacks.

    Args:
        given: callbacks, or one, or a function that makes them.
        place: the training's name as a relative path; what callbacks write goes there, below the path that they were given.

    Raises:
        InputError: one of them cannot be copied.
    """
    made = given() if callable(given) else given
    listed = list(made) if isinstance(made, (list, tuple)) else [] if made is None else [made]
    if made is given:
        try:
            listed = copy.deepcopy(listed)  # all at once: what two of them share, their copies share
        except Exception:
            _check(listed)
            raise
    for callback in listed:
        _move(callback, place)
    return listed


def check_copies(given: Any) -> None:
    """Whether callbacks can be copied for each training.

    Raises:
        InputError: one of them cannot be.
    """
    _check(given if isinstance(given, (list, tuple)) else [] if callable(given) else [given])


def _check(callbacks: Any) -> None:
    for callback in callbacks:
        try:
            copy.deepcopy(callback)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"callbacks: a {type(callback).__name__} cannot be copied for each training ({reason}): give a function that "
                "makes the callbacks, such as callbacks=make_callbacks"
            ) from None


def _move(callback: Any, place: str) -> None:
    """Has a callback of Keras's or of ours write below its path."""
    import keras
    import tensorflow as tf

    from mnist_tuner.trainer.callbacks import ModelCheckpoint

    match callback:
        case keras.callbacks.TensorBoard():
            callback.log_dir = posixpath.join(callback.log_dir, place)
        case keras.callbacks.ModelCheckpoint():
            callback.filepath = _beside(callback.filepath, place)
        case keras.callbacks.CSVLogger():
            callback.filename = _beside(callback.filename, place)
            tf.io.gfile.makedirs(posixpath.dirname(callback.filename))
        case keras.callbacks.BackupAndRestore():
            before, after = str(callback.backup_dir), posixpath.join(str(callback.backup_dir), place)
            if tf.io.gfile.exists(after):  # of a training that was broken off: this one begins at its beginning
                tf.io.gfile.rmtree(after)
            for name, value in vars(callback).items():
                if isinstance(value, (str, os.PathLike)) and str(value).startswith(before):
                    setattr(callback, name, after + str(value)[len(before) :])
        case ModelCheckpoint():
            callback.dirpath = (callback.dirpath or Path("checkpoints")) / place


def _beside(path: str, place: str) -> str:
    """A file of the same name, in its folder's place for this training."""
    folder, name = posixpath.split(path)
    return posixpath.join(folder, place, name)
