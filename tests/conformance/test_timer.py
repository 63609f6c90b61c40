"""Timer and max_time: durations, stopping, and the time that a resumed training has had."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mnist_tuner.trainer import LambdaCallback, ModelCheckpoint, Module, Timer, Trainer, read_checkpoint
from tests.conformance.conftest import Quiet, Tiny, batches

HOUR = 3600.0


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("00:00:00:05", 5),
        ("00:00:01:00", 60),
        ("00:12:00:00", 12 * HOUR),
        ("01:02:03:04", 26 * HOUR + 184),
        ("100:00:00:00", 2400 * HOUR),
        (timedelta(minutes=2), 120),
        (timedelta(0), 0),
        ({"hours": 1, "minutes": 30}, 1.5 * HOUR),
        ({"days": 1, "seconds": 1}, 24 * HOUR + 1),
        ("10m", 600),
        ("1.5h", 1.5 * HOUR),
    ],
)
def test_a_duration_can_be_written_in_several_ways(duration: Any, seconds: float) -> None:
    assert Timer(duration).time_remaining() == seconds


@pytest.mark.parametrize("duration", ["00:00:10", "10", "", "soon", "00:00:00:-5", "1:2:3:4:5"])
def test_a_duration_that_cannot_be_read_is_an_error_that_shows_the_format(duration: str) -> None:
    with pytest.raises(ValueError, match=f"'{duration}' is not a duration: expected DD:HH:MM:SS"):
        Timer(duration)


def test_an_interval_that_is_neither_is_an_error() -> None:
    with pytest.raises(ValueError, match="interval is 'batch'"):
        Timer("10m", interval="batch")  # type: ignore[arg-type]


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_no_time_at_all_allows_no_step(interval: Any, quiet: Quiet) -> None:
    trainer = quiet(callbacks=Timer(timedelta(0), interval), max_epochs=3)
    trainer.fit(Tiny(), batches(2))
    assert (trainer.current_epoch, trainer.global_step, trainer.should_stop) == (0, 0, True)


@pytest.mark.parametrize("max_time", [{"seconds": 0}, timedelta(0), "00:00:00:00"])
def test_max_time_adds_a_timer(max_time: Any, quiet: Quiet) -> None:
    trainer = quiet(max_time=max_time, max_epochs=3)
    assert [type(callback) for callback in trainer.callbacks] == [Timer]
    trainer.fit(Tiny(), batches(2))
    assert trainer.global_step == 0


@pytest.mark.parametrize(("minimum", "steps"), [({"min_epochs": 2}, 4), ({"min_steps": 3}, 3)])
def test_the_minima_are_done_even_without_time(minimum: dict[str, int], steps: int, quiet: Quiet) -> None:
    trainer = quiet(callbacks=Timer(timedelta(0)), max_epochs=5, **minimum)
    trainer.fit(Tiny(), batches(2))
    assert trainer.global_step == steps


@pytest.mark.parametrize(("interval", "steps"), [("step", 3), ("epoch", 4)])
def test_the_time_is_looked_at_after_steps_or_after_epochs(interval: Any, steps: int, quiet: Quiet) -> None:
    timer = Timer("00:01:00:00", interval)

    def pass_two_hours(trainer: Trainer, module: Module, *_: Any) -> None:
        if trainer.global_step == 3:
            timer.load_state_dict({"time_elapsed": {"train": 2 * HOUR}})

    trainer = quiet(callbacks=[LambdaCallback(on_train_batch_end=pass_two_hours), timer], max_epochs=9)
    trainer.fit(Tiny(), batches(4))
    assert (trainer.current_epoch, trainer.global_step) == (1, steps)
    remaining = timer.time_remaining()
    assert remaining is not None
    assert remaining < -HOUR


def test_enough_time_stops_nothing(quiet: Quiet) -> None:
    timer = Timer("10:00:00:00")
    trainer = quiet(callbacks=timer, max_epochs=2)
    trainer.fit(Tiny(), batches(2))
    remaining = timer.time_remaining()
    assert trainer.global_step == 4
    assert remaining is not None
    assert 0 < remaining < 240 * HOUR


def test_without_a_duration_it_only_measures(quiet: Quiet) -> None:
    timer, module = Timer(), Tiny()
    trainer = quiet(callbacks=timer, num_sanity_val_steps=0)
    trainer.fit(module, batches(2), batches(1))
    assert timer.time_remaining() is None
    assert timer.time_elapsed("train") > timer.time_elapsed("validate") > 0
    assert timer.time_elapsed("test") == 0
    trainer.test(module, batches(1))
    assert timer.time_elapsed("test") > 0


def test_it_stands_still_between_two_runs(quiet: Quiet) -> None:
    timer = Timer()
    quiet(callbacks=timer).fit(Tiny(), batches(2))
    assert timer.time_elapsed() == timer.time_elapsed()


def test_it_stands_still_after_an_exception(quiet: Quiet) -> None:
    def fail(trainer: Trainer, module: Module) -> None:
        raise LookupError("lost")

    timer = Timer()
    with pytest.raises(LookupError):
        quiet(callbacks=[timer, LambdaCallback(on_train_epoch_end=fail)]).fit(Tiny(), batches(2))
    assert timer.time_elapsed() == timer.time_elapsed() > 0


def test_its_state_goes_over_to_another_one() -> None:
    first, second = Timer(), Timer("00:03:00:00")
    first.load_state_dict({"time_elapsed": {"train": 2 * HOUR, "validate": HOUR}})
    second.load_state_dict(first.state_dict())
    assert (second.time_elapsed("train"), second.time_elapsed("validate"), second.time_elapsed("test")) == (2 * HOUR, HOUR, 0)
    assert second.time_remaining() == HOUR


def test_the_time_before_a_checkpoint_counts_after_it(tmp_path: Path, quiet: Quiet) -> None:
    first = Timer()
    first.load_state_dict({"time_elapsed": {"train": 2 * HOUR}})
    trainer = quiet(callbacks=[first, ModelCheckpoint(tmp_path)])
    trainer.fit(Tiny(), batches(2))
    assert trainer.checkpoint_callback is not None
    path = Path(trainer.checkpoint_callback.best_model_path)
    saved = read_checkpoint(path).header.callbacks["Timer"]["time_elapsed"]["train"]
    assert saved > 2 * HOUR
    second = Timer("00:03:00:00")
    trainer = quiet(callbacks=[second, ModelCheckpoint(tmp_path)], max_epochs=2)
    trainer.fit(Tiny(), batches(2), ckpt_path=path)
    assert trainer.global_step == 4
    assert saved < second.time_elapsed() < 3 * HOUR


def test_a_resumed_training_whose_time_was_up_does_nothing(tmp_path: Path, quiet: Quiet) -> None:
    first = Timer()
    first.load_state_dict({"time_elapsed": {"train": 2 * HOUR}})
    quiet(callbacks=[first, ModelCheckpoint(tmp_path)]).fit(Tiny(), batches(2))
    trainer = quiet(callbacks=[Timer("00:01:00:00"), ModelCheckpoint(tmp_path)], max_epochs=9)
    trainer.fit(Tiny(), batches(2), ckpt_path="last")
    assert (trainer.current_epoch, trainer.global_step) == (1, 2)
