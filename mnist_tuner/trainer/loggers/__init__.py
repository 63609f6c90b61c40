"""Where metrics are written to, one file each."""

from mnist_tuner.trainer.loggers.csv import CSVLogger
from mnist_tuner.trainer.loggers.logger import Logger

__all__ = ["CSVLogger", "Logger"]
