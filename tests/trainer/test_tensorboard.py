"""What TensorBoard's own reader finds in the event files that fits have written."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.util import tensor_util

from mnist_tuner.trainer import ArrayLoader, Callback, CSVLogger, ModelCheckpoint, Module, TensorBoardLogger, Trainer
from tests.support.nets import Quiet

pytestmark = pytest.mark.slow

Curve = list[tuple[int, float]]


class Line(Module):
    """Fits a line through points: 10 batches an epoch; the loss is logged per step and per epoch."""

    def __init__(self, rate: float = 0.05, name: str = "line", deep: bool = False, sizes: tuple[int, ...] = (3, 1)) -> None:
        self.save_hyperparameters()

    def configure_model(self) -> keras.Model:
        return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])

    def loss(self, batch: Any) -> tf.Tensor:
        assert self.model is not None
        return keras.ops.mean((self.model(batch[0]) - batch[1]) ** 2)

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: tf.Tensor) -> None:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: tf.Tensor) -> None:
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(self.hparams.rate)


class Bare(Line):
    """The same without hyperparameters."""

    def __init__(self) -> None:
        pass

    def configure_optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(0.05)


X = np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)


def points() -> ArrayLoader:
    return ArrayLoader(X, 2 * X + 1, batch_size=4)


def read(folder: Path) -> EventAccumulator:
    """The folder as TensorBoard reads it, without leaving anything out."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    return reader


def curve(reader: EventAccumulator, tag: str) -> Curve:
    """The steps and values of a scalar."""
    return [(event.step, tensor_util.make_ndarray(event.tensor_proto).item()) for event in reader.Tensors(tag)]


def column(path: Path, name: str) -> Curve:
    """The same out of a table of `CSVLogger`, in the precision of an event file."""
    with path.open(newline="") as file:
        return [(int(row["step"]), float(np.float32(row[name]))) for row in csv.DictReader(file) if row[name]]


def tags(reader: EventAccumulator) -> set[str]:
    """The names of the scalars."""
    return {tag for tag in reader.Tags()["tensors"] if reader.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"}


def test_scalars_per_step_and_per_epoch_are_those_of_the_csv_logger(tmp_path: Path, quiet: Quiet) -> None:
    loggers = [TensorBoardLogger(tmp_path / "events"), CSVLogger(tmp_path / "metrics.csv")]
    trainer = quiet(max_epochs=3, logger=loggers, log_every_n_steps=4, jit_compile=False)
    trainer.fit(Line(), points(), points())
    reader = read(tmp_path / "events")
    assert tags(reader) == {"epoch", "loss_step", "loss_epoch", "val_loss"}
    for name in ("epoch", "loss_step", "loss_epoch", "val_loss"):
        assert curve(reader, name) == column(tmp_path / "metrics.csv", name)
    assert [step for step, _ in curve(reader, "loss_step")] == [4, 8, 12, 16, 20, 24, 28]
    assert [step for step, _ in curve(reader, "loss_epoch")] == [10, 20, 30]
    assert [step for step, _ in curve(reader, "val_loss")] == [10, 20, 30]
    assert curve(reader, "loss_epoch")[-1][1] == pytest.approx(trainer.callback_metrics["loss_epoch"])
    assert len({value for _, value in curve(reader, "loss_step")}) == 7


def test_the_epochs_are_written_with_the_steps(tmp_path: Path, quiet: Quiet) -> None:
    quiet(max_epochs=2, logger=TensorBoardLogger(tmp_path), log_every_n_steps=5, jit_compile=False).fit(Line(), points())
    assert curve(read(tmp_path), "epoch") == [(5, 0), (10, 0), (10, 0), (15, 1), (20, 1), (20, 1)]


def test_validations_within_an_epoch_stand_at_their_steps(tmp_path: Path, quiet: Quiet) -> None:
    trainer = quiet(max_epochs=2, logger=TensorBoardLogger(tmp_path), val_check_interval=4, jit_compile=False)
    trainer.fit(Line(), points(), points())
    assert [step for step, _ in curve(read(tmp_path), "val_loss")] == [4, 8, 14, 18]


def test_a_test_writes_its_metrics_beside_those_of_the_fit(tmp_path: Path, quiet: Quiet) -> None:
    trainer, line = quiet(max_epochs=2, logger=TensorBoardLogger(tmp_path), jit_compile=False), Line()
    trainer.fit(line, points())
    (tested,) = trainer.test(line, points())
    reader = read(tmp_path)
    assert curve(reader, "test_loss") == [(20, float(np.float32(tested["test_loss"])))]
    assert [step for step, _ in curve(reader, "loss_epoch")] == [10, 20]


def test_the_sanity_check_writes_nothing(tmp_path: Path, quiet: Quiet) -> None:
    trainer = quiet(max_steps=0, logger=TensorBoardLogger(tmp_path), num_sanity_val_steps=2, jit_compile=False)
    trainer.fit(Bare(), points(), points())
    assert list(tmp_path.iterdir()) == []


def test_what_was_logged_is_on_the_disk_after_an_error(tmp_path: Path, quiet: Quiet) -> None:
    class Fails(Callback):
        def on_train_epoch_start(self, trainer: Trainer, module: Module) -> None:
            if trainer.current_epoch == 2:
                raise LookupError("lost")

    trainer = quiet(max_epochs=4, logger=TensorBoardLogger(tmp_path), callbacks=Fails(), jit_compile=False)
    with pytest.raises(LookupError, match="lost"):
        trainer.fit(Line(), points())
    assert [step for step, _ in curve(read(tmp_path), "loss_epoch")] == [10, 20]


def hyperparameters(reader: EventAccumulator) -> dict[str, Any]:
    """The run's hyperparameters as the HParams page takes them."""
    content = reader.PluginTagToContent(metadata.PLUGIN_NAME)[metadata.SESSION_START_INFO_TAG]
    start = metadata.parse_session_start_info_plugin_data(content)
    assert start.group_name
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}


def test_hyperparameters_are_read_by_the_hparams_page(tmp_path: Path, quiet: Quiet) -> None:
    quiet(logger=TensorBoardLogger(tmp_path), jit_compile=False).fit(Line(rate=0.25, name="wide", deep=True), points())
    assert hyperparameters(read(tmp_path)) == {"rate": 0.25, "name": "wide", "deep": True, "sizes": "[3, 1]"}


def test_two_runs_are_two_groups_of_the_hparams_page(tmp_path: Path, quiet: Quiet) -> None:
    groups = []
    for name in ("a", "b"):
        quiet(logger=TensorBoardLogger(tmp_path / name), jit_compile=False).fit(Line(), points())
        content = read(tmp_path / name).PluginTagToContent(metadata.PLUGIN_NAME)[metadata.SESSION_START_INFO_TAG]
        groups.append(metadata.parse_session_start_info_plugin_data(content).group_name)
    assert len(set(groups)) == 2


def test_a_module_without_hyperparameters_writes_scalars_alone(tmp_path: Path, quiet: Quiet) -> None:
    quiet(logger=TensorBoardLogger(tmp_path), jit_compile=False).fit(Bare(), points())
    reader = read(tmp_path)
    assert metadata.SESSION_START_INFO_TAG not in reader.Tags()["tensors"]
    assert [step for step, _ in curve(reader, "loss_epoch")] == [10]


class StopAt(Callback):
    """Ends the fit when it has come to a step, after the last checkpoint."""

    def __init__(self, step: int) -> None:
        self.every_n_train_steps = step
        self.step = step

    def on_train_steps_end(self, trainer: Trainer, module: Module) -> None:
        if trainer.global_step == self.step:
            raise LookupError("stopped")


@pytest.mark.parametrize("module", [Line, Bare])
@pytest.mark.parametrize("stop", [17, 25])
def test_a_resumed_run_shows_no_step_twice(stop: int, module: type[Line], tmp_path: Path, quiet: Quiet) -> None:
    options = {"max_epochs": 3, "log_every_n_steps": 2, "jit_compile": False}
    quiet(**options, logger=TensorBoardLogger(tmp_path / "whole")).fit(module(), points(), points())
    folder, path = tmp_path / "resumed", tmp_path / "metrics.csv"
    checkpoints = tmp_path / "checkpoints"
    with pytest.raises(LookupError, match="stopped"):
        quiet(
            **options,
            logger=[TensorBoardLogger(folder), CSVLogger(path)],
            callbacks=[StopAt(stop), ModelCheckpoint(checkpoints, every_n_train_steps=7)],
        ).fit(module(), points(), points())
    before = curve(read(folder), "loss_step")
    assert before[-1][0] == stop - stop % 2 > stop // 7 * 7  # there is something to be purged
    quiet(
        **options,
        logger=[TensorBoardLogger(folder), CSVLogger(path)],
        callbacks=ModelCheckpoint(checkpoints, every_n_train_steps=7),
    ).fit(module(), points(), points(), ckpt_path="last")
    whole, resumed = read(tmp_path / "whole"), read(folder)
    for name in ("epoch", "loss_step", "loss_epoch", "val_loss"):
        assert curve(resumed, name) == curve(whole, name)
        assert curve(resumed, name) == column(path, name)


def test_a_run_resumed_again_and_again_shows_no_step_twice(tmp_path: Path, quiet: Quiet) -> None:
    def fit(*callbacks: Callback, ckpt_path: str | None) -> None:
        checkpoint = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=7)
        options = {"max_epochs": 3, "log_every_n_steps": 2, "jit_compile": False}
        trainer = quiet(**options, logger=TensorBoardLogger(tmp_path / "events"), callbacks=[*callbacks, checkpoint])
        trainer.fit(Bare(), points(), ckpt_path=ckpt_path)

    for stop in (13, 20, 27):  # each six steps after a checkpoint
        with pytest.raises(LookupError, match="stopped"):
            fit(StopAt(stop), ckpt_path="last" if stop > 13 else None)
    fit(ckpt_path="last")
    reader = read(tmp_path / "events")
    assert [step for step, _ in curve(reader, "loss_step")] == list(range(2, 31, 2))
    assert [step for step, _ in curve(reader, "loss_epoch")] == [10, 20, 30]
