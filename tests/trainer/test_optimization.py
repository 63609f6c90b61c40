"""Gradient clipping, accumulation, precision, averages of the weights, schedules, determinism and devices."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from mnist_tuner.trainer import (
    ArrayLoader,
    Callback,
    CSVLogger,
    LearningRateMonitor,
    ModelCheckpoint,
    Module,
    Trainer,
)
from tests.support import nets
from tests.support.commands import python
from tests.support.nets import Quiet, net, points
from tests.trainer.conftest import assert_same_bits, weights

pytestmark = pytest.mark.slow

Optimizer = keras.optimizers.Optimizer

X, Y = points(80)


def digits(batch_size: int = 16) -> ArrayLoader:
    """Five batches."""
    return ArrayLoader(X, Y, batch_size=batch_size)


def compiled(optimizer: Optimizer) -> keras.Model:
    model = net()
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return model


class Net(nets.Net):
    """The net in a module with an optimizer of one's choice."""

    def __init__(self, make: Callable[[], Any] = lambda: keras.optimizers.Adam(0.05)) -> None:
        self.make = make

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Optimizer:
        return self.make()


def trained(quiet: Quiet, module: Net, **options: Any) -> keras.Model:
    """The module's model after a fit."""
    quiet(**{"jit_compile": False, "max_epochs": 2, **options}).fit(module, digits())
    assert module.model is not None
    return module.model


# Clipping.


def sgd(**own: Any) -> Optimizer:
    return keras.optimizers.SGD(0.5, **own)


@pytest.mark.parametrize(
    ("options", "own", "jit_compile"),
    [
        ({"gradient_clip_val": 0.05}, {"global_clipnorm": 0.05}, False),
        ({"gradient_clip_val": 0.05, "gradient_clip_algorithm": "norm"}, {"global_clipnorm": 0.05}, "auto"),
        ({"gradient_clip_val": 0.02, "gradient_clip_algorithm": "value"}, {"clipvalue": 0.02}, "auto"),
    ],
    ids=["default", "norm", "value"],
)
def test_clipping_is_that_of_the_optimizer_to_the_bit(
    options: dict[str, Any], own: dict[str, float], jit_compile: Any, quiet: Quiet
) -> None:
    clipped = trained(quiet, Net(sgd), jit_compile=jit_compile, **options)
    assert_same_bits(clipped, trained(quiet, Net(lambda: sgd(**own)), jit_compile=jit_compile))
    free = trained(quiet, Net(sgd))
    assert np.abs(weights(clipped)[0] - weights(free)[0]).max() > 0.05  # it makes a difference


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({"gradient_clip_val": 0.05}, {"global_clipnorm": 0.05}),
        ({"gradient_clip_val": 0.02, "gradient_clip_algorithm": "value"}, {"clipvalue": 0.02}),
    ],
    ids=["norm", "value"],
)
def test_clipping_of_a_compiled_model_is_undone_after_the_fit(
    options: dict[str, Any], own: dict[str, float], quiet: Quiet
) -> None:
    ours, theirs = compiled(sgd()), compiled(sgd(**own))
    for model, arguments in ((ours, options), (theirs, {})):
        quiet(jit_compile=False, **arguments).fit(model, digits())
    assert_same_bits(ours, theirs)
    for name in ("clipnorm", "global_clipnorm", "clipvalue"):
        assert getattr(ours.optimizer, name) is None


def test_clipping_is_undone_after_an_error_too(quiet: Quiet) -> None:
    class Fails(Callback):
        def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
            raise LookupError("lost")

    model = compiled(sgd())
    with pytest.raises(LookupError, match="lost"):
        quiet(gradient_clip_val=0.5, callbacks=Fails(), jit_compile=False).fit(model, digits())
    assert model.optimizer.global_clipnorm is None


def test_each_fit_of_one_module_clips_as_its_trainer_says(quiet: Quiet) -> None:
    module = Net(sgd)
    steps = []
    for options in ({"gradient_clip_val": 0.01}, {}, {"gradient_clip_val": 0.02}):
        before = weights(net())
        if module.model is not None:
            module.model.set_weights(before)
        trained(quiet, module, max_steps=1, **options)
        assert module.model is not None
        moved = [(a - b) / 0.5 for a, b in zip(before, weights(module.model), strict=True)]
        steps.append(float(np.sqrt(sum((part**2).sum() for part in moved))))
    assert steps[0] == pytest.approx(0.01, rel=1e-3)
    assert steps[1] > 0.1
    assert steps[2] == pytest.approx(0.02, rel=1e-3)


def test_a_clip_value_of_0_clips_nothing(quiet: Quiet) -> None:
    assert_same_bits(trained(quiet, Net(sgd), gradient_clip_val=0), trained(quiet, Net(sgd)))


def test_an_optimizer_that_clips_the_same_is_no_contradiction(quiet: Quiet) -> None:
    module = Net(lambda: sgd(global_clipnorm=0.05))
    trained(quiet, module, gradient_clip_val=0.05)
    assert module.optimizer is not None
    assert module.optimizer.global_clipnorm == 0.05  # its own stays


@pytest.mark.parametrize(
    ("own", "options", "message"),
    [
        (
            {"clipnorm": 1.0},
            {"gradient_clip_val": 0.5},
            r"asks for global_clipnorm=0\.5, but the optimizer has {'clipnorm': 1\.0}",
        ),
        ({"global_clipnorm": 1.0}, {"gradient_clip_val": 0.5}, r"but the optimizer has {'global_clipnorm': 1\.0}: leave one"),
        (
            {"clipvalue": 0.5},
            {"gradient_clip_val": 0.5},
            r"asks for global_clipnorm=0\.5, but the optimizer has {'clipvalue': 0\.5}",
        ),
        (
            {"gradient_accumulation_steps": 2},
            {"accumulate_grad_batches": 4},
            r"accumulate_grad_batches is 4, but the optimizer has gradient_accumulation_steps=2",
        ),
    ],
)
def test_an_optimizer_that_contradicts_the_trainer_is_an_error(
    own: dict[str, Any], options: dict[str, Any], message: str, quiet: Quiet
) -> None:
    with pytest.raises(ValueError, match=message):
        trained(quiet, Net(lambda: sgd(**own)), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_clip_val": -1.0}, r"gradient_clip_val is -1\.0: expected 0 \(off\) or more"),
        ({"gradient_clip_val": float("nan")}, "gradient_clip_val is nan"),
        ({"gradient_clip_algorithm": "median"}, "gradient_clip_algorithm is 'median': expected 'norm' or 'value'"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches is 0: expected an int of 1 or more"),
        ({"accumulate_grad_batches": 1.5}, r"accumulate_grad_batches is 1\.5"),
        ({"precision": "16"}, "precision is '16': expected None, '32-true', '16-mixed' or 'bf16-mixed'"),
        ({"accelerator": "tpu"}, "accelerator is 'tpu': expected 'auto', 'cpu' or 'gpu'"),
    ],
)
def test_an_argument_out_of_range_is_named_with_what_was_expected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(**options)


# Accumulation.


@pytest.mark.parametrize("steps", [3, 5])
def test_accumulation_is_that_of_keras(steps: int, quiet: Quiet) -> None:
    ours = compiled(keras.optimizers.SGD(0.2, momentum=0.9))
    theirs = compiled(keras.optimizers.SGD(0.2, momentum=0.9, gradient_accumulation_steps=steps))
    trainer = quiet(accumulate_grad_batches=steps, max_epochs=3, jit_compile=False)
    trainer.fit(ours, digits())
    theirs.fit(X, Y, batch_size=16, shuffle=False, epochs=3, verbose=0)
    assert trainer.global_step == int(theirs.optimizer.iterations) == 15 // steps
    for a, b in zip(weights(ours), weights(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "jit_compile"),
    [(lambda: keras.optimizers.SGD(0.2), False), (lambda: keras.optimizers.Adam(0.05), "auto")],
    ids=["SGD", "Adam by XLA"],
)
def test_a_modules_accumulation_is_that_of_its_optimizer_to_the_bit(
    make: Callable[..., Optimizer], jit_compile: Any, quiet: Quiet
) -> None:
    def accumulating() -> Optimizer:
        return type(make()).from_config({**make().get_config(), "gradient_accumulation_steps": 2})

    ours = trained(quiet, Net(make), accumulate_grad_batches=2, jit_compile=jit_compile)
    assert_same_bits(ours, trained(quiet, Net(accumulating), jit_compile=jit_compile))
    assert np.abs(weights(ours)[0] - weights(trained(quiet, Net(make)))[0]).max() > 0.01


def test_two_accumulated_batches_are_one_batch_of_twice_the_size(quiet: Quiet) -> None:
    accumulated = trained(quiet, Net(lambda: keras.optimizers.SGD(0.2)), accumulate_grad_batches=2, max_epochs=4)
    module = Net(lambda: keras.optimizers.SGD(0.2))
    x, y = np.tile(X, (4, 1)), np.tile(Y, 4)
    quiet(jit_compile=False).fit(module, ArrayLoader(x, y, batch_size=32))
    assert module.model is not None
    for a, b in zip(weights(accumulated), weights(module.model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


class Steps(Callback):
    """Notes global_step at each epoch's end."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        self.steps.append(trainer.global_step)


def test_global_step_counts_optimizer_steps_and_a_partial_accumulation_is_carried_on(quiet: Quiet) -> None:
    steps, module = Steps(), Net()
    trainer = quiet(accumulate_grad_batches=3, max_epochs=4, callbacks=steps, jit_compile=False)
    trainer.fit(module, digits())
    assert steps.steps == [1, 3, 5, 6]  # of 5, 10, 15 and 20 batches
    assert module.optimizer is not None
    assert int(module.optimizer.iterations) == 6


@pytest.fixture(scope="module")
def accumulating() -> Net:
    """A module that the cases of a table share, so that its loop is traced once."""
    return Net()


@pytest.mark.parametrize(("max_steps", "epochs"), [(1, 1), (2, 2), (3, 2), (5, 3)])
def test_max_steps_counts_optimizer_steps(max_steps: int, epochs: int, accumulating: Net, quiet: Quiet) -> None:
    module = accumulating
    trainer = quiet(accumulate_grad_batches=3, max_epochs=-1, max_steps=max_steps, jit_compile=False)
    trainer.fit(module, digits())
    assert (trainer.global_step, trainer.current_epoch) == (max_steps, epochs)
    assert module.optimizer is not None
    assert int(module.optimizer.iterations) == max_steps
    assert trainer.progress.total_batches == 3 * max_steps


def test_logged_steps_are_optimizer_steps(tmp_path: Path, quiet: Quiet) -> None:
    logger = CSVLogger(tmp_path / "metrics.csv")
    quiet(accumulate_grad_batches=2, max_epochs=2, log_every_n_steps=2, logger=logger, jit_compile=False).fit(Net(), digits())
    assert [(int(row["epoch"]), int(row["step"])) for row in table(logger.path)] == [(0, 2), (0, 2), (1, 4), (1, 5)]


@pytest.fixture(scope="module")
def accumulated() -> list[Any]:
    """What a training that accumulates has come to, when it has been made."""
    return []


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_resumed_accumulation_ends_bit_identical(stop: int, accumulated: list[Any], tmp_path: Path, quiet: Quiet) -> None:
    class Stops(Callback):
        def on_train_batch_start(self, trainer: Trainer, module: Module, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == stop:
                raise LookupError("stopped")

    options: dict[str, Any] = {"accumulate_grad_batches": 3, "max_epochs": 4}
    if not accumulated:
        accumulated.append(trained(quiet, Net(), **options))
    with pytest.raises(LookupError, match="stopped"):
        trained(quiet, Net(), **options, callbacks=[Stops(), ModelCheckpoint(tmp_path, every_n_train_steps=1)])
    module = Net()
    trainer = quiet(**options, callbacks=ModelCheckpoint(tmp_path), jit_compile=False)
    trainer.fit(module, digits(), ckpt_path="last")
    assert module.model is not None
    assert_same_bits(module.model, accumulated[0])


def test_a_model_whose_optimizer_was_built_without_accumulation_is_told_so(quiet: Quiet) -> None:
    model = compiled(keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="has been built without accumulation: make it with gradient_accumulation_steps=2"):
        quiet(accumulate_grad_batches=2).fit(model, digits())


def test_a_compiled_models_own_accumulation_is_counted(quiet: Quiet) -> None:
    trainer = quiet(max_epochs=2, jit_compile=False)
    trainer.fit(compiled(keras.optimizers.Adam(gradient_accumulation_steps=2)), digits())
    assert trainer.global_step == 5


# Precision.


@pytest.mark.parametrize(
    ("precision", "policy", "compute"),
    [("bf16-mixed", "mixed_bfloat16", "bfloat16"), ("16-mixed", "mixed_float16", "float16"), ("32-true", "float32", "float32")],
)
def test_precision_is_the_policy_of_the_layers_and_the_net_learns(
    precision: str, policy: str, compute: str, quiet: Quiet
) -> None:
    before = keras.config.dtype_policy()
    module = Net(lambda: keras.optimizers.Adam(0.1))
    trainer = quiet(precision=precision, max_epochs=8, jit_compile=precision != "32-true", num_sanity_val_steps=0)
    trainer.fit(module, digits(), digits())
    assert keras.config.dtype_policy() is before
    assert module.model is not None
    (layer,) = module.model.layers
    assert layer.dtype_policy.name == policy
    assert (layer.compute_dtype, layer.kernel.dtype) == (compute, "float32")
    assert module.model(X).dtype == compute
    assert trainer.callback_metrics["val_loss"] < 0.75 < np.log(3)
    scaling = isinstance(module.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaling is (precision == "16-mixed")


def test_half_precision_ends_close_to_single_precision(quiet: Quiet) -> None:
    losses = {}
    for precision in (None, "bf16-mixed", "16-mixed"):
        trainer = quiet(precision=precision, max_epochs=4, jit_compile=False)
        trainer.fit(Net(), digits(), digits())
        losses[precision] = trainer.callback_metrics["val_loss"]
    assert losses["bf16-mixed"] == pytest.approx(losses[None], abs=0.05)
    assert losses["16-mixed"] == pytest.approx(losses[None], abs=0.02)
    assert len(set(losses.values())) == 3


def test_loss_scaling_skips_a_step_that_overflows_and_trains_on(quiet: Quiet) -> None:
    module = Net(lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.05), initial_scale=2.0**40))
    trainer = quiet(precision="16-mixed", max_epochs=8, jit_compile=False)
    trainer.fit(module, digits(), digits())
    assert isinstance(module.optimizer, keras.optimizers.LossScaleOptimizer)
    assert float(module.optimizer.dynamic_scale) < 2.0**40
    assert trainer.callback_metrics["val_loss"] < np.log(3)


def test_half_precision_goes_with_clipping_and_accumulation(quiet: Quiet) -> None:
    module = Net()
    trainer = quiet(precision="16-mixed", gradient_clip_val=0.5, accumulate_grad_batches=2, max_epochs=2, jit_compile=False)
    trainer.fit(module, digits())
    assert trainer.global_step == 5
    assert isinstance(module.optimizer, keras.optimizers.LossScaleOptimizer)
    assert module.optimizer.inner_optimizer.gradient_accumulation_steps == 2
    assert module.optimizer.inner_optimizer.global_clipnorm is None  # undone


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_compiled_model_with_another_policy_is_an_error(precision: str, quiet: Quiet) -> None:
    with pytest.raises(ValueError, match=rf"precision is '{precision}', but the model was made with .*'float32': call keras"):
        quiet(precision=precision).fit(compiled(sgd()), digits())


def test_a_compiled_model_with_the_same_policy_is_trained(quiet: Quiet) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = compiled(sgd())
    finally:
        keras.config.set_dtype_policy(before)
    trainer = quiet(precision="bf16-mixed", jit_compile=False)
    trainer.fit(model, digits())
    assert trainer.callback_metrics["loss"] < 2
    with pytest.raises(ValueError, match="precision is '32-true', but the model was made with the dtype policy 'mixed_bfloat16'"):
        quiet(precision="32-true").fit(model, digits())


def test_the_global_policy_comes_back_after_an_error_in_configure_model(quiet: Quiet) -> None:
    class Fails(Net):
        def configure_model(self) -> keras.Model:
            assert keras.config.dtype_policy().name == "mixed_bfloat16"
            raise LookupError("no net")

    before = keras.config.dtype_policy()
    with pytest.raises(LookupError, match="no net"):
        quiet(precision="bf16-mixed").fit(Fails(), digits())
    assert keras.config.dtype_policy() is before


def test_a_model_made_in_init_is_told_where_to_make_it(quiet: Quiet) -> None:
    class Early(Net):
        configure_model = Module.configure_model

        def __init__(self) -> None:
            super().__init__()
            self.model = net()

    with pytest.raises(ValueError, match=r"make it in configure_model\(\)"):
        quiet(precision="bf16-mixed").fit(Early(), digits())


# Averages of the weights.


def averaged() -> Optimizer:
    return keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.8)


def test_averages_take_the_weights_place_at_the_end_of_the_fit(quiet: Quiet) -> None:
    class Last(Callback):
        def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
            assert module.model is not None
            self.weights = weights(module.model)

    last, module, theirs = Last(), Net(averaged), compiled(averaged())
    ours = trained(quiet, module, callbacks=last)
    theirs.fit(X, Y, batch_size=16, shuffle=False, epochs=2, verbose=0)
    for a, b in zip(weights(ours), weights(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.abs(weights(ours)[0] - last.weights[0]).max() > 0.01  # the last ones are others
    for a, b in zip(last.weights, weights(trained(quiet, Net())), strict=True):
        np.testing.assert_array_equal(a, b)  # and those of a training without averages


def test_averages_go_on_when_the_training_is_resumed(tmp_path: Path, quiet: Quiet) -> None:
    whole = trained(quiet, Net(averaged), max_epochs=4)
    trained(quiet, Net(averaged), max_epochs=2, callbacks=ModelCheckpoint(tmp_path))
    module = Net(averaged)
    quiet(max_epochs=4, jit_compile=False, callbacks=ModelCheckpoint(tmp_path)).fit(module, digits(), ckpt_path="last")
    assert module.model is not None
    assert_same_bits(module.model, whole)


# Schedules.


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def rates(path: Path, name: str = "lr-Adam") -> list[tuple[int, float]]:
    """The learning rates in a table of `CSVLogger`, with their steps."""
    return [(int(row["step"]), float(row[name])) for row in table(path) if row.get(name)]


def schedule() -> keras.optimizers.schedules.LearningRateSchedule:
    return keras.optimizers.schedules.CosineDecay(0.1, 20)


def by_hand(step: int) -> float:
    """The rate of the schedule for the step after `step` steps."""
    return 0.1 * 0.5 * (1 + np.cos(np.pi * min(step, 20) / 20))


EACH_STEP = [(step, by_hand(step - 1)) for step in (3, 6, 9, 12, 15)]
EACH_EPOCH = [(step, by_hand(step)) for step in (0, 5, 10)]


@pytest.mark.parametrize(
    ("interval", "expected"),
    [("step", EACH_STEP), ("epoch", EACH_EPOCH), (None, sorted([*EACH_STEP, *EACH_EPOCH]))],
)
def test_the_monitor_logs_the_rates_of_the_schedule(
    interval: Any, expected: list[tuple[int, float]], tmp_path: Path, quiet: Quiet
) -> None:
    logger = CSVLogger(tmp_path / "metrics.csv")
    trainer = quiet(max_epochs=3, logger=logger, log_every_n_steps=3, callbacks=LearningRateMonitor(interval), jit_compile=False)
    trainer.fit(Net(lambda: keras.optimizers.Adam(schedule())), digits())
    logged = rates(logger.path)
    assert [step for step, _ in logged] == [step for step, _ in expected]
    assert [rate for _, rate in logged] == pytest.approx([rate for _, rate in expected], rel=1e-5)


def test_a_constant_rate_is_logged_per_epoch(tmp_path: Path, quiet: Quiet) -> None:
    logger = CSVLogger(tmp_path / "metrics.csv")
    trainer = quiet(max_epochs=2, logger=logger, log_every_n_steps=1, callbacks=LearningRateMonitor(), jit_compile=False)
    trainer.fit(Net(lambda: keras.optimizers.SGD(0.25)), digits())
    assert rates(logger.path, "lr-SGD") == [(0, 0.25), (5, 0.25)]
    assert trainer.callback_metrics["lr-SGD"] == 0.25


# Keras 3.15 reads its variables in a way that NumPy 2 is to give up.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_monitor_sees_what_keras_callbacks_do_to_the_rate(tmp_path: Path, quiet: Quiet) -> None:
    logger = CSVLogger(tmp_path / "metrics.csv")
    halving = keras.callbacks.LearningRateScheduler(lambda epoch: 0.5 ** (epoch + 1))
    callbacks = [halving, LearningRateMonitor("step")]
    quiet(max_epochs=3, logger=logger, log_every_n_steps=5, callbacks=callbacks, jit_compile=False).fit(Net(), digits())
    assert rates(logger.path) == [(5, 0.5), (10, 0.25), (15, 0.125)]


def test_the_monitor_reads_through_the_loss_scaling(tmp_path: Path, quiet: Quiet) -> None:
    logger = CSVLogger(tmp_path / "metrics.csv")
    trainer = quiet(precision="16-mixed", logger=logger, callbacks=LearningRateMonitor(), jit_compile=False)
    trainer.fit(Net(), digits())
    assert rates(logger.path) == [(0, pytest.approx(0.05))]


def test_the_monitor_counts_the_schedules_batches_where_gradients_are_accumulated(tmp_path: Path, quiet: Quiet) -> None:
    class Uses(Callback):
        """Notes what the optimizer itself will use for the batch."""

        def __init__(self) -> None:
            self.rates: list[float] = []

        def on_train_batch_start(self, trainer: Trainer, module: Module, batch: Any, batch_idx: int) -> None:
            assert module.optimizer is not None
            self.rates.append(float(module.optimizer.learning_rate))

    logger, uses = CSVLogger(tmp_path / "metrics.csv"), Uses()
    trainer = quiet(
        accumulate_grad_batches=2,
        max_epochs=2,
        logger=logger,
        log_every_n_steps=1,
        callbacks=[uses, LearningRateMonitor("step")],
        jit_compile=False,
    )
    trainer.fit(Net(lambda: keras.optimizers.Adam(schedule())), digits())
    assert len(uses.rates) == 10
    assert rates(logger.path) == [(step, pytest.approx(uses.rates[2 * step - 1])) for step in range(1, 6)]


def test_a_schedule_goes_on_when_the_training_is_resumed(tmp_path: Path, quiet: Quiet) -> None:
    def module() -> Net:
        return Net(lambda: keras.optimizers.Adam(schedule()))

    whole = trained(quiet, module(), max_epochs=3)
    trained(quiet, module(), max_epochs=1, callbacks=ModelCheckpoint(tmp_path / "checkpoints"))
    logger, resumed = CSVLogger(tmp_path / "metrics.csv"), module()
    callbacks = [LearningRateMonitor("epoch"), ModelCheckpoint(tmp_path / "checkpoints")]
    trainer = quiet(max_epochs=3, logger=logger, callbacks=callbacks, jit_compile=False)
    trainer.fit(resumed, digits(), ckpt_path="last")
    assert rates(logger.path) == [(step, pytest.approx(by_hand(step), rel=1e-5)) for step in (5, 10)]
    assert resumed.model is not None
    assert_same_bits(resumed.model, whole)


def test_the_monitor_without_a_logger_is_an_error(quiet: Quiet) -> None:
    with pytest.raises(RuntimeError, match="LearningRateMonitor needs a logger: give the Trainer one, such as logger=CSVLogger"):
        quiet(callbacks=LearningRateMonitor(), jit_compile=False).fit(Net(), digits())


def test_the_monitor_knows_two_intervals() -> None:
    with pytest.raises(ValueError, match="logging_interval is 'batch': expected 'step', 'epoch' or None"):
        LearningRateMonitor("batch")  # type: ignore[arg-type]


# The process: determinism and devices.


def test_deterministic_and_accelerator_reach_tensorflow() -> None:
    program = """
import keras, numpy as np, tensorflow as tf
from mnist_tuner.trainer import ArrayLoader, Callback, Module, Trainer, seed_everything

quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}
tf.random.normal([1])  # allowed so far
try:
    Trainer(accelerator="gpu", **quiet)
except ValueError as error:
    print(error)

class Net(Module):
    def configure_model(self):
        self.device = tf.constant(0.0).device
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dropout(0.5), keras.layers.Dense(3)])

    def training_step(self, batch, batch_idx):
        logits = self.model(batch[0], training=True)
        return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(batch[1], logits, from_logits=True))

    def configure_optimizers(self):
        return keras.optimizers.Adam(0.1)

results = []
for _ in range(2):
    seed_everything(3)
    net = Net()
    x, y = np.random.normal(size=(64, 4)).astype("float32"), np.arange(64) % 3
    Trainer(max_epochs=2, deterministic=True, accelerator="cpu", jit_compile=False, **quiet).fit(net, ArrayLoader(x, y))
    results.append(b"".join(np.array(v.numpy()).tobytes() for v in net.model.variables))
    print(net.device.rpartition("device:")[2])
print(results[0] == results[1])
tf.random.set_seed(None)
try:
    tf.random.normal([1])
except RuntimeError as error:
    print("Random ops require a seed" in str(error))
"""
    lines = python(program, CUDA_VISIBLE_DEVICES="-1").splitlines()
    assert lines == [
        "accelerator is 'gpu', but TensorFlow sees none: take 'auto', or install tensorflow[and-cuda]",
        *("CPU:0", "CPU:0", "True", "True"),
    ]
