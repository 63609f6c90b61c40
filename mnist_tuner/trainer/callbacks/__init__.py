"""What can be hung into a trainer, one file each."""

from mnist_tuner.trainer.callbacks.early_stopping import EarlyStopping
from mnist_tuner.trainer.callbacks.keras_callback import KerasCallback
from mnist_tuner.trainer.callbacks.lambda_callback import LambdaCallback
from mnist_tuner.trainer.callbacks.learning_rate_monitor import LearningRateMonitor
from mnist_tuner.trainer.callbacks.model_checkpoint import ModelCheckpoint
from mnist_tuner.trainer.callbacks.model_summary import RichModelSummary
from mnist_tuner.trainer.callbacks.progress_bar import RichProgressBar
from mnist_tuner.trainer.callbacks.timer import Timer
from mnist_tuner.trainer.hooks import Callback

__all__ = [
    "Callback",
    "EarlyStopping",
    "KerasCallback",
    "LambdaCallback",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "RichModelSummary",
    "RichProgressBar",
    "Timer",
]
