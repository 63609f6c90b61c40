"""self.log: how values are reduced, under which names they appear, which rows the loggers get, and where it is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from mnist_tuner.trainer import Callback, LambdaCallback, Module, Trainer
from tests.conformance.conftest import Quiet, Rows, Tiny, TinyData, batches

STAGES = ["train", "validation", "test"]
Log = Callable[[Module, tf.Tensor], None]
LoggingIn = Callable[[str, str, str], tuple[Tiny, Callback]]


class Logs(Tiny):
    """Calls a function with the module and the batch's number, in the step of one stage."""

    def __init__(self, stage: str, log: Log) -> None:
        self.stage, self.log_in_step = stage, log

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        if self.stage == "train":
            self.log_in_step(self, batch_idx)
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
        if self.stage == "validation":
            self.log_in_step(self, batch_idx)

    def test_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
        if self.stage == "test":
            self.log_in_step(self, batch_idx)


def run(trainer: Trainer, stage: str, module: Module) -> dict[str, float]:
    """What three batches of two, two and one row leave in callback_metrics."""
    verb = {"train": "fit", "validation": "validate", "test": "test"}[stage]
    getattr(trainer, verb)(module, batches(3, missing=1))
    return trainer.callback_metrics


def value_of(batch_idx: tf.Tensor) -> tf.Tensor:
    """3, 1 and 4."""
    return tf.gather(tf.constant([3.0, 1.0, 4.0]), batch_idx)


REDUCED: dict[str, tuple[dict[str, Any], float]] = {
    "default": ({}, (3 * 2 + 1 * 2 + 4 * 1) / 5),
    "mean": ({"reduce_fx": "mean"}, (3 * 2 + 1 * 2 + 4 * 1) / 5),
    "min": ({"reduce_fx": "min"}, 1),
    "max": ({"reduce_fx": "max"}, 4),
    "sum": ({"reduce_fx": "sum"}, 8),
    "mean of equal weights": ({"batch_size": 7}, (3 + 1 + 4) / 3),
    "sum of equal weights": ({"reduce_fx": "sum", "batch_size": 7}, 8),
}


@pytest.mark.slow
@pytest.mark.parametrize("hooked", [False, True], ids=["long calls", "batch hooks"])
@pytest.mark.parametrize("stage", STAGES)
def test_an_epochs_values_are_reduced_as_asked(stage: str, hooked: bool, quiet: Quiet) -> None:
    def log(module: Module, batch_idx: tf.Tensor) -> None:
        for name, (options, _) in REDUCED.items():
            module.log(name, value_of(batch_idx), on_step=False, on_epoch=True, **options)

    hook = LambdaCallback(**{f"on_{stage}_batch_end": lambda *_: None}) if hooked else Callback()
    metrics = run(quiet(callbacks=hook), stage, Logs(stage, log))
    assert metrics == pytest.approx({name: reduced for name, (_, reduced) in REDUCED.items()})


def test_a_training_step_logs_steps_and_if_asked_epochs(quiet: Quiet) -> None:
    def log(module: Module, batch_idx: tf.Tensor) -> None:
        value = value_of(batch_idx)
        module.log("default", value)
        module.log("step", value, on_step=True)
        module.log("both", value, on_step=True, on_epoch=True)
        module.log("epoch too", value, on_epoch=True)
        module.log("epoch only", value, on_step=False, on_epoch=True)

    assert run(quiet(), "train", Logs("train", log)) == pytest.approx(
        {"default": 4, "step": 4, "epoch only": 2.4}
        | {"both": 2.4, "both_step": 4, "both_epoch": 2.4}
        | {"epoch too": 2.4, "epoch too_step": 4, "epoch too_epoch": 2.4}
    )


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_the_steps_of_the_other_stages_log_epochs(stage: str, quiet: Quiet) -> None:
    def log(module: Module, batch_idx: tf.Tensor) -> None:
        module.log("default", value_of(batch_idx))
        module.log("epoch", value_of(batch_idx), on_epoch=True)
        module.log("step too", value_of(batch_idx), on_step=True)

    metrics = run(quiet(), stage, Logs(stage, log))
    names = {"default", "epoch", "step too", "step too_epoch"}
    assert names <= set(metrics)
    assert [metrics[name] for name in names] == pytest.approx([2.4] * len(names))


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_the_result_of_a_verb_is_what_it_logged(verb: str, quiet: Quiet) -> None:
    def log(module: Module, batch_idx: tf.Tensor) -> None:
        module.log_dict({"x": value_of(batch_idx), "y": 2.0})

    module = Logs({"validate": "validation", "test": "test"}[verb], log)
    trainer = quiet()
    (result,) = getattr(trainer, verb)(module, batches(3, missing=1))
    assert result == pytest.approx({"x": 2.4, "y": 2.0})
    assert trainer.callback_metrics == result


# The rows of the loggers.


def numbered(module: Module, batch_idx: tf.Tensor) -> None:
    """Logs the batch's number in four ways."""
    value = tf.cast(batch_idx, tf.float32)
    module.log("step", value)
    module.log("both", value, on_step=True, on_epoch=True)
    module.log("epoch_only", value, on_step=False, on_epoch=True)
    module.log("unlogged", value, logger=False, on_step=True, on_epoch=True)


@pytest.fixture(scope="module")
def logs_numbers() -> Logs:
    """A module that the cases of a table share, so that its loops are traced once."""
    return Logs("train", numbered)


@pytest.mark.parametrize("steps_per_call", [1, "auto"])
@pytest.mark.parametrize(
    ("every", "steps"), [(1, list(range(1, 9))), (2, [2, 4, 6, 8]), (3, [3, 6]), (5, [5]), (8, [8]), (50, [])]
)
def test_steps_are_logged_at_multiples_of_log_every_n_steps_counted_over_epochs(
    every: int, steps: list[int], steps_per_call: Any, logs_numbers: Logs, quiet: Quiet
) -> None:
    rows = Rows()
    trainer = quiet(logger=rows, log_every_n_steps=every, max_epochs=2, steps_per_call=steps_per_call)
    trainer.fit(logs_numbers, batches(4))
    expected = [(step, (step - 1) % 4) for step in steps]
    assert rows.of("step") == expected
    assert rows.of("both_step") == expected
    assert rows.of("both_epoch") == rows.of("epoch_only") == [(4, 1.5), (8, 1.5)]
    assert not any("unlogged" in name for _, metrics in rows.rows for name in metrics)
    assert trainer.callback_metrics["unlogged"] == 1.5


def test_every_row_names_its_epoch_and_steps_come_every_fifty_by_default(quiet: Quiet) -> None:
    rows = Rows()
    trainer = quiet(logger=rows, max_epochs=2)
    trainer.fit(Logs("train", numbered), batches(60))
    assert rows.of("step") == [(50, 49), (100, 39)]
    assert [(step, metrics["epoch"]) for step, metrics in rows.rows] == [(50, 0), (60, 0), (100, 1), (120, 1)]
    assert trainer.logged_metrics == {"epoch": 1, "both_epoch": 29.5, "epoch_only": 29.5}


def test_a_test_has_one_row_at_the_step_of_the_training(quiet: Quiet) -> None:
    rows, module = Rows(), Logs("test", numbered)
    trainer = quiet(logger=rows)
    trainer.fit(module, batches(4))
    rows.rows.clear()
    trainer.test(module, batches(3))
    assert rows.of("step") == rows.of("both_epoch") == [(4, 1)]
    assert len(rows.rows) == 1


def test_only_what_was_asked_for_is_shown_by_the_progress_display(quiet: Quiet) -> None:
    def log(module: Module, batch_idx: tf.Tensor) -> None:
        module.log("shown", 1.0, prog_bar=True)
        module.log("hidden", 2.0)

    trainer = quiet()
    trainer.fit(Logs("train", log), batches(2))
    assert trainer.progress_bar_metrics == {"shown": 1}
    assert trainer.callback_metrics == {"shown": 1, "hidden": 2}


# Several loaders.


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_of_several_loaders_each_has_its_suffix_and_its_result(verb: str, quiet: Quiet) -> None:
    class Two(Tiny):
        def validation_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
            self.log("x", tf.cast(batch_idx, tf.float32) + 10 * dataloader_idx)

        test_step = validation_step

        def on_validation_epoch_end(self) -> None:
            self.log("all", 5.0)

        on_test_epoch_end = on_validation_epoch_end

    trainer = quiet()
    results = getattr(trainer, verb)(Two(), [batches(3), batches(2)])
    assert results == [{"x/dataloader_idx_0": 1, "all": 5}, {"x/dataloader_idx_1": 10.5, "all": 5}]
    assert trainer.callback_metrics == {"x/dataloader_idx_0": 1, "x/dataloader_idx_1": 10.5, "all": 5}


def test_a_single_loader_in_a_list_has_no_suffix(quiet: Quiet) -> None:
    (result,) = quiet().validate(Tiny(), [batches(2)])
    assert set(result) == {"val_loss"}


@pytest.mark.slow
def test_of_more_than_ten_loaders_each_keeps_its_own(quiet: Quiet) -> None:
    results = quiet().validate(Tiny(), [batches(1 + number) for number in range(12)])
    assert [set(result) for result in results] == [{f"val_loss/dataloader_idx_{number}"} for number in range(12)]


# Errors.


@pytest.mark.parametrize(
    "options",
    [{"prog_bar": True}, {"logger": False}, {"on_step": False, "on_epoch": True}, {"on_epoch": True}, {"reduce_fx": "max"}],
)
def test_one_key_with_different_arguments_is_an_error(options: dict[str, Any], quiet: Quiet) -> None:
    def log(module: Module, batch_idx: tf.Tensor) -> None:
        module.log("x", 1.0)
        module.log("x", 1.0, **options)

    with pytest.raises(ValueError, match=r"'x'.*logged before"):
        quiet().fit(Logs("train", log), batches(2))


def test_one_key_with_the_same_arguments_is_none(quiet: Quiet) -> None:
    def log(module: Module, batch_idx: tf.Tensor) -> None:
        same: list[dict[str, Any]] = [{}, {"batch_size": 3}, {"on_step": True}, {"reduce_fx": "mean"}]
        for number, options in enumerate(same):
            module.log(f"x{number}", 1.0)
            module.log(f"x{number}", 2.0, **options)

    assert run(quiet(), "train", Logs("train", log)) == {"x0": 2, "x1": 2, "x2": 2, "x3": 2}


def test_one_key_may_have_different_arguments_in_training_and_validation(quiet: Quiet) -> None:
    class Both(Tiny):
        def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
            self.log("x", 1.0, on_step=False, on_epoch=True, reduce_fx="sum")
            return self.loss(batch)

        def validation_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
            self.log("x", 5.0, reduce_fx="max", prog_bar=True)

    seen: list[float] = []
    note = LambdaCallback(on_validation_end=lambda trainer, module: seen.append(trainer.callback_metrics["x"]))
    trainer = quiet(callbacks=note, num_sanity_val_steps=0)
    trainer.fit(Both(), batches(3), batches(2))
    assert seen == [5]
    assert trainer.callback_metrics["x"] == 3


@pytest.mark.parametrize(
    "value",
    [tf.zeros(3), tf.zeros((2, 1)), tf.zeros(0), [1.0, 2.0], {"a": 1.0}, "text", None],
    ids=["vector", "matrix", "empty", "list", "dict", "text", "None"],
)
def test_what_is_no_scalar_is_an_error_that_names_the_key(value: Any, quiet: Quiet) -> None:
    with pytest.raises((ValueError, TypeError), match="'the_key'"):
        run(quiet(), "train", Logs("train", lambda module, batch_idx: module.log("the_key", value)))


@pytest.mark.parametrize("value", [tf.zeros(3), "text"], ids=["vector", "text"])
def test_what_is_no_scalar_is_an_error_in_a_hook_too(value: Any, quiet: Quiet) -> None:
    logs = LambdaCallback(on_train_epoch_end=lambda trainer, module: module.log("the_key", value))
    with pytest.raises((ValueError, TypeError), match="'the_key'"):
        quiet(callbacks=logs).fit(Tiny(), batches(1))


def test_any_single_number_is_a_scalar(quiet: Quiet) -> None:
    values = {"int": 3, "bool": True, "float": 3.0}
    values |= {"tensor": tf.constant(3.0), "vector of one": tf.constant([3.0]), "matrix of one": tf.constant([[3]])}
    trainer = quiet(callbacks=LambdaCallback(on_train_epoch_end=lambda trainer, module: module.log_dict(values)))
    trainer.fit(Tiny(), batches(1))
    assert trainer.callback_metrics == dict.fromkeys(values, 3) | {"bool": 1}


def test_a_reduction_that_is_not_known_is_an_error(quiet: Quiet) -> None:
    with pytest.raises(ValueError, match="reduce_fx is 'median'"):
        quiet().fit(Logs("train", lambda module, batch_idx: module.log("x", 1.0, reduce_fx="median")), batches(2))  # type: ignore[arg-type]


FORBIDDEN = [
    *("setup", "teardown", "on_fit_start", "on_fit_end", "on_train_end", "on_validation_end", "on_test_end"),
    *(f"on_predict_{moment}" for moment in ("start", "epoch_start", "batch_start", "batch_end", "epoch_end", "end")),
]
ALLOWED = [
    f"on_{noun}_{moment}" for noun in STAGES for moment in ("start", "epoch_start", "batch_start", "batch_end", "epoch_end")
]


@pytest.fixture(scope="module")
def shared() -> Tiny:
    """A module that the cases of a table share, so that its loops are traced once; each logs under another name."""
    return Tiny()


@pytest.fixture
def logging_in(shared: Tiny, monkeypatch: pytest.MonkeyPatch) -> LoggingIn:
    """Gives a module and a callback, one of which logs a name in a hook."""

    def make(owner: str, hook: str, name: str) -> tuple[Tiny, Callback]:
        callback = Callback()
        logs: Module | Callback = shared if owner == "module" else callback
        monkeypatch.setattr(logs, hook, lambda *_: logs.log(name, 1.0))
        return shared, callback

    return make


def run_with(hook: str, trainer: Trainer, module: Module) -> None:
    """Runs what calls the hook."""
    noun = hook.split("_")[1] if hook.startswith("on_") else ""
    getattr(trainer, noun if noun in ("test", "predict") else "fit")(module, datamodule=TinyData())


@pytest.mark.parametrize(
    ("owner", "hook"),
    [
        *((owner, hook) for owner in ("module", "callback") for hook in FORBIDDEN),
        *(("callback", f"on_sanity_check_{moment}") for moment in ("start", "end")),
    ],
)
def test_where_nothing_is_measured_logging_is_an_error(owner: str, hook: str, logging_in: LoggingIn, quiet: Quiet) -> None:
    module, callback = logging_in(owner, hook, "x")
    with pytest.raises(RuntimeError, match=r"log\('x'\)"):
        run_with(hook, quiet(callbacks=callback), module)


@pytest.mark.parametrize("owner", ["module", "callback"])
@pytest.mark.parametrize("hook", ALLOWED)
def test_in_the_hooks_of_a_stage_a_value_can_be_logged(owner: str, hook: str, logging_in: LoggingIn, quiet: Quiet) -> None:
    name = f"{owner}'s {hook}"
    module, callback = logging_in(owner, hook, name)
    rows = Rows()
    trainer = quiet(callbacks=callback, logger=rows, num_sanity_val_steps=0, log_every_n_steps=1)
    run_with(hook, trainer, module)
    assert trainer.callback_metrics[name] == 1
    assert {value for _, value in rows.of(name)} == {1}


def test_what_is_logged_at_an_epochs_end_is_in_the_epochs_row(quiet: Quiet) -> None:
    class Late(Tiny):
        def on_train_epoch_end(self) -> None:
            self.log("late", 10.0 + self.current_epoch)

    rows = Rows()
    quiet(logger=rows, max_epochs=2).fit(Late(), batches(3))
    assert rows.of("late") == [(3, 10), (6, 11)]


# Afresh.


def test_each_epoch_begins_afresh(quiet: Quiet) -> None:
    class Falls(Tiny):
        """Its numbers become smaller from epoch to epoch, so that an old maximum or sum would show."""

        def __init__(self) -> None:
            self.number = tf.Variable(10.0)

        def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
            for reduction in ("mean", "max", "sum"):
                self.log(f"train_{reduction}", self.number, on_step=False, on_epoch=True, reduce_fx=reduction)
            return self.loss(batch)

        def validation_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
            for reduction in ("mean", "max", "sum"):
                self.log(f"val_{reduction}", self.number, reduce_fx=reduction)

        def on_train_epoch_start(self) -> None:
            self.number.assign(5.0 - self.current_epoch)

    rows = Rows()
    quiet(logger=rows, max_epochs=3).fit(Falls(), batches(2), batches(3))
    for stage, steps in (("train", 2), ("val", 3)):
        assert [value for _, value in rows.of(f"{stage}_mean")] == [5, 4, 3]
        assert [value for _, value in rows.of(f"{stage}_max")] == [5, 4, 3]
        assert [value for _, value in rows.of(f"{stage}_sum")] == [5 * steps, 4 * steps, 3 * steps]


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_each_verb_begins_afresh(verb: str, quiet: Quiet) -> None:
    module = Logs({"validate": "validation"}.get(verb, verb), lambda module, batch_idx: module.log("x", 1.0, reduce_fx="sum"))
    trainer = quiet()
    trainer.fit(module, batches(2), batches(3))
    for _ in range(2):
        assert getattr(trainer, verb)(module, batches(4)) == [{"x": 4}]
        assert trainer.callback_metrics == {"x": 4}


def test_a_metric_that_is_no_longer_logged_is_gone_from_the_rows(quiet: Quiet) -> None:
    class Once(Tiny):
        def on_train_epoch_end(self) -> None:
            if self.current_epoch == 0:
                self.log("once", 1.0)

    rows = Rows()
    quiet(logger=rows, max_epochs=3).fit(Once(), batches(1))
    assert rows.of("once") == [(1, 1)]


# Callbacks.


def test_what_a_callback_logs_is_as_if_the_module_had(quiet: Quiet) -> None:
    class Watches(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.log("number", float(batch_idx), on_step=True, on_epoch=True)

        def on_validation_epoch_end(self, trainer: Trainer, module: Module) -> None:
            self.log("val_number", 7.0)

    rows = Rows()
    trainer = quiet(logger=rows, callbacks=Watches(), log_every_n_steps=2, num_sanity_val_steps=0)
    trainer.fit(Tiny(), batches(4), batches(1))
    assert rows.of("number_step") == [(2, 1), (4, 3)]
    assert rows.of("number_epoch") == [(4, 1.5)]
    assert rows.of("val_number") == [(4, 7)]
    assert {name: trainer.callback_metrics[name] for name in ("number", "number_step", "number_epoch")} == {
        "number": 1.5,
        "number_step": 3,
        "number_epoch": 1.5,
    }


def test_what_a_batch_hook_logs_is_weighted_by_its_batch(quiet: Quiet) -> None:
    class Watches(Callback):
        def on_validation_batch_end(
            self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
        ) -> None:
            self.log("x", [3.0, 1.0, 4.0][batch_idx])

    trainer = quiet(callbacks=Watches())
    trainer.validate(Tiny(), batches(3, missing=1))
    assert trainer.callback_metrics["x"] == pytest.approx(2.4)
