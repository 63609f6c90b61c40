"""Keeps the latest checkpoint on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mnist_tuner.trainer.callbacks.callback import Callback
from mnist_tuner.trainer.states import TrainerFn

if TYPE_CHECKING:
    from mnist_tuner.trainer.module import Module
    from mnist_tuner.trainer.trainer import Trainer


class ModelCheckpoint(Callback):
    """Saves the training's state after each epoch, and when it is interrupted; keeps the newest.

    The file is called ``epoch=4-step=9375.safetensors``; epochs count from 0. The one before it goes when the new one is
    safely on the disk, so there is always a whole one.

    Args:
        dirpath: the folder; by default ``checkpoints`` in the trainer's default_root_dir.

    Attributes:
        best_model_path: the newest checkpoint; "" while there is none.
    """

    runs_last = True

    def __init__(self, dirpath: str | Path | None = None) -> None:
        self.dirpath = None if dirpath is None else Path(dirpath)
        self.best_model_path = ""

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        """Saves."""
        self._save(trainer)

    def on_exception(self, trainer: Trainer, module: Module, exception: BaseException) -> None:
        """Saves what was trained up to a Ctrl-C; after an error the state is not to be trusted."""
        fitting = trainer.state.fn is TrainerFn.FITTING and trainer.global_step > 0
        # A second, impatient Ctrl-C may come within a call of the loop: then the steps' count is not known.
        if isinstance(exception, KeyboardInterrupt) and fitting and not trainer.in_call:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        folder = self.dirpath or trainer.default_root_dir / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"epoch={trainer.current_epoch}-step={trainer.global_step}.safetensors"
        trainer.save_checkpoint(path)
        if self.best_model_path and Path(self.best_model_path) != path:
            Path(self.best_model_path).unlink(missing_ok=True)
        self.best_model_path = str(path)
