"""How much is done: batches of each stage, caps and minima of epochs and steps, stopping, fitting again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_tuner.trainer import Callback, LambdaCallback, ModelCheckpoint, Module, Trainer
from tests.conformance.conftest import Journal, Quiet, Scripted, Tiny, TinyData, batches

STAGES = {"train": "fit", "val": "fit", "validate": "validate", "test": "test", "predict": "predict"}
LIMITS = {"validate": "val"}


class SeesBatches(Callback):
    """What each stage's batches begin with."""

    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = {"train": [], "validation": [], "test": [], "predict": []}

    def on_train_batch_start(self, trainer: Trainer, module: Module, batch: Any, batch_idx: int) -> None:
        self.seen["train"].append(float(batch[0][0, 0]))

    def on_validation_batch_start(
        self, trainer: Trainer, module: Module, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.seen["validation"].append(float(batch[0][0, 0]))

    def on_test_batch_start(self, trainer: Trainer, module: Module, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.seen["test"].append(float(batch[0][0, 0]))

    def on_predict_batch_start(
        self, trainer: Trainer, module: Module, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.seen["predict"].append(float(batch[0][0, 0]))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("limit", "taken"),
    [(1, 1), (1.0, 4), (9, 4), (0.5, 2), (0.99, 3), (np.int64(2), 2)],
)
def test_a_limit_of_a_stage_is_a_number_or_a_share_of_its_batches(
    stage: str, limit: int | float, taken: int, traced: Scripted, quiet: Quiet
) -> None:
    sees = SeesBatches()
    options: dict[str, Any] = {f"limit_{LIMITS.get(stage, stage)}_batches": limit, "num_sanity_val_steps": 0}
    trainer = quiet(callbacks=sees, **options)
    getattr(trainer, STAGES[stage])(traced, datamodule=TinyData(train=4, val=4))
    noun = {"val": "validation", "validate": "validation"}.get(stage, stage)
    assert len(sees.seen[noun]) == taken
    if stage == "train":
        assert trainer.global_step == taken


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("limit", [0, 0.0])
def test_a_limit_of_nothing_never_asks_for_the_loader(stage: str, limit: int | float, quiet: Quiet) -> None:
    journal, name = Journal(), LIMITS.get(stage, stage)
    options: dict[str, Any] = {f"limit_{name}_batches": limit}
    getattr(quiet(callbacks=journal.callback(), **options), STAGES[stage])(journal.module(), datamodule=journal.data())
    assert f"D.{name}_dataloader" not in journal.entries


@pytest.mark.parametrize("stage", STAGES)
def test_a_share_that_leaves_no_batch_is_an_error_that_names_the_argument(stage: str, traced: Scripted, quiet: Quiet) -> None:
    name = f"limit_{LIMITS.get(stage, stage)}_batches"
    trainer = quiet(**{name: 0.2}, num_sanity_val_steps=0)
    with pytest.raises(ValueError, match=r"0\.2 of 4 batches") as caught:
        getattr(trainer, STAGES[stage])(traced, datamodule=TinyData(train=4, val=4))
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches"])
@pytest.mark.parametrize("limit", [-1, 1.5, -0.5, float("nan")])
def test_a_limit_out_of_range_is_an_error_that_names_the_argument(name: str, limit: float) -> None:
    options: dict[str, Any] = {name: limit}
    with pytest.raises(ValueError, match=f"{name} is {limit}"):
        Trainer(**options)


@pytest.mark.parametrize(
    ("options", "epochs", "steps"),
    [
        ({"max_epochs": 3}, 3, 12),
        ({"max_epochs": 3, "max_steps": 100}, 3, 12),
        ({"max_epochs": 3, "max_steps": 12}, 3, 12),
        ({"max_epochs": 3, "max_steps": 8}, 2, 8),
        ({"max_epochs": 3, "max_steps": 6}, 2, 6),
        ({"max_epochs": 3, "max_steps": 1}, 1, 1),
        ({"max_epochs": -1, "max_steps": 5}, 2, 5),
        ({"max_epochs": None, "max_steps": 5}, 2, 5),
        ({"max_epochs": 0}, 0, 0),
        ({"max_epochs": 3, "max_steps": 0}, 0, 0),
        ({"max_epochs": 2, "min_epochs": 1, "min_steps": 1}, 2, 8),
        ({"max_epochs": 2, "limit_train_batches": 3, "max_steps": 5}, 2, 5),
    ],
)
def test_whichever_cap_is_met_first_ends_the_fit(
    options: dict[str, Any], epochs: int, steps: int, traced: Scripted, quiet: Quiet
) -> None:
    trainer, module = quiet(**options), traced
    trainer.fit(module, batches(4))
    assert (trainer.current_epoch, trainer.global_step) == (epochs, steps)
    assert module.optimizer is not None
    assert int(module.optimizer.iterations) == steps


@pytest.mark.parametrize(("options", "epochs"), [({}, 1000), ({"max_steps": 5}, -1), ({"max_epochs": 7, "max_steps": 5}, 7)])
def test_without_any_cap_there_are_a_thousand_epochs(options: dict[str, Any], epochs: int) -> None:
    assert Trainer(**options).max_epochs == epochs


@pytest.mark.parametrize(
    ("options", "estimate"),
    [
        ({"max_epochs": 3}, 12),
        ({"max_epochs": 3, "max_steps": 5}, 5),
        ({"max_epochs": 3, "limit_train_batches": 0.5}, 6),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 6),
    ],
)
def test_the_number_of_steps_is_known_before_the_first(options: dict[str, Any], estimate: int, quiet: Quiet) -> None:
    known: list[float] = []
    note = LambdaCallback(on_train_start=lambda trainer, module: known.append(trainer.estimated_stepping_batches))
    trainer = quiet(callbacks=note, **options)
    trainer.fit(Tiny(), batches(4))
    assert known == [estimate]
    assert trainer.global_step == estimate


@pytest.mark.slow
def test_a_module_can_be_fitted_with_another_accumulation_than_before(quiet: Quiet) -> None:
    module = Tiny()
    for accumulation, steps in ((1, 4), (2, 2), (4, 1), (1, 4)):
        trainer = quiet(accumulate_grad_batches=accumulation)
        trainer.fit(module, batches(4))
        assert trainer.global_step == steps


class StopsAtStep(Callback):
    """Sets should_stop after a step, and notes after which steps there was a validation."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.validated: list[int] = []

    def on_train_batch_end(self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            trainer.should_stop = True

    def on_validation_start(self, trainer: Trainer, module: Module) -> None:
        self.validated.append(trainer.global_step)


@pytest.mark.parametrize(
    ("options", "validated", "epochs", "steps"),
    [
        ({}, [2], 1, 2),
        ({"max_epochs": -1}, [2], 1, 2),
        ({"max_steps": 1}, [], 1, 1),
        ({"min_epochs": 1}, [4], 1, 4),
        ({"min_epochs": 2}, [4, 8], 2, 8),
        ({"min_epochs": 100}, [4, 8, 12], 3, 12),
        ({"min_steps": 2}, [4], 1, 4),
        ({"min_steps": 4}, [4], 1, 4),
        ({"min_steps": 6}, [4, 6], 2, 6),
        ({"min_steps": 100}, [4, 8, 12], 3, 12),
        ({"min_epochs": 2, "min_steps": 3}, [4, 8], 2, 8),
        ({"min_epochs": 1, "min_steps": 6}, [4, 6], 2, 6),
        ({"check_val_every_n_epoch": 2}, [], 1, 2),
        ({"check_val_every_n_epoch": 2, "min_epochs": 2}, [8], 2, 8),
        ({"val_check_interval": 0.5}, [2], 1, 2),
        ({"val_check_interval": 1}, [1, 2], 1, 2),
        ({"val_check_interval": 1, "min_steps": 5}, [1, 2, 3, 4, 5], 2, 5),
    ],
)
def test_should_stop_ends_the_epoch_once_the_minima_are_met(
    options: dict[str, Any], validated: list[int], epochs: int, steps: int, traced: Scripted, quiet: Quiet
) -> None:
    stops = StopsAtStep(2)
    trainer = quiet(**{"callbacks": stops, "max_epochs": 3, "num_sanity_val_steps": 0, **options})
    trainer.fit(traced, batches(4), batches(1))
    assert (stops.validated, trainer.current_epoch, trainer.global_step) == (validated, epochs, steps)


def test_min_steps_are_met_exactly_also_by_longer_calls(quiet: Quiet) -> None:
    def stop(trainer: Trainer, module: Module) -> None:
        trainer.should_stop = True

    trainer = quiet(callbacks=LambdaCallback(on_train_steps_end=stop), max_epochs=3, min_steps=12, steps_per_call=2)
    trainer.fit(Tiny(), batches(9))
    assert (trainer.current_epoch, trainer.global_step) == (2, 12)


@pytest.mark.parametrize(
    ("hook", "epochs", "steps"),
    [
        ("on_fit_start", 0, 0),
        ("on_train_start", 0, 0),
        ("on_train_steps_end", 1, 2),
        ("on_validation_end", 1, 4),
        ("on_train_epoch_end", 1, 4),
    ],
)
def test_should_stop_is_looked_at_after_each_call_and_each_epoch(
    hook: str, epochs: int, steps: int, traced: Scripted, quiet: Quiet
) -> None:
    def stop(trainer: Trainer, module: Module) -> None:
        trainer.should_stop = True

    trainer = quiet(callbacks=LambdaCallback(**{hook: stop}), max_epochs=3, steps_per_call=2, num_sanity_val_steps=0)
    trainer.fit(traced, batches(4), batches(1))
    assert (trainer.current_epoch, trainer.global_step) == (epochs, steps)
    assert trainer.should_stop


def test_should_stop_set_in_a_validation_within_the_epoch_ends_it_there(quiet: Quiet) -> None:
    def stop(trainer: Trainer, module: Module) -> None:
        trainer.should_stop = True

    trainer = quiet(callbacks=LambdaCallback(on_validation_end=stop), val_check_interval=0.5, num_sanity_val_steps=0)
    trainer.fit(Tiny(), batches(4), batches(1))
    assert (trainer.current_epoch, trainer.global_step) == (1, 2)


def test_the_next_fit_has_forgotten_should_stop(quiet: Quiet) -> None:
    stops, module = StopsAtStep(2), Tiny()
    trainer = quiet(callbacks=stops, max_epochs=2)
    trainer.fit(module, batches(4))
    trainer.fit(module, batches(4))
    assert not trainer.should_stop
    assert (trainer.current_epoch, trainer.global_step) == (2, 6)


def test_a_fit_with_the_same_caps_changes_no_weight(quiet: Quiet) -> None:
    trainer, module = quiet(max_epochs=2), Tiny()
    trainer.fit(module, batches(4), batches(1))
    before = module.kernel
    with pytest.warns(UserWarning, match="trains nothing"):
        trainer.fit(module, batches(4), batches(1))
    np.testing.assert_array_equal(module.kernel, before)
    assert (trainer.current_epoch, trainer.global_step) == (2, 8)


@pytest.mark.parametrize(
    ("caps", "named"),
    [({"max_epochs": 1}, "max_epochs=1"), ({"max_epochs": 3, "max_steps": 2}, "max_steps=2"), ({"max_steps": 2}, "max_steps=2")],
)
def test_a_repeated_fit_that_trains_nothing_names_the_cap_and_the_way_out(
    caps: dict[str, int], named: str, traced: Scripted, quiet: Quiet
) -> None:
    trainer = quiet(**{"max_epochs": None, **caps})
    trainer.fit(traced, batches(4))
    name = named.partition("=")[0]
    with pytest.warns(UserWarning, match=rf"^fit\(\) trains nothing: {named} has been reached .*raise trainer\.{name}, or make"):
        trainer.fit(traced, batches(4))


@pytest.mark.parametrize("caps", [{"max_epochs": 0}, {"max_steps": 0}])
def test_a_first_fit_that_is_to_train_nothing_says_nothing(caps: dict[str, int], traced: Scripted, quiet: Quiet) -> None:
    trainer = quiet(**caps)
    trainer.fit(traced, batches(4))  # a warning would be an error
    assert trainer.global_step == 0


def test_a_complete_training_that_is_resumed_says_nothing(tmp_path: Path, traced: Scripted, quiet: Quiet) -> None:
    quiet(callbacks=ModelCheckpoint(tmp_path), max_epochs=2).fit(traced, batches(4))
    trainer = quiet(callbacks=ModelCheckpoint(tmp_path), max_epochs=2)
    trainer.fit(traced, batches(4), ckpt_path="last")
    assert (trainer.current_epoch, trainer.global_step) == (2, 8)


@pytest.mark.parametrize(
    ("first", "cap", "raised", "indices"),
    [
        ({"max_epochs": 1}, "max_epochs", 3, [0, 1, 2, 3] * 3),
        ({"max_epochs": 3, "max_steps": 4}, "max_steps", 6, [0, 1, 2, 3, 0, 1]),
        ({"max_epochs": 3, "max_steps": 2}, "max_steps", 4, [0, 1, 0, 1]),
    ],
)
def test_a_fit_with_a_raised_cap_goes_on_with_the_next_epoch(
    first: dict[str, Any], cap: str, raised: int, indices: list[int], quiet: Quiet
) -> None:
    seen: list[int] = []
    note = LambdaCallback(on_train_batch_start=lambda trainer, module, batch, batch_idx: seen.append(batch_idx))
    trainer, module = quiet(callbacks=note, **first), Tiny()
    trainer.fit(module, batches(4))
    setattr(trainer, cap, raised)
    trainer.fit(module, batches(4))
    assert seen == indices
    assert trainer.global_step == len(indices)


@pytest.mark.parametrize(("overfit", "taken"), [(1, 1), (3, 3), (0.5, 2)])
def test_overfitting_takes_the_same_few_batches_at_each_epoch(overfit: int | float, taken: int, quiet: Quiet) -> None:
    sees, module = SeesBatches(), Tiny()
    trainer = quiet(callbacks=sees, overfit_batches=overfit, max_epochs=3, num_sanity_val_steps=0)
    trainer.fit(module, batches(4, shuffle=True), batches(4, shuffle=True))
    first = sees.seen["train"][:taken]
    assert len(set(first)) == taken
    assert sees.seen["train"] == first * 3
    assert sees.seen["validation"] == sees.seen["validation"][:taken] * 3
    trainer.test(module, batches(4))
    assert len(sees.seen["test"]) == 4


def test_without_overfitting_a_shuffled_epoch_differs_from_the_one_before(quiet: Quiet) -> None:
    sees = SeesBatches()
    quiet(callbacks=sees, limit_train_batches=3, max_epochs=2).fit(Tiny(), batches(9, shuffle=True))
    assert sees.seen["train"][:3] != sees.seen["train"][3:]


@pytest.mark.parametrize("name", ["max_epochs", "max_steps", "min_epochs", "min_steps"])
@pytest.mark.parametrize("value", [-2, 1.5])
def test_a_cap_or_minimum_out_of_range_is_an_error_that_names_the_argument(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        Trainer(**options)
