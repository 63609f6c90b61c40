"""Keras's own callbacks in our trainer against the same ones in `keras.Model.fit`: equal weights, equal data, equal order."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from mnist_tuner.trainer import ArrayLoader, Callback, ModelCheckpoint, Module, Trainer, fit_keras_model
from tests.support import nets
from tests.support.nets import Quiet, net, points
from tests.trainer.conftest import Reused, Weights, weights

# Keras 3.15 reads and saves its variables in a way that NumPy 2 is to give up.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]

Make = Callable[[], keras.callbacks.Callback]


TRAIN, VALIDATE = points(96, seed=0), points(64, seed=1)  # three batches and two


def compiled(rate: float = 0.05) -> keras.Model:
    """A net of one layer, always with the same weights."""
    model = net("softmax")
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


@functools.cache
def reused(whose: str, rate: float = 0.05) -> Reused:
    """One such net for our trainer and one for Keras."""
    return Reused(functools.partial(compiled, rate))


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """The reused nets are not kept for the next file."""
    yield
    reused.cache_clear()


class Net(nets.Net):
    """The same net in a module, never compiled by Keras."""

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        loss = self.loss(batch)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss


def fit_keras(callbacks: list[keras.callbacks.Callback], epochs: int, rate: float = 0.05) -> keras.Model:
    """Keras's own fit over the examples, with validation."""
    model = reused("Keras", rate)().model
    model.fit(*TRAIN, batch_size=32, shuffle=False, validation_data=VALIDATE, epochs=epochs, callbacks=callbacks, verbose=0)
    return model


def fit_ours(quiet: Quiet, callbacks: list[Any], epochs: int, rate: float = 0.05, **options: Any) -> tuple[keras.Model, Trainer]:
    """The same in our trainer."""
    module = reused("ours", rate)()
    trainer = quiet(max_epochs=epochs, callbacks=callbacks, jit_compile=False, **options)
    trainer.fit(module, ArrayLoader(*TRAIN), ArrayLoader(*VALIDATE))
    return module.model, trainer


def assert_agree(ours: keras.Model, theirs: keras.Model | Weights) -> None:
    """The model's variables agree with another's, or with values, to 1e-5."""
    for a, b in zip(weights(ours), theirs if isinstance(theirs, list) else weights(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


class Rates(keras.callbacks.Callback):
    """Notes each epoch's learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.rates.append(float(self.model.optimizer.learning_rate))


def plateau() -> keras.callbacks.ReduceLROnPlateau:
    return keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=0.1, cooldown=1)


def test_reduce_lr_on_plateau_lowers_the_rate_at_the_same_epochs(quiet: Quiet) -> None:
    ours, theirs = Rates(), Rates()
    model, _ = fit_ours(quiet, [plateau(), ours], epochs=12)
    expected = fit_keras([plateau(), theirs], epochs=12)
    assert ours.rates == theirs.rates
    assert ours.rates[-1] <= 0.0125  # it was lowered twice at least
    assert_agree(model, expected)


def test_a_learning_rate_scheduler_sets_each_epochs_rate(quiet: Quiet) -> None:
    def schedule(epoch: int, rate: float) -> float:
        return rate * 0.5 if epoch else 0.04

    ours, theirs = Rates(), Rates()
    model, _ = fit_ours(quiet, [keras.callbacks.LearningRateScheduler(schedule), ours], epochs=3)
    expected = fit_keras([keras.callbacks.LearningRateScheduler(schedule), theirs], epochs=3)
    assert ours.rates == theirs.rates == pytest.approx([0.04, 0.02, 0.01])
    assert_agree(model, expected)


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_tables(ours: Path, theirs: Path) -> None:
    """The same columns in the same order, and the same rows to 1e-4."""
    left, right = table(ours), table(theirs)
    assert left
    assert list(left[0]) == list(right[0])
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert {k: float(v) for k, v in a.items()} == pytest.approx({k: float(v) for k, v in b.items()}, abs=1e-4)


def test_the_csv_logger_writes_kerass_columns_and_rows(tmp_path: Path, quiet: Quiet) -> None:
    fit_ours(quiet, [keras.callbacks.CSVLogger(tmp_path / "ours.csv")], epochs=3)
    fit_keras([keras.callbacks.CSVLogger(tmp_path / "theirs.csv")], epochs=3)
    assert_same_tables(tmp_path / "ours.csv", tmp_path / "theirs.csv")
    assert list(table(tmp_path / "ours.csv")[0]) == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]


def test_what_one_callback_adds_to_the_logs_reaches_those_after_it(tmp_path: Path, quiet: Quiet) -> None:
    def after_plateau(path: Path) -> list[keras.callbacks.Callback]:
        return [plateau(), keras.callbacks.CSVLogger(path)]

    fit_ours(quiet, after_plateau(tmp_path / "ours.csv"), epochs=3)
    fit_keras(after_plateau(tmp_path / "theirs.csv"), epochs=3)
    assert "learning_rate" in table(tmp_path / "theirs.csv")[0]
    assert_same_tables(tmp_path / "ours.csv", tmp_path / "theirs.csv")


def test_history_holds_the_same_epochs_and_values(quiet: Quiet) -> None:
    ours, theirs = keras.callbacks.History(), keras.callbacks.History()
    fit_ours(quiet, [ours], epochs=3)
    fit_keras([theirs], epochs=3)
    assert ours.epoch == theirs.epoch == [0, 1, 2]
    assert set(ours.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    for name, values in theirs.history.items():
        assert ours.history[name] == pytest.approx(values, abs=1e-5)


def test_early_stopping_stops_at_the_same_epoch_with_the_best_weights(quiet: Quiet) -> None:
    def stopping() -> keras.callbacks.EarlyStopping:
        return keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)

    ours, theirs = stopping(), stopping()
    model, trainer = fit_ours(quiet, [ours], epochs=30, rate=0.6)
    expected = fit_keras([theirs], epochs=30, rate=0.6)
    assert 2 < theirs.stopped_epoch < 29
    assert (ours.stopped_epoch, ours.best_epoch) == (theirs.stopped_epoch, theirs.best_epoch)
    assert trainer.current_epoch == theirs.stopped_epoch + 1
    assert_agree(model, expected)
    assert model.evaluate(*VALIDATE, batch_size=32, verbose=0)[0] == pytest.approx(ours.best, abs=1e-5)


def test_a_lambda_callback_is_called_as_in_keras(quiet: Quiet) -> None:
    def noting(calls: list[Any]) -> keras.callbacks.LambdaCallback:
        return keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs: calls.append(("train begin", logs)),
            on_epoch_begin=lambda epoch, logs: calls.append(("epoch begin", epoch, logs)),
            on_epoch_end=lambda epoch, logs: calls.append(("epoch end", epoch, set(logs))),
            on_train_end=lambda logs: calls.append(("train end", set(logs))),
        )

    ours: list[Any] = []
    theirs: list[Any] = []
    fit_ours(quiet, [noting(ours)], epochs=2)
    fit_keras([noting(theirs)], epochs=2)
    assert len(theirs) == 6
    assert ours == theirs


def test_a_lambda_callback_may_see_the_batches(quiet: Quiet) -> None:
    def noting(calls: list[Any]) -> keras.callbacks.LambdaCallback:
        return keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: calls.append(("begin", batch)),
            on_train_batch_end=lambda batch, logs: calls.append(("end", batch, round(float(logs["loss"]), 4))),
        )

    ours: list[Any] = []
    theirs: list[Any] = []
    fit_ours(quiet, [noting(ours)], epochs=2)
    fit_keras([noting(theirs)], epochs=2)
    assert ours == theirs


@pytest.mark.parametrize("best_only", [False, True])
def test_model_checkpoint_saves_the_same_files_after_epochs(best_only: bool, tmp_path: Path, quiet: Quiet) -> None:
    def saving(folder: str) -> keras.callbacks.ModelCheckpoint:
        path = tmp_path / folder / "{epoch}-{val_loss:.3f}.weights.h5"
        return keras.callbacks.ModelCheckpoint(path, "val_loss", save_best_only=best_only, save_weights_only=True)

    fit_ours(quiet, [saving("ours")], epochs=8, rate=0.6)
    fit_keras([saving("theirs")], epochs=8, rate=0.6)
    names = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    assert (len(names) < 8) is best_only
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == names
    left, right = compiled(), compiled()
    for model in (left, right):
        model.optimizer.build(model.trainable_variables)  # the files hold its state, too
    left.load_weights(tmp_path / "ours" / names[-1])
    right.load_weights(tmp_path / "theirs" / names[-1])
    assert_agree(left, right)


def test_model_checkpoint_saves_whole_models_that_keras_loads(tmp_path: Path, quiet: Quiet) -> None:
    path = tmp_path / "model.keras"
    model, _ = fit_ours(quiet, [keras.callbacks.ModelCheckpoint(path)], epochs=2)
    loaded = keras.models.load_model(path)
    assert_agree(loaded, model)
    assert loaded.evaluate(*VALIDATE, verbose=0) == pytest.approx(model.evaluate(*VALIDATE, verbose=0))


def test_terminate_on_nan_ends_the_fit_at_the_step_and_raises_nothing(quiet: Quiet) -> None:
    x = TRAIN[0].copy()
    x[40] = np.nan  # in the second batch
    theirs = reused("Keras")().model
    theirs.fit(x, TRAIN[1], shuffle=False, epochs=3, callbacks=[keras.callbacks.TerminateOnNaN()], verbose=0)
    assert int(theirs.optimizer.iterations) == 2
    ours = reused("ours")()
    trainer = quiet(max_epochs=3, callbacks=keras.callbacks.TerminateOnNaN(), jit_compile=False)
    trainer.fit(ours, ArrayLoader(x, TRAIN[1]))
    assert trainer.global_step == int(ours.model.optimizer.iterations) == 2
    assert np.isnan(trainer.callback_metrics["loss"])


class Everything(keras.callbacks.Callback):
    """Notes every call with its arguments and the names in its logs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self.logs: list[tuple[str, dict[str, float]]] = []

    def note(self, name: str, *arguments: Any) -> None:
        *others, logs = arguments
        logs = logs or {}
        self.calls.append((name, *others, tuple(sorted(logs))))
        self.logs.append((name, {key: float(value) for key, value in logs.items() if key != "outputs"}))


def _noting(name: str, takes_index: bool) -> Callable[..., None]:
    def on_index(self: Everything, index: int, logs: dict[str, Any] | None = None) -> None:
        self.note(name, index, logs)

    def on_logs(self: Everything, logs: dict[str, Any] | None = None) -> None:
        self.note(name, logs)

    return on_index if takes_index else on_logs


_EPOCHS = ["on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_test_begin", "on_test_end"]
_EPOCHS += ["on_predict_begin", "on_predict_end"]
_BATCHES = [f"on_{verb}_batch_{end}" for verb in ("train", "test", "predict") for end in ("begin", "end")]


class WholeEpochs(Everything):
    """Only what does not happen per batch."""


class EveryBatch(Everything):
    """All of it."""


Recorded = dict[type[Everything], tuple[Everything, Everything]]

for _name in _EPOCHS:
    for _kind in (WholeEpochs, EveryBatch):
        setattr(_kind, _name, _noting(_name, "epoch" in _name))
for _name in _BATCHES:
    setattr(EveryBatch, _name, _noting(_name, True))


def test_a_callback_may_ask_for_the_logs_without_a_default(quiet: Quiet) -> None:
    class Strict(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch: int, logs: dict[str, Any]) -> None:
            assert logs == {}

        def on_test_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
            self.seen = set(logs)

    ours, theirs = Strict(), Strict()
    fit_keras([theirs], epochs=1)
    fit_ours(quiet, [ours], epochs=1)
    assert ours.seen == theirs.seen == {"loss", "accuracy"}


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    """What two epochs call, in our trainer and in Keras's fit."""

    def quiet(**options: Any) -> Trainer:
        return Trainer(**options, logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)

    record: Recorded = {}
    for kind in (WholeEpochs, EveryBatch):
        ours, theirs = record[kind] = kind(), kind()
        fit_ours(quiet, [ours], epochs=2)
        fit_keras([theirs], epochs=2)
    return record


@pytest.mark.parametrize("kind", [WholeEpochs, EveryBatch])
def test_ones_own_callback_is_called_in_kerass_order(kind: type[Everything], recorded: Recorded) -> None:
    ours, theirs = recorded[kind]
    assert [call[:-1] for call in ours.calls] == [call[:-1] for call in theirs.calls]
    assert len(theirs.calls) == (2 + 2 * 4 if kind is WholeEpochs else 2 + 2 * (4 + 2 * 5))


@pytest.mark.parametrize("method", ["on_epoch_end", "on_test_end", "on_train_end"])
def test_the_logs_hold_kerass_names_and_values(method: str, recorded: Recorded) -> None:
    left, right = ([logs for name, logs in each.logs if name == method] for each in recorded[WholeEpochs])
    assert len(right) == (1 if method == "on_train_end" else 2)
    for a, b in zip(left, right, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize(("method", "calls"), [("on_train_batch_end", 6), ("on_test_batch_end", 4)])
def test_a_batch_methods_logs_hold_every_metric_of_the_pass_so_far(method: str, calls: int, recorded: Recorded) -> None:
    left, right = ([logs for name, logs in each.logs if name == method] for each in recorded[EveryBatch])
    assert len({tuple(logs.values()) for logs in right}) == calls
    for a, b in zip(left, right, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("kind", [WholeEpochs, EveryBatch])
def test_the_names_in_the_logs_come_in_kerass_order(kind: type[Everything], recorded: Recorded) -> None:
    left, right = ([(name, list(logs)) for name, logs in each.logs] for each in recorded[kind])
    assert left == right
    assert ("on_epoch_end", ["accuracy", "loss", "val_accuracy", "val_loss"]) in right


def test_the_parameters_say_how_many_epochs_and_steps_there_are(recorded: Recorded) -> None:
    ours, theirs = recorded[WholeEpochs]
    assert ours.params == theirs.params == {"verbose": 0, "epochs": 2, "steps": 3}
    assert isinstance(ours.model, keras.Sequential)


def test_the_parameters_of_a_test_say_how_many_steps_it_has(quiet: Quiet) -> None:
    ours, theirs = WholeEpochs(), WholeEpochs()
    quiet(callbacks=ours).test(reused("ours")(), ArrayLoader(*VALIDATE))
    reused("Keras")().model.evaluate(*VALIDATE, callbacks=[theirs], verbose=0)
    assert ours.params == theirs.params == {"verbose": 0, "epochs": 1, "steps": 2}


@pytest.mark.parametrize("verbose", [1, "auto"])
def test_the_verbosity_is_that_given_to_fit(verbose: Any) -> None:
    ours, theirs, model = WholeEpochs(), WholeEpochs(), reused("ours")().model
    fit_keras_model(model, *TRAIN, callbacks=[ours], verbose=verbose)
    model.fit(*TRAIN, callbacks=[theirs], verbose=verbose)
    assert ours.params == theirs.params


def test_test_and_predict_call_the_methods_that_evaluate_and_predict_call(quiet: Quiet) -> None:
    module = reused("ours")()
    model = module.model
    ours, theirs = EveryBatch(), EveryBatch()
    trainer = quiet(callbacks=ours, jit_compile=False)
    (tested,) = trainer.test(module, ArrayLoader(*VALIDATE))
    trainer.predict(module, ArrayLoader(VALIDATE[0]))
    loss, _ = model.evaluate(*VALIDATE, callbacks=[theirs], verbose=0)
    model.predict(VALIDATE[0], callbacks=[theirs], verbose=0)
    assert [call[:-1] for call in ours.calls] == [call[:-1] for call in theirs.calls]
    assert len(theirs.calls) == 12
    assert [call for call in ours.calls if "predict" in call[0]] == [call for call in theirs.calls if "predict" in call[0]]
    assert tested["test_loss"] == pytest.approx(loss, abs=1e-5)
    (at_end,) = (logs for name, logs in ours.logs if name == "on_test_end")
    assert at_end == pytest.approx({"loss": loss, "accuracy": tested["test_accuracy"]}, abs=1e-5)


class Calls(Callback):
    """Counts how often the loop comes back to Python."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_train_steps_end(self, trainer: Trainer, module: Module) -> None:
        self.steps.append(trainer.global_step)


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (plateau, [2, 3]),
        (WholeEpochs, [2, 3]),
        (lambda: keras.callbacks.ModelCheckpoint("never.keras", save_best_only=True, initial_value_threshold=-1), [2, 3]),
        (lambda: keras.callbacks.BackupAndRestore("never"), [2, 3]),
        (lambda: keras.callbacks.TensorBoard("logs"), [2, 3]),
        (lambda: keras.callbacks.TensorBoard("logs", update_freq=2), [1, 2, 3]),
        (EveryBatch, [1, 2, 3]),
        (keras.callbacks.TerminateOnNaN, [1, 2, 3]),
        (lambda: keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None), [1, 2, 3]),
    ],
    ids=[
        *("ReduceLROnPlateau", "own", "ModelCheckpoint", "BackupAndRestore", "TensorBoard", "TensorBoard-batches"),
        *("own-batches", "TerminateOnNaN", "LambdaCallback"),
    ],
)
def test_only_batch_methods_make_the_loop_run_a_step_per_call(
    make: Make, steps: list[int], quiet: Quiet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calls = Calls()
    trainer = quiet(callbacks=[make(), calls], jit_compile=False, steps_per_call=2)
    trainer.fit(reused("ours")(), ArrayLoader(*TRAIN), ArrayLoader(*VALIDATE))
    assert calls.steps == steps


def test_stop_training_at_an_epochs_end_stops_as_in_keras(quiet: Quiet) -> None:
    class Stops(WholeEpochs):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            self.note("on_epoch_end", epoch, logs)
            self.model.stop_training = epoch == 1

    ours, theirs = Stops(), Stops()
    model, trainer = fit_ours(quiet, [ours], epochs=5)
    expected = fit_keras([theirs], epochs=5)
    assert [call[:-1] for call in ours.calls] == [call[:-1] for call in theirs.calls]
    assert (trainer.current_epoch, trainer.global_step) == (2, 6)
    assert_agree(model, expected)


def test_stop_training_within_an_epoch_stops_after_the_same_step(quiet: Quiet) -> None:
    class Stops(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            self.model.stop_training = int(self.model.optimizer.iterations) == 5

    model, trainer = fit_ours(quiet, [Stops()], epochs=5)
    expected = fit_keras([Stops()], epochs=5)
    assert trainer.global_step == int(expected.optimizer.iterations) == 5
    assert_agree(model, expected)


def test_a_fit_that_was_stopped_can_be_followed_by_another(quiet: Quiet) -> None:
    class Stops(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            self.model.stop_training = True

    model, trainer = fit_ours(quiet, [Stops()], epochs=5)
    assert model.stop_training
    second = quiet(max_epochs=2, jit_compile=False, callbacks=keras.callbacks.History())
    second.fit(model, ArrayLoader(*TRAIN))
    assert (trainer.current_epoch, second.current_epoch) == (1, 2)


def test_callbacks_work_with_a_module_that_keras_never_compiled(tmp_path: Path, quiet: Quiet) -> None:
    rates, history = Rates(), keras.callbacks.History()
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=3, min_delta=0.01, restore_best_weights=True)
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_best_only=True, save_weights_only=True)
    batches = EveryBatch()
    callbacks = [plateau(), rates, history, stopping, saving, batches, keras.callbacks.CSVLogger(tmp_path / "log.csv")]
    net = Net()
    quiet(max_epochs=40, callbacks=callbacks, jit_compile=False).fit(net, ArrayLoader(*TRAIN), ArrayLoader(*VALIDATE))
    assert net.model is not None
    assert not net.model.compiled
    assert 5 < stopping.stopped_epoch < 39
    assert rates.rates[0] == pytest.approx(0.05)
    assert rates.rates[-1] <= 0.0125
    assert history.history["val_loss"][stopping.best_epoch] == stopping.best
    assert batches.calls[1:4] == [
        ("on_epoch_begin", 0, ()),
        ("on_train_batch_begin", 0, ()),
        ("on_train_batch_end", 0, ("loss",)),
    ]
    assert {call[2] for call in batches.calls if call[0] == "on_test_batch_end"} == {("loss",)}
    assert len(table(tmp_path / "log.csv")) == stopping.stopped_epoch + 1
    losses = history.history["val_loss"]
    best = net.model(VALIDATE[0])
    loss = float(tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(VALIDATE[1], best, from_logits=True)))
    assert loss == pytest.approx(losses[stopping.best_epoch], abs=1e-5)


class Stop(Callback):
    """Ends the fit after an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        trainer.should_stop = trainer.current_epoch == self.epoch


@pytest.mark.parametrize("stop_after", [1, 3])
def test_reduce_lr_on_plateau_goes_on_where_it_was_when_resumed(stop_after: int, tmp_path: Path, quiet: Quiet) -> None:
    whole = Rates()
    expected = weights(fit_ours(quiet, [plateau(), whole], epochs=12)[0])
    first, second, resumed = Rates(), Rates(), plateau()
    fit_ours(quiet, [plateau(), first, Stop(stop_after), ModelCheckpoint(tmp_path)], epochs=12)
    model = compiled()
    trainer = quiet(max_epochs=12, callbacks=[resumed, second, ModelCheckpoint(tmp_path)], jit_compile=False)
    trainer.fit(model, ArrayLoader(*TRAIN), ArrayLoader(*VALIDATE), ckpt_path="last")
    assert len(first.rates) == stop_after + 1
    assert second.rates == whole.rates  # the list is kept in the checkpoint, too
    assert_agree(model, expected)


def test_early_stopping_goes_on_counting_when_resumed(tmp_path: Path, quiet: Quiet) -> None:
    def stopping() -> keras.callbacks.EarlyStopping:
        return keras.callbacks.EarlyStopping("val_loss", patience=4, restore_best_weights=True)

    whole, resumed = stopping(), stopping()
    expected = weights(fit_ours(quiet, [whole], epochs=30, rate=0.6)[0])
    assert whole.best_epoch + 4 == whole.stopped_epoch < 29
    fit_ours(quiet, [stopping(), Stop(whole.best_epoch + 2), ModelCheckpoint(tmp_path)], epochs=30, rate=0.6)
    model = compiled(0.6)
    trainer = quiet(max_epochs=30, callbacks=[resumed, ModelCheckpoint(tmp_path)], jit_compile=False)
    trainer.fit(model, ArrayLoader(*TRAIN), ArrayLoader(*VALIDATE), ckpt_path="last")
    assert (resumed.stopped_epoch, resumed.best_epoch, resumed.best) == (whole.stopped_epoch, whole.best_epoch, whole.best)
    assert_agree(model, expected)


def test_a_callback_used_for_a_second_fit_begins_afresh_as_in_keras(quiet: Quiet) -> None:
    stopping = keras.callbacks.EarlyStopping("loss", patience=1, min_delta=100.0)
    for _ in range(2):
        _, trainer = fit_ours(quiet, [stopping], epochs=5)
        assert (trainer.current_epoch, stopping.stopped_epoch) == (2, 1)


# What is written by the batch, by the epoch, and by way of the logs.


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("{epoch}-{batch}-{accuracy:.4f}-{loss:.3f}", {"save_freq": 2}),
        ("{epoch}-{batch}-{accuracy}", {"save_freq": 4}),
        ("{epoch}-{batch}", {"save_freq": 4, "save_best_only": True, "monitor": "accuracy", "mode": "max"}),
        ("{epoch}-{val_accuracy:.4f}", {"save_freq": "epoch", "save_best_only": True, "monitor": "val_accuracy"}),
    ],
)
def test_model_checkpoint_saves_the_same_files_in_each_rhythm(
    name: str, options: dict[str, Any], tmp_path: Path, quiet: Quiet
) -> None:
    def saving(folder: str) -> keras.callbacks.ModelCheckpoint:
        return keras.callbacks.ModelCheckpoint(tmp_path / folder / f"{name}.weights.h5", save_weights_only=True, **options)

    fit_ours(quiet, [saving("ours")], epochs=4)
    fit_keras([saving("theirs")], epochs=4)
    names = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    assert len(names) > 1
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == names
    left, right = compiled(), compiled()
    for model in (left, right):
        model.optimizer.build(model.trainable_variables)
    for each in (names[0], names[-1]):
        left.load_weights(tmp_path / "ours" / each)
        right.load_weights(tmp_path / "theirs" / each)
        assert_agree(left, right)
        assert int(left.optimizer.iterations) == int(right.optimizer.iterations)


def averaged() -> keras.Model:
    """A net whose optimizer keeps moving averages of the weights."""
    model = compiled()
    model.compile(keras.optimizers.SGD(0.2, use_ema=True, ema_momentum=0.8), model.loss, metrics=["accuracy"])
    return model


@pytest.mark.parametrize("on_epoch", [False, True])
def test_averaged_weights_are_swapped_in_and_out_as_in_keras(on_epoch: bool, tmp_path: Path, quiet: Quiet) -> None:
    def callbacks(folder: str) -> list[keras.callbacks.Callback]:
        saving = keras.callbacks.ModelCheckpoint(tmp_path / folder / "{epoch}.weights.h5", save_weights_only=True)
        return [keras.callbacks.SwapEMAWeights(swap_on_epoch=on_epoch), saving, keras.callbacks.History()]

    left, right, ours, theirs = averaged(), averaged(), callbacks("ours"), callbacks("theirs")
    quiet(max_epochs=3, callbacks=ours, jit_compile=False).fit(left, ArrayLoader(*TRAIN), ArrayLoader(*VALIDATE))
    right.fit(*TRAIN, shuffle=False, validation_data=VALIDATE, epochs=3, callbacks=theirs, verbose=0)
    assert_agree(left, right)
    assert_same_histories(ours[-1], theirs[-1])
    for epoch in (1, 2, 3):
        left.load_weights(tmp_path / "ours" / f"{epoch}.weights.h5")
        right.load_weights(tmp_path / "theirs" / f"{epoch}.weights.h5")
        assert_agree(left, right)


def assert_same_histories(ours: keras.callbacks.History, theirs: keras.callbacks.History) -> None:
    """The same epochs, and the same names in the same order with the same values to 1e-5."""
    assert ours.epoch == theirs.epoch
    assert list(ours.history) == list(theirs.history)
    for name, values in theirs.history.items():
        assert ours.history[name] == pytest.approx(values, abs=1e-5), name


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The steps and values under each tag of TensorBoard's files."""
    reader = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    reader.Reload()
    return {
        tag: [(event.step, float(tensor_util.make_ndarray(event.tensor_proto))) for event in reader.Tensors(tag)]
        for tag in reader.Tags()["tensors"]
        if tag != "keras"
    }


@pytest.mark.parametrize("update_freq", ["epoch", 2])
def test_tensorboards_files_hold_the_same_curves(update_freq: Any, tmp_path: Path, quiet: Quiet) -> None:
    def board(folder: str) -> keras.callbacks.TensorBoard:
        return keras.callbacks.TensorBoard(tmp_path / folder, update_freq=update_freq, write_graph=False)

    fit_ours(quiet, [board("ours")], epochs=3)
    fit_keras([board("theirs")], epochs=3)
    for part in ("train", "validation"):
        left, right = scalars(tmp_path / "ours" / part), scalars(tmp_path / "theirs" / part)
        assert left.keys() == right.keys()
        assert ("batch_accuracy" in right) is (part == "train" and update_freq == 2)
        for tag, values in right.items():
            assert [step for step, _ in left[tag]] == [step for step, _ in values]
            assert [value for _, value in left[tag]] == pytest.approx([value for _, value in values], abs=1e-5), tag


def test_kerass_progress_bar_shows_what_it_shows_in_keras_and_ours_stays_away(capsys: pytest.CaptureFixture[str]) -> None:
    module = reused("ours")()
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=2, callbacks=keras.callbacks.ProgbarLogger(), jit_compile=False, **options)
    trainer.fit(module, ArrayLoader(*TRAIN), ArrayLoader(*VALIDATE))
    ours = capsys.readouterr().out
    reused("Keras")().model.fit(*TRAIN, shuffle=False, validation_data=VALIDATE, epochs=2, verbose=1)
    theirs = capsys.readouterr().out
    # How often it draws within an epoch hangs on the clock; what stands there at the epoch's end does not.
    last = re.compile(r"accuracy: \S+ - loss: \S+ - val_accuracy: \S+ - val_loss: \S+")
    assert len(last.findall(theirs)) == 2
    assert last.findall(ours) == last.findall(theirs)
    assert ours.count("Epoch ") == theirs.count("Epoch ") == 2


class Adds(keras.callbacks.Callback):
    """Adds something to the logs of the first epoch and of its second batch."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None and batch == 1:
            logs["added"] = 2.0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None and epoch == 0:
            logs["added"] = 1.0


def test_what_a_callback_adds_to_the_logs_is_there_for_those_after_it_until_the_next(quiet: Quiet) -> None:
    def callbacks() -> list[Any]:
        return [EveryBatch(), Adds(), EveryBatch(), keras.callbacks.History()]

    ours, theirs = callbacks(), callbacks()
    _, trainer = fit_ours(quiet, ours, epochs=2)
    fit_keras(theirs, epochs=2)
    for left, right in zip(ours[:3:2], theirs[:3:2], strict=True):
        assert left.calls == right.calls
    assert ours[-1].history["added"] == theirs[-1].history["added"] == [1.0]
    assert "added" in trainer.callback_metrics  # for callbacks of ours


def test_an_epoch_without_validation_has_no_metrics_of_an_earlier_one(quiet: Quiet) -> None:
    ours, theirs = keras.callbacks.History(), keras.callbacks.History()
    fit_ours(quiet, [ours], epochs=5, check_val_every_n_epoch=2)
    reused("Keras")().model.fit(
        *TRAIN, shuffle=False, validation_data=VALIDATE, validation_freq=2, epochs=5, callbacks=[theirs], verbose=0
    )
    assert len(theirs.history["val_loss"]) == 2
    assert_same_histories(ours, theirs)


# What is set on the model before the first batch.


def set_rate(model: keras.Model) -> None:
    model.optimizer.learning_rate = 0.5


def set_weights(model: keras.Model) -> None:
    model.set_weights([np.full(part.shape, 0.1, np.float32) for part in model.get_weights()])


def set_optimizer(model: keras.Model) -> None:
    model.optimizer = keras.optimizers.SGD(0.3)


def freeze(model: keras.Model) -> None:
    model.layers[0].trainable = False


def stop(model: keras.Model) -> None:
    model.stop_training = True


class Sets(keras.callbacks.Callback):
    """Does something with the model when the training begins, or its first epoch, or its first batch."""

    def __init__(self, change: Callable[[keras.Model], None], when: str) -> None:
        super().__init__()
        self.change = change
        setattr(self, f"on_{when}_begin", getattr(self, f"_{when}"))

    def _train(self, logs: dict[str, Any] | None = None) -> None:
        self.change(self.model)

    def _epoch(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch == 0:
            self.change(self.model)

    def _train_batch(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch == 0:
            self.change(self.model)


def two_layers() -> keras.Model:
    """A net of which a part can be frozen, always with the same weights."""
    layers = [keras.layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(3)) for units in (5, 3)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"], jit_compile=False)
    return model


@pytest.mark.filterwarnings("ignore:A layer's `trainable` state has changed")
@pytest.mark.parametrize(
    ("change", "when"),
    [
        *((change, when) for change in (set_rate, set_weights, set_optimizer, freeze) for when in ("train", "epoch")),
        *((stop, when) for when in ("train", "epoch", "train_batch")),
    ],
)
def test_what_a_callback_sets_on_the_model_counts_as_in_keras(
    change: Callable[[keras.Model], None], when: str, quiet: Quiet
) -> None:
    as_it_was = change not in (set_optimizer, freeze)  # of what else was set nothing is left in a model that is used again
    ours, theirs = (reused(whose)().model if as_it_was else two_layers() for whose in ("ours", "Keras"))
    histories = [keras.callbacks.History(), keras.callbacks.History()]
    left, right = ([Sets(change, when), Rates(), history] for history in histories)
    quiet(max_epochs=2, callbacks=left, jit_compile=False).fit(ours, ArrayLoader(*TRAIN), ArrayLoader(*VALIDATE))
    theirs.fit(*TRAIN, shuffle=False, validation_data=VALIDATE, epochs=2, callbacks=right, verbose=0)
    assert_agree(ours, theirs)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations) == (1 if change is stop else 6)
    assert_same_histories(*histories)


def test_what_is_set_when_the_training_begins_counts_for_a_model_that_was_trained_before(quiet: Quiet) -> None:
    ours, theirs = two_layers(), two_layers()
    for change in (set_rate, set_weights):
        quiet(max_epochs=1, callbacks=Sets(change, "train"), jit_compile=False).fit(ours, ArrayLoader(*TRAIN))
        theirs.fit(*TRAIN, shuffle=False, callbacks=[Sets(change, "train")], verbose=0)
        assert_agree(ours, theirs)
    quiet(max_epochs=1, callbacks=Sets(set_optimizer, "train"), jit_compile=False).fit(ours, ArrayLoader(*TRAIN))
    theirs.compile(keras.optimizers.SGD(0.3), theirs.loss, metrics=["accuracy"])  # without, Keras goes on with the old one
    theirs.fit(*TRAIN, shuffle=False, verbose=0)
    assert_agree(ours, theirs)
    assert int(ours.optimizer.iterations) == 3


class Weighs(keras.Model):
    """Its loss has a factor that is a plain number."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.factor = keras.layers.Dense(1, kernel_initializer="ones"), 1.0

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def compute_loss(self, *arguments: Any, **options: Any) -> Any:
        return self.factor * super().compute_loss(*arguments, **options)


def test_a_number_that_is_set_counts_in_the_validation_too(quiet: Quiet) -> None:
    def double(model: keras.Model) -> None:
        model.factor *= 2

    histories = [keras.callbacks.History(), keras.callbacks.History()]
    ours, theirs = Weighs(), Weighs()
    for model in (ours, theirs):
        model.compile("sgd", "mse", jit_compile=False)
    x, y = TRAIN[0], TRAIN[1].astype(np.float32)
    callbacks = [Sets(double, "train"), histories[0]]
    quiet(callbacks=callbacks, jit_compile=False).fit(ours, ArrayLoader(x, y), ArrayLoader(x, y))  # with a sanity check
    theirs.fit(x, y, shuffle=False, validation_data=(x, y), callbacks=[Sets(double, "train"), histories[1]], verbose=0)
    assert_same_histories(*histories)


# Going on where a fit was interrupted.


class Interrupts(keras.callbacks.Callback):
    """Raises at a batch, counted over all epochs."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.left -= 1
        if self.left < 0:
            raise LookupError("interrupted")


Fit = Callable[[list[Any]], keras.callbacks.History]


def by_keras(callbacks: list[Any]) -> keras.callbacks.History:
    model = reused("Keras")().model
    model._initial_epoch = None  # Keras 3.15 keeps it for all further fits
    return model.fit(*TRAIN, shuffle=False, epochs=5, callbacks=callbacks, verbose=0)


def by_our_fit(callbacks: list[Any]) -> keras.callbacks.History:
    model = reused("ours")().model
    return fit_keras_model(model, *TRAIN, shuffle=False, epochs=5, callbacks=callbacks)


def by_the_trainer(callbacks: list[Any]) -> keras.callbacks.History:
    history = keras.callbacks.History()
    options = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}
    trainer = Trainer(max_epochs=5, callbacks=[*callbacks, history], jit_compile=False, **options)
    trainer.fit(reused("ours")().model, ArrayLoader(*TRAIN))
    assert (trainer.current_epoch, trainer.global_step) == (5, 15)  # as if it had never been stopped
    return history


def after_an_interruption(fit: Fit, folder: Path, at: int, **options: Any) -> keras.callbacks.History:
    """The fit of a new model with what a fit that was interrupted at a batch has backed up."""
    with pytest.raises(LookupError):
        fit([keras.callbacks.BackupAndRestore(folder, **options), Interrupts(at)])
    return fit([keras.callbacks.BackupAndRestore(folder, **options)])


@pytest.mark.parametrize(
    ("fit", "at", "options"),
    [
        *((fit, 8, options) for fit in (by_our_fit, by_the_trainer) for options in ({}, {"save_freq": 2})),
        (by_our_fit, 1, {}),
        (by_our_fit, 6, {"delete_checkpoint": False}),
        (by_our_fit, 8, {"save_freq": 3, "double_checkpoint": True}),
    ],
)
def test_backup_and_restore_goes_on_at_the_epoch_at_which_keras_goes_on(
    fit: Fit, at: int, options: dict[str, Any], tmp_path: Path
) -> None:
    history = after_an_interruption(fit, tmp_path / "ours", at, **options)
    expected = after_an_interruption(by_keras, tmp_path / "theirs", at, **options)
    assert_same_histories(history, expected)
    assert_agree(history.model, expected.model)
    assert int(history.model.optimizer.iterations) == int(expected.model.optimizer.iterations)
    assert (tmp_path / "ours").exists() is (tmp_path / "theirs").exists()
    if not options.get("save_freq"):  # by batches Keras makes those of the epoch again that came before the backup
        whole = by_keras([])
        assert_agree(history.model, whole.model)
        assert history.epoch == whole.epoch[at // 3 :]


def test_the_epoch_that_was_restored_counts_for_one_fit(tmp_path: Path) -> None:
    assert after_an_interruption(by_our_fit, tmp_path, 8).epoch == [2, 3, 4]
    assert by_our_fit([]).epoch == [0, 1, 2, 3, 4]


def test_a_backup_of_the_last_epoch_leaves_nothing_to_train(tmp_path: Path) -> None:
    first = weights(by_our_fit([keras.callbacks.BackupAndRestore(tmp_path / "kept", delete_checkpoint=False)]).model)
    second = by_our_fit([keras.callbacks.BackupAndRestore(tmp_path / "kept")])
    assert second.epoch == []
    assert_agree(second.model, first)


def test_a_backup_counts_where_a_checkpoint_from_within_an_epoch_is_resumed_too(tmp_path: Path, quiet: Quiet) -> None:
    def fit(*callbacks: Any, ckpt_path: Any = None) -> keras.callbacks.History:
        saving, history = ModelCheckpoint(tmp_path / "ours", every_n_train_steps=1), keras.callbacks.History()
        backup = keras.callbacks.BackupAndRestore(tmp_path / "theirs")
        trainer = quiet(max_epochs=5, callbacks=[saving, backup, *callbacks, history], jit_compile=False)
        trainer.fit(reused("ours")().model, ArrayLoader(*TRAIN), ckpt_path=ckpt_path)
        assert trainer.global_step == 15
        return history

    with pytest.raises(LookupError):
        fit(Interrupts(7))  # within the third epoch
    resumed, whole = fit(ckpt_path="last"), by_keras([])
    assert_same_histories(resumed, whole)
    assert_agree(resumed.model, whole.model)
