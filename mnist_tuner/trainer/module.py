"""What is trained: the `Module` that people write, and the adapter for a compiled Keras model."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import keras
import tensorflow as tf

from mnist_tuner.trainer.checkpoint import CheckpointError, read_checkpoint
from mnist_tuner.trainer.logging import LogOptions, MetricLog, Reduction
from mnist_tuner.trainer.module_hooks import ModuleHooks
from mnist_tuner.trainer.tracing import call_step

if TYPE_CHECKING:
    from mnist_tuner.trainer.callbacks import Callback
    from mnist_tuner.trainer.datamodule import Loader
    from mnist_tuner.trainer.trainer import Trainer


_TRAINERS = {"model", "optimizer", "trainer", "_configured", "_hparams", "_log", "_logs", "_loops", "_place", "_traced"}
"""The attributes that the trainer keeps in a module; all others are the user's."""


class HyperParameters(dict[str, Any]):
    """Names and values, which are also attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no hyperparameter {name!r}: there are {', '.join(self) or 'none'}") from None


class Module(ModuleHooks):
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
    _place: tuple[int, Any, int | None] | None = None
    """While a batch is worked on: its size, batch_idx and, of several loaders, dataloader_idx."""

    # What a person overrides.

    def configure_model(self) -> keras.Model:
        """The network, kept as ``self.model``; called once. By default the model that ``__init__`` put there.

        Raises:
            TypeError: there is neither an override nor a ``self.model``.
        """
        if self.model is None:
            raise TypeError(f"{type(self).__name__} has no model: override configure_model() to return a keras.Model")
        return self.model

    def configure_callbacks(self) -> Sequence[Callback] | Callback:
        """Callbacks that belong to the module; they take the place of the trainer's of the same class."""
        return []

    def configure_optimizers(self) -> keras.optimizers.Optimizer:
        """The optimizer, perhaps with a schedule of `keras.optimizers.schedules`; called at each fit."""
        raise TypeError(
            f"{type(self).__name__} cannot be fitted: override configure_optimizers() to return a keras.optimizers.Optimizer"
        )

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """``(batch, batch_idx)``: the loss of one batch, a scalar tensor, or a dict with it as "loss". May call `log`."""
        raise TypeError(f"{type(self).__name__} cannot be fitted: override training_step(batch, batch_idx) to return the loss")

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """``(batch, batch_idx)``: logs what validation measures; what it returns goes to on_validation_batch_end. With several
        loaders it takes ``dataloader_idx=0`` as well."""
        raise TypeError(f"{type(self).__name__} cannot be validated: override validation_step(batch, batch_idx)")

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """``(batch, batch_idx)``: logs what the test measures; the same as validation_step else."""
        raise TypeError(f"{type(self).__name__} cannot be tested: override test_step(batch, batch_idx)")

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """``(batch, batch_idx)``: the outputs for one batch; by default the model's, for the batch or the first part of it."""
        assert self.model is not None
        batch = args[0]
        return self.model(batch[0] if isinstance(batch, tuple) else batch, training=False)

    # What a person calls.

    @property
    def current_epoch(self) -> int:
        """The trainer's."""
        return 0 if self.trainer is None else self.trainer.current_epoch

    @property
    def global_step(self) -> int:
        """The trainer's."""
        return 0 if self.trainer is None else self.trainer.global_step

    @property
    def hparams(self) -> HyperParameters:
        """What `save_hyperparameters` has kept; also as attributes (``self.hparams.units``)."""
        return self.__dict__.setdefault("_hparams", HyperParameters())  # type: ignore[no-any-return]

    def save_hyperparameters(self, *names: str, ignore: Sequence[str] = ()) -> None:
        """Keeps the arguments of ``__init__``, from which it is called, in `hparams`, the checkpoints and the logs.

        Args:
            names: of the arguments; by default all.
            ignore: arguments to leave out.

        Raises:
            ValueError: a value is not a JSON value: only such can be read back without running code.
        """
        frame = inspect.currentframe()
        assert frame is not None
        assert frame.f_back is not None
        arguments = inspect.getargvalues(frame.f_back)
        values = {name: arguments.locals[name] for name in arguments.args[1:]}
        values |= arguments.locals[arguments.keywords] if arguments.keywords else {}
        if unknown := [name for name in names if name not in values]:
            raise ValueError(f"save_hyperparameters: {unknown[0]!r} is no argument: there are {', '.join(values) or 'none'}")
        for name in names or values:
            if name not in ignore:
                try:
                    self.hparams[name] = json.loads(json.dumps(values[name]))
                except TypeError:
                    raise ValueError(
                        f"save_hyperparameters: {name} is a {type(values[name]).__name__}, which cannot be kept as a JSON value: "
                        f"pass ignore=[{name!r}]"
                    ) from None

    @classmethod
    def load_from_checkpoint(cls, path: str | Path, /, **arguments: Any) -> Self:
        """A module with the weights of a checkpoint.

        Args:
            path: the file.
            arguments: of ``__init__``, besides or instead of the hyperparameters that were saved.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it is damaged, or does not fit the model.
        """
        checkpoint = read_checkpoint(Path(path))
        module = cls(**{**checkpoint.header.hyper_parameters, **arguments})
        for name, value in checkpoint.header.hyper_parameters.items():
            module.hparams.setdefault(name, arguments.get(name, value))
        module.model = module.configure_model()
        module.__dict__["_configured"] = True
        if not module.model.built:
            if not checkpoint.header.build_config:
                raise CheckpointError(f"{path}: the model's input shape is not known; begin the model with keras.Input(shape)")
            module.model.build_from_config(checkpoint.header.build_config)
        module.on_load_checkpoint(checkpoint.entries())
        checkpoint.restore(module, weights_only=True)
        return module

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
                ``name_step`` and ``name_epoch`` are logged too; with several loaders ``/dataloader_idx_0`` is appended.
            value: a scalar number or tensor, or a `keras.metrics.Metric` that is an attribute of the module.
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
            raise RuntimeError(
                f"log({name!r}): nothing is running that measures; call it in a training, validation or test step, in a batch "
                "hook, or in an on_..._start, on_..._epoch_start or on_..._epoch_end hook of these stages"
            )
        if reduce_fx not in ("mean", "sum", "min", "max", "last"):
            raise ValueError(f"log({name!r}): reduce_fx is {reduce_fx!r}: expected mean, sum, min, max or last")
        if isinstance(value, keras.metrics.Metric):
            if not any(value is metric for metric in self.metrics):
                raise ValueError(f"log({name!r}): the metric is no attribute of the module, so that nothing would reset it")
            value, reduce_fx = value.result(), "last"
        size, batch_idx, dataloader_idx = self._place or (1, None, None)
        in_training_step = batch_idx is not None and self.trainer is not None and self.trainer.training
        options = LogOptions(
            prog_bar=prog_bar,
            logger=logger,
            on_step=in_training_step if on_step is None else on_step,
            on_epoch=not in_training_step if on_epoch is None else on_epoch,
            reduce_fx=reduce_fx,
        )
        if options.on_step and batch_idx is None:
            raise ValueError(f"log({name!r}): on_step is True in a hook of an epoch, which has no step: leave it out")
        if not (options.on_step or options.on_epoch):
            raise ValueError(f"log({name!r}): on_step and on_epoch are both False, so that nothing would be kept")
        suffix = "" if dataloader_idx is None else f"/dataloader_idx_{dataloader_idx}"
        self._log.update(name + suffix, value, options, size if batch_size is None else batch_size, batch_idx)

    def log_dict(self, values: dict[str, Any], **options: Any) -> None:
        """`log` for each name and value."""
        for name, value in values.items():
            self.log(name, value, **options)

    # What the trainer calls.

    def build(self, loader: Loader) -> None:
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
            outputs = call_step(self.training_step, batch, batch_idx)
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            if loss is None or not tf.is_tensor(loss) or loss.shape.num_elements() not in (1, None):
                raise TypeError(
                    f"{type(self).__name__}.training_step returned {outputs!r}: expected the loss, a scalar tensor (or a dict "
                    'with it as "loss"); reduce a loss per example with keras.ops.mean'
                )
            scaled = self.optimizer.scale_loss(loss)
        variables = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        return loss

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that hold state, reset when a pass begins: those that are attributes of the module, or in lists or dicts
        that are."""
        return [value for value in self._attributes() if isinstance(value, keras.metrics.Metric)]

    def own_variables(self) -> Iterator[Any]:
        """The random and other state that a checkpoint keeps besides the model: variables, layers and generators that are
        attributes of the module, or in lists or dicts that are."""
        for value in self._attributes():
            if isinstance(value, (keras.random.SeedGenerator, tf.random.Generator)):
                yield value.state
            elif isinstance(value, (keras.Variable, tf.Variable)):
                yield value
            elif isinstance(value, keras.Layer):
                yield from value.variables

    def _attributes(self) -> Iterator[Any]:
        for name, value in vars(self).items():
            if name not in _TRAINERS:
                yield from value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]

    def reset_metrics(self) -> None:
        """Called when a pass over the data begins: forgets what state the metrics hold."""
        for metric in self.metrics:
            metric.reset_state()

    def traced_objects(self) -> list[Any]:
        """What the traced steps have captured; when one of these is another object, they are traced anew."""
        assert self.model is not None
        return [self.model, self.optimizer, *self.model.trainable_variables]

    def traced_constants(self) -> dict[str, Any]:
        """The plain values among the attributes, which the traced steps hold as constants."""
        plain = (bool, int, float, str, tuple, type(None))
        return {
            name: value for name, value in {**vars(self), **self.hparams}.items() if isinstance(value, plain) and name[0] != "_"
        }


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

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The compiled metrics."""
        return list(self.model.metrics)

    def configure_optimizers(self) -> keras.optimizers.Optimizer:
        """The optimizer that the model was compiled with."""
        return self.model.optimizer

    def build(self, loader: Loader) -> None:
        """Also makes the variables of the compiled metrics, which Keras makes at their first use."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(loader.first_batch(1))
        prediction = self.model(x, training=False)
        if y is not None and self.model.loss is not None:  # else the model's own train_step knows better
            self.model.compute_loss(x, y, prediction, weight)
            self.model.compute_metrics(x, y, prediction, weight)
        self.model.reset_metrics()

    def predict_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> Any:
        """Keras's own predict_step."""
        return self.model.predict_step(batch)

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

    def validation_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
        """Keras's own test_step."""
        self._log_running("val_", self.model.test_step(batch))

    def test_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
        """Keras's own test_step."""
        self._log_running("test_", self.model.test_step(batch))

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
