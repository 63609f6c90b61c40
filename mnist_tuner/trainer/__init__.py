"""A lightweight trainer for Keras with PyTorch Lightning's vocabulary and a compiled loop.

It knows nothing of MNIST, KerasTuner or the command line. The names below are loaded when they are first used, so that
importing this package does not import TensorFlow.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_tuner.trainer.callbacks import (
        Callback,
        EarlyStopping,
        KerasCallback,
        LambdaCallback,
        LearningRateMonitor,
        ModelCheckpoint,
        RichModelSummary,
        RichProgressBar,
        Timer,
    )
    from mnist_tuner.trainer.checkpoint import Checkpoint, CheckpointError, read_checkpoint
    from mnist_tuner.trainer.data import ArrayLoader, DataModule
    from mnist_tuner.trainer.keras_fit import fit_keras_model
    from mnist_tuner.trainer.keras_module import KerasModule
    from mnist_tuner.trainer.loggers import CSVLogger, Logger, TensorBoardLogger
    from mnist_tuner.trainer.loop import NonFiniteLossError
    from mnist_tuner.trainer.module import Module
    from mnist_tuner.trainer.profiler import Profiler, SimpleProfiler
    from mnist_tuner.trainer.seed import seed_everything
    from mnist_tuner.trainer.streams import StreamLoader
    from mnist_tuner.trainer.trainer import Trainer

import_seconds = 0.0
"""What the import of TensorFlow through this package has cost; 0 where it was there already."""

_HOMES = {
    "ArrayLoader": "data",
    "CSVLogger": "loggers",
    "Callback": "callbacks",
    "Checkpoint": "checkpoint",
    "CheckpointError": "checkpoint",
    "DataModule": "data",
    "EarlyStopping": "callbacks",
    "KerasCallback": "callbacks",
    "KerasModule": "keras_module",
    "LambdaCallback": "callbacks",
    "LearningRateMonitor": "callbacks",
    "Logger": "loggers",
    "ModelCheckpoint": "callbacks",
    "Module": "module",
    "NonFiniteLossError": "loop",
    "Profiler": "profiler",
    "RichModelSummary": "callbacks",
    "RichProgressBar": "callbacks",
    "SimpleProfiler": "profiler",
    "StreamLoader": "streams",
    "TensorBoardLogger": "loggers",
    "Timer": "callbacks",
    "Trainer": "trainer",
    "fit_keras_model": "keras_fit",
    "read_checkpoint": "checkpoint",
    "seed_everything": "seed",
}

__all__ = [
    "ArrayLoader",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "DataModule",
    "EarlyStopping",
    "KerasCallback",
    "KerasModule",
    "LambdaCallback",
    "LearningRateMonitor",
    "Logger",
    "ModelCheckpoint",
    "Module",
    "NonFiniteLossError",
    "Profiler",
    "RichModelSummary",
    "RichProgressBar",
    "SimpleProfiler",
    "StreamLoader",
    "TensorBoardLogger",
    "Timer",
    "Trainer",
    "fit_keras_model",
    "read_checkpoint",
    "seed_everything",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise ImportError(f"mnist_tuner needs Keras's TensorFlow backend, and KERAS_BACKEND is {backend!r}: unset it")
    global import_seconds
    began, loaded = time.perf_counter(), "tensorflow" in sys.modules
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if not loaded and "tensorflow" in sys.modules:
        import_seconds = time.perf_counter() - began
    return value


def __dir__() -> list[str]:
    return __all__
