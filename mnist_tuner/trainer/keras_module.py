"""The module of a compiled Keras model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from mnist_tuner.trainer.data import Loader
from mnist_tuner.trainer.module import Module, parts_of
from mnist_tuner.trainer.module_state import state_of
from mnist_tuner.trainer.progress import RunningStage
from mnist_tuner.trainer.tracing import make_variables

_KEPT = "_mnist_tuner_module"
"""The attribute of a Keras model under which its module is kept."""


class KerasModule(Module):
    """Trains a compiled `keras.Model` as it is: its own loss, optimizer, metrics and, where overridden, train_step.

    Metrics are called as Keras calls them: loss, accuracy, val_loss, val_accuracy; test_loss, test_accuracy in the test. Of one
    that has a value per class, as F1Score has, each value is called by its number: f1_score_0, f1_score_1. Of a train_step of its
    own, optimizers, metrics and variables that are attributes of the model, also in lists and dicts, are kept in checkpoints.

    Args:
        model: a compiled model; it is trained in place and stays usable by plain Keras.

    Raises:
        TypeError: it is not a `keras.Model`.
        ValueError: the model is not compiled.
    """

    def __init__(self, model: keras.Model) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(f"the model is a {type(model).__name__}: expected a Module or a compiled keras.Model")
        if not model.compiled:
            raise ValueError("the keras.Model is not compiled: call model.compile(optimizer, loss, metrics) first")
        self.model: keras.Model = model

    @classmethod
    def of(cls, model: keras.Model) -> KerasModule:
        """The module that is kept with a model, made at first: whoever trains the model next finds the loops compiled.

        Raises:
            TypeError, ValueError: as for a new one.
        """
        module: KerasModule | None = model.__dict__.get(_KEPT) if isinstance(model, keras.Model) else None
        if module is None:
            module = cls(model)
            object.__setattr__(model, _KEPT, module)  # past Keras's own, which looks for layers in whatever it is given
        return module

    @property
    def optimizer(self) -> keras.optimizers.Optimizer | None:
        """The one that the model was compiled with last, and no other, since its train_step takes that; None before a fit."""
        return self.model.optimizer if self.has_been_fitted else None

    @optimizer.setter
    def optimizer(self, optimizer: keras.optimizers.Optimizer | None) -> None:
        if optimizer is not self.model.optimizer:
            raise ValueError(
                f"the optimizer is {optimizer!r}, but a keras.Model trains with the one that it was compiled with: call "
                "model.compile with this one"
            )
        state_of(self).fitted = True

    @property
    def has_been_fitted(self) -> bool:
        return state_of(self).fitted

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Those that Keras resets when a pass begins, the compiled ones first."""
        return list(self.model.metrics)

    def reset_metrics(self) -> None:
        """Keras's own, which a model may override."""
        self.model.reset_metrics()

    def configure_optimizers(self) -> keras.optimizers.Optimizer | None:
        """The optimizer that the model was compiled with; perhaps None where it has a train_step of its own."""
        return self.model.optimizer

    @property
    def has_own_train_step(self) -> bool:
        """Whether the model overrides train_step."""
        return not _is_keras(self.model, "train_step")

    @property
    def has_own_optimizers(self) -> bool:
        """Whether a train_step of the model's own may train with others than the one that it was compiled with."""
        found = (part for part in self._parts_of_model() if isinstance(part, keras.Optimizer))
        return self.model.optimizer is None or any(part is not self.model.optimizer for part in found)

    def receives(self, batch: Any, of_arrays: bool) -> Any:
        """As Keras's fit gives arrays to the steps: an x without y is no tuple."""
        if of_arrays and isinstance(batch, tuple) and len(batch) == 1:
            return keras.utils.pack_x_y_sample_weight(*batch)
        return batch

    def build(self, loader: Loader, stage: RunningStage) -> None:
        """Makes what Keras makes in the first trace of its fit: the weights of layers without an input shape, the variables of
        compiled metrics, those of the optimizers that a train_step of the model's own takes."""
        model = self.model
        step = {RunningStage.TRAINING: "train_step", RunningStage.PREDICTING: "predict_step"}.get(stage, "test_step")
        if all(layer.built for layer in model._flatten_layers()) and not (step == "train_step" and self.has_own_train_step):
            compiled = [part for part in (model._compile_loss, model._compile_metrics) if part is not None]
            if step != "train_step" or all(part.built for part in compiled):
                return
            step = "test_step" if _is_keras(model, "test_step") else step  # makes the same, and is traced in a third of the time
        make_variables(self, getattr(model, step), self.receives(loader.first_batch(), loader.of_arrays))

    def predict_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> Any:
        """Keras's own predict_step."""
        return self.model.predict_step(batch)

    def optimize(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        """Keras's own train_step.

        Returns:
            The loss as Keras reports it: the mean over the epoch so far; of a step that reports several losses and none by the
            name "loss", their sum.

        Raises:
            TypeError: an overridden train_step reports nothing.
        """
        logs = self.model.train_step(batch)
        if not isinstance(logs, dict) or not logs:
            raise TypeError(
                f"{type(self.model).__name__}.train_step returned {logs!r}: expected a dict with the key 'loss', or with other "
                "numbers by their names"
            )
        logs = _flat(logs)
        self._log_running("", logs)
        if "loss" in logs and tf.convert_to_tensor(logs["loss"]).shape.rank == 0:
            return logs["loss"]
        losses = [tf.reduce_sum(tf.cast(value, tf.float32)) for name, value in logs.items() if name.endswith("loss")]
        return tf.add_n(losses) if losses else tf.constant(0.0)

    def validation_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
        """Keras's own test_step."""
        self._log_running("val_", _flat(self.model.test_step(batch)))

    def test_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
        """Keras's own test_step."""
        self._log_running("test_", _flat(self.model.test_step(batch)))

    def _log_running(self, prefix: str, logs: dict[str, tf.Tensor]) -> None:
        # Keras's results are already reduced over the epoch so far: the last one is the epoch's.
        for name, value in logs.items():
            parts = {name: value}
            if tf.is_tensor(value) and value.shape.num_elements() != 1:  # such as F1Score's, one per class
                parts = {f"{name}_{i}": part for i, part in enumerate(tf.unstack(tf.reshape(value, [-1])))}
            for part_name, part in parts.items():
                self.log(prefix + part_name, part, prog_bar=True, on_step=False, on_epoch=True, reduce_fx="last")

    def _parts_of_model(self) -> Iterator[Any]:
        return parts_of(self.model) if self.has_own_train_step else super()._parts_of_model()

    def traced_objects(self) -> list[Any]:
        """Also what `compile` makes anew each time, some of it in Keras 3.15's private attributes."""
        made = (getattr(self.model, name, None) for name in ("_compile_config", "_loss_tracker"))
        return [*super().traced_objects(), *self.model.metrics, *made]


def _is_keras(model: keras.Model, step: str) -> bool:
    """Whether a model's step is Keras's."""
    return getattr(getattr(model, step), "__func__", None) is getattr(keras.Model, step)


def _flat(logs: dict[str, Any] | None) -> dict[str, Any]:
    """What a step reports with the dicts in it laid out, as Keras's fit does, such as those of compiled metrics."""
    flat: dict[str, Any] = {}
    for name, value in (logs or {}).items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat
