"""The bridge to Keras's own callbacks."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mnist_tuner.trainer.callbacks.callback import Callback
from mnist_tuner.trainer.states import TrainerFn

if TYPE_CHECKING:
    from mnist_tuner.trainer.module import Module
    from mnist_tuner.trainer.trainer import Trainer


class KerasCallback(Callback):
    """Makes a `keras.callbacks.Callback` work as in `keras.Model.fit`; the trainer wraps those in ``callbacks=`` by itself.

    Its batch methods are called where it overrides them, and then make the loop run one step per call; they are given the loss
    as logs. Numbers, texts and arrays among its attributes are kept in checkpoints, so that it goes on when the training is
    resumed. An epoch that is stopped within ends for it only if one of Keras's callbacks stopped it.

    Args:
        callback: Keras's.
    """

    runs_last = True  # it sees what the module logs at the epoch's end

    def __init__(self, callback: keras.callbacks.Callback) -> None:
        self.callback = callback
        self._loaded: dict[str, Any] = {}
        if self._overrides("on_train_batch_begin", "on_batch_begin"):
            self.on_train_batch_start = self._train_batch_start  # type: ignore[method-assign]
        # Keras's ModelCheckpoint overrides it, but does nothing there where it saves by epochs.
        by_epochs = getattr(callback, "save_freq", None) == "epoch"
        if self._overrides("on_train_batch_end", "on_batch_end") and not by_epochs:
            self.on_train_batch_end = self._train_batch_end  # type: ignore[method-assign]
        for noun, name in (("validation", "test"), ("test", "test"), ("predict", "predict")):
            if self._overrides(f"on_{name}_batch_begin"):
                setattr(self, f"on_{noun}_batch_start", getattr(self, f"_{name}_batch_start"))
            if self._overrides(f"on_{name}_batch_end"):
                setattr(self, f"on_{noun}_batch_end", getattr(self, f"_{name}_batch_end"))

    @property
    def state_key(self) -> str:
        """One for each class."""
        return f"keras.{type(self.callback).__name__}"

    def state_dict(self) -> dict[str, Any]:
        """The callback's numbers, texts and arrays, but for the arguments of Keras's own: some it changes when it begins."""
        known = {"params", "_model"}
        for kind in type(self.callback).__mro__:
            if kind.__module__.startswith("keras."):
                known |= inspect.signature(kind.__init__).parameters.keys()  # type: ignore[misc]
        return {name: value for name, value in vars(self.callback).items() if _kept(value) and name not in known}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them back, when on_train_begin has set the callback to its start."""
        self._loaded = state_dict

    def on_fit_start(self, trainer: Trainer, module: Module) -> None:
        """Gives it the model."""
        model = module.model
        assert model is not None
        if not model.compiled:  # as the callbacks find it in a compiled one
            model.optimizer = module.optimizer
        self.callback.set_model(model)

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        """on_train_begin."""
        assert module.model is not None
        module.model.stop_training = False
        steps = trainer.num_training_batches
        epochs = trainer.max_epochs
        self.callback.set_params({"verbose": 0, "epochs": epochs, "steps": int(steps) if steps < float("inf") else None})
        self.callback.on_train_begin({})
        vars(self.callback).update(self._loaded)
        self._loaded = {}

    def on_train_epoch_start(self, trainer: Trainer, module: Module) -> None:
        """on_epoch_begin."""
        self.callback.on_epoch_begin(trainer.current_epoch, {})
        self._obey(trainer, module)

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        """on_epoch_end with Keras's logs."""
        if trainer.progress.ended or module.model.stop_training:  # type: ignore[union-attr]
            # Keras hands one dict down its callbacks, and some add to it.
            self.callback.on_epoch_end(trainer.current_epoch, trainer.callback_metrics)
            self._obey(trainer, module)

    def on_train_end(self, trainer: Trainer, module: Module) -> None:
        """on_train_end."""
        self.callback.on_train_end(dict(trainer.callback_metrics))

    def on_validation_start(self, trainer: Trainer, module: Module) -> None:
        """on_test_begin."""
        self._begin(trainer, module, "test")

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        """on_test_end."""
        if not trainer.sanity_checking:
            self.callback.on_test_end(self._logs(trainer, "val_"))

    def on_test_start(self, trainer: Trainer, module: Module) -> None:
        """on_test_begin."""
        self._begin(trainer, module, "test")

    def on_test_end(self, trainer: Trainer, module: Module) -> None:
        """on_test_end."""
        self.callback.on_test_end(self._logs(trainer, "test_"))

    def on_predict_start(self, trainer: Trainer, module: Module) -> None:
        """on_predict_begin."""
        self._begin(trainer, module, "predict")

    def on_predict_end(self, trainer: Trainer, module: Module) -> None:
        """on_predict_end."""
        self.callback.on_predict_end({})

    def _begin(self, trainer: Trainer, module: Module, name: str) -> None:
        if trainer.state.fn is not TrainerFn.FITTING:
            self.callback.set_model(module.model)
        if not trainer.sanity_checking:
            getattr(self.callback, f"on_{name}_begin")({})

    def _train_batch_start(self, trainer: Trainer, module: Module, batch: Any, batch_idx: int) -> None:
        self.callback.on_train_batch_begin(batch_idx, {})

    def _train_batch_end(self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.callback.on_train_batch_end(batch_idx, dict(outputs))
        self._obey(trainer, module)

    def _test_batch_start(self, trainer: Trainer, module: Module, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if not trainer.sanity_checking:
            self.callback.on_test_batch_begin(batch_idx, {})

    def _test_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            prefix = "val_" if trainer.state.fn is not TrainerFn.TESTING else "test_"
            self.callback.on_test_batch_end(batch_idx, self._logs(trainer, prefix))

    def _predict_batch_start(self, trainer: Trainer, module: Module, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.callback.on_predict_batch_begin(batch_idx, {})

    def _predict_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.callback.on_predict_batch_end(batch_idx, {"outputs": outputs})

    def _logs(self, trainer: Trainer, prefix: str) -> dict[str, float]:
        """The evaluation's metrics under Keras's names."""
        metrics = trainer.callback_metrics | trainer.evaluation_metrics
        return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}

    def _obey(self, trainer: Trainer, module: Module) -> None:
        if getattr(module.model, "stop_training", False):
            trainer.should_stop = True

    def _overrides(self, *methods: str) -> bool:
        base = keras.callbacks.Callback
        return any(getattr(getattr(self.callback, name), "__func__", None) is not getattr(base, name) for name in methods)


def _kept(value: Any) -> bool:
    """Whether a checkpoint can keep it."""
    if isinstance(value, (list, tuple)):
        return all(_kept(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str, np.ndarray, np.number))
