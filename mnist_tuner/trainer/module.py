"""What is trained: the `Module` that people write."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import keras
import tensorflow as tf

from mnist_tuner.trainer.base import TrainerBase
from mnist_tuner.trainer.checkpoint import CheckpointError, read_checkpoint
from mnist_tuner.trainer.data import Loader
from mnist_tuner.trainer.hooks import Callback, ModuleHooks
from mnist_tuner.trainer.logging import LogOptions, Reduction
from mnist_tuner.trainer.module_state import STATE, HyperParameters, state_of
from mnist_tuner.trainer.progress import RunningStage
from mnist_tuner.trainer.tracing import call_step, make_variables

_TRAINERS = {"model", "optimizer", "trainer", STATE}
"""The attributes that the trainer keeps in a module; all others are the user's."""


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
    trainer: TrainerBase | None = None

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
        batch = args[0]
        return model_of(self)(batch[0] if isinstance(batch, tuple) else batch, training=False)

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
        return state_of(self).hparams

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
            TypeError: configure_model did not return a model.
        """
        checkpoint = read_checkpoint(Path(path))
        module = cls(**{**checkpoint.header.hyper_parameters, **arguments})
        for name, value in checkpoint.header.hyper_parameters.items():
            module.hparams.setdefault(name, arguments.get(name, value))
        model = make_model(module)
        state_of(module).configured = True
        if not model.built:
            if checkpoint.header.build_config:
                model.build_from_config(checkpoint.header.build_config)
            elif not all(layer.built for layer in model.layers):
                raise CheckpointError(f"{path}: the model's input shape is not known; begin the model with keras.Input(shape)")
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
        state = state_of(self)
        if state.log is None:
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
        size, batch_idx, dataloader_idx = state.batch or (1, None, None)
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
        state.log.update(name + suffix, value, options, size if batch_size is None else batch_size, batch_idx)

    def log_dict(self, values: dict[str, Any], **options: Any) -> None:
        """`log` for each name and value."""
        for name, value in values.items():
            self.log(name, value, **options)

    # What the trainer calls.

    @property
    def has_been_fitted(self) -> bool:
        """Whether a fit has begun, so that a checkpoint keeps more than the weights."""
        return self.optimizer is not None

    def receives(self, batch: Any, of_arrays: bool) -> Any:
        """A batch as the steps take it; see `Loader.of_arrays`."""
        return batch

    def build(self, loader: Loader, stage: RunningStage) -> None:
        """Makes every variable that the steps need, without running one; called where none has been traced yet.

        Args:
            loader: whose batches they take.
            stage: that takes them first.
        """
        if not model_of(self).built:
            make_variables(self, self.predict_step, loader.first_batch(), tf.constant(0))

    def optimize(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        """One optimizer step on one batch, traced into the loop.

        Returns:
            The loss, a scalar tensor.

        Raises:
            TypeError: training_step did not return a scalar tensor.
        """
        assert self.optimizer is not None  # a fit has configured it
        with tf.GradientTape() as tape:
            outputs = call_step(self.training_step, batch, batch_idx)
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            if loss is None or not tf.is_tensor(loss) or loss.shape.num_elements() not in (1, None):
                raise TypeError(
                    f"{type(self).__name__}.training_step returned {outputs!r}: expected the loss, a scalar tensor (or a dict "
                    'with it as "loss"); reduce a loss per example with keras.ops.mean'
                )
            scaled = self.optimizer.scale_loss(loss)
        variables = model_of(self).trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        return loss

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that hold state, reset when a pass begins: those that are attributes of the module, or in lists or dicts
        that are."""
        return [value for value in self._attributes() if isinstance(value, keras.metrics.Metric)]

    def own_variables(self) -> Iterator[Any]:
        """The random and other state that a checkpoint keeps besides the model's weights: variables, layers and generators that
        are attributes of the module, or in lists or dicts that are; and what the model has besides, see `parts_of`."""
        for value in self._attributes():
            if not isinstance(value, (keras.Metric, keras.Optimizer)):
                yield from _state_of(value)
        known = [model_of(self), *self.metrics, *([] if self.optimizer is None else [self.optimizer])]
        seen = {id(variable) for part in known for variable in part.variables}
        for part in self._parts_of_model():
            for variable in _state_of(part):
                if id(variable) not in seen:
                    seen.add(id(variable))
                    yield variable

    def saved_variables(self) -> dict[str, Any]:
        """Every variable that a checkpoint keeps, by its kind and its position there: see `Checkpoint.tensors`.

        Not by its name: Keras numbers layers that have none by process (dense_3), so that equal models differ in them.
        """
        kinds = {"model": model_of(self).variables}
        if self.has_been_fitted:
            kinds["optimizer"] = [] if self.optimizer is None else self.optimizer.variables
            kinds |= {f"metrics/{number}": metric.variables for number, metric in enumerate(self.metrics)}
            kinds["module"] = self.own_variables()
        return {f"{kind}/{index}": variable for kind, variables in kinds.items() for index, variable in enumerate(variables)}

    def _parts_of_model(self) -> Iterator[Any]:
        # Optimizers and metrics that the module does not use, such as those of a model in the model, are no part of its state.
        return (part for part in parts_of(self.model) if not isinstance(part, (keras.Metric, keras.Optimizer)))

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
        return [self.model, self.optimizer, *model_of(self).trainable_variables]

    def traced_constants(self) -> dict[str, Any]:
        """The plain values among the attributes, which the traced steps hold as constants."""
        plain = (bool, int, float, str, tuple, type(None))
        return {
            name: value for name, value in {**vars(self), **self.hparams}.items() if isinstance(value, plain) and name[0] != "_"
        }


def make_model(module: Module) -> keras.Model:
    """Calls configure_model, and keeps the model as ``module.model``.

    Raises:
        TypeError: it did not return one.
    """
    module.model = model = module.configure_model()
    if not isinstance(model, keras.Model):
        raise TypeError(f"{type(module).__name__}.configure_model returned {model!r}: expected a keras.Model")
    return model


def model_of(module: Module) -> keras.Model:
    """A module's model.

    Raises:
        RuntimeError: it has none yet, since no verb of a trainer has been called with it.
    """
    if module.model is None:
        raise RuntimeError(f"{type(module).__name__} has no model yet: configure_model() has not been called")
    return module.model


def _state_of(part: Any) -> list[Any]:
    """The variables of a layer, an optimizer, a metric or a generator, and a variable itself; none of anything else."""
    if isinstance(part, (keras.random.SeedGenerator, tf.random.Generator)):
        return [part.state]
    if isinstance(part, (keras.Variable, tf.Variable)):
        return [part]
    return list(part.variables) if isinstance(part, (keras.Layer, keras.Metric, keras.Optimizer)) else []


def parts_of(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """A layer and what is found among its attributes and those of the layers in it, also within lists and dicts: variables,
    generators, optimizers, metrics. Keras counts neither optimizers nor TensorFlow's variables as a layer's state."""
    seen = set() if seen is None else seen
    if id(value) not in seen:
        seen.add(id(value))
        yield value
        inner = vars(value) if isinstance(value, keras.Layer) else value
        for part in inner.values() if isinstance(inner, dict) else inner if isinstance(inner, (list, tuple)) else ():
            yield from parts_of(part, seen)
