"""Where two things meet: what a fit leaves for the next verb, streams and shares, Keras's own ways within ours."""

from __future__ import annotations

import csv
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
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    Module,
    Trainer,
)
from mnist_tuner.trainer.module_state import loops_of
from tests.support.nets import Quiet

pytestmark = pytest.mark.slow

X = np.random.default_rng(0).random((40, 4), np.float32)
Y = (X.sum(axis=1, keepdims=True) > 2).astype(np.float32)


def arrays(batch_size: int = 4, **options: Any) -> ArrayLoader:
    return ArrayLoader(X, Y, batch_size=batch_size, **options)


class Line(Module):
    """A line through four numbers."""

    scale = 1.0

    def configure_model(self) -> keras.Model:
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        assert self.model is not None
        loss = self.scale * keras.ops.mean((self.model(batch[0]) - batch[1]) ** 2)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
        assert self.model is not None
        self.log("val_loss", keras.ops.mean((self.model(batch[0]) - batch[1]) ** 2), on_step=True, on_epoch=True)

    def configure_optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(0.01)


def compiled(optimizer: Any = "sgd", **options: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(optimizer, "mse", **options)
    return model


@pytest.mark.parametrize(("share", "steps"), [(0.5, 5), (0.1, 1), (3, 3)])
def test_overfit_batches_takes_its_share_of_a_stream_once(share: float, steps: int, quiet: Quiet) -> None:
    trainer = quiet(overfit_batches=share, jit_compile=False)
    trainer.fit(compiled(), tf.data.Dataset.from_tensor_slices((X, Y)).batch(4))
    assert trainer.global_step == steps


def test_an_early_stop_stays_one_when_the_training_is_resumed(tmp_path: Path, quiet: Quiet) -> None:
    def fit(patience: int, **options: Any) -> Trainer:
        stopping = EarlyStopping("loss", patience=patience, min_delta=100)
        trainer = quiet(max_epochs=9, jit_compile=False, callbacks=[stopping, ModelCheckpoint(tmp_path)])
        trainer.fit(compiled(), arrays(), **options)
        return trainer

    assert fit(2).current_epoch == 3
    assert fit(2, ckpt_path="last").current_epoch == 3
    assert fit(4, ckpt_path="last").current_epoch == 5  # which may wait longer


class Measured(Line):
    """With a metric that makes its variables at its first use, one that has them at once, and a generator, all private."""

    def __init__(self) -> None:
        self._f1 = keras.metrics.F1Score(threshold=0.5)
        self._mean = keras.metrics.Mean()
        self._noise = keras.random.SeedGenerator(3)

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        assert self.model is not None
        x, y = batch
        loss = keras.ops.mean((self.model(x + keras.random.normal((4, 4), seed=self._noise)) - y) ** 2)
        self._f1.update_state(y, self.model(x))
        self._mean.update_state(loss)
        self.log("f1", self._f1.result()[0], on_step=False, on_epoch=True, reduce_fx="last")
        self.log("mean", self._mean, on_step=False, on_epoch=True)
        return loss


def test_private_and_late_made_state_is_resumed_within_an_epoch(tmp_path: Path, quiet: Quiet) -> None:
    def fit(folder: Path, **options: Any) -> tuple[str, Any]:
        ckpt_path = options.pop("ckpt_path", None)
        module = Measured()
        logger = CSVLogger(folder / "metrics.csv")
        trainer = quiet(max_epochs=2, jit_compile=False, logger=logger, callbacks=ModelCheckpoint(folder), **options)
        trainer.fit(module, arrays(), ckpt_path=ckpt_path)
        assert module.model is not None
        return logger.path.read_text(), module.model.get_weights()

    whole = fit(tmp_path / "whole")
    fit(tmp_path / "stopped", max_steps=7)
    resumed = fit(tmp_path / "stopped", ckpt_path="last")
    assert resumed[0] == whole[0]
    for a, b in zip(resumed[1], whole[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_order_that_was_drawn_is_kept_when_the_training_is_resumed(tmp_path: Path, quiet: Quiet) -> None:
    loaders = []

    def fit(**options: Any) -> Any:
        ckpt_path = options.pop("ckpt_path", None)
        loaders.append(arrays(shuffle=True))
        loaders[-1].seed_given, loaders[-1].seed = False, 100 + len(loaders)  # as if drawn
        quiet(jit_compile=False, callbacks=ModelCheckpoint(tmp_path), **options).fit(compiled(), loaders[-1], ckpt_path=ckpt_path)

    fit(max_steps=7)
    fit(max_epochs=2, ckpt_path="last")
    assert [loader.seed for loader in loaders] == [101, 101]
    with pytest.warns(UserWarning, match="began with an order of seed 101 and is resumed with 7"):
        quiet(max_epochs=3, jit_compile=False, callbacks=ModelCheckpoint(tmp_path)).fit(
            compiled(), arrays(shuffle=True, seed=7), ckpt_path="last"
        )


def test_another_number_of_batches_within_an_epoch_warns(tmp_path: Path, quiet: Quiet) -> None:
    quiet(max_steps=7, jit_compile=False, callbacks=ModelCheckpoint(tmp_path)).fit(compiled(), arrays())
    with pytest.warns(UserWarning, match="within an epoch of 10 batches, and now it has 20"):
        quiet(jit_compile=False, callbacks=ModelCheckpoint(tmp_path)).fit(compiled(), arrays(batch_size=2), ckpt_path="last")


def test_the_best_checkpoint_of_a_modules_own_callback_can_be_tested(tmp_path: Path, quiet: Quiet) -> None:
    class Keeps(Line):
        def configure_callbacks(self) -> Any:
            return ModelCheckpoint(tmp_path, monitor="loss")

    module, trainer = Keeps(), quiet(enable_checkpointing=True, max_epochs=2, jit_compile=False)
    trainer.fit(module, arrays())
    assert trainer.validate(module, arrays(), ckpt_path="best")[0]["val_loss"] > 0


def test_the_number_of_steps_is_known_to_a_schedule(quiet: Quiet) -> None:
    seen = []

    class Scheduled(Line):
        def configure_optimizers(self) -> keras.optimizers.Optimizer:
            assert self.trainer is not None
            seen.append(self.trainer.estimated_stepping_batches)
            return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, int(seen[-1])))

    trainer = quiet(max_epochs=3, jit_compile=False)
    trainer.fit(Scheduled(), arrays())
    quiet(max_epochs=3, jit_compile=False, accumulate_grad_batches=2).fit(Scheduled(), arrays())
    quiet(max_epochs=None, max_steps=7, jit_compile=False).fit(Scheduled(), arrays())
    assert seen == [30, 15, 7]
    assert trainer.global_step == 30


def test_the_rate_monitor_goes_by_the_optimizers_own_count(tmp_path: Path, quiet: Quiet) -> None:
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([10], [0.5, 0.125])
    model = compiled(keras.optimizers.SGD(schedule))
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
    logger = CSVLogger(tmp_path / "metrics.csv")
    quiet(jit_compile=False, logger=logger, callbacks=LearningRateMonitor()).fit(model, arrays())
    assert next(csv.DictReader(logger.path.read_text().splitlines()))["lr-SGD"] == "0.125"


def test_the_rate_monitor_needs_no_logger_in_a_fast_dev_run(quiet: Quiet) -> None:
    quiet(fast_dev_run=True, jit_compile=False, callbacks=LearningRateMonitor()).fit(compiled(), arrays())


def test_a_fast_dev_run_keeps_keras_from_saving_too(tmp_path: Path, quiet: Quiet) -> None:
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    quiet(fast_dev_run=True, jit_compile=False, callbacks=saving).fit(compiled(), arrays())
    assert not list(tmp_path.iterdir())


def test_a_plain_attribute_changed_between_two_fits_counts(quiet: Quiet) -> None:
    module, trainer = Line(), quiet(jit_compile=False, limit_train_batches=1)
    trainer.fit(module, arrays())
    module.scale = 100.0
    second = quiet(jit_compile=False, limit_train_batches=1)
    second.fit(module, arrays())
    assert second.callback_metrics["loss"] > 50 * trainer.callback_metrics["loss"]


def test_a_train_step_with_a_loss_of_its_own_is_used_as_it_is(quiet: Quiet) -> None:
    class Own(keras.Model):
        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            return {"loss": loss}

        def predict_step(self, data: Any) -> Any:
            return tf.reduce_sum(self(data[0] if isinstance(data, tuple) else data), axis=1)

    inner = compiled()
    model = Own(inner.inputs, inner.outputs)
    model.compile("sgd")
    trainer = quiet(max_epochs=3, jit_compile=False)
    trainer.fit(model, arrays())
    assert trainer.callback_metrics["loss"] < 1
    assert [outputs.shape for outputs in trainer.predict(model, ArrayLoader(X, batch_size=20))] == [(20,), (20,)]


def test_a_step_value_in_an_epochs_hook_is_refused(quiet: Quiet) -> None:
    class Logs(Line):
        def on_train_epoch_end(self) -> None:
            self.log("x", 7.0, on_step=True)

    with pytest.raises(ValueError, match="on_step is True in a hook of an epoch"):
        quiet(jit_compile=False).fit(Logs(), arrays())


def test_several_loaders_have_their_metrics_per_step_and_epoch(quiet: Quiet) -> None:
    results = quiet(jit_compile=False).validate(Line(), [arrays(), ArrayLoader(X[:4], Y[:4], batch_size=4)])
    for index, result in enumerate(results):
        names = {"val_loss", "val_loss_step", "val_loss_epoch"}
        assert set(result) == {f"{name}/dataloader_idx_{index}" for name in names}


def test_batches_without_an_optimizer_step_are_saved(tmp_path: Path, quiet: Quiet) -> None:
    checkpoint = ModelCheckpoint(tmp_path, monitor="loss", save_top_k=-1)
    quiet(max_epochs=2, accumulate_grad_batches=32, jit_compile=False, callbacks=checkpoint).fit(compiled(), arrays())
    assert len(list(tmp_path.iterdir())) == 2


def test_a_test_in_the_folder_of_a_training_leaves_its_metrics(tmp_path: Path) -> None:
    silent: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": tmp_path}
    model = compiled()
    trainer = Trainer(max_epochs=2, jit_compile=False, **silent)
    trainer.fit(model, arrays())
    before = (tmp_path / "metrics.csv").read_text()
    Trainer(**silent).test(model, arrays())
    assert (tmp_path / "metrics.csv").read_text() == before
    assert len(before.splitlines()) == 3
    trainer.test(model, arrays())  # the trainer that trained adds its row
    assert "test_loss" in (tmp_path / "metrics.csv").read_text()


def test_float16_is_evaluated_by_xla(quiet: Quiet) -> None:
    class Half(Line):
        def configure_model(self) -> keras.Model:
            layers = [keras.layers.Dense(8), keras.layers.Dense(1, dtype="float32")]
            return keras.Sequential([keras.Input((4,)), *layers])

    module, trainer = Half(), quiet(precision="16-mixed", jit_compile=False)
    trainer.fit(module, arrays(), arrays())
    loops = [loop for key, loop in loops_of(module).items() if key[0] == "validate"]
    assert [loop.jit_compiled for loop in loops] == [True]


def test_a_data_module_that_has_no_validation_after_all_is_no_reason_to_warn(quiet: Quiet) -> None:
    from mnist_tuner.trainer import DataModule

    class Data(DataModule):
        def train_dataloader(self) -> Any:
            return arrays()

        def val_dataloader(self) -> Any:
            return None

    class Unvalidated(Line):
        validation_step = Module.validation_step

    class Counts(Callback):
        checks = 0

        def on_sanity_check_start(self, trainer: Trainer, module: Module) -> None:
            self.checks += 1

    counts = Counts()
    quiet(jit_compile=False, callbacks=counts).fit(Unvalidated(), datamodule=Data())
    assert counts.checks == 0
