"""The hooks of a module."""

from __future__ import annotations

from typing import Any


class ModuleHooks:
    """What the trainer calls between the steps; each does nothing. In the order of Lightning, after the callbacks' own."""

    def prepare_data(self) -> None:
        """Downloads or converts, once; keeps no state. Called after the `DataModule`'s."""

    def train_dataloader(self) -> Any:
        """The training batches, where neither loaders nor a `DataModule` are given to the trainer; what a loader may be says
        `DataModule`. None where there is no such data."""
        return None

    def val_dataloader(self) -> Any:
        """The validation batches, likewise, or a list of such loaders."""
        return None

    def test_dataloader(self) -> Any:
        """The test batches, likewise, or a list of such loaders."""
        return None

    def predict_dataloader(self) -> Any:
        """The batches to predict, likewise, or a list of such loaders."""
        return None

    def setup(self, stage: str) -> None:
        """Called before "fit", "validate", "test" or "predict"."""

    def teardown(self, stage: str) -> None:
        """Called after it."""

    def on_fit_start(self) -> None:
        """Called when everything is set up, before the first epoch."""

    def on_fit_end(self) -> None:
        """Called after the last epoch."""

    def on_train_start(self) -> None:
        """Called when training starts."""

    def on_train_end(self) -> None:
        """Called when training ends."""

    def on_train_epoch_start(self) -> None:
        """Called before each epoch."""

    def on_train_epoch_end(self) -> None:
        """Called after each epoch, its validation included."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Called before each training batch. Overriding it makes the loop run one step per call."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Called after each training batch with the loss (of a Keras model: its mean over the epoch so far), also as
        ``outputs["loss"]``. Overriding it makes the loop run one step per call."""

    def on_validation_start(self) -> None:
        """Called before each validation."""

    def on_validation_epoch_start(self) -> None:
        """Called before each pass over the validation data."""

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called before each validation batch. Overriding it makes the loop run one step per call."""

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called after each validation batch with what the step returned. Overriding it makes the loop run one step per call."""

    def on_validation_epoch_end(self) -> None:
        """Called after each pass over the validation data."""

    def on_validation_end(self) -> None:
        """Called after each validation."""

    def on_test_start(self) -> None:
        """Called before the test."""

    def on_test_epoch_start(self) -> None:
        """Called before the pass over the test data."""

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called before each test batch. Overriding it makes the loop run one step per call."""

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called after each test batch with what the step returned. Overriding it makes the loop run one step per call."""

    def on_test_epoch_end(self) -> None:
        """Called after the pass over the test data."""

    def on_test_end(self) -> None:
        """Called after the test."""

    def on_predict_start(self) -> None:
        """Called before predicting."""

    def on_predict_epoch_start(self) -> None:
        """Called before the pass over the data to predict."""

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called before each predicted batch. Overriding it makes the loop run one step per call."""

    def on_predict_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called after each predicted batch with what the step returned. Overriding it makes the loop run one step per call."""

    def on_predict_epoch_end(self) -> None:
        """Called after the pass over the data to predict."""

    def on_predict_end(self) -> None:
        """Called after predicting."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called before a checkpoint is written; may add entries, JSON values or numpy arrays."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called when a training is resumed, with the same entries."""
