"""What an exception and a Ctrl-C leave behind: who hears of it, what is closed, and a trainer that can be used again."""

from __future__ import annotations

import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from mnist_tuner.trainer import LambdaCallback, ModelCheckpoint, Module, Trainer, read_checkpoint
from tests.conformance.conftest import Journal, Quiet, Rows, Tiny, batches

pytestmark = pytest.mark.slow

MOMENTS = ("start", "epoch_start", "batch_start", "batch_end", "epoch_end", "end")
FIT = [
    *("D.prepare_data", "D.setup", "D.train_dataloader", "D.val_dataloader"),
    *("M.configure_callbacks", "M.prepare_data", "M.configure_model", "M.configure_optimizers"),
    *("C.on_sanity_check_start", "C.on_sanity_check_end"),
    *(f"{owner}.{hook}" for owner in "CM" for hook in ("setup", "on_fit_start", "on_fit_end")),
    *(f"{owner}.on_{noun}_{moment}" for owner in "CM" for noun in ("train", "validation") for moment in MOMENTS),
]
OTHERS = [
    *((verb, f"C.on_{noun}_{moment}") for verb, noun in (("validate", "validation"), ("test", "test")) for moment in MOMENTS),
    *(("predict", f"{owner}.on_predict_{moment}") for owner in "CM" for moment in MOMENTS),
    *((verb, hook) for verb in ("validate", "test", "predict") for hook in ("D.prepare_data", "C.setup", "M.configure_model")),
    *(("validate", "D.val_dataloader"), ("test", "D.test_dataloader"), ("predict", "D.predict_dataloader")),
]


def run_to_the_failure(journal: Journal, verb: str, trainer: Trainer, module: Module) -> list[str]:
    """Runs a verb that is to fail; gives what the journal holds after the hook that fails."""
    with pytest.raises(LookupError, match=f"lost in {journal.fail_at}"):
        getattr(trainer, verb)(module, datamodule=journal.data())
    failed = [place for place, entry in enumerate(journal.entries) if entry.startswith(journal.fail_at)]
    return journal.entries[failed[0] + 1 :]


def assert_told_and_closed(after: list[str], verb: str, trainer: Trainer, rows: Rows) -> None:
    """Callbacks and data module have heard of the exception before the tear-down, and the loggers have failed."""
    teardown = [f"{owner}.teardown({verb})" for owner in "DCM"]
    assert after == ["C.on_exception", "D.on_exception", *teardown]
    assert rows.closed == ["failed"]
    assert (trainer.state.status, trainer.state.fn, trainer.interrupted) == ("interrupted", verb, False)


@pytest.mark.parametrize("hook", FIT)
def test_an_exception_in_a_hook_of_a_fit_is_told_and_goes_on_and_the_fit_can_be_taken_up(hook: str, quiet: Quiet) -> None:
    journal, rows = Journal(), Rows()
    journal.fail_at = hook
    trainer, module = quiet(callbacks=journal.callback(), logger=rows), journal.module()
    assert_told_and_closed(run_to_the_failure(journal, "fit", trainer, module), "fit", trainer, rows)
    journal.fail_at = ""
    trained = hook.endswith(("on_train_end", "on_fit_end"))
    with pytest.warns(UserWarning, match="trains nothing") if trained else nullcontext():
        trainer.fit(module, datamodule=journal.data())
    assert (trainer.state.status, trainer.current_epoch, trainer.global_step) == ("finished", 1, 2)
    assert rows.closed == ["failed", "success"]


@pytest.mark.parametrize(("verb", "hook"), OTHERS)
def test_an_exception_in_a_hook_of_another_verb_is_told_and_goes_on(verb: str, hook: str, quiet: Quiet) -> None:
    journal, rows = Journal(), Rows()
    journal.fail_at = hook
    trainer, module = quiet(callbacks=journal.callback(), logger=rows), journal.module()
    assert_told_and_closed(run_to_the_failure(journal, verb, trainer, module), verb, trainer, rows)
    journal.fail_at = ""
    assert getattr(trainer, verb)(module, datamodule=journal.data())
    assert (trainer.state.status, rows.closed) == ("finished", ["failed", "success"])


@pytest.mark.parametrize("verb", ["fit", "test"])
@pytest.mark.parametrize("owner", ["D", "C", "M"])
def test_an_exception_in_the_tear_down_is_one_as_any_other(owner: str, verb: str, quiet: Quiet) -> None:
    journal, rows = Journal(), Rows()
    journal.fail_at = f"{owner}.teardown"
    trainer = quiet(callbacks=journal.callback(), logger=rows)
    after = run_to_the_failure(journal, verb, trainer, journal.module())
    assert [entry for entry in after if "on_exception" in entry] == ["C.on_exception", "D.on_exception"]
    assert {f"{owner}.teardown({verb})" for owner in "DCM"} <= set(journal.entries)
    assert (trainer.state.status, rows.closed) == ("interrupted", ["failed"])


def test_a_run_without_an_exception_closes_its_loggers_once(quiet: Quiet) -> None:
    journal, rows = Journal(), Rows()
    trainer = quiet(callbacks=journal.callback(), logger=rows)
    trainer.fit(journal.module(), datamodule=journal.data())
    assert rows.closed == ["success"]
    assert not [entry for entry in journal.entries if "exception" in entry]
    assert (trainer.state.status, trainer.state.fn, trainer.state.stage) == ("finished", "fit", None)


@pytest.mark.parametrize("step", ["training_step", "validation_step", "test_step", "predict_step"])
def test_an_exception_in_a_step_goes_on_as_it_is(step: str, quiet: Quiet) -> None:
    class Fails(Tiny):
        def fail(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
            raise LookupError("lost in a step")

    setattr(Fails, step, Fails.fail)
    told: list[BaseException] = []
    trainer = quiet(callbacks=LambdaCallback(on_exception=lambda trainer, module, exception: told.append(exception)))
    verb = {"training_step": "fit", "validation_step": "validate"}.get(step, step.removesuffix("_step"))
    with pytest.raises(LookupError, match="lost in a step") as caught:
        getattr(trainer, verb)(Fails(), batches(2))
    assert told == [caught.value]
    assert trainer.state.status == "interrupted"


def test_every_callback_hears_of_it_in_order(quiet: Quiet) -> None:
    journal = Journal()
    journal.fail_at = "C1.on_train_start"
    trainer = quiet(callbacks=[journal.callback("C1"), journal.callback("C2")])
    after = run_to_the_failure(journal, "fit", trainer, journal.module())
    assert after[:3] == ["C1.on_exception", "C2.on_exception", "D.on_exception"]


def test_an_exception_keeps_no_checkpoint(tmp_path: Path, quiet: Quiet) -> None:
    journal = Journal()
    journal.fail_at = "M.on_train_epoch_end"
    trainer = quiet(callbacks=[journal.callback(), ModelCheckpoint(tmp_path / "kept")])
    run_to_the_failure(journal, "fit", trainer, journal.module())
    assert not (tmp_path / "kept").exists()


def test_nothing_can_be_logged_after_an_exception(quiet: Quiet) -> None:
    journal = Journal()
    journal.fail_at = "C.on_train_epoch_end"
    module = journal.module()
    run_to_the_failure(journal, "fit", quiet(callbacks=journal.callback()), module)
    with pytest.raises(RuntimeError, match=r"log\('x'\)"):
        module.log("x", 1.0)


# Ctrl-C.


class PressesOnce:
    """Presses Ctrl-C when it is first called as a hook, but not in the sanity check."""

    pressed = False

    def __call__(self, trainer: Trainer, module: Module, *_: Any) -> None:
        if not self.pressed and not trainer.sanity_checking:
            self.pressed = True
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("verb", "hook"),
    [
        *(("fit", f"on_train_{moment}") for moment in MOMENTS),
        *(("fit", f"on_validation_{moment}") for moment in MOMENTS),
        *(("fit", "on_fit_start"), ("fit", "on_fit_end"), ("fit", "setup")),
        *((noun, f"on_{noun}_{moment}") for noun in ("test", "predict") for moment in ("start", "batch_end", "end")),
    ],
)
def test_ctrl_c_in_a_hook_is_told_and_goes_on(verb: str, hook: str, quiet: Quiet) -> None:
    handler = signal.getsignal(signal.SIGINT)
    journal, rows = Journal(), Rows()
    callbacks = [LambdaCallback(**{hook: PressesOnce()}), journal.callback()]
    trainer, module = quiet(callbacks=callbacks, logger=rows), journal.module()
    with pytest.raises(KeyboardInterrupt):
        getattr(trainer, verb)(module, datamodule=journal.data())
    assert journal.entries[-5:] == ["C.on_exception", "D.on_exception", *(f"{owner}.teardown({verb})" for owner in "DCM")]
    assert (trainer.state.status, trainer.interrupted, rows.closed) == ("interrupted", True, ["failed"])
    assert signal.getsignal(signal.SIGINT) is handler
    trainer.validate(module, batches(1))
    assert (trainer.state.status, trainer.interrupted) == ("finished", False)


@pytest.mark.parametrize("pressed_at", [1, 2, 3])
def test_ctrl_c_keeps_a_checkpoint_of_the_last_whole_step(pressed_at: int, tmp_path: Path, quiet: Quiet) -> None:
    def press_at(trainer: Trainer, module: Module) -> None:
        if trainer.global_step == pressed_at:
            signal.raise_signal(signal.SIGINT)

    callbacks = [LambdaCallback(on_train_steps_end=press_at), ModelCheckpoint(tmp_path / "kept")]
    trainer, module = quiet(callbacks=callbacks, steps_per_call=1), Tiny()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(module, batches(4))
    assert trainer.global_step == pressed_at
    (path,) = (tmp_path / "kept").iterdir()
    header = read_checkpoint(path).header
    assert (header.global_step, header.progress.batch, header.progress.ended) == (pressed_at, pressed_at, False)
    resumed = quiet(callbacks=ModelCheckpoint(tmp_path / "kept"))
    resumed.fit(Tiny(), batches(4), ckpt_path=path)
    assert (resumed.current_epoch, resumed.global_step) == (1, 4)


def test_ctrl_c_before_the_first_step_keeps_nothing(tmp_path: Path, quiet: Quiet) -> None:
    callbacks = [LambdaCallback(on_fit_start=PressesOnce()), ModelCheckpoint(tmp_path / "kept")]
    trainer = quiet(callbacks=callbacks, limit_train_batches=0)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(Tiny(), batches(4))
    assert not (tmp_path / "kept").exists()


def test_a_second_ctrl_c_does_not_wait(quiet: Quiet) -> None:
    reached: list[str] = []

    def press_twice(trainer: Trainer, module: Module) -> None:
        signal.raise_signal(signal.SIGINT)
        reached.append("after the first")
        signal.raise_signal(signal.SIGINT)
        reached.append("after the second")

    trainer = quiet(callbacks=LambdaCallback(on_train_epoch_start=press_twice))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(Tiny(), batches(4))
    assert reached == ["after the first"]
    assert (trainer.global_step, trainer.interrupted) == (0, True)


def test_a_keyboard_interrupt_that_is_raised_is_a_ctrl_c(quiet: Quiet) -> None:
    def interrupt(trainer: Trainer, module: Module) -> None:
        raise KeyboardInterrupt

    trainer = quiet(callbacks=LambdaCallback(on_train_epoch_end=interrupt))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(Tiny(), batches(4))
    assert trainer.interrupted
