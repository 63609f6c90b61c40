"""The callbacks and loggers that come with the trainer, and Ctrl-C."""

from __future__ import annotations

import csv
import io
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from rich.console import Console

from mnist_tuner import build_baseline
from mnist_tuner.trainer import (
    ArrayLoader,
    Callback,
    CheckpointError,
    CSVLogger,
    ModelCheckpoint,
    Module,
    RichModelSummary,
    RichProgressBar,
    Trainer,
    read_checkpoint,
)
from tests.trainer.conftest import Digits

pytestmark = pytest.mark.slow


@pytest.fixture
def quiet(quiet: Callable[..., Trainer]) -> Callable[..., Trainer]:
    """The trainer without XLA, whose compilation takes longer than these trainings."""
    return partial(quiet, jit_compile=False)


class CtrlC(Callback):
    """Presses Ctrl-C when the training has come to a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_steps_end(self, trainer: Trainer, module: Module) -> None:
        if trainer.global_step >= self.step:
            signal.raise_signal(signal.SIGINT)


def test_a_file_gets_one_plain_line_per_epoch(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    file = io.StringIO()
    bar = RichProgressBar(Console(file=file, width=80), unit="img")
    quiet(max_epochs=3, callbacks=bar, steps_per_call=1).fit(build_baseline(seed=0), digits(320), digits(320))
    lines = file.getvalue().splitlines()
    assert lines[0].split() == ["loss", "accuracy", "val_loss", "val_accuracy", "img/s", "time"]
    assert [line.split()[1] for line in lines[1:]] == ["1/3", "2/3", "3/3"]
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in file.getvalue()


def test_a_terminal_sees_the_running_epoch_and_keeps_the_finished_ones(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    quiet(max_epochs=2, callbacks=RichProgressBar(console), steps_per_call=1).fit(build_baseline(seed=0), digits(320))
    shown = file.getvalue()
    assert "compiling ..." in shown
    assert "rows/s" in shown
    assert shown.count("\nEpoch 2/2") == 1  # the line that stays
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back


def test_the_cursor_comes_back_after_an_exception(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    with pytest.raises(KeyboardInterrupt):
        quiet(callbacks=[CtrlC(1), RichProgressBar(console)]).fit(build_baseline(seed=0), digits(320))
    assert "\x1b[?25h" in file.getvalue()


def test_the_summary_lists_layers_and_parameters(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    file = io.StringIO()
    quiet(callbacks=RichModelSummary(Console(file=file, width=80)), limit_train_batches=0).fit(
        build_baseline((64, 32), seed=0), digits(64)
    )
    shown = file.getvalue()
    for row in ("flatten Flatten 784 0", "hidden_1 Dense, relu 64 50,240", "output Dense, sigmoid 10 330", "total 52,650"):
        assert row in " ".join(shown.split())


def test_the_newest_checkpoint_is_kept(tmp_path: Path, digits: Digits, quiet: Callable[..., Trainer]) -> None:
    trainer = quiet(max_epochs=3, callbacks=ModelCheckpoint(), default_root_dir=tmp_path)
    model = build_baseline(seed=0)
    trainer.fit(model, digits(320))
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert path.name == "epoch=2-step=30.safetensors"
    assert trainer.checkpoint_callback is not None
    assert trainer.checkpoint_callback.best_model_path == str(path)
    checkpoint = read_checkpoint(path)
    for index, variable in enumerate(model.variables):
        np.testing.assert_array_equal(checkpoint.tensors[f"model/{index}"], variable.numpy())
    assert checkpoint.header.metrics == trainer.callback_metrics


def test_ctrl_c_ends_after_a_whole_step_and_keeps_it(tmp_path: Path, digits: Digits, quiet: Callable[..., Trainer]) -> None:
    before = signal.getsignal(signal.SIGINT)
    trainer = quiet(callbacks=[CtrlC(5), ModelCheckpoint(tmp_path)], steps_per_call=5)
    model = build_baseline(seed=0)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(model, digits(320))
    assert signal.getsignal(signal.SIGINT) is before
    assert (trainer.interrupted, trainer.state.status, trainer.global_step) == (True, "interrupted", 5)
    assert int(model.optimizer.iterations) == 5
    checkpoint = read_checkpoint(tmp_path / "epoch=0-step=5.safetensors")
    assert checkpoint.header.progress.batch != checkpoint.header.num_training_batches
    np.testing.assert_array_equal(checkpoint.tensors["model/0"], model.variables[0].numpy())
    assert trainer.test(model, digits(320))[0]["test_accuracy"] > 0.1  # the trainer is usable again
    assert not trainer.interrupted


def test_an_error_keeps_no_checkpoint_of_a_state_that_is_not_to_be_trusted(
    tmp_path: Path, digits: Digits, quiet: Callable[..., Trainer]
) -> None:
    class Fails(Callback):
        def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
            raise LookupError

    with pytest.raises(LookupError):
        quiet(callbacks=[Fails(), ModelCheckpoint(tmp_path)]).fit(build_baseline(seed=0), digits(320))
    assert list(tmp_path.iterdir()) == []


def test_the_csv_logger_writes_a_row_per_epoch(tmp_path: Path, digits: Digits, quiet: Callable[..., Trainer]) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("from an earlier run\n")
    trainer = quiet(max_epochs=2, logger=CSVLogger(path), num_sanity_val_steps=0)
    trainer.fit(build_baseline(seed=0), digits(320), digits(320))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["epoch"], row["step"]) for row in rows] == [("0", "10"), ("1", "20")]
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert float(rows[1][name]) == trainer.callback_metrics[name]


def test_a_metric_that_appears_late_gets_a_column(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.log_metrics({"epoch": 0, "loss": 0.5}, step=10)
    logger.log_metrics({"epoch": 1, "loss": 0.25, "late": 2}, step=20)
    logger.log_metrics({"epoch": 2, "loss": 0.125}, step=30)
    assert logger.path.read_text() == "epoch,step,loss,late\n0,10,0.5,\n1,20,0.25,2.0\n2,30,0.125,\n"


@pytest.mark.parametrize("hook", ["on_validation_start", "on_train_epoch_end", "on_train_end", "on_fit_end"])
def test_ctrl_c_outside_the_loop_is_neither_lost_nor_costs_what_was_trained(
    hook: str, tmp_path: Path, digits: Digits, quiet: Callable[..., Trainer]
) -> None:
    class Press(Callback):
        def press(self, trainer: Trainer, module: Module) -> None:
            signal.raise_signal(signal.SIGINT)

    setattr(Press, hook, Press.press)
    trainer = quiet(callbacks=[Press(), ModelCheckpoint(tmp_path)], num_sanity_val_steps=0)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(build_baseline(seed=0), digits(320), digits(320))
    assert (trainer.interrupted, trainer.state.status) == (True, "interrupted")
    (path,) = tmp_path.iterdir()
    assert read_checkpoint(path).header.global_step == 10


def test_an_impatient_ctrl_c_within_a_call_leaves_the_last_sure_checkpoint(
    tmp_path: Path, digits: Digits, quiet: Callable[..., Trainer]
) -> None:
    class Twice(Callback):
        def on_train_epoch_start(self, trainer: Trainer, module: Module) -> None:
            if trainer.current_epoch == 1:
                signal.raise_signal(signal.SIGINT)
                trainer.in_call = True  # as if the second one came while the loop runs
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        quiet(max_epochs=3, callbacks=[Twice(), ModelCheckpoint(tmp_path)]).fit(build_baseline(seed=0), digits(320))
    (path,) = tmp_path.iterdir()
    assert path.name == "epoch=0-step=10.safetensors"


def saving(folder: Path, **options: Any) -> tuple[Trainer, ModelCheckpoint]:
    """A trainer of two epochs that saves after each."""
    callback = ModelCheckpoint(folder, **options)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(max_epochs=2, callbacks=[callback], jit_compile=False, **quiet), callback


def small() -> tuple[keras.Model, ArrayLoader]:
    """A model, and four rows for it."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    return model, ArrayLoader(np.ones((4, 2), np.float32), np.ones((4, 1), np.float32), batch_size=2)


@pytest.mark.parametrize("options", [{}, {"monitor": "loss"}], ids=["newest", "best"])
def test_a_file_that_was_to_go_when_the_process_was_killed_goes_with_the_next_start(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = small()
    trainer, _ = saving(tmp_path, **options)
    with monkeypatch.context() as patch:
        patch.setattr(ModelCheckpoint, "_leave", lambda self, newer: None)  # as if killed there each time
        trainer.fit(model, data)
    assert len(list(tmp_path.iterdir())) == 2
    last = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    trainer, callback = saving(tmp_path, **options)
    trainer.fit(model, data, ckpt_path=last)
    assert list(tmp_path.iterdir()) == [last]
    assert callback.best_model_path == str(last)


def test_a_state_that_names_files_elsewhere_touches_none_of_them(tmp_path: Path) -> None:
    model, data = small()
    folder, other = tmp_path / "checkpoints", tmp_path / "other.safetensors"
    other.write_text("somebody else's")
    trainer, callback = saving(folder)
    trainer.fit(model, data)
    state = callback.state_dict() | {"leaving": "../other.safetensors", "best_k_models": {"../other.safetensors": 0.5}}
    trainer, callback = saving(folder)
    callback.load_state_dict(state)
    trainer.fit(model, data)
    assert other.read_text() == "somebody else's"
    assert str(other) not in callback.best_k_models


@pytest.mark.parametrize("state", [{}, {"best_k_models": "x"}, {"best_model_path": 3}], ids=str)
def test_of_a_damaged_state_it_is_told_whose_it_is(state: dict[str, Any], tmp_path: Path) -> None:
    model, data = small()
    trainer, callback = saving(tmp_path)
    trainer.fit(model, data)
    checkpoint = read_checkpoint(Path(callback.best_model_path))
    header = replace(checkpoint.header, callbacks={callback.state_key: state})
    replace(checkpoint, header=header).save(tmp_path / "damaged.safetensors")
    trainer, callback = saving(tmp_path)
    with pytest.raises(CheckpointError, match=re.escape(f"the checkpoint's state of {callback.state_key} is damaged")):
        trainer.fit(model, data, ckpt_path=tmp_path / "damaged.safetensors")
