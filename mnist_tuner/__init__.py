"""Train, tune and judge a small network: a compiled Lightning-style trainer for Keras, and honest reports.

The names below are loaded when they are first used: importing the package does not import TensorFlow.
"""

from typing import TYPE_CHECKING

from mnist_tuner.lazy import attach

if TYPE_CHECKING:
    from mnist_tuner._version import __version__ as __version__
    from mnist_tuner.errors import InputError as InputError
    from mnist_tuner.mnist import WidthHyperModel as WidthHyperModel
    from mnist_tuner.mnist import build_baseline as build_baseline
    from mnist_tuner.mnist.data import MNISTDataModule as MNISTDataModule
    from mnist_tuner.mnist.data import load_dataset as load_dataset
    from mnist_tuner.search import Tuner as Tuner
    from mnist_tuner.trainer import ArrayLoader as ArrayLoader
    from mnist_tuner.trainer import Callback as Callback
    from mnist_tuner.trainer import CSVLogger as CSVLogger
    from mnist_tuner.trainer import DataModule as DataModule
    from mnist_tuner.trainer import EarlyStopping as EarlyStopping
    from mnist_tuner.trainer import KerasModule as KerasModule
    from mnist_tuner.trainer import LambdaCallback as LambdaCallback
    from mnist_tuner.trainer import LearningRateMonitor as LearningRateMonitor
    from mnist_tuner.trainer import ModelCheckpoint as ModelCheckpoint
    from mnist_tuner.trainer import Module as Module
    from mnist_tuner.trainer import RichModelSummary as RichModelSummary
    from mnist_tuner.trainer import RichProgressBar as RichProgressBar
    from mnist_tuner.trainer import TensorBoardLogger as TensorBoardLogger
    from mnist_tuner.trainer import Timer as Timer
    from mnist_tuner.trainer import Trainer as Trainer
    from mnist_tuner.trainer import fit_keras_model as fit_keras_model
    from mnist_tuner.trainer import seed_everything as seed_everything
else:
    __getattr__, __dir__, __all__ = attach(__name__, __file__)
