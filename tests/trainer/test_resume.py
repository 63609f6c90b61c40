"""A training that was stopped anywhere and resumed ends as if it had never been stopped: to the bit."""

from __future__ import annotations

import functools
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from mnist_tuner import seed_everything
from mnist_tuner.trainer import (
    Callback,
    CheckpointError,
    CSVLogger,
    DataModule,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    Module,
    Timer,
    Trainer,
    read_checkpoint,
)
from tests.trainer.conftest import Digits, Reused

pytestmark = pytest.mark.slow

STEPS = 12  # of an epoch, in batches of 32
ROWS, ROWS_WITH_A_SHORT_BATCH = 12 * 32, 11 * 32 + 8
EPOCHS = 2


class Stop(Callback):
    """Stops the training at a step, in one way or another."""

    def __init__(self, way: str, step: int) -> None:
        self.way, self.step = way, step
        self.every_n_train_steps = step

    def on_train_steps_end(self, trainer: Trainer, module: Module) -> None:
        if trainer.global_step != self.step:
            return
        match self.way:
            case "should_stop":
                trainer.should_stop = True
            case "Ctrl-C":
                signal.raise_signal(signal.SIGINT)
            case "an exception":
                raise LookupError


def compiled_net() -> keras.Model:
    """A net with every kind of state: dropout's, batch normalisation's, a schedule's, a metric's."""
    seed_everything(5)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            layers.Flatten(),
            layers.Dense(12, "relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(10, "softmax"),
        ]
    )
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.9)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def averaging_net() -> keras.Model:
    """The same net with an optimizer that averages the weights."""
    model = compiled_net()
    optimizer = keras.optimizers.Adam(use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Net(Module):
    """A module with state of its own: a metric, random numbers, a variable; it logs per step, per epoch and in hooks."""

    def __init__(self) -> None:
        self.noise = keras.random.SeedGenerator(3)
        self.accuracy = keras.metrics.SparseCategoricalAccuracy()
        self.seen = keras.Variable(0.0)

    def configure_model(self) -> keras.Model:
        seed_everything(5)
        return keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10)])

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        x, y = batch
        assert self.model is not None
        noise = keras.random.normal(keras.ops.shape(x), stddev=0.1, seed=self.noise)
        logits = self.model(x + noise + keras.random.uniform(keras.ops.shape(x), maxval=0.1))  # with Keras's global seed
        loss = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))
        self.accuracy.update_state(y, logits)
        self.seen.assign_add(1.0)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("worst", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        self.log("seen", self.seen.value, on_step=False, on_epoch=True, reduce_fx="last")
        return loss

    def validation_step(self, batch: Any, batch_idx: tf.Tensor) -> None:
        x, y = batch
        assert self.model is not None
        loss = keras.losses.sparse_categorical_crossentropy(y, self.model(x), from_logits=True)
        self.log("val_loss", keras.ops.mean(loss))

    def on_train_epoch_end(self) -> None:
        self.log("epochs", float(self.current_epoch + 1))

    def configure_optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.AdamW(0.01)


def state(model: keras.Model | Module) -> list[np.ndarray[Any, Any]]:
    """Every variable, copied."""
    if isinstance(model, Module):
        assert model.model is not None
        assert model.optimizer is not None
        variables = [*model.model.variables, *model.optimizer.variables, *model.own_variables()]
    else:
        variables = [*model.variables, *model.optimizer.variables]
    return [np.array(variable.numpy()) for variable in variables]


class Training:
    """One training in a folder, which can be stopped and resumed."""

    def __init__(self, folder: Path, digits: Digits, make: Callable[[], Any], **options: Any) -> None:
        self.folder, self.digits, self.make, self.options = folder, digits, make, options
        self.warnings = 0

    def fit(self, *callbacks: Callback, ckpt_path: str | None = None, **options: Any) -> tuple[Trainer, Any]:
        model = self.make()
        checkpoint = self.options.get("checkpoint", {})
        trainer = Trainer(
            **{
                "max_epochs": EPOCHS,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "default_root_dir": self.folder,
                "log_every_n_steps": 5,
                "jit_compile": False,
                "callbacks": [
                    *callbacks,
                    EarlyStopping("val_loss", patience=100),
                    LearningRateMonitor(),
                    ModelCheckpoint(**checkpoint),
                ],
                **{name: value for name, value in self.options.items() if name != "checkpoint"},
                **options,
            }
        )
        # A short batch is traced by itself, which takes a while; XLA's is a program of another kind, so there it matters.
        rows = ROWS_WITH_A_SHORT_BATCH if self.options.get("jit_compile") else ROWS
        trainer.fit(model, self.digits(rows, shuffle=True), self.digits(100, batch_size=50), ckpt_path=ckpt_path)
        return trainer, model

    @property
    def metrics(self) -> bytes:
        return (self.folder / "metrics.csv").read_bytes()


KINDS = {
    "compiled by XLA": (compiled_net, {"jit_compile": True}),
    "keras.Model": (compiled_net, {}),
    "Module": (Net, {}),
    "validated within epochs": (compiled_net, {"val_check_interval": 5}),
    "validated within epochs, a Module": (Net, {"val_check_interval": 0.25}),
    "validated across epochs": (compiled_net, {"val_check_interval": 7, "check_val_every_n_epoch": None}),
    "accumulating": (compiled_net, {"accumulate_grad_batches": 5}),
    "averaging": (averaging_net, {}),
}
MADE_ANEW = {"compiled by XLA", "Module", "validated within epochs, a Module", "accumulating"}
"""The kinds whose every training has a model of its own; else they reuse one, put back to how it was made."""
Reuse = Callable[[Callable[[], keras.Model]], Reused]
Reference = Callable[[str], tuple[Training, list[np.ndarray[Any, Any]], bytes]]


@pytest.fixture(scope="module")
def references() -> dict[str, tuple[list[np.ndarray[Any, Any]], bytes]]:
    """What the undisturbed trainings came to."""
    return {}


@pytest.fixture(scope="module")
def reuse() -> Reuse:
    """Gives the reused model that a function makes."""
    return functools.cache(Reused)


@pytest.fixture
def undisturbed(
    tmp_path: Path, digits: Digits, reuse: Reuse, references: dict[str, tuple[list[np.ndarray[Any, Any]], bytes]]
) -> Reference:
    """Gives a training of a kind, not yet begun, and the end of its like that was never stopped."""

    def make(kind: str) -> tuple[Training, list[np.ndarray[Any, Any]], bytes]:
        build, options = KINDS[kind]
        if kind not in references:
            reusable = build is not Net and "accumulate_grad_batches" not in options
            whole = Training(tmp_path / "whole", digits, reuse(build) if reusable else build, **options)
            _, model = whole.fit()
            references[kind] = state(model), whole.metrics
        return Training(tmp_path / "stopped", digits, build if kind in MADE_ANEW else reuse(build), **options), *references[kind]

    return make


def assert_same(training: Training, model: Any, weights: list[np.ndarray[Any, Any]], metrics: bytes) -> None:
    for mine, theirs in zip(state(model), weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert training.metrics == metrics


@pytest.mark.parametrize(
    ("kind", "way", "step"),
    [
        ("compiled by XLA", "Ctrl-C", 17),
        *(
            ("validated within epochs", way, step)
            for way in ("max_steps", "should_stop", "Ctrl-C")
            for step in (1, 5, 11, 12, 13, 23)
        ),
    ],
)
def test_a_training_stopped_at_a_step_is_resumed_to_the_bit(kind: str, way: str, step: int, undisturbed: Reference) -> None:
    training, weights, metrics = undisturbed(kind)
    if way == "max_steps":
        training.fit(max_steps=step)
    elif way == "should_stop":
        training.fit(Stop(way, step))
    else:
        with pytest.raises(KeyboardInterrupt):
            training.fit(Stop(way, step))
    trainer, model = training.fit(ckpt_path="last")
    assert (trainer.current_epoch, trainer.global_step) == (EPOCHS, EPOCHS * STEPS)
    assert_same(training, model, weights, metrics)


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("Module", 16),
        *((kind, step) for kind in ("validated within epochs, a Module", "validated across epochs") for step in (3, 16)),
        ("accumulating", 3),
    ],
)
def test_every_kind_of_state_is_resumed(kind: str, step: int, undisturbed: Reference) -> None:
    training, weights, metrics = undisturbed(kind)
    with pytest.raises(KeyboardInterrupt):
        training.fit(Stop("Ctrl-C", step))
    _, model = training.fit(ckpt_path="last")
    assert_same(training, model, weights, metrics)


def test_a_training_that_failed_goes_on_from_its_last_checkpoint(undisturbed: Reference) -> None:
    training, weights, metrics = undisturbed("validated within epochs")
    training.options["checkpoint"] = {"every_n_train_steps": 4}
    with pytest.raises(LookupError):
        training.fit(Stop("an exception", 15))
    (path,) = (training.folder / "checkpoints").iterdir()
    assert read_checkpoint(path).header.global_step == 12
    _, model = training.fit(ckpt_path="last")
    assert_same(training, model, weights, metrics)


def test_a_training_whose_time_is_over_is_resumed(undisturbed: Reference) -> None:
    training, weights, metrics = undisturbed("keras.Model")
    trainer, _ = training.fit(max_time={"seconds": 1e-6}, min_steps=17)
    assert trainer.global_step == 17
    _, model = training.fit(ckpt_path="last")
    assert_same(training, model, weights, metrics)


def test_a_training_may_be_stopped_again_and_again(undisturbed: Reference) -> None:
    training, weights, metrics = undisturbed("validated within epochs")
    for step in (2, 5, 9, 12, 14, 20):
        training.fit(max_steps=step, ckpt_path="last" if step > 2 else None)
    _, model = training.fit(ckpt_path="last")
    assert_same(training, model, weights, metrics)


@pytest.mark.parametrize("hook", ["on_validation_start", "on_validation_epoch_end", "on_validation_end", "on_train_epoch_start"])
def test_a_ctrl_c_between_the_batches_is_resumed_to_the_bit(hook: str, undisturbed: Reference) -> None:
    training, weights, metrics = undisturbed("validated within epochs")

    class Press(Callback):
        def press(self, trainer: Trainer, module: Module) -> None:
            if trainer.global_step >= 5:
                signal.raise_signal(signal.SIGINT)

    setattr(Press, hook, Press.press)
    with pytest.raises(KeyboardInterrupt):
        training.fit(Press())
    _, model = training.fit(ckpt_path="last")
    assert_same(training, model, weights, metrics)


def test_a_resumed_training_predicts_and_measures_the_same(tmp_path: Path, digits: Digits, reuse: Reuse) -> None:
    whole, stopped = (Training(tmp_path / name, digits, reuse(compiled_net)) for name in ("whole", "stopped"))
    stopped.fit(max_steps=7)
    outcomes = []
    for training, ckpt_path in ((whole, None), (stopped, "last")):
        trainer, model = training.fit(ckpt_path=ckpt_path)
        outcomes.append((trainer.test(model, digits(200)), trainer.predict(model, digits(200)), trainer.callback_metrics))
    assert outcomes[0][0] == outcomes[1][0]
    for a, b in zip(outcomes[0][1], outcomes[1][1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert outcomes[0][2] == outcomes[1][2]


def test_early_stopping_counts_on(tmp_path: Path, digits: Digits, reuse: Reuse) -> None:
    def training(name: str, patience: int) -> tuple[EarlyStopping, Callable[..., Trainer]]:
        stopping = EarlyStopping("val_loss", patience=patience, min_delta=100)  # never good enough

        def fit(**options: Any) -> Trainer:
            ckpt_path = options.pop("ckpt_path", None)
            trainer = Trainer(
                **{"max_epochs": 10, **options},
                callbacks=[stopping, ModelCheckpoint(tmp_path / name)],
                enable_progress_bar=False,
                enable_model_summary=False,
                logger=False,
                jit_compile=False,
            )
            trainer.fit(reuse(compiled_net)(), digits(64), digits(32), ckpt_path=ckpt_path)
            return trainer

        return stopping, fit

    _, whole = training("whole", patience=4)
    _, first = training("stopped", patience=4)
    first(max_epochs=3)
    resumed, second = training("stopped", patience=4)
    trainer = second(ckpt_path="last")
    assert trainer.current_epoch == whole().current_epoch == 5  # the first check sets the score, four more do not better it
    assert resumed.wait_count == 4


def test_a_checkpoint_of_an_early_stop_within_an_epoch_has_no_check_too_many(
    tmp_path: Path, digits: Digits, reuse: Reuse
) -> None:
    training = Training(tmp_path, digits, reuse(compiled_net))
    training.fit(Stop("should_stop", 7))
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert read_checkpoint(path).header.callbacks["EarlyStopping(val_loss, min)"]["best_score"] == math.inf


def test_top_k_goes_on_with_the_files_that_are_there(tmp_path: Path, digits: Digits, reuse: Reuse) -> None:
    checkpoint = {"monitor": "loss", "save_top_k": 2, "save_last": True, "filename": "{epoch}"}
    net = reuse(compiled_net)
    whole, stopped = (Training(tmp_path / name, digits, net, checkpoint=checkpoint) for name in ("whole", "stopped"))
    ends = [whole.fit(max_epochs=4)[0]]
    stopped.fit(max_epochs=2)
    ends.append(stopped.fit(max_epochs=4, ckpt_path="last")[0])
    kept = [sorted(path.name for path in (training.folder / "checkpoints").iterdir()) for training in (whole, stopped)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 3
    scores = []
    for trainer in ends:
        assert trainer.checkpoint_callback is not None
        scores.append({Path(path).name: score for path, score in trainer.checkpoint_callback.best_k_models.items()})
    assert scores[0] == scores[1]


def test_a_moved_folder_can_be_resumed(tmp_path: Path, undisturbed: Reference) -> None:
    training, weights, metrics = undisturbed("keras.Model")
    training.fit(max_steps=14)
    shutil.move(training.folder, tmp_path / "elsewhere")
    training.folder = tmp_path / "elsewhere"
    trainer, model = training.fit(ckpt_path="last")
    assert_same(training, model, weights, metrics)
    assert [path.name for path in (training.folder / "checkpoints").iterdir()] == ["epoch=1-step=24.safetensors"]
    assert trainer.checkpoint_callback is not None
    assert Path(trainer.checkpoint_callback.best_model_path).is_file()


def test_a_torn_checkpoint_is_passed_over_for_the_one_before(undisturbed: Reference) -> None:
    training, weights, metrics = undisturbed("keras.Model")
    training.options["checkpoint"] = {"save_top_k": -1, "every_n_train_steps": 5}
    training.fit(max_steps=15)
    newest = training.folder / "checkpoints" / "epoch=1-step=15.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    os.utime(newest)
    with pytest.warns(UserWarning, match=r"step=15.safetensors: not a whole checkpoint .* it is passed over"):
        trainer, model = training.fit(ckpt_path="last")
    assert trainer.global_step == EPOCHS * STEPS
    assert_same(training, model, weights, metrics)
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        training.fit(ckpt_path=str(newest))


def test_a_finished_training_is_not_trained_again(undisturbed: Reference) -> None:
    training, weights, metrics = undisturbed("keras.Model")
    training.fit()
    trainer, model = training.fit(ckpt_path="last")
    assert (trainer.current_epoch, trainer.global_step) == (EPOCHS, EPOCHS * STEPS)
    assert_same(training, model, weights, metrics)


@pytest.mark.parametrize("stopped_at", [7, EPOCHS * STEPS])
def test_averaged_weights_are_those_of_a_training_never_stopped(stopped_at: int, undisturbed: Reference) -> None:
    training, weights, metrics = undisturbed("averaging")
    training.fit(max_steps=stopped_at)
    _, model = training.fit(ckpt_path="last")
    assert_same(training, model, weights, metrics)


def test_last_without_a_checkpoint_starts_afresh_with_a_warning(undisturbed: Reference) -> None:
    training, weights, metrics = undisturbed("keras.Model")
    with pytest.warns(UserWarning, match='ckpt_path is "last", but there is no checkpoint in .*: the training starts afresh'):
        _, model = training.fit(ckpt_path="last")
    assert_same(training, model, weights, metrics)


def test_resuming_with_another_kind_of_loop_warns(tmp_path: Path, digits: Digits, reuse: Reuse) -> None:
    training = Training(tmp_path, digits, reuse(compiled_net))
    training.fit(max_steps=5)
    training.options["jit_compile"] = True
    with pytest.warns(UserWarning, match="made with a plain graph and is resumed with XLA"):
        training.fit(ckpt_path="last")


def test_resuming_with_another_model_is_refused(tmp_path: Path, digits: Digits, reuse: Reuse) -> None:
    training = Training(tmp_path, digits, reuse(compiled_net))
    training.fit(max_steps=5)

    def other() -> keras.Model:
        model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    training.make = other
    with pytest.raises(CheckpointError, match="the checkpoint does not fit the model"):
        training.fit(ckpt_path="last")


def test_resuming_with_other_threads_warns(tmp_path: Path, digits: Digits, reuse: Reuse) -> None:
    training = Training(tmp_path, digits, reuse(compiled_net))
    training.fit(max_steps=5)
    training.fit(max_steps=5, ckpt_path="last")  # of which nothing is to be said
    (path,) = (tmp_path / "checkpoints").iterdir()
    checkpoint = read_checkpoint(path)
    assert checkpoint.header.threads == tf.config.threading.get_intra_op_parallelism_threads()
    other = checkpoint.header.threads + 2
    replace(checkpoint, header=replace(checkpoint.header, threads=other)).save(path)  # as by a process that was given others
    with pytest.warns(UserWarning, match=f"made with {other} threads and is resumed with"):
        training.fit(max_steps=5, ckpt_path="last")


def test_what_callbacks_module_and_datamodule_save_comes_back(tmp_path: Path, digits: Digits) -> None:
    array = np.arange(6, dtype=np.float16).reshape(2, 3)

    class Keeper(Callback):
        def __init__(self) -> None:
            self.counts: Any = 0

        def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
            self.counts += 1

        def state_dict(self) -> dict[str, Any]:
            return {"counts": self.counts, "nested": {"array": array, "list": [1.5, None, "text"]}}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.loaded = state_dict
            self.counts = state_dict["counts"]

        def on_save_checkpoint(self, trainer: Trainer, module: Module, checkpoint: dict[str, Any]) -> None:
            checkpoint["from the callback"] = array[0]

        def on_load_checkpoint(self, trainer: Trainer, module: Module, checkpoint: dict[str, Any]) -> None:
            self.entries = checkpoint

    class Keeping(Net):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["from the module"] = {"seen": float(self.seen.numpy())}

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.entries = checkpoint

    class Data(DataModule):
        def train_dataloader(self) -> Any:
            return digits(64)

        def state_dict(self) -> dict[str, Any]:
            return {"position": 17}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.loaded = state_dict

    def fit(keeper: Keeper, module: Keeping, data: Data, **options: Any) -> None:
        silent = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "jit_compile": False}
        ckpt_path = options.pop("ckpt_path", None)
        trainer = Trainer(callbacks=[keeper, ModelCheckpoint(tmp_path)], **silent, **options)  # type: ignore[arg-type]
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)

    fit(Keeper(), Keeping(), Data(), max_epochs=2)
    keeper, module, data = Keeper(), Keeping(), Data()
    fit(keeper, module, data, max_epochs=3, ckpt_path="last")
    assert keeper.counts == 3
    np.testing.assert_array_equal(keeper.loaded["nested"]["array"], array)
    assert keeper.loaded["nested"]["list"] == [1.5, None, "text"]
    np.testing.assert_array_equal(keeper.entries["from the callback"], array[0])
    assert module.entries["from the module"] == {"seen": 4.0}
    assert module.entries["epoch"] == 1
    assert data.loaded == {"position": 17}


def test_two_callbacks_of_a_kind_keep_their_own_state(tmp_path: Path, digits: Digits, reuse: Reuse) -> None:
    class Number(Callback):
        def __init__(self, number: int) -> None:
            self.number = number

        def state_dict(self) -> dict[str, Any]:
            return {"number": self.number}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.number = state_dict["number"]

    training = Training(tmp_path, digits, reuse(compiled_net))
    training.fit(Number(1), Number(2), max_steps=2)
    fresh = [Number(0), Number(0)]
    training.fit(*fresh, ckpt_path="last", max_steps=4)
    assert [each.number for each in fresh] == [1, 2]


def test_a_state_that_cannot_be_kept_is_named(tmp_path: Path, digits: Digits, reuse: Reuse) -> None:
    class Odd(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"it": object()}

    with pytest.raises(TypeError, match="a checkpoint can keep JSON values and numpy arrays, but no object"):
        Training(tmp_path, digits, reuse(compiled_net)).fit(Odd(), max_steps=2)
    assert not any((tmp_path / "checkpoints").iterdir())


def test_metrics_csv_torn_in_its_last_line_is_cut_back(undisturbed: Reference) -> None:
    training, weights, metrics = undisturbed("keras.Model")
    training.fit(max_steps=20)
    with (training.folder / "metrics.csv").open("a") as file:
        file.write("1,24,0.00")  # killed while it was written
    _, model = training.fit(ckpt_path="last")
    assert_same(training, model, weights, metrics)


def test_a_timer_goes_on_from_where_it_was(tmp_path: Path, digits: Digits, reuse: Reuse) -> None:
    class Look(Callback):
        def on_fit_start(self, trainer: Trainer, module: Module) -> None:
            self.seen = [each.time_elapsed() for each in trainer.callbacks if isinstance(each, Timer)]

    training, look = Training(tmp_path, digits, reuse(compiled_net)), Look()
    training.fit(Timer(), max_steps=3)
    (path,) = (tmp_path / "checkpoints").iterdir()
    saved = read_checkpoint(path).header.callbacks["Timer"]["time_elapsed"]["train"]
    assert saved > 0
    over = Timer(duration={"seconds": saved})
    trainer, _ = training.fit(over, look, ckpt_path="last")
    assert look.seen == [saved]
    assert trainer.global_step == 3  # its time was over before it began
    assert over.time_remaining() <= 0  # type: ignore[operator]


def test_a_logger_that_lacks_rows_says_so(tmp_path: Path, digits: Digits, reuse: Reuse) -> None:
    training = Training(tmp_path, digits, reuse(compiled_net))
    training.fit(max_epochs=1)
    with pytest.warns(UserWarning, match="holds 0 rows of the 4 at the checkpoint"):
        training.fit(ckpt_path="last", logger=CSVLogger(tmp_path / "another" / "metrics.csv"))
    assert len((tmp_path / "another" / "metrics.csv").read_text().splitlines()) == 5
