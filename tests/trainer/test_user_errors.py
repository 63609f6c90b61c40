"""What people get wrong, and what they are told; and what looks wrong but works."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from mnist_tuner.trainer import (
    ArrayLoader,
    Callback,
    CheckpointError,
    CSVLogger,
    DataModule,
    EarlyStopping,
    KerasModule,
    LambdaCallback,
    ModelCheckpoint,
    Module,
    SimpleProfiler,
    Trainer,
    read_checkpoint,
)
from mnist_tuner.trainer.module_state import log_of
from mnist_tuner.trainer.progress import RunningStage
from tests.support.nets import Net, Quiet, points
from tests.trainer.conftest import assert_same_bits, weights

pytestmark = pytest.mark.slow

N = 80
X, Y = points(N)


def digits(rows: int = N, batch_size: int = 16) -> ArrayLoader:
    """Batches of a few points in three classes."""
    return ArrayLoader(X[:rows], Y[:rows], batch_size=batch_size)


# Steps that a graph cannot hold.


def branch(net: Any, loss: tf.Tensor) -> Any:
    return loss * 2 if loss > 1 else loss


def convert(net: Any, loss: tf.Tensor) -> Any:
    return loss * float(loss)


def integer(net: Any, loss: tf.Tensor) -> Any:
    return loss * int(loss)


def numpy_of(net: Any, loss: tf.Tensor) -> Any:
    return loss * loss.numpy()


def item_of(net: Any, loss: tf.Tensor) -> Any:
    return loss * loss.item()


def array_of(net: Any, loss: tf.Tensor) -> Any:
    return loss * np.asarray(loss)


def keras_array_of(net: Any, loss: tf.Tensor) -> Any:
    return loss * keras.ops.convert_to_numpy(loss)


def formatted(net: Any, loss: tf.Tensor) -> Any:
    net.text = f"{loss:.3f}"
    return loss


def iterated(net: Any, loss: tf.Tensor) -> Any:
    return sum(part for part in tf.reshape(loss, [-1])[: tf.cast(loss, tf.int32)])


def asserted(net: Any, loss: tf.Tensor) -> Any:
    assert loss < 100
    return loss


PYTHON = [branch, convert, integer, numpy_of, item_of, array_of, keras_array_of, formatted, iterated, asserted]


# Keras 3.15 makes arrays in a way that NumPy 2 is to give up.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("mistake", PYTHON, ids=lambda mistake: mistake.__name__)
def test_a_tensors_value_in_python_is_an_error_that_says_what_to_do(mistake: Callable[..., Any], quiet: Quiet) -> None:
    class Mistaken(Net):
        def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
            return mistake(self, self.loss(batch))

    with pytest.raises(TypeError, match=r"Mistaken\.training_step uses a tensor's value in Python") as caught:
        quiet(jit_compile=False).fit(Mistaken(), digits())
    for advice in ("keras.ops.where or tf.cond", "self.log", "batch hook"):
        assert advice in str(caught.value)


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_the_error_names_the_step_of_each_verb(verb: str, quiet: Quiet) -> None:
    class Mistaken(Net):
        def validation_step(self, batch: Any, batch_idx: tf.Tensor) -> Any:
            return float(self.loss(batch))

        test_step = predict_step = validation_step

    name = {"validate": "validation", "test": "validation", "predict": "validation"}[verb]  # the one function's name
    with pytest.raises(TypeError, match=rf"Mistaken\.{name}_step uses a tensor's value in Python"):
        getattr(quiet(), verb)(Mistaken(), digits())


def test_an_error_of_ones_own_is_left_as_it_is(quiet: Quiet) -> None:
    class Mistaken(Net):
        def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
            return self.loss(batch) + self.weight  # type: ignore[attr-defined, no-any-return]

    with pytest.raises(AttributeError, match="'Mistaken' object has no attribute 'weight'"):
        quiet(jit_compile=False).fit(Mistaken(), digits())


def counted(net: Any, loss: tf.Tensor) -> None:
    net.count += 1


def appended(net: Any, loss: tf.Tensor) -> None:
    net.losses.append(loss)


def kept_by_name(net: Any, loss: tf.Tensor) -> None:
    net.by_name["loss"] = loss


def replaced(net: Any, loss: tf.Tensor) -> None:
    net.by_name["known"] = loss


def newly_set(net: Any, loss: tf.Tensor) -> None:
    net.last = loss


@pytest.mark.parametrize(
    ("effect", "name"),
    [(counted, "count"), (appended, "losses"), (kept_by_name, "by_name"), (replaced, "by_name"), (newly_set, "last")],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize("step", ["training_step", "validation_step"])
def test_a_side_effect_in_python_is_warned_of(step: str, effect: Callable[..., None], name: str, quiet: Quiet) -> None:
    class Effect(Net):
        def __init__(self) -> None:
            self.count = 0
            self.losses: list[Any] = []
            self.by_name: dict[str, Any] = {"known": 0}

    def changed(self: Effect, batch: Any, batch_idx: tf.Tensor) -> Any:
        loss = self.loss(batch)
        effect(self, loss)
        return loss

    changed.__name__ = step
    setattr(Effect, step, changed)
    trainer = quiet(jit_compile=False)
    with pytest.warns(UserWarning, match=rf"Effect\.{step} changed self\.{name}\. The step is traced once") as caught:
        trainer.fit(Effect(), digits(), digits())
    assert "keep state in a tf.Variable" in str(caught[0].message)
    assert trainer.global_step == 5


def test_state_in_a_tensorflow_variable_is_nothing_to_warn_of(quiet: Quiet) -> None:
    class Counts(Net):
        def __init__(self) -> None:
            self.count = tf.Variable(0)

        def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
            self.count.assign_add(1)
            return self.loss(batch)

    counts = Counts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet(max_epochs=2).fit(counts, digits())
    assert int(counts.count) == 10


# What steps and configure methods return.


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        (lambda loss: None, "None"),
        (lambda loss: 1.5, r"1\.5"),
        (lambda loss: "loss", "'loss'"),
        (lambda loss: (loss, loss), r"\("),
        (lambda loss: [loss], r"\["),
        (lambda loss: {"los": loss}, r"{'los'"),
        (lambda loss: {"loss": None}, r"{'loss': None}"),
        (lambda loss: tf.stack([loss, loss]), "<tf.Tensor.*reduce a loss per example"),
    ],
    ids=["None", "float", "str", "tuple", "list", "dict-without-loss", "dict-of-None", "vector"],
)
def test_a_training_step_that_returns_no_loss_is_told_what_it_returned(
    returned: Callable[..., Any], shown: str, quiet: Quiet
) -> None:
    class Wrong(Net):
        def training_step(self, batch: Any, batch_idx: tf.Tensor) -> Any:
            return returned(self.loss(batch))

    with pytest.raises(TypeError, match=rf"Wrong\.training_step returned {shown}") as caught:
        quiet(jit_compile=False).fit(Wrong(), digits())
    assert "expected the loss, a scalar tensor" in str(caught.value)


def test_a_loss_that_depends_on_no_weight_is_an_error(quiet: Quiet) -> None:
    class Constant(Net):
        def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
            return keras.ops.mean(batch[0])

    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        quiet(jit_compile=False).fit(Constant(), digits())


@pytest.mark.parametrize(
    "wrap",
    [lambda loss: {"loss": loss}, lambda loss: {"loss": loss, "more": 3}, lambda loss: tf.reshape(loss, [1])],
    ids=["dict", "dict-with-more", "vector-of-one"],
)
def test_a_loss_may_come_in_a_dict_or_as_a_vector_of_one(wrap: Callable[..., Any], quiet: Quiet) -> None:
    class Wrapped(Net):
        def training_step(self, batch: Any, batch_idx: tf.Tensor) -> Any:
            return wrap(self.loss(batch))

    wrapped, plain = Wrapped(), Net()
    for net in (wrapped, plain):
        quiet(jit_compile=False).fit(net, digits())
    assert wrapped.model is not None
    assert plain.model is not None
    assert_same_bits(wrapped.model, plain.model)


def test_steps_may_leave_out_batch_idx(quiet: Quiet) -> None:
    class Short(Net):
        def training_step(self, batch: Any) -> Any:  # type: ignore[override]
            return self.loss(batch)

        def validation_step(self, batch: Any) -> Any:  # type: ignore[override]
            self.log("val_loss", self.loss(batch))

        def test_step(self, batch: Any) -> Any:  # type: ignore[override]
            self.log("test_loss", self.loss(batch))

        def predict_step(self, batch: Any) -> Any:  # type: ignore[override]
            assert self.model is not None
            return self.model(batch[0])

    short, plain, trainer = Short(), Net(), quiet(jit_compile=False)
    trainer.fit(short, digits(), digits())
    quiet(jit_compile=False).fit(plain, digits())
    assert short.model is not None
    assert plain.model is not None
    assert_same_bits(short.model, plain.model)
    (tested,) = trainer.test(short, digits())
    assert tested["test_loss"] == pytest.approx(trainer.validate(short, digits())[0]["val_loss"])
    assert [len(output) for output in trainer.predict(short, digits())] == [16] * 5


@pytest.mark.parametrize(
    "optimizer",
    [None, "adam", [keras.optimizers.Adam()], {"optimizer": keras.optimizers.Adam()}, keras.optimizers.Adam, 0.1],
    ids=["None", "name", "list", "dict", "class", "number"],
)
def test_configure_optimizers_must_return_an_optimizer(optimizer: Any, quiet: Quiet) -> None:
    class Wrong(Net):
        def configure_optimizers(self) -> Any:
            return optimizer

    with pytest.raises(TypeError, match=r"Wrong\.configure_optimizers returned .*: expected one keras\.optimizers\.Optimizer"):
        quiet().fit(Wrong(), digits())


@pytest.mark.parametrize(
    "model",
    [None, "mlp", keras.layers.Dense(3), keras.Sequential, [keras.layers.Dense(3)]],
    ids=["None", "name", "layer", "class", "list"],
)
@pytest.mark.parametrize("verb", ["fit", "predict"])
def test_configure_model_must_return_a_model(verb: str, model: Any, quiet: Quiet) -> None:
    class Wrong(Net):
        def configure_model(self) -> Any:
            return model

    with pytest.raises(TypeError, match=r"Wrong\.configure_model returned .*: expected a keras\.Model"):
        getattr(quiet(), verb)(Wrong(), digits())


def test_configure_model_must_return_a_model_for_a_checkpoint_too(quiet: Quiet, tmp_path: Path) -> None:
    class Wrong(Net):
        def configure_model(self) -> Any:
            return None

    with pytest.raises(TypeError, match=r"Wrong\.configure_model returned None: expected a keras\.Model"):
        Wrong.load_from_checkpoint(saved(quiet, Net(), tmp_path))


@pytest.mark.parametrize(
    ("verb", "method", "advice"),
    [
        ("fit", "training_step", r"override training_step\(batch, batch_idx\) to return the loss"),
        ("fit", "configure_optimizers", r"override configure_optimizers\(\) to return a keras\.optimizers\.Optimizer"),
        ("fit", "configure_model", r"override configure_model\(\) to return a keras\.Model"),
        ("validate", "validation_step", r"override validation_step\(batch, batch_idx\)"),
        ("validate", "configure_model", r"override configure_model\(\)"),
        ("test", "test_step", r"override test_step\(batch, batch_idx\)"),
        ("test", "configure_model", r"override configure_model\(\)"),
        ("predict", "configure_model", r"override configure_model\(\)"),
    ],
)
def test_a_method_that_is_missing_is_named(verb: str, method: str, advice: str, quiet: Quiet) -> None:
    lacking = type("Lacking", (Net,), {method: getattr(Module, method)})
    with pytest.raises(TypeError, match=f"Lacking .*{advice}"):
        getattr(quiet(jit_compile=False), verb)(lacking(), digits())


def test_a_step_for_one_loader_is_refused_several(quiet: Quiet) -> None:
    for verb, step in (("validate", "validation_step"), ("test", "test_step")):
        with pytest.raises(TypeError, match=rf"Net\.{step} must take \(batch, batch_idx, dataloader_idx=0\)"):
            getattr(quiet(), verb)(Net(), [digits(), digits()])
    with pytest.raises(TypeError, match=r"Net\.validation_step must take \(batch, batch_idx, dataloader_idx=0\)"):
        quiet(jit_compile=False).fit(Net(), digits(), [digits(), digits()])
    assert quiet(jit_compile=False, num_sanity_val_steps=0).validate(Net(), [digits()])[0]["val_loss"] > 0  # a list of one


# Arguments of the trainer.


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ([EarlyStopping], "type"),
        (EarlyStopping, "type"),
        ([keras.callbacks.History], "type"),
        (["early"], "str"),
        ("early", "str"),
        ([None], "NoneType"),
        ([lambda trainer, module: None], "function"),
    ],
    ids=["class", "bare-class", "keras-class", "names", "name", "None", "function"],
)
def test_what_is_no_callback_is_refused(given: Any, shown: str) -> None:
    with pytest.raises(TypeError, match=f"callbacks holds a {shown}: expected callbacks, ours or Keras's"):
        Trainer(callbacks=given)


@pytest.mark.parametrize(
    ("given", "shown"),
    [("tensorboard", "str"), (["csv"], "str"), (CSVLogger, "type"), ([CSVLogger], "type"), ([True], "bool"), (3, "int")],
    ids=["name", "names", "class", "classes", "list-of-True", "number"],
)
def test_what_is_no_logger_is_refused(given: Any, shown: str) -> None:
    with pytest.raises(TypeError, match=f"logger holds a {shown}: expected loggers, True or False"):
        Trainer(logger=given)


@pytest.mark.parametrize("profiler", ["advanced", True, SimpleProfiler], ids=["name", "True", "class"])
def test_an_unknown_profiler_is_refused(profiler: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"profiler is .*: expected .*'simple'"):
        Trainer(profiler=profiler)


def test_loaders_and_a_datamodule_at_once_are_refused(quiet: Quiet) -> None:
    class Data(DataModule):
        def train_dataloader(self) -> Any:
            return digits()

        test_dataloader = predict_dataloader = val_dataloader = train_dataloader

    message = "both dataloaders and a datamodule were given: give one of them"
    with pytest.raises(ValueError, match=message):
        quiet().fit(Net(), digits(), datamodule=Data())
    with pytest.raises(ValueError, match=message):
        quiet().fit(Net(), val_dataloaders=digits(), datamodule=Data())
    for verb in ("validate", "test", "predict"):
        with pytest.raises(ValueError, match=message):
            getattr(quiet(), verb)(Net(), digits(), datamodule=Data())


@pytest.mark.parametrize("model", [None, "mlp", keras.layers.Dense(3), Net], ids=["None", "name", "layer", "class"])
def test_what_is_no_model_is_refused(model: Any, quiet: Quiet) -> None:
    with pytest.raises(TypeError, match=r"the model is a .*: expected a Module or a compiled keras\.Model"):
        quiet().fit(model, digits())


def test_a_verb_without_a_model_before_any_fit_is_an_error(quiet: Quiet) -> None:
    for verb in ("validate", "test", "predict"):
        with pytest.raises(ValueError, match=rf"{verb}\(\) needs a model: give one, or call fit\(\) first"):
            getattr(quiet(), verb)(dataloaders=digits())


@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_epoch_ends", "log", "state_key", "step"])
def test_a_lambda_callback_knows_its_hooks(hook: str) -> None:
    with pytest.raises(TypeError, match=f"LambdaCallback: there is no hook '{hook}'"):
        LambdaCallback(**{hook: lambda trainer, module: None})


def test_a_lambda_callback_is_called_with_the_hooks_arguments(quiet: Quiet) -> None:
    calls: list[Any] = []
    callback = LambdaCallback(
        setup=lambda trainer, module, stage: calls.append(stage),
        on_train_batch_end=lambda trainer, module, outputs, batch, batch_idx: calls.append((batch_idx, len(batch[0]))),
        on_train_epoch_end=lambda trainer, module: calls.append(trainer.global_step),
        teardown=lambda trainer, module, stage: calls.append(stage),
    )
    quiet(callbacks=callback, jit_compile=False).fit(Net(), digits(40))
    assert calls == ["fit", (0, 16), (1, 16), (2, 8), 3, "fit"]


# Hyperparameters and load_from_checkpoint.


class Sized(Net):
    """A module with hyperparameters."""

    def __init__(self, units: int = 5, rate: float = 0.05, sizes: Any = (1, 2), **more: Any) -> None:
        self.save_hyperparameters()

    def configure_model(self) -> keras.Model:
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(self.hparams.units), keras.layers.Dense(3)])

    def configure_optimizers(self) -> Any:
        return keras.optimizers.Adam(self.hparams.rate)


class Deferred(Sized):
    """The same with a model that knows its shape from the data alone."""

    def configure_model(self) -> keras.Model:
        return keras.Sequential([keras.layers.Dense(self.hparams.units), keras.layers.Dense(3)])


def saved(quiet: Quiet, module: Module, folder: Path) -> Path:
    """The checkpoint of a fit."""
    trainer = quiet(callbacks=ModelCheckpoint(folder), jit_compile=False)
    trainer.fit(module, digits())
    assert trainer.checkpoint_callback is not None
    return Path(trainer.checkpoint_callback.best_model_path)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.float32(0.5), "float32"),
        (np.arange(3), "ndarray"),
        (Path("data"), "PosixPath"),
        (keras.optimizers.Adam(), "Adam"),
        ({1, 2}, "set"),
        (print, "builtin_function_or_method"),
        ([Path("a")], "list"),
    ],
    ids=["numpy-scalar", "array", "path", "optimizer", "set", "function", "list-of-paths"],
)
def test_a_hyperparameter_that_is_no_json_value_is_an_error_with_the_remedy(value: Any, kind: str) -> None:
    with pytest.raises(
        ValueError, match=rf"save_hyperparameters: sizes is a {kind}, which cannot be kept.*pass ignore=\['sizes'\]"
    ):
        Sized(sizes=value)


def test_hyperparameters_are_named_or_ignored() -> None:
    class Named(Net):
        def __init__(self, units: int, path: Path, rate: float = 0.1) -> None:
            self.save_hyperparameters("units", "rate")

    class Ignoring(Net):
        def __init__(self, units: int, path: Path, *, rate: float = 0.1) -> None:
            self.save_hyperparameters(ignore=["path"])

    for kind in (Named, Ignoring):
        assert kind(3, Path("data")).hparams == {"units": 3, "rate": 0.1}
    assert Sized(momentum=0.5).hparams == {"units": 5, "rate": 0.05, "sizes": [1, 2], "momentum": 0.5}
    with pytest.raises(AttributeError, match="there is no hyperparameter 'width': there are units, rate, sizes"):
        _ = Sized().hparams.width


def test_a_hyperparameter_that_is_no_argument_is_an_error_that_names_those_there_are() -> None:
    class Misspelt(Net):
        def __init__(self, units: int, rate: float = 0.1) -> None:
            self.save_hyperparameters("unit")

    with pytest.raises((ValueError, AttributeError), match=r"unit.*units"):
        Misspelt(3)


@pytest.mark.parametrize("kind", [Sized, Deferred])
def test_a_checkpoint_gives_back_the_module(kind: type[Sized], tmp_path: Path, quiet: Quiet) -> None:
    module = kind(units=7, rate=0.1)
    loaded = kind.load_from_checkpoint(saved(quiet, module, tmp_path))
    assert loaded.hparams == {"units": 7, "rate": 0.1, "sizes": [1, 2]}
    assert module.model is not None
    assert loaded.model is not None
    assert_same_bits(loaded.model, module.model)
    tested = [quiet().test(each, digits()) for each in (module, loaded)]
    assert tested[0] == tested[1]


def test_a_loaded_module_can_be_fitted_further(tmp_path: Path, quiet: Quiet) -> None:
    loaded = Sized.load_from_checkpoint(saved(quiet, Sized(), tmp_path))
    assert loaded.model is not None
    before = weights(loaded.model)
    quiet(jit_compile=False).fit(loaded, digits())
    assert np.abs(weights(loaded.model)[0] - before[0]).max() > 0.01


def test_arguments_take_the_place_of_saved_hyperparameters(tmp_path: Path, quiet: Quiet) -> None:
    path = saved(quiet, Sized(units=7, rate=0.1), tmp_path)
    loaded = Sized.load_from_checkpoint(path, rate=0.5)
    assert loaded.hparams == {"units": 7, "rate": 0.5, "sizes": [1, 2]}
    quiet(jit_compile=False).fit(loaded, digits())
    assert loaded.optimizer is not None
    assert float(loaded.optimizer.learning_rate) == 0.5
    with pytest.raises(CheckpointError, match=r"does not fit the model: model/0 has shape \(4, 7\) .* and \(4, 9\)"):
        Sized.load_from_checkpoint(path, units=9)


def test_arguments_that_were_not_saved_are_given(tmp_path: Path, quiet: Quiet) -> None:
    class Reads(Net):
        def __init__(self, folder: Path, units: int = 3) -> None:
            self.folder = folder
            self.save_hyperparameters(ignore=["folder"])

    path = saved(quiet, Reads(Path("a")), tmp_path)
    loaded = Reads.load_from_checkpoint(path, folder=Path("b"))
    assert (loaded.folder, loaded.hparams) == (Path("b"), {"units": 3})
    with pytest.raises(TypeError, match="folder"):
        Reads.load_from_checkpoint(path)


def test_an_argument_may_be_called_path(tmp_path: Path, quiet: Quiet) -> None:
    class Reads(Net):
        def __init__(self, path: str) -> None:
            self.save_hyperparameters()

    loaded = Reads.load_from_checkpoint(saved(quiet, Reads("a"), tmp_path), path="b")
    assert loaded.hparams == {"path": "b"}


def test_a_foreign_or_missing_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n" * 20)
    with pytest.raises(CheckpointError, match=r"weights\.h5: not a whole checkpoint"):
        Sized.load_from_checkpoint(tmp_path / "weights.h5")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        Sized.load_from_checkpoint(tmp_path / "none.safetensors")


def test_a_checkpoint_of_another_module_is_refused(tmp_path: Path, quiet: Quiet) -> None:
    class Deeper(Sized):
        def configure_model(self) -> keras.Model:
            layers = [keras.layers.Dense(units) for units in (self.hparams.units, 4, 3)]
            return keras.Sequential([keras.Input((4,)), *layers])

    with pytest.raises(CheckpointError, match="the checkpoint does not fit the model"):
        Deeper.load_from_checkpoint(saved(quiet, Sized(), tmp_path))


def test_a_keras_models_checkpoint_is_loaded_into_another(tmp_path: Path, quiet: Quiet) -> None:
    def compiled() -> keras.Model:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    trained, other = compiled(), compiled()
    loaded = KerasModule.load_from_checkpoint(saved(quiet, KerasModule(trained), tmp_path), model=other)
    assert loaded.model is other
    assert_same_bits(other, trained)


# The profiler.


def test_the_simple_profiler_reports_where_the_time_went(tmp_path: Path, quiet: Quiet) -> None:
    class Watch(Callback):
        def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
            np.linalg.svd(np.ones((60, 60)))  # so that it takes long enough to be shown

    console = Console(file=io.StringIO(), width=100)
    profiler = SimpleProfiler(console)
    options: dict[str, Any] = {"logger": CSVLogger(tmp_path / "metrics.csv"), "max_epochs": 3, "log_every_n_steps": 2}
    callbacks = [Watch(), ModelCheckpoint(tmp_path)]
    quiet(profiler=profiler, callbacks=callbacks, jit_compile=True, **options).fit(Net(), digits(), digits())
    for name in ("trace", "compile", "validation", "logging", "checkpoints"):
        assert profiler.seconds[name] > 0, name
    (calls,) = (name for name in profiler.seconds if name.startswith("train call"))
    assert profiler.calls[calls] >= 3
    assert profiler.calls["validation"] == 3
    assert profiler.calls["checkpoints"] == 3
    assert profiler.calls["Watch.on_train_epoch_end"] == profiler.calls["Net.on_train_epoch_end"] == 3
    assert isinstance(console.file, io.StringIO)
    rows = {line.split("  ")[0].strip() for line in console.file.getvalue().splitlines()}
    assert {"trace", "compile", calls, "validation", "logging", "checkpoints", "Watch.on_train_epoch_end"} <= rows


def test_profiler_simple_prints_its_table(capsys: pytest.CaptureFixture[str], quiet: Quiet) -> None:
    trainer = quiet(profiler="simple", jit_compile=False)
    trainer.fit(Net(), digits())
    printed = capsys.readouterr().out
    assert "Where the time went" in printed
    assert "trace" in printed
    assert isinstance(trainer.profiler, SimpleProfiler)
    assert trainer.profiler.seconds["trace"] > 0


def test_profiling_changes_no_bit(quiet: Quiet) -> None:
    profiled, plain = Net(), Net()
    quiet(profiler=SimpleProfiler(Console(file=io.StringIO())), jit_compile=False).fit(profiled, digits())
    quiet(jit_compile=False).fit(plain, digits())
    assert profiled.model is not None
    assert plain.model is not None
    assert_same_bits(profiled.model, plain.model)


# Metrics of Keras and random generators in a module.


class Measured(Net):
    """Measures with a metric of Keras's that it holds as an attribute; one for training and validation alike."""

    def __init__(self) -> None:
        self.accuracy = keras.metrics.SparseCategoricalAccuracy()

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        assert self.model is not None
        self.accuracy.update_state(batch[1], self.model(batch[0]))
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: tf.Tensor) -> None:
        assert self.model is not None
        self.accuracy.update_state(batch[1], self.model(batch[0]))
        self.log("val_accuracy", self.accuracy)

    def test_step(self, batch: Any, batch_idx: tf.Tensor) -> None:
        assert self.model is not None
        self.accuracy.update_state(batch[1], self.model(batch[0]))
        self.log("test_accuracy", self.accuracy)


class ByHand(Net):
    """The same numbers as epoch means of each batch's accuracy."""

    def shares(self, batch: Any) -> tf.Tensor:
        assert self.model is not None
        return keras.ops.mean(keras.metrics.sparse_categorical_accuracy(batch[1], self.model(batch[0])))

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        self.log("accuracy", self.shares(batch), on_step=False, on_epoch=True)
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: tf.Tensor) -> None:
        self.log("val_accuracy", self.shares(batch))


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 2}], ids=["each-epoch", "within-epochs"])
def test_a_metric_counts_each_pass_by_itself(options: dict[str, Any], quiet: Quiet) -> None:
    found = []
    for net in (Measured(), ByHand()):
        trainer = quiet(max_epochs=3, jit_compile=False, **options)
        trainer.fit(net, digits(72), digits(40))
        found.append(trainer.callback_metrics)
    assert set(found[0]) == {"accuracy", "val_accuracy"}
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[0]["accuracy"] != found[0]["val_accuracy"]


def test_a_metric_is_measured_over_the_whole_test(quiet: Quiet) -> None:
    net, trainer = Measured(), quiet(jit_compile=False)
    trainer.fit(net, digits())
    assert net.model is not None
    expected = np.mean(np.argmax(net.model(X), axis=1) == Y)
    for _ in range(2):
        assert trainer.test(net, digits()) == [{"test_accuracy": pytest.approx(expected)}]


def test_a_metric_that_makes_its_variables_late_can_be_logged(quiet: Quiet) -> None:
    class F1(Net):
        def __init__(self) -> None:
            self.f1 = keras.metrics.F1Score("macro")

        def test_step(self, batch: Any, batch_idx: tf.Tensor) -> None:
            assert self.model is not None
            self.f1.update_state(keras.ops.one_hot(batch[1], 3), keras.ops.softmax(self.model(batch[0])))
            self.log("f1", self.f1)

    net = F1()
    ((found),) = quiet().test(net, digits())
    assert net.model is not None
    right = keras.metrics.F1Score("macro")
    right.update_state(keras.ops.one_hot(Y, 3), keras.ops.softmax(net.model(X)))
    assert found["f1"] == pytest.approx(float(right.result()), abs=1e-6)


class KerasNoise(Net):
    """Adds noise from Keras's generator to the inputs."""

    def __init__(self) -> None:
        self.generator = keras.random.SeedGenerator(7)

    def noise(self, shape: Any) -> tf.Tensor:
        return keras.random.normal(shape, seed=self.generator)

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        noise = self.noise(batch[0].shape)
        self.log("noise", keras.ops.mean(noise), on_step=True)
        return self.loss((batch[0] + noise, batch[1]))


class TensorFlowNoise(KerasNoise):
    """The same from TensorFlow's generator."""

    def __init__(self) -> None:
        self.generator = tf.random.Generator.from_seed(7)

    def noise(self, shape: Any) -> tf.Tensor:
        return self.generator.normal(shape)


class LayerNoise(KerasNoise):
    """The same from a layer of Keras's."""

    def __init__(self) -> None:
        self.layer = keras.layers.GaussianNoise(1.0, seed=7)

    def noise(self, shape: Any) -> tf.Tensor:
        return self.layer(tf.zeros(shape), training=True)


noises = pytest.mark.parametrize("kind", [KerasNoise, TensorFlowNoise, LayerNoise])


@noises
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_modules_random_generator_draws_anew_at_each_step(jit_compile: bool, kind: type[KerasNoise], quiet: Quiet) -> None:
    class Drawn(Callback):
        def __init__(self) -> None:
            self.means: list[float] = []

        def on_train_steps_end(self, trainer: Trainer, module: Module) -> None:
            self.means.append(log_of(module, RunningStage.TRAINING).step_values()["noise"])

    drawn = Drawn()
    quiet(callbacks=drawn, steps_per_call=1, jit_compile=jit_compile).fit(kind(), digits())
    assert len(set(drawn.means)) == 5


@noises
def test_a_modules_random_generator_goes_on_when_the_training_is_resumed(
    kind: type[KerasNoise], tmp_path: Path, quiet: Quiet
) -> None:
    whole, resumed = kind(), kind()
    quiet(max_epochs=3, jit_compile=False).fit(whole, digits())
    path = saved(quiet, kind(), tmp_path)
    assert read_checkpoint(path).header.global_step == 5
    quiet(max_epochs=3, jit_compile=False).fit(resumed, digits(), ckpt_path=path)
    assert whole.model is not None
    assert resumed.model is not None
    assert_same_bits(resumed.model, whole.model)


@noises
def test_the_sanity_check_leaves_a_modules_random_generator_as_it_was(kind: type[KerasNoise], quiet: Quiet) -> None:
    class Validates(kind):  # type: ignore[misc, valid-type]
        def validation_step(self, batch: Any, batch_idx: tf.Tensor) -> None:
            self.log("val_loss", self.loss((batch[0] + self.noise(batch[0].shape), batch[1])))

    models = []
    for steps in (0, 2):
        net = Validates()
        quiet(num_sanity_val_steps=steps, jit_compile=False).fit(net, digits(), digits())
        models.append(net.model)
    assert_same_bits(*models)
