"""Where metrics are written to, one file each."""

from mnist_tuner.trainer.loggers.csv import CSVLogger
from mnist_tuner.trainer.loggers.logger import Logger
from mnist_tuner.trainer.loggers.tensorboard import TensorBoardLogger

__all__ = ["CSVLogger", "Logger", "TensorBoardLogger"]
