"""Train, tune and judge a small network: a compiled Lightning-style trainer for Keras, and honest reports.

The names below are loaded when they are first used: importing the package does not import TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mnist_tuner._version import __version__

if TYPE_CHECKING:
    from mnist_tuner.errors import InputError
    from mnist_tuner.mnist import WidthHyperModel, build_baseline
    from mnist_tuner.mnist.data import MNISTDataModule, load_dataset
    from mnist_tuner.search import Tuner
    from mnist_tuner.trainer import (
        ArrayLoader,
        Callback,
        CSVLogger,
        DataModule,
        EarlyStopping,
        KerasModule,
        LambdaCallback,
        LearningRateMonitor,
        ModelCheckpoint,
        Module,
        RichModelSummary,
        RichProgressBar,
        TensorBoardLogger,
        Timer,
        Trainer,
        fit_keras_model,
        seed_everything,
    )

_HOMES = {
    "InputError": "errors",
    "MNISTDataModule": "mnist.data",
    "Tuner": "search",
    "WidthHyperModel": "mnist",
    "build_baseline": "mnist",
    "load_dataset": "mnist.data",
}

__all__ = [
    "ArrayLoader",
    "CSVLogger",
    "Callback",
    "DataModule",
    "EarlyStopping",
    "InputError",
    "KerasModule",
    "LambdaCallback",
    "LearningRateMonitor",
    "MNISTDataModule",
    "ModelCheckpoint",
    "Module",
    "RichModelSummary",
    "RichProgressBar",
    "TensorBoardLogger",
    "Timer",
    "Trainer",
    "Tuner",
    "WidthHyperModel",
    "__version__",
    "build_baseline",
    "fit_keras_model",
    "load_dataset",
    "seed_everything",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'trainer')}"), name)


def __dir__() -> list[str]:
    return __all__
