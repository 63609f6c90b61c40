"""What is trained: the `Module` that people write, and the adapter for a compiled Keras model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from mnist_tuner.trainer.logging import LogOptions, MetricLog, Reduction

if TYPE_CHECKING:
    from mnist_tuner.trainer.datamodule import ArrayLoader
    from mnist_tuner.trainer.trainer import Trainer


class Module:
    """A model, its loss and its optimizer.

    The ``*_step`` methods are traced into a graph and run many times per call: their Python side effects happen while
    tracing only. The hooks are ordinary Python.

    Example::

        class Digits(Module):
            def configure_model(self):
                return keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10)])

            def training_step(self, batch, batch_idx):
                x, y = batch
                loss = keras.ops.mean(
                    keras.losses.sparse_categorical_crossentropy(y, self.model(x, training=True), from_logits=True)
                )
                self.log("loss", loss, prog_bar=True, on_epoch=True)
                return loss

            def configure_optimizers(self):
                return keras.optimizers.Adam()
    """

    model: keras.Model | None = None
    optimizer: keras.optimizers.Optimizer | None = None
    trainer: Trainer | None = None
    _log: MetricLog | None = None
    _batch_size: int | tf.Tensor | None = None

    # What a person overrides.

    def configure_model(self) -> keras.Model:
        """The network, kept as ``self.model``; called once. By default the model that ``__init__`` put there.

        Raises:
            TypeError: there is neither an override nor a ``self.model``.
        """
        if self.model is None:
            raise TypeError(f"{type(self).__name__} has no model: override configure_model() to return a keras.Model")
        return self.model

    def configure_optimizers(self) -> keras.optimizers.Optimizer:
        """The optimizer; called once."""
        raise TypeError(
            f"{type(self).__name__} cannot be fitted: override configure_optimizers() to return a keras.optimizers.Optimizer"
        )

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        """The loss of one batch, a scalar tensor. May call `log`."""
        raise TypeError(f"{type(self).__name__} cannot be fitted: override training_step(batch, batch_idx) to return the loss")

    def validation_step(self, batch: Any, batch_idx: tf.Tensor) -> Any:
        """Logs what validation measures; what it returns is not used."""
        raise TypeError(f"{type(self).__name__} cannot be validated: override validation_step(batch, batch_idx)")

    def test_step(self, batch: Any, batch_idx: tf.Tensor) -> Any:
        """Logs what the test measures; what it returns is not used."""
        raise TypeError(f"{type(self).__name__} cannot be tested: override test_step(batch, batch_idx)")

    def predict_step(self, batch: Any, batch_idx: tf.Tensor) -> Any:
        """The outputs for one batch; by default the model's, for the batch or, of a tuple, its first part."""
        assert self.model is not None
        return self.model(batch[0] if isinstance(batch, tuple) else batch, training=False)

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
        """Called after each training batch, with the loss that the step returned (of a Keras model: its mean over the epoch
        so far). Overriding it makes the loop run one step per call."""

    def on_validation_start(self) -> None:
        """Called before each validation."""

    def on_validation_epoch_start(self) -> None:
        """Called before each pass over the validation data."""

    def on_validation_epoch_end(self) -> None:
        """Called after each pass over the validation data."""

    def on_validation_end(self) -> None:
        """Called after each validation."""

    def on_test_start(self) -> None:
        """Called before the test."""

    def on_test_epoch_start(self) -> None:
        """Called before the pass over the test data."""

    def on_test_epoch_end(self) -> None:
        """Called after the pass over the test data."""

    def on_test_end(self) -> None:
        """Called after the test."""

    def on_predict_start(self) -> None:
        """Called before predicting."""

    def on_predict_epoch_start(self) -> None:
        """Called before the pass over the data to predict."""

    def on_predict_epoch_end(self) -> None:
        """Called after the pass over the data to predict."""

    def on_predict_end(self) -> None:
        """Called after predicting."""

    def on_exception(self, exception: BaseException) -> None:
        """Called when a stage ends with an exception."""

    # What a person calls.

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool = False,
        logger: bool = True,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: Reduction = "mean",
        batch_size: int | None = None,
    ) -> None:
        """Records a scalar, in a step or in a hook.

        Args:
            name: what it is called in ``trainer.callback_metrics`` and the logs. With on_step and on_epoch both set,
                ``name_step`` and ``name_epoch`` are logged too.
            value: a scalar number or tensor.
            prog_bar: whether the progress display shows it.
            logger: whether the loggers get it.
            on_step: keep each step's value; by default only in training_step.
            on_epoch: reduce over the epoch; by default everywhere but in training_step.
            reduce_fx: how: "mean" (weighted by batch size), "sum", "min", "max", or "last".
            batch_size: the weight; by default the batch's own size.

        Raises:
            RuntimeError: called outside a step and an epoch's hooks.
            ValueError: the value is not a scalar, reduce_fx is unknown, or the name was logged with other arguments.
        """
        if self._log is None:
            raise RuntimeError(f"log({name!r}): nothing is running; call it in a step or in an epoch's hook")
        if reduce_fx not in ("mean", "sum", "min", "max", "last"):
            raise ValueError(f"log({name!r}): reduce_fx is {reduce_fx!r}: expected mean, sum, min, max or last")
        in_training_step = self._batch_size is not None and self.trainer is not None and self.trainer.training
        options = LogOptions(
            prog_bar=prog_bar,
            logger=logger,
            on_step=in_training_step if on_step is None else on_step,
            on_epoch=not in_training_step if on_epoch is None else on_epoch,
            reduce_fx=reduce_fx,
        )
        weight = batch_size if batch_size is not None else 1 if self._batch_size is None else self._batch_size
        self._log.update(name, value, options, weight)

    # What the trainer calls.

    def build(self, loader: ArrayLoader) -> None:
        """Makes every variable that a step needs, so that none is made while the loop is traced."""
        assert self.model is not None
        if not self.model.built:
            batch = loader.first_batch()
            tf.function(lambda: self.predict_step(batch, tf.constant(0)), autograph=False).get_concrete_function()

    def optimize(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        """One optimizer step on one batch, traced into the loop.

        Returns:
            The loss, a scalar tensor.

        Raises:
            TypeError: training_step did not return a scalar tensor.
        """
        assert self.model is not None
        assert self.optimizer is not None
        with tf.GradientTape() as tape:
            loss = self.training_step(batch, batch_idx)
            if not tf.is_tensor(loss) or loss.shape.num_elements() != 1:
                raise TypeError(
                    f"{type(self).__name__}.training_step returned {loss!r}: expected the loss, a scalar tensor; "
                    "reduce a loss per example with keras.ops.mean"
                )
            scaled = self.optimizer.scale_loss(loss)
        variables = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        return loss

    def reset_metrics(self) -> None:
        """Called when a pass over the data begins: forgets what state the metrics hold."""

    def traced_objects(self) -> list[Any]:
        """What the traced steps have captured; when one of these is another object, they are traced anew."""
        assert self.model is not None
        return [self.model, self.optimizer, *self.model.trainable_variables]


class KerasModule(Module):
    """Trains a compiled `keras.Model` as it is: its own loss, optimizer, metrics and, where overridden, train_step.

    Metrics are called as Keras calls them: loss, accuracy, val_loss, val_accuracy; test_loss, test_accuracy in the test.

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

    def configure_optimizers(self) -> keras.optimizers.Optimizer:
        """The optimizer that the model was compiled with."""
        return self.model.optimizer

    def build(self, loader: ArrayLoader) -> None:
        """Also makes the variables of the compiled metrics, which Keras makes at their first use."""
        if self.optimizer is not None:
            self.optimizer = self.model.optimizer  # the model may have been compiled anew
        x, y, weight = keras.utils.unpack_x_y_sample_weight(loader.first_batch(1))
        prediction = self.model(x, training=False)
        if y is not None:
            self.model.compute_loss(x, y, prediction, weight)
            self.model.compute_metrics(x, y, prediction, weight)
        self.model.reset_metrics()

    def optimize(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        """Keras's own train_step.

        Returns:
            The loss as Keras reports it: the mean over the epoch so far.

        Raises:
            TypeError: an overridden train_step reports no loss.
        """
        logs = self.model.train_step(batch)
        if not isinstance(logs, dict) or "loss" not in logs:
            raise TypeError(f"{type(self.model).__name__}.train_step returned {logs!r}: expected a dict with the key 'loss'")
        self._log_running("", logs)
        return logs["loss"]

    def validation_step(self, batch: Any, batch_idx: tf.Tensor) -> None:
        """Keras's own test_step."""
        self._log_running("val_", self.model.test_step(batch))

    def test_step(self, batch: Any, batch_idx: tf.Tensor) -> None:
        """Keras's own test_step."""
        self._log_running("test_", self.model.test_step(batch))

    def reset_metrics(self) -> None:
        """Keras's metrics hold their state in the model."""
        self.model.reset_metrics()

    def _log_running(self, prefix: str, logs: dict[str, tf.Tensor]) -> None:
        # Keras's results are already reduced over the epoch so far: the last one is the epoch's.
        for name, value in logs.items():
            parts = {name: value}
            if tf.is_tensor(value) and value.shape.rank:  # such as F1Score's, one per class
                parts = {f"{name}_{i}": part for i, part in enumerate(tf.unstack(tf.reshape(value, [-1])))}
            for part_name, part in parts.items():
                self.log(prefix + part_name, part, prog_bar=True, on_step=False, on_epoch=True, reduce_fx="last")

    def traced_objects(self) -> list[Any]:
        """Also the metrics: `compile` makes new ones."""
        return [*super().traced_objects(), *self.model.metrics]
