"""Modules that people write: steps, `self.log`, hooks, errors."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from mnist_tuner import build_baseline
from mnist_tuner.mnist.data import Dataset
from mnist_tuner.trainer import ArrayLoader, Callback, DataModule, KerasModule, Logger, Module, NonFiniteLossError, Trainer
from tests.trainer.conftest import Digits, weights


@pytest.fixture
def quiet(quiet: Callable[..., Trainer]) -> Callable[..., Trainer]:
    """The trainer without XLA, whose compilation takes longer than these trainings; tests that are about it ask for it."""
    return partial(quiet, jit_compile=False)


class Net(Module):
    """A module as in the README."""

    def configure_model(self) -> keras.Model:
        return keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10)])

    def loss(self, batch: Any) -> tf.Tensor:
        x, y = batch
        assert self.model is not None
        return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, self.model(x), from_logits=True))

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        loss = self.loss(batch)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: tf.Tensor) -> None:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: tf.Tensor) -> None:
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(0.01)


class Recorder(Callback):
    """Writes down every hook in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []


def _recorded(name: str) -> Callable[..., None]:
    def hook(self: Recorder, *arguments: Any) -> None:
        self.calls.append(name)

    return hook


for _name in vars(Callback):
    if (_name.startswith("on_") and "batch" not in _name and "steps" not in _name) or _name in ("setup", "teardown"):
        setattr(Recorder, _name, _recorded(_name))


@pytest.mark.slow
def test_a_module_learns(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    net = Net()
    trainer = quiet(max_epochs=3, jit_compile="auto")
    trainer.fit(net, digits(1000), digits(200))
    validated = trainer.callback_metrics["val_loss"]
    assert validated < 0.5
    assert (trainer.current_epoch, trainer.global_step) == (3, 96)
    (tested,) = trainer.test(net, digits(200))
    assert tested == pytest.approx({"test_loss": validated})
    assert trainer.callback_metrics == tested


class Everything(Net, DataModule):  # type: ignore[misc]
    """A module that is its own data module, and writes down the hooks of both."""

    def __init__(self, loader: ArrayLoader) -> None:
        self.loader = loader
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        recorded = name.startswith(("on_", "configure_")) or name.endswith("_dataloader") or name in ("setup", "teardown")
        if recorded or name == "prepare_data":
            self.calls.append(name)
        return super().__getattribute__(name)

    def train_dataloader(self) -> ArrayLoader:
        return self.loader

    def val_dataloader(self) -> ArrayLoader:
        return self.loader

    def test_dataloader(self) -> ArrayLoader:
        return self.loader


def test_module_and_data_hooks_come_in_lightnings_order(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    both = Everything(digits(64))
    quiet().fit(both, datamodule=both)
    validation = ["on_validation_start", "on_validation_epoch_start", "on_validation_epoch_end", "on_validation_end"]
    assert both.calls == [
        *("configure_callbacks", "prepare_data", "prepare_data", "setup", "setup", "configure_model", "configure_optimizers"),
        "on_fit_start",
        *("val_dataloader", *validation, "train_dataloader", "on_train_start", "on_train_epoch_start", *validation),
        *("on_train_epoch_end", "on_train_end", "on_fit_end", "teardown", "teardown"),
    ]
    both.calls.clear()
    quiet().test(both, datamodule=both)
    assert both.calls == [
        *("configure_callbacks", "prepare_data", "prepare_data", "setup", "setup", "test_dataloader"),
        *("on_test_start", "on_test_epoch_start", "on_test_epoch_end", "on_test_end", "teardown", "teardown"),
    ]


@pytest.mark.parametrize(
    ("options", "asked"),
    [({"max_epochs": 0}, ["train_dataloader"]), ({"max_steps": 0}, ["train_dataloader"]), ({"limit_train_batches": 0}, [])],
)
def test_a_fit_with_nothing_to_do_trains_nothing(
    options: dict[str, Any], asked: list[str], digits: Digits, quiet: Callable[..., Trainer]
) -> None:
    both = Everything(digits(64))
    quiet(**options, num_sanity_val_steps=0).fit(both, datamodule=both)
    assert both.calls == [
        *("configure_callbacks", "prepare_data", "prepare_data", "setup", "setup", "configure_model", "configure_optimizers"),
        *("on_fit_start", *asked, "on_fit_end", "teardown", "teardown"),
    ]


def test_hooks_come_in_lightnings_order(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    recorder = Recorder()
    quiet(callbacks=recorder).fit(Net(), digits(64), digits(64))
    validation = ["on_validation_start", "on_validation_epoch_start", "on_validation_epoch_end", "on_validation_end"]
    assert recorder.calls == [
        *("setup", "on_fit_start", "on_sanity_check_start", *validation, "on_sanity_check_end"),
        *("on_train_start", "on_train_epoch_start"),
        *validation,
        *("on_train_epoch_end", "on_train_end", "on_fit_end", "teardown"),
    ]


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_the_other_verbs_call_their_nouns_hooks(verb: str, digits: Digits, quiet: Callable[..., Trainer]) -> None:
    recorder = Recorder()
    getattr(quiet(callbacks=recorder), verb)(Net(), digits(64))
    noun = {"validate": "validation"}.get(verb, verb)
    stages = ["start", "epoch_start", "epoch_end", "end"]
    assert recorder.calls == ["setup", *(f"on_{noun}_{stage}" for stage in stages), "teardown"]


def test_epoch_values_are_reduced_as_asked(mnist: Dataset, quiet: Callable[..., Trainer]) -> None:
    class Logs(Net):
        def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
            value = tf.cast(batch_idx, tf.float32)
            for reduction in ("mean", "sum", "min", "max", "last"):
                self.log(reduction, value, on_step=False, on_epoch=True, reduce_fx=reduction)
            self.log("weighted", value, on_step=False, on_epoch=True, batch_size=1)
            self.log("both", value, on_step=True, on_epoch=True)
            self.log("step", value)
            return self.loss(batch)

    x, y = mnist.train_images[:72] / np.float32(255), mnist.train_labels[:72]
    trainer = quiet(jit_compile="auto")
    trainer.fit(Logs(), ArrayLoader(x, y, batch_size=32))  # batches of 32, 32 and 8 with the values 0, 1 and 2
    expected = {
        "mean": (0 * 32 + 1 * 32 + 2 * 8) / 72,
        "sum": 3.0,
        "min": 0.0,
        "max": 2.0,
        "last": 2.0,
        "weighted": 1.0,
        "both": (0 * 32 + 1 * 32 + 2 * 8) / 72,
        "both_step": 2.0,
        "both_epoch": (0 * 32 + 1 * 32 + 2 * 8) / 72,
        "step": 2.0,
    }
    assert trainer.callback_metrics == pytest.approx(expected)


def test_epoch_values_start_afresh_each_epoch(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    class Counts(Net):
        def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
            self.log("steps", 1.0, on_step=False, on_epoch=True, reduce_fx="sum")
            return self.loss(batch)

    trainer = quiet(max_epochs=3)
    trainer.fit(Counts(), digits(320))
    assert trainer.callback_metrics["steps"] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": tf.zeros(3)}, "expected a scalar"),
        ({"value": 1.0, "reduce_fx": "median"}, "expected mean, sum, min, max or last"),
    ],
)
def test_a_wrong_log_call_says_what_was_expected(
    arguments: dict[str, Any], message: str, digits: Digits, quiet: Callable[..., Trainer]
) -> None:
    class Wrong(Net):
        def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
            self.log("x", **arguments)
            return self.loss(batch)

    with pytest.raises(ValueError, match=message):
        quiet().fit(Wrong(), digits(64))


def test_one_name_logged_in_two_ways_is_an_error(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    class Twice(Net):
        def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
            self.log("x", 1.0, reduce_fx="sum")
            self.log("x", 1.0, reduce_fx="max")
            return self.loss(batch)

    with pytest.raises(ValueError, match="use one or the other"):
        quiet().fit(Twice(), digits(64))


def test_logging_outside_a_run_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="nothing is running"):
        Net().log("x", 1.0)


@pytest.mark.slow
def test_a_batch_hook_sees_every_batch_and_changes_no_bit(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    class Counter(Callback):
        def __init__(self) -> None:
            self.starts: list[int] = []
            self.losses: list[float] = []

        def on_train_batch_start(self, trainer: Trainer, module: Module, batch: Any, batch_idx: int) -> None:
            assert batch[0].shape[1:] == (28, 28)
            assert float(tf.reduce_max(batch[0])) <= 1
            self.starts.append(batch_idx)

        def on_train_batch_end(self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.losses.append(outputs)

    counter, hooked, plain = Counter(), Net(), Net()
    keras.utils.set_random_seed(0)
    quiet(callbacks=counter, jit_compile="auto").fit(hooked, digits(330))
    keras.utils.set_random_seed(0)
    quiet(jit_compile="auto").fit(plain, digits(330))
    assert counter.starts == list(range(11))
    assert len(set(counter.losses)) == 11
    assert hooked.model is not None
    assert plain.model is not None
    for a, b in zip(weights(hooked.model), weights(plain.model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_should_stop_ends_the_fit_after_the_running_call(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    class Stop(Callback):
        def on_train_steps_end(self, trainer: Trainer, module: Module) -> None:
            trainer.should_stop = trainer.global_step >= 5

    trainer = quiet(max_epochs=9, callbacks=Stop(), steps_per_call=5)
    trainer.fit(Net(), digits(1000))
    assert (trainer.global_step, trainer.current_epoch) == (5, 1)


@pytest.fixture(scope="module")
def capped() -> Net:
    """A module that the cases of a table share, so that its loop is traced once."""
    return Net()


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 2}, 64),
        ({"max_epochs": 2, "max_steps": 40}, 40),
        ({"max_epochs": None, "max_steps": 33}, 33),
        ({"max_steps": 0}, 0),
        ({"max_epochs": 0}, 0),
        ({"limit_train_batches": 3, "max_epochs": 2}, 6),
        ({"limit_train_batches": 0.5}, 16),
        ({"limit_train_batches": 1}, 1),
        ({"limit_train_batches": 1.0}, 32),
        ({"limit_train_batches": np.int64(2)}, 2),
        ({"limit_train_batches": 0}, 0),
        ({"fast_dev_run": True, "max_epochs": 7}, 1),
        ({"fast_dev_run": 3}, 3),
    ],
)
def test_caps_and_limits_end_a_fit(
    options: dict[str, Any], steps: int, capped: Net, digits: Digits, quiet: Callable[..., Trainer]
) -> None:
    trainer = quiet(**options)
    trainer.fit(capped, digits(1000))
    assert trainer.global_step == steps
    assert capped.optimizer is not None
    assert int(capped.optimizer.iterations) == steps


def test_a_repeated_fit_with_the_same_caps_does_nothing(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    trainer, net = quiet(max_epochs=2), Net()
    trainer.fit(net, digits(320))
    assert net.model is not None
    before = weights(net.model)
    with pytest.warns(UserWarning, match=r"trains nothing: max_epochs=2 has been reached .* raise trainer\.max_epochs"):
        trainer.fit(net, digits(320))
    assert trainer.global_step == 20
    for a, b in zip(weights(net.model), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_second_fit_of_a_module_compiles_nothing(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    net, loader = Net(), digits(320)
    first, second = quiet(jit_compile="auto"), quiet(jit_compile="auto")
    first.fit(net, loader)
    compiled = first.compile_seconds
    second.fit(net, digits(320))
    assert second.compile_seconds == compiled
    assert second.global_step == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": -2}, "max_epochs is -2"),
        ({"max_steps": -2}, "max_steps is -2"),
        ({"limit_train_batches": 1.5}, "limit_train_batches is 1.5"),
        ({"limit_val_batches": -1}, "limit_val_batches is -1"),
        ({"steps_per_call": 0}, "steps_per_call is 0"),
        ({"fast_dev_run": -1}, "fast_dev_run is -1"),
        ({"steps_per_call": 2.5}, "steps_per_call is 2.5"),
        ({"jit_compile": "never"}, "jit_compile is 'never'"),
        ({"limit_test_batches": float("nan")}, "limit_test_batches is nan"),
    ],
)
def test_an_argument_out_of_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(**options)


def test_a_share_that_leaves_no_batch_is_an_error(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    with pytest.raises(ValueError, match=r"the limit 0\.01 of 32 batches leaves none"):
        quiet(limit_train_batches=0.01).fit(Net(), digits(1000))


class NoLoss(Net):
    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> Any:
        return None


class LossPerExample(Net):
    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        assert self.model is not None
        return keras.losses.sparse_categorical_crossentropy(batch[1], self.model(batch[0]), from_logits=True)


class NoOptimizer(Net):
    configure_optimizers = Module.configure_optimizers


class NoModel(Net):
    configure_model = Module.configure_model


class NoStep(Net):
    training_step = Module.training_step


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoLoss, "returned None: expected the loss, a scalar"),
        (LossPerExample, r"reduce a loss per example with keras\.ops\.mean"),
        (NoOptimizer, r"override configure_optimizers\(\)"),
        (NoModel, r"override configure_model\(\)"),
        (NoStep, r"override training_step\(batch, batch_idx\)"),
    ],
)
def test_a_module_that_lacks_something_is_told_what(
    kind: type[Net], message: str, digits: Digits, quiet: Callable[..., Trainer]
) -> None:
    with pytest.raises(TypeError, match=message):
        quiet().fit(kind(), digits(64))


def test_validation_data_without_a_validation_step_is_left_out_with_a_warning(
    digits: Digits, quiet: Callable[..., Trainer]
) -> None:
    class NoValidation(Net):
        validation_step = Module.validation_step

    trainer = quiet()
    with pytest.warns(UserWarning, match="no validation_step"):
        trainer.fit(NoValidation(), digits(64), digits(64))
    assert "val_loss" not in trainer.callback_metrics


def test_missing_data_and_other_kinds_of_data_are_refused(quiet: Callable[..., Trainer]) -> None:
    with pytest.raises(ValueError, match="there is no training data"):
        quiet().fit(Net(), datamodule=DataModule())
    with pytest.raises(ValueError, match="there is no data to test"):
        quiet().test(Net(), datamodule=DataModule())
    with pytest.raises(TypeError, match="pass it as datamodule="):
        quiet().fit(Net(), [], DataModule())
    with pytest.raises(TypeError, match="expected an ArrayLoader"):
        quiet().fit(Net(), [1, 2, 3])


@pytest.mark.parametrize("steps_per_call", ["auto", 1])
def test_a_loss_that_is_not_finite_ends_the_fit_at_its_step(
    steps_per_call: Any, mnist: Dataset, quiet: Callable[..., Trainer]
) -> None:
    x = mnist.train_images[:640] / np.float32(255)
    x[32 * 7 + 3] = np.nan  # in the eighth batch
    trainer, net = quiet(steps_per_call=steps_per_call, jit_compile="auto"), Net()
    with pytest.raises(NonFiniteLossError, match=r"the loss of step 8 \(epoch 1\) is not finite") as caught:
        trainer.fit(net, ArrayLoader(x, mnist.train_labels[:640]))
    assert (caught.value.step, caught.value.epoch, trainer.global_step) == (8, 1, 8)
    assert net.optimizer is not None
    assert int(net.optimizer.iterations) == 8


def test_an_exception_goes_on_after_the_hooks_that_clean_up(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    class Fails(Callback):
        def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
            raise LookupError("lost")

    recorder = Recorder()
    trainer = quiet(callbacks=[Fails(), recorder])
    with pytest.raises(LookupError, match="lost"):
        trainer.fit(Net(), digits(64))
    assert recorder.calls[-2:] == ["on_exception", "teardown"]
    assert (trainer.state.status, trainer.interrupted) == ("interrupted", False)


def test_a_net_without_input_shape_is_built_on_the_data(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    class Unbuilt(Net):
        def configure_model(self) -> keras.Model:
            return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])

    net = Unbuilt()
    quiet().fit(net, digits(64))
    assert net.model is not None
    assert net.model.count_params() == 7850


@pytest.mark.slow
def test_a_model_compiled_anew_is_trained_with_its_new_optimizer(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    model = build_baseline(seed=0)
    module = KerasModule(model)
    quiet().fit(module, digits(64))
    before = weights(model)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", metrics=["sparse_top_k_categorical_accuracy"])
    trainer = quiet()
    trainer.fit(module, digits(64))
    assert int(model.optimizer.iterations) == 2
    assert set(trainer.callback_metrics) == {"loss", "sparse_top_k_categorical_accuracy"}
    for a, b in zip(weights(model), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_layer_frozen_between_two_fits_stays_as_it_is(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    model = build_baseline(seed=0)
    module = KerasModule(model)
    quiet().fit(module, digits(64))
    model.layers[1].trainable = False
    before = weights(model)
    quiet().fit(module, digits(64))
    after = weights(model)
    np.testing.assert_array_equal(after[0], before[0])
    assert np.abs(after[2] - before[2]).max() > 0


def test_what_the_module_logs_at_an_epochs_end_reaches_the_callbacks_that_run_last(
    digits: Digits, quiet: Callable[..., Trainer]
) -> None:
    class Late(Callback):
        runs_last = True

        def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
            self.seen = dict(trainer.callback_metrics)

    class Logs(Net):
        def on_train_epoch_end(self) -> None:
            self.log("mine", 7.0)

    late = Late()
    quiet(callbacks=late).fit(Logs(), digits(64))
    assert late.seen["mine"] == 7.0


def test_metrics_of_an_earlier_run_are_not_taken_for_new_ones(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    class Taker(Logger):
        def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
            self.names = set(metrics)

    net, taker = Net(), Taker()
    quiet().fit(net, digits(64), digits(64))
    quiet().test(net, digits(64))
    trainer = quiet(logger=taker)
    trainer.fit(net, digits(64))
    assert taker.names == {"epoch", "loss_epoch"}
    assert set(trainer.callback_metrics) == {"loss", "loss_step", "loss_epoch"}


def test_a_failing_clean_up_hides_nothing_and_hinders_nothing(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    class Fails(Callback):
        def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
            raise LookupError("lost")

        def on_exception(self, trainer: Trainer, module: Module, exception: BaseException) -> None:
            raise OSError("disk full")

    recorder = Recorder()
    with pytest.raises(LookupError, match="lost") as caught:
        quiet(callbacks=[Fails(), recorder]).fit(Net(), digits(64))
    assert caught.value.__notes__ == ["while cleaning up: OSError: disk full"]
    assert recorder.calls[-2:] == ["on_exception", "teardown"]


@pytest.mark.slow
def test_a_metric_with_a_value_per_class_is_shown_by_class(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    class OneHotF1(keras.metrics.F1Score):
        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            return super().update_state(keras.ops.one_hot(keras.ops.reshape(y_true, [-1]), 10), y_pred)

    model = build_baseline(seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=[OneHotF1(name="f1")])
    trainer = quiet()
    trainer.fit(model, digits(640))
    assert {f"f1_{i}" for i in range(10)} < set(trainer.callback_metrics)
    assert trainer.callback_metrics["f1_1"] > 0.3


def test_a_train_step_that_reports_no_loss_is_told_so(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    class Silent(keras.Model):
        def train_step(self, data: Any) -> dict[str, Any]:
            return {}

    inner = build_baseline(seed=0)
    model = Silent(inner.inputs, inner.outputs)
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(TypeError, match=r"Silent\.train_step returned \{\}: expected a dict with the key 'loss'"):
        quiet().fit(model, digits(64))


def test_a_fitted_module_keeps_no_data_alive(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    net, loader = Net(), digits(64)
    quiet(jit_compile="auto").fit(net, loader, loader)
    gone = weakref.ref(loader)
    del loader
    gc.collect()
    assert gone() is None
