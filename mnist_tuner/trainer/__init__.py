"""A lightweight trainer for Keras with PyTorch Lightning's vocabulary and a compiled loop.

It knows nothing of MNIST, KerasTuner or the command line. The names below are loaded when they are first used, so that
importing this package does not import TensorFlow.
"""

from typing import TYPE_CHECKING

from mnist_tuner.lazy import attach
from mnist_tuner.trainer.backend import importing

if TYPE_CHECKING:
    from mnist_tuner.trainer.callbacks import Callback as Callback
    from mnist_tuner.trainer.callbacks import EarlyStopping as EarlyStopping
    from mnist_tuner.trainer.callbacks import KerasCallback as KerasCallback
    from mnist_tuner.trainer.callbacks import LambdaCallback as LambdaCallback
    from mnist_tuner.trainer.callbacks import LearningRateMonitor as LearningRateMonitor
    from mnist_tuner.trainer.callbacks import ModelCheckpoint as ModelCheckpoint
    from mnist_tuner.trainer.callbacks import RichModelSummary as RichModelSummary
    from mnist_tuner.trainer.callbacks import RichProgressBar as RichProgressBar
    from mnist_tuner.trainer.callbacks import Timer as Timer
    from mnist_tuner.trainer.checkpoint import Checkpoint as Checkpoint
    from mnist_tuner.trainer.checkpoint import CheckpointError as CheckpointError
    from mnist_tuner.trainer.checkpoint import read_checkpoint as read_checkpoint
    from mnist_tuner.trainer.data import ArrayLoader as ArrayLoader
    from mnist_tuner.trainer.data import DataModule as DataModule
    from mnist_tuner.trainer.keras_fit import fit_keras_model as fit_keras_model
    from mnist_tuner.trainer.keras_module import KerasModule as KerasModule
    from mnist_tuner.trainer.loggers import CSVLogger as CSVLogger
    from mnist_tuner.trainer.loggers import Logger as Logger
    from mnist_tuner.trainer.loggers import TensorBoardLogger as TensorBoardLogger
    from mnist_tuner.trainer.loop import NonFiniteLossError as NonFiniteLossError
    from mnist_tuner.trainer.module import Module as Module
    from mnist_tuner.trainer.profiler import Profiler as Profiler
    from mnist_tuner.trainer.profiler import SimpleProfiler as SimpleProfiler
    from mnist_tuner.trainer.seed import seed_everything as seed_everything
    from mnist_tuner.trainer.streams import StreamLoader as StreamLoader
    from mnist_tuner.trainer.trainer import Trainer as Trainer
else:
    __getattr__, __dir__, __all__ = attach(__name__, __file__, importing)
