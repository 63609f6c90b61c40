"""What can be hung into a trainer, one file each."""

from mnist_tuner.trainer.callbacks.callback import Callback
from mnist_tuner.trainer.callbacks.model_checkpoint import ModelCheckpoint
from mnist_tuner.trainer.callbacks.model_summary import RichModelSummary
from mnist_tuner.trainer.callbacks.progress_bar import RichProgressBar

__all__ = ["Callback", "ModelCheckpoint", "RichModelSummary", "RichProgressBar"]
