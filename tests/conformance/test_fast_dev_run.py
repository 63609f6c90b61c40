"""fast_dev_run: a few batches of everything, once, leaving nothing on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mnist_tuner.trainer import Callback, CSVLogger, EarlyStopping, LambdaCallback, ModelCheckpoint, Trainer
from tests.conformance.conftest import Journal, Quiet, Rows, Scripted, Tiny, batches

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("run", "number"), [(True, 1), (1, 1), (3, 3), (99, 5)])
def test_it_takes_so_many_batches_of_each_stage(run: bool | int, number: int, quiet: Quiet) -> None:
    journal = Journal()
    trainer, module = quiet(callbacks=journal.callback(), fast_dev_run=run, max_epochs=7), journal.module()
    trainer.fit(module, batches(5), batches(5))
    trainer.validate(module, batches(5))
    trainer.test(module, batches(5))
    trainer.predict(module, batches(5))
    for noun, times in (("train", 1), ("validation", 2), ("test", 1), ("predict", 1)):
        assert len([entry for entry in journal.entries if entry.startswith(f"C.on_{noun}_batch_start")]) == number * times
    assert (trainer.current_epoch, trainer.global_step) == (1, number)
    assert not [entry for entry in journal.entries if "sanity" in entry]


@pytest.mark.parametrize(
    "options",
    [
        {"max_epochs": 9, "max_steps": 50},
        {"max_epochs": -1},
        {"max_epochs": 0},
        {"limit_train_batches": 0.5, "limit_val_batches": 0.2},
        {"limit_val_batches": 0},
        {"overfit_batches": 4},
        {"num_sanity_val_steps": 5},
        {"val_check_interval": 0.2},
        {"check_val_every_n_epoch": 3},
        {"check_val_every_n_epoch": None, "val_check_interval": 100},
    ],
)
def test_the_other_arguments_of_that_kind_do_not_count(options: dict[str, Any], quiet: Quiet) -> None:
    journal = Journal()
    trainer = quiet(callbacks=journal.callback(), fast_dev_run=2, **options)
    trainer.fit(journal.module(), batches(5), batches(5))
    assert trainer.global_step == 2
    assert journal.entries.count("C.on_validation_start") == 1
    assert journal.entries.count("C.on_validation_batch_start[1]") == 1
    assert journal.entries.count("C.on_validation_batch_start[2]") == 0


@pytest.mark.parametrize("run", [False, 0])
def test_false_and_zero_are_no_such_run(run: bool | int, quiet: Quiet) -> None:
    trainer = quiet(fast_dev_run=run, max_epochs=2)
    trainer.fit(Tiny(), batches(5))
    assert (trainer.current_epoch, trainer.global_step) == (2, 10)


@pytest.mark.parametrize("run", [-1, 1.5])
def test_a_number_out_of_range_is_an_error_that_names_the_argument(run: Any) -> None:
    with pytest.raises(ValueError, match=f"fast_dev_run is {run}"):
        Trainer(fast_dev_run=run)


def test_it_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    callbacks = [ModelCheckpoint(tmp_path / "kept"), ModelCheckpoint()]
    trainer = Trainer(
        fast_dev_run=True,
        callbacks=callbacks,
        logger=CSVLogger(tmp_path / "metrics.csv"),
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        jit_compile=False,
    )
    trainer.fit(Tiny(), batches(2), batches(2))
    assert list(tmp_path.iterdir()) == []
    assert (trainer.loggers, trainer.logger, trainer.checkpoint_callback) == ([], None, None)


def test_the_loggers_given_get_nothing(quiet: Quiet) -> None:
    rows = Rows()
    trainer = quiet(fast_dev_run=True, logger=rows, log_every_n_steps=1)
    trainer.fit(Scripted([1.0]), batches(2), batches(2))
    assert (rows.rows, rows.closed) == ([], [])
    assert trainer.callback_metrics["x"] == 1


@pytest.mark.parametrize("brought_by", ["trainer", "module"])
def test_no_checkpoint_is_kept_whoever_asks_for_it(brought_by: str, tmp_path: Path, quiet: Quiet) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "kept")

    class Brings(Tiny):
        def configure_callbacks(self) -> list[Callback]:
            return [checkpoint] if brought_by == "module" else []

    quiet(fast_dev_run=True, callbacks=[checkpoint] if brought_by == "trainer" else []).fit(Brings(), batches(2))
    assert not (tmp_path / "kept").exists()
    assert checkpoint.best_model_path == ""


@pytest.mark.parametrize("brought_by", ["trainer", "module"])
def test_early_stopping_does_not_judge_whoever_asks_for_it(brought_by: str, quiet: Quiet) -> None:
    stopping = EarlyStopping("nothing_of_that_name")

    class Brings(Tiny):
        def configure_callbacks(self) -> list[Callback]:
            return [stopping] if brought_by == "module" else []

    trainer = quiet(fast_dev_run=True, callbacks=[stopping] if brought_by == "trainer" else [])
    trainer.fit(Brings(), batches(2), batches(1))
    assert (trainer.state.status, trainer.should_stop) == ("finished", False)


def test_all_hooks_are_called_but_those_of_the_sanity_check(quiet: Quiet) -> None:
    called: list[str] = []
    hooks = ("setup", "on_fit_start", "on_train_start", "on_validation_end", "on_train_epoch_end", "on_fit_end", "teardown")
    noting = {hook: lambda *_, hook=hook: called.append(hook) for hook in (*hooks, "on_sanity_check_start")}
    quiet(fast_dev_run=True, callbacks=LambdaCallback(**noting)).fit(Tiny(), batches(2), batches(2))
    assert called == list(hooks)
