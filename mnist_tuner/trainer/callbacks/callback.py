"""The base class of callbacks: every hook, doing nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_tuner.trainer.module import Module
    from mnist_tuner.trainer.trainer import Trainer


class Callback:
    """Something that watches or steers a training from outside. Override the hooks that are needed.

    Example::

        class StopAtNinetySeven(Callback):
            def on_train_epoch_end(self, trainer, module):
                if trainer.callback_metrics["val_accuracy"] > 0.97:
                    trainer.should_stop = True
    """

    runs_last = False
    """Whether its on_train_epoch_end comes after the module's, as for whatever judges what all others have logged."""

    displays = False
    """Whether it draws on the screen; a profiler adds up what that costs."""

    every_n_train_steps: int | None = None
    """Where set, the compiled loop returns at these steps, so that on_train_steps_end is called there."""

    log: Callable[..., None]
    """While the trainer runs, the module's `log`."""

    @property
    def state_key(self) -> str:
        """Under which a checkpoint keeps its state."""
        return type(self).__name__

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint is to keep of it: JSON values and numpy arrays."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave, when a training is resumed."""

    def on_save_checkpoint(self, trainer: Trainer, module: Module, checkpoint: dict[str, Any]) -> None:
        """Called before a checkpoint is written; may add entries, JSON values or numpy arrays."""

    def on_load_checkpoint(self, trainer: Trainer, module: Module, checkpoint: dict[str, Any]) -> None:
        """Called when a training is resumed, with the same entries."""

    def on_sanity_check_start(self, trainer: Trainer, module: Module) -> None:
        """Called before the few validation batches that are tried before the training."""

    def on_sanity_check_end(self, trainer: Trainer, module: Module) -> None:
        """Called after them."""

    def step_metrics(self, trainer: Trainer, module: Module, step: int) -> dict[str, float]:
        """What the row of a logged step is to hold besides the module's metrics; ours, not Lightning's."""
        return {}

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        """Called before "fit", "validate", "test" or "predict"."""

    def teardown(self, trainer: Trainer, module: Module, stage: str) -> None:
        """Called after it, after an exception too."""

    def on_fit_start(self, trainer: Trainer, module: Module) -> None:
        """Called when everything is set up, before the first epoch."""

    def on_fit_end(self, trainer: Trainer, module: Module) -> None:
        """Called after the last epoch."""

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        """Called when training starts."""

    def on_train_end(self, trainer: Trainer, module: Module) -> None:
        """Called when training ends."""

    def on_train_epoch_start(self, trainer: Trainer, module: Module) -> None:
        """Called before each epoch."""

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        """Called after each epoch, its validation included; the epoch's metrics are there."""

    def on_train_batch_start(self, trainer: Trainer, module: Module, batch: Any, batch_idx: int) -> None:
        """Called before each training batch. Overriding it makes the loop run one step per call."""

    def on_train_batch_end(self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Called after each training batch with the loss (of a Keras model: its mean over the epoch so far), also as
        ``outputs["loss"]``. Overriding it makes the loop run one step per call."""

    def on_train_steps_end(self, trainer: Trainer, module: Module) -> None:
        """Called after each call of the compiled loop, about ten times a second; ours, not Lightning's."""

    def on_validation_start(self, trainer: Trainer, module: Module) -> None:
        """Called before each validation."""

    def on_validation_epoch_start(self, trainer: Trainer, module: Module) -> None:
        """Called before each pass over the validation data."""

    def on_validation_batch_start(
        self, trainer: Trainer, module: Module, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Called before each validation batch. Overriding it makes the loop run one step per call."""

    def on_validation_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Called after each validation batch with what the step returned. Overriding it makes the loop run one step per call."""

    def on_validation_epoch_end(self, trainer: Trainer, module: Module) -> None:
        """Called after each pass over the validation data."""

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        """Called after each validation."""

    def on_test_start(self, trainer: Trainer, module: Module) -> None:
        """Called before the test."""

    def on_test_epoch_start(self, trainer: Trainer, module: Module) -> None:
        """Called before the pass over the test data."""

    def on_test_batch_start(self, trainer: Trainer, module: Module, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called before each test batch. Overriding it makes the loop run one step per call."""

    def on_test_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Called after each test batch with what the step returned. Overriding it makes the loop run one step per call."""

    def on_test_epoch_end(self, trainer: Trainer, module: Module) -> None:
        """Called after the pass over the test data."""

    def on_test_end(self, trainer: Trainer, module: Module) -> None:
        """Called after the test."""

    def on_predict_start(self, trainer: Trainer, module: Module) -> None:
        """Called before predicting."""

    def on_predict_epoch_start(self, trainer: Trainer, module: Module) -> None:
        """Called before the pass over the data to predict."""

    def on_predict_batch_start(
        self, trainer: Trainer, module: Module, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Called before each predicted batch. Overriding it makes the loop run one step per call."""

    def on_predict_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Called after each predicted batch with what the step returned. Overriding it makes the loop run one step per call."""

    def on_predict_epoch_end(self, trainer: Trainer, module: Module) -> None:
        """Called after the pass over the data to predict."""

    def on_predict_end(self, trainer: Trainer, module: Module) -> None:
        """Called after predicting."""

    def on_exception(self, trainer: Trainer, module: Module, exception: BaseException) -> None:
        """Called when a stage ends with an exception, Ctrl-C included."""
