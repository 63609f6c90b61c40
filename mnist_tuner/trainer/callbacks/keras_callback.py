"""The bridge to Keras's own callbacks."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mnist_tuner.trainer.hooks import Callback
from mnist_tuner.trainer.keras_module import KerasModule
from mnist_tuner.trainer.module import Module, model_of
from mnist_tuner.trainer.module_state import log_of, loops_of
from mnist_tuner.trainer.progress import RunningStage, TrainerFn

if TYPE_CHECKING:
    from mnist_tuner.trainer.base import TrainerBase


class KerasCallback(Callback):
    """Makes a `keras.callbacks.Callback` work as in `keras.Model.fit`; the trainer wraps those in ``callbacks=`` by itself.

    Its batch methods are called where it overrides them, and then make the loop run one step per call; they are given the
    metrics of the epoch so far as logs. Numbers, texts and arrays among its attributes, and lists and dicts of them, are kept in
    checkpoints, so that it goes on when the training is resumed. An epoch that is stopped within ends for it only if one of
    Keras's callbacks stopped it. What on_train_begin sets on the model counts: weights, learning rate, another optimizer, what is
    trainable, and the epoch to begin with, as `keras.callbacks.BackupAndRestore` sets it.

    Args:
        callback: Keras's.
    """

    runs_last = True  # it sees what the module logs at the epoch's end

    def __init__(self, callback: keras.callbacks.Callback) -> None:
        self.callback = callback
        self._loaded: dict[str, Any] = {}
        self._idle_in_batches = _idle_in_batches(callback)
        if self._overrides("on_train_batch_begin", "on_batch_begin"):
            self.on_train_batch_start = self._train_batch_start  # type: ignore[method-assign]
        if self._overrides("on_train_batch_end", "on_batch_end"):
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

    def on_fit_start(self, trainer: TrainerBase, module: Module) -> None:
        """Gives it the model."""
        model = model_of(module)
        if not model.compiled:  # as the callbacks find it in a compiled one
            model.optimizer = module.optimizer
        model.stop_training, model._initial_epoch = False, None  # for all of Keras's callbacks, before the first begins
        self.every_n_train_steps = None
        self.callback.set_model(model)

    def on_train_start(self, trainer: TrainerBase, module: Module) -> None:
        """on_train_begin."""
        model = model_of(module)
        steps = trainer.batches_of(RunningStage.TRAINING)
        self.callback.set_params({"verbose": trainer.verbose, "epochs": trainer.max_epochs, "steps": steps})
        before = _constants(model)
        self.callback.on_train_begin({})
        vars(self.callback).update(self._loaded)
        self._loaded = {}
        # In Keras nothing has been traced before; here the sanity check may have been, with what was there.
        if _constants(model) != before and not any(key[0] is RunningStage.TRAINING for key in loops_of(module)):
            loops_of(module).clear()
        if model._initial_epoch:  # by this name Keras 3.15's fit asks its callbacks where to begin
            trainer.go_to_epoch(model._initial_epoch)
            model._initial_epoch = None
        self._obey_after_a_step(module)

    def on_train_epoch_start(self, trainer: TrainerBase, module: Module) -> None:
        """on_epoch_begin."""
        self.callback.on_epoch_begin(trainer.current_epoch, {})
        self._obey_after_a_step(module)

    def on_train_steps_end(self, trainer: TrainerBase, module: Module) -> None:
        """The training stops where the callback has set stop_training."""
        self._obey(trainer, module)

    def on_train_epoch_end(self, trainer: TrainerBase, module: Module) -> None:
        """on_epoch_end with Keras's logs."""
        if trainer.progress.ended or model_of(module).stop_training:
            # Keras hands one dict down its callbacks, and some add to it.
            self.callback.on_epoch_end(trainer.current_epoch, trainer.epoch_logs)
            trainer.callback_metrics |= trainer.epoch_logs
            self._obey(trainer, module)

    def on_train_end(self, trainer: TrainerBase, module: Module) -> None:
        """on_train_end with the logs of the last epoch."""
        self.callback.on_train_end(dict(sorted(trainer.epoch_metrics.items())))

    def on_validation_start(self, trainer: TrainerBase, module: Module) -> None:
        """on_test_begin."""
        self._begin(trainer, module, "test")

    def on_validation_end(self, trainer: TrainerBase, module: Module) -> None:
        """on_test_end."""
        if not trainer.sanity_checking:
            self.callback.on_test_end(self._evaluation_logs(trainer, module))

    def on_test_start(self, trainer: TrainerBase, module: Module) -> None:
        """on_test_begin."""
        self._begin(trainer, module, "test")

    def on_test_end(self, trainer: TrainerBase, module: Module) -> None:
        """on_test_end."""
        self.callback.on_test_end(self._evaluation_logs(trainer, module))

    def on_predict_start(self, trainer: TrainerBase, module: Module) -> None:
        """on_predict_begin."""
        self._begin(trainer, module, "predict")

    def on_predict_end(self, trainer: TrainerBase, module: Module) -> None:
        """on_predict_end."""
        self.callback.on_predict_end({})

    def _begin(self, trainer: TrainerBase, module: Module, name: str) -> None:
        stage = trainer.state.stage
        if trainer.state.fn is not TrainerFn.FITTING and stage is not None:
            self.callback.set_model(module.model)
            self.callback.set_params({"verbose": trainer.verbose, "epochs": 1, "steps": trainer.batches_of(stage)})
        if not trainer.sanity_checking:
            getattr(self.callback, f"on_{name}_begin")({})

    def _train_batch_start(self, trainer: TrainerBase, module: Module, batch: Any, batch_idx: int) -> None:
        self.callback.on_train_batch_begin(batch_idx, {})

    def _train_batch_end(self, trainer: TrainerBase, module: Module, outputs: Any, batch: Any, batch_idx: int) -> None:
        logs = outputs.logs
        if not isinstance(module, KerasModule):  # whose loss may not be logged
            logs.setdefault("loss", float(outputs))
        self.callback.on_train_batch_end(batch_idx, logs)
        self._obey(trainer, module)

    def _test_batch_start(
        self, trainer: TrainerBase, module: Module, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            self.callback.on_test_batch_begin(batch_idx, {})

    def _test_batch_end(
        self, trainer: TrainerBase, module: Module, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            self.callback.on_test_batch_end(batch_idx, self._evaluation_logs(trainer, module))

    def _predict_batch_start(
        self, trainer: TrainerBase, module: Module, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.callback.on_predict_batch_begin(batch_idx, {})

    def _predict_batch_end(
        self, trainer: TrainerBase, module: Module, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.callback.on_predict_batch_end(batch_idx, {"outputs": outputs})

    def _evaluation_logs(self, trainer: TrainerBase, module: Module) -> dict[str, float]:
        """The evaluation's metrics so far, under Keras's names."""
        testing = trainer.state.fn is TrainerFn.TESTING
        values = log_of(module, RunningStage.TESTING if testing else RunningStage.VALIDATING).bare_values()
        prefix = "test_" if testing else "val_"
        return dict(sorted((name.removeprefix(prefix), value) for name, value in values.items()))

    def _obey(self, trainer: TrainerBase, module: Module) -> None:
        if getattr(module.model, "stop_training", False):
            trainer.should_stop = True

    def _obey_after_a_step(self, module: Module) -> None:
        """Keras looks at stop_training after each batch: what is set before the epoch's first stops after that one."""
        if getattr(module.model, "stop_training", False):
            self.every_n_train_steps = 1

    def _overrides(self, *methods: str) -> bool:
        for name in methods:
            function = getattr(getattr(self.callback, name), "__func__", None)  # none is one that LambdaCallback was given
            own = function is not None and function.__module__.startswith("keras.")
            if function is not getattr(keras.callbacks.Callback, name) and not (own and self._idle_in_batches):
                return True
        return False


def _idle_in_batches(callback: keras.callbacks.Callback) -> bool:
    """Whether it is one of Keras's own that override batch methods, but do nothing there as they are set."""
    if isinstance(callback, keras.callbacks.TensorBoard):
        return callback.update_freq == "epoch" and not (callback.write_steps_per_second or callback._should_trace)
    return getattr(callback, "save_freq", None) == "epoch"  # ModelCheckpoint, BackupAndRestore


def _constants(model: keras.Model) -> dict[str, Any]:
    """The plain values among a model's attributes, which the traced steps hold as constants."""
    return {
        name: value
        for name, value in vars(model).items()
        if isinstance(value, (bool, int, float, str)) and name[0] != "_" and name != "stop_training"
    }


def _kept(value: Any) -> bool:
    """Whether a checkpoint can keep it."""
    if isinstance(value, (list, tuple)):
        return all(_kept(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _kept(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str, np.ndarray, np.number))
