"""ModelCheckpoint: which files are kept and what they are called; taking them up again with ckpt_path."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mnist_tuner.trainer import LambdaCallback, ModelCheckpoint, Trainer, read_checkpoint
from tests.conformance.conftest import Quiet, Scripted, ScriptedValidation, Tiny, batches

pytestmark = pytest.mark.slow

NAN = math.nan


def kept(folder: Path) -> list[str]:
    """The names of the checkpoints in a folder, without their suffix."""
    return sorted(path.name.removesuffix(".safetensors") for path in folder.iterdir()) if folder.is_dir() else []


def name_of(path: str) -> str:
    """A checkpoint's name without its suffix."""
    return Path(path).name.removesuffix(".safetensors")


def steps_of(epochs: list[int]) -> list[str]:
    """The default names after these epochs of two batches."""
    return [f"epoch={epoch}-step={2 * epoch + 2}" for epoch in epochs]


def fit(trainer: Trainer, values: list[float] | Scripted, number: int = 2) -> ModelCheckpoint:
    """Trains with these values of "x", one an epoch, and gives the trainer's checkpoint callback."""
    module = values if isinstance(values, Scripted) else Scripted([float(value) for value in values])
    trainer.fit(module, batches(number))
    assert trainer.checkpoint_callback is not None
    return trainer.checkpoint_callback


@pytest.mark.parametrize(
    ("values", "options", "epochs", "best", "score"),
    [
        # Without a metric the newest is kept.
        ([3, 1, 2], {}, [2], 2, None),
        ([3, 1, 2], {"save_top_k": -1}, [0, 1, 2], 2, None),
        ([3, 1, 2], {"save_top_k": 0}, [], None, None),
        # With one the best are.
        ([3, 1, 2], {"monitor": "x"}, [1], 1, 1),
        ([3, 1, 2], {"monitor": "x", "mode": "max"}, [0], 0, 3),
        ([3, 1, 2, 0.5], {"monitor": "x", "save_top_k": 2}, [1, 3], 3, 0.5),
        ([3, 1, 2, 0.5], {"monitor": "x", "save_top_k": 2, "mode": "max"}, [0, 2], 0, 3),
        ([3, 1, 2, 4, 0], {"monitor": "x", "save_top_k": 3}, [1, 2, 4], 4, 0),
        ([3, 1, 2, 0.5], {"monitor": "x", "save_top_k": -1}, [0, 1, 2, 3], 3, 0.5),
        ([3, 1, 2, 0.5], {"monitor": "x", "save_top_k": -1, "mode": "max"}, [0, 1, 2, 3], 0, 3),
        ([3, 1, 2], {"monitor": "x", "save_top_k": 0}, [], None, None),
        ([3, 1], {"monitor": "x", "save_top_k": 5}, [0, 1], 1, 1),
        # Of equals the first is the best, and the first to go.
        ([1, 1, 1], {"monitor": "x"}, [0], 0, 1),
        ([1, 1, 1], {"monitor": "x", "save_top_k": 2}, [0, 1], 0, 1),
        ([1, 1, 0.5], {"monitor": "x", "save_top_k": 2}, [1, 2], 2, 0.5),
        ([1, 1, 2], {"monitor": "x", "save_top_k": 2, "mode": "max"}, [1, 2], 2, 2),
        # What is not a number is worse than any number.
        ([NAN, 1, 2], {"monitor": "x"}, [1], 1, 1),
        ([1, NAN, 2], {"monitor": "x"}, [0], 0, 1),
        ([NAN, 1], {"monitor": "x", "mode": "max"}, [1], 1, 1),
        ([1, NAN], {"monitor": "x", "mode": "max"}, [0], 0, 1),
        ([1, NAN, 2], {"monitor": "x", "save_top_k": 2}, [0, 2], 0, 1),
        ([NAN, NAN], {"monitor": "x"}, [0], 0, math.inf),
        ([NAN, NAN], {"monitor": "x", "mode": "max"}, [0], 0, -math.inf),
        # The rhythm.
        ([1, 2, 3, 4, 5], {"every_n_epochs": 2, "save_top_k": -1}, [1, 3], 3, None),
        ([1, 2, 3, 4, 5], {"every_n_epochs": 2}, [3], 3, None),
        ([1, 2, 3], {"every_n_epochs": 3}, [2], 2, None),
        ([1, 2, 3], {"every_n_epochs": 4}, [], None, None),
        ([1, 5, 4, 3, 2], {"every_n_epochs": 2, "monitor": "x"}, [3], 3, 3),
    ],
)
def test_the_checkpoints_of_some_epochs_are_kept(
    values: list[float], options: dict[str, Any], epochs: list[int], best: int | None, score: float | None,
    tmp_path: Path, traced: Scripted, quiet: Quiet,
) -> None:  # fmt: skip
    traced.values = [float(value) for value in values]
    callback = fit(quiet(callbacks=ModelCheckpoint(tmp_path / "kept", **options), max_epochs=len(values)), traced)
    assert kept(tmp_path / "kept") == steps_of(epochs)
    assert name_of(callback.best_model_path) == ("" if best is None else steps_of([best])[0])
    assert callback.best_model_score == score


@pytest.mark.parametrize(("mode", "ranked"), [("min", [3, 1]), ("max", [0, 2])])
def test_it_knows_the_metrics_of_what_it_keeps(mode: Any, ranked: list[int], tmp_path: Path, quiet: Quiet) -> None:
    values = [3.0, 1.0, 2.0, 0.5]
    checkpoint = ModelCheckpoint(tmp_path / "kept", monitor="x", save_top_k=2, mode=mode)
    callback = fit(quiet(callbacks=checkpoint, max_epochs=4), values)
    expected = {name: values[epoch] for name, epoch in zip(steps_of(ranked), ranked, strict=True)}
    assert {name_of(path): score for path, score in callback.best_k_models.items()} == expected
    assert [name_of(callback.best_model_path), name_of(callback.kth_best_model_path)] == steps_of(ranked)
    assert callback.current_score == 0.5


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"every_n_train_steps": 2, "save_top_k": -1}, ["epoch=0-step=2", "epoch=1-step=4", "epoch=1-step=6", "epoch=2-step=8"]),
        ({"every_n_train_steps": 2}, ["epoch=2-step=8"]),
        ({"every_n_train_steps": 5, "save_top_k": -1}, ["epoch=1-step=5"]),
        ({"every_n_train_steps": 10}, []),
    ],
)
@pytest.mark.parametrize("steps_per_call", [1, 100])
def test_every_so_many_steps_are_counted_over_epochs(
    options: dict[str, Any], names: list[str], steps_per_call: int, tmp_path: Path, quiet: Quiet
) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "kept", **options)
    fit(quiet(callbacks=checkpoint, max_epochs=3, steps_per_call=steps_per_call), [1, 2, 3], number=3)
    assert kept(tmp_path / "kept") == names


@pytest.mark.parametrize(
    ("options", "saving", "names"),
    [
        ({"val_check_interval": 0.5}, {}, ["epoch=0-step=2", "epoch=0-step=4", "epoch=1-step=6", "epoch=1-step=8"]),
        ({"val_check_interval": 0.5}, {"save_on_train_epoch_end": True}, ["epoch=0-step=4", "epoch=1-step=8"]),
        ({"check_val_every_n_epoch": 2}, {}, ["epoch=1-step=8"]),
        ({}, {"save_on_train_epoch_end": False}, ["epoch=0-step=4", "epoch=1-step=8"]),
        ({"max_steps": 6}, {}, ["epoch=0-step=4", "epoch=1-step=6"]),
    ],
)
def test_it_saves_after_validations_where_these_have_a_rhythm_of_their_own(
    options: dict[str, Any], saving: dict[str, Any], names: list[str], tmp_path: Path, quiet: Quiet
) -> None:
    trainer = quiet(callbacks=ModelCheckpoint(tmp_path / "kept", save_top_k=-1, **saving), max_epochs=2, **options)
    trainer.fit(ScriptedValidation([float(value) for value in range(9)]), batches(4), batches(1))
    assert kept(tmp_path / "kept") == names


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, [*steps_of([2]), "last"]),
        ({"monitor": "x"}, [*steps_of([1]), "last"]),
        ({"save_top_k": 0}, ["last"]),
        ({"save_top_k": 0, "monitor": "x"}, ["last"]),
    ],
)
def test_the_newest_is_also_kept_as_the_last(options: dict[str, Any], names: list[str], tmp_path: Path, quiet: Quiet) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "kept", save_last=True, **options)
    callback = fit(quiet(callbacks=checkpoint, max_epochs=3), [3, 1, 2])
    assert kept(tmp_path / "kept") == names
    assert name_of(callback.last_model_path) == "last"
    assert read_checkpoint(Path(callback.last_model_path)).header.global_step == 6


# Names.


@pytest.mark.parametrize(
    ("template", "insert", "name"),
    [
        (None, True, "epoch=3-step=40"),
        ("{epoch:02d}", True, "epoch=03"),
        ("{step}", True, "step=40"),
        ("{epoch}-{x:.2f}", True, "epoch=3-x=0.12"),
        ("{epoch:02d}-{x:.1f}", False, "03-0.1"),
        ("best", True, "best"),
        ("net-{x:.3e}", True, "net-x=1.250e-01"),
        ("{nothing:.2f}", True, "nothing=0.00"),
        ("{val/x:.2f}", False, "0.50"),
        ("e{epoch}s{step}", False, "e3s40"),
    ],
)
def test_a_files_name_follows_its_template(template: str | None, insert: bool, name: str) -> None:
    checkpoint = ModelCheckpoint(filename=template, auto_insert_metric_name=insert)
    assert checkpoint.format_checkpoint_name({"epoch": 3, "step": 40, "x": 0.125, "val/x": 0.5}) == name


@pytest.mark.parametrize(
    ("filename", "options", "names"),
    [
        ("{epoch:02d}-{x:.1f}", {"save_top_k": -1}, ["epoch=00-x=0.5", "epoch=01-x=0.2", "epoch=02-x=0.1"]),
        ("same", {}, ["same"]),
        ("same", {"monitor": "x"}, ["same"]),
        ("same", {"monitor": "x", "save_top_k": 2}, ["same", "same-v1"]),
        ("same", {"monitor": "x", "save_top_k": -1}, ["same", "same-v1", "same-v2"]),
    ],
)
def test_a_name_that_is_taken_gets_a_version(
    filename: str, options: dict[str, Any], names: list[str], tmp_path: Path, quiet: Quiet
) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "kept", filename, **options)
    callback = fit(quiet(callbacks=checkpoint, max_epochs=3), [0.5, 0.25, 0.125])
    assert sorted(kept(tmp_path / "kept")) == names
    assert read_checkpoint(Path(callback.best_model_path)).header.global_step == 6


def test_a_file_of_an_earlier_training_is_not_written_over(tmp_path: Path, quiet: Quiet) -> None:
    for _ in range(3):
        fit(quiet(callbacks=ModelCheckpoint(tmp_path / "kept")), [1])
    assert kept(tmp_path / "kept") == ["epoch=0-step=2", "epoch=0-step=2-v1", "epoch=0-step=2-v2"]


def test_a_template_may_name_a_folder_whose_names_get_versions_too(tmp_path: Path, quiet: Quiet) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "kept", "inner/same", monitor="x", save_top_k=-1)
    fit(quiet(callbacks=checkpoint, max_epochs=2), [1, 2])
    assert kept(tmp_path / "kept" / "inner") == ["same", "same-v1"]


def test_what_lies_in_a_folder_of_the_template_is_still_known_after_a_resume(tmp_path: Path, quiet: Quiet) -> None:
    first = ModelCheckpoint(tmp_path / "kept", "inner/{epoch}", monitor="x")
    path = fit(quiet(callbacks=first), [1]).best_model_path
    resumed = ModelCheckpoint(tmp_path / "kept", "inner/{epoch}", monitor="x")
    trainer = quiet(callbacks=resumed, max_epochs=2)
    trainer.fit(Scripted([1.0, 2.0]), batches(2), ckpt_path=path)
    assert (resumed.best_model_path, resumed.best_model_score) == (path, 1)
    assert kept(tmp_path / "kept" / "inner") == ["epoch=0"]


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "middle"}, "mode is 'middle'"),
        ({"save_top_k": -2}, "save_top_k is -2"),
        ({"save_top_k": 2}, "save_top_k is 2 without monitor"),
        ({"every_n_epochs": 1, "every_n_train_steps": 1}, "every_n_epochs and every_n_train_steps"),
        ({"every_n_train_steps": 0}, "every_n_train_steps is 0"),
        ({"every_n_epochs": -1}, "every_n_epochs is -1"),
    ],
)
def test_arguments_that_make_no_sense_are_an_error_that_names_them(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelCheckpoint(**options)


def test_a_metric_that_is_missing_is_an_error_that_names_those_there_are(tmp_path: Path, quiet: Quiet) -> None:
    with pytest.raises(RuntimeError, match=r"monitor='y'.*there are x"):
        fit(quiet(callbacks=ModelCheckpoint(tmp_path / "kept", monitor="y")), [1])


def test_a_checkpoint_callback_contradicts_that_there_be_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="enable_checkpointing is False"):
        Trainer(callbacks=ModelCheckpoint(tmp_path / "kept"), enable_checkpointing=False)


def test_there_is_one_by_default_in_the_folder_of_the_trainer(tmp_path: Path, quiet: Quiet) -> None:
    trainer = quiet(enable_checkpointing=True)
    fit(trainer, [1])
    assert kept(tmp_path / "checkpoints") == ["epoch=0-step=2"]


# Taking them up again.


def kernels_by_epoch(quiet: Quiet, folder: Path) -> tuple[Trainer, list[npt.NDArray[np.float32]]]:
    """A trainer that kept the second of three epochs as the best, and the weights after each."""
    kernels: list[npt.NDArray[np.float32]] = []
    note = LambdaCallback(on_train_epoch_end=lambda trainer, module: kernels.append(module.kernel))
    trainer = quiet(callbacks=[note, ModelCheckpoint(folder, monitor="x", save_last=True)], max_epochs=3)
    fit(trainer, [3, 1, 2])
    return trainer, kernels


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_the_best_weights_are_there_for_the_asking(verb: str, tmp_path: Path, quiet: Quiet) -> None:
    trainer, kernels = kernels_by_epoch(quiet, tmp_path / "kept")
    module = trainer.module
    assert isinstance(module, Tiny)
    np.testing.assert_array_equal(module.kernel, kernels[2])
    getattr(trainer, verb)(module, batches(1), ckpt_path="best")
    np.testing.assert_array_equal(module.kernel, kernels[1])


def test_a_path_and_the_last_one_are_taken_too(tmp_path: Path, quiet: Quiet) -> None:
    trainer, kernels = kernels_by_epoch(quiet, tmp_path / "kept")
    assert trainer.checkpoint_callback is not None
    other = Tiny()
    trainer.test(other, batches(1), ckpt_path=trainer.checkpoint_callback.best_model_path)
    np.testing.assert_array_equal(other.kernel, kernels[1])
    trainer.test(other, batches(1), ckpt_path="last")
    np.testing.assert_array_equal(other.kernel, kernels[2])


def test_a_verb_without_a_model_takes_the_best_of_the_fit_and_says_so(tmp_path: Path, quiet: Quiet) -> None:
    trainer, kernels = kernels_by_epoch(quiet, tmp_path / "kept")
    with pytest.warns(UserWarning, match='ckpt_path="best"'):
        trainer.test(dataloaders=batches(1))
    assert isinstance(trainer.module, Tiny)
    np.testing.assert_array_equal(trainer.module.kernel, kernels[1])


@pytest.mark.parametrize(("ckpt_path", "epochs"), [("best", [2, 3]), ("last", [3])])
def test_a_fit_goes_on_from_the_best_or_the_last(ckpt_path: str, epochs: list[int], tmp_path: Path, quiet: Quiet) -> None:
    trainer, _ = kernels_by_epoch(quiet, tmp_path / "kept")
    begun: list[int] = []
    trainer.callbacks.insert(0, LambdaCallback(on_train_epoch_start=lambda trainer, module: begun.append(trainer.current_epoch)))
    trainer.max_epochs = 4
    trainer.fit(Scripted([3.0, 1.0, 2.0, 2.0]), batches(2), ckpt_path=ckpt_path)
    assert begun == epochs
    assert trainer.global_step == 8


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_a_missing_file_is_named(verb: str, tmp_path: Path, quiet: Quiet) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        getattr(quiet(), verb)(Tiny(), batches(1), ckpt_path=tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize(("saves", "reason"), [(False, "no ModelCheckpoint"), (True, "saved none")])
def test_the_best_of_none_is_an_error_that_says_why(saves: bool, reason: str, verb: str, tmp_path: Path, quiet: Quiet) -> None:
    trainer = quiet(callbacks=[ModelCheckpoint(tmp_path / "kept")] if saves else [])
    with pytest.raises(ValueError, match=f"best.*{reason}"):
        getattr(trainer, verb)(Tiny(), batches(1), ckpt_path="best")


@pytest.mark.parametrize("saves", [False, True])
def test_the_last_of_none_starts_afresh_with_a_warning(saves: bool, tmp_path: Path, quiet: Quiet) -> None:
    trainer = quiet(callbacks=[ModelCheckpoint(tmp_path / "kept")] if saves else [])
    with pytest.warns(UserWarning, match="starts afresh"):
        trainer.fit(Tiny(), batches(2), ckpt_path="last")
    assert trainer.global_step == 2


def test_a_resumed_training_goes_on_to_rank_with_what_it_had(tmp_path: Path, quiet: Quiet) -> None:
    fit(quiet(callbacks=ModelCheckpoint(tmp_path / "kept", monitor="x", save_top_k=2), max_epochs=3), [3, 1, 2])
    trainer = quiet(callbacks=ModelCheckpoint(tmp_path / "kept", monitor="x", save_top_k=2), max_epochs=5)
    trainer.fit(Scripted([3.0, 1.0, 2.0, 9.0, 1.5]), batches(2), ckpt_path="last")
    assert kept(tmp_path / "kept") == steps_of([1, 4])
    assert trainer.checkpoint_callback is not None
    assert name_of(trainer.checkpoint_callback.best_model_path) == steps_of([1])[0]


def test_a_checkpoint_is_what_the_trainer_was_when_it_saved(tmp_path: Path, quiet: Quiet) -> None:
    trainer, kernels = kernels_by_epoch(quiet, tmp_path / "kept")
    assert trainer.checkpoint_callback is not None
    checkpoint = read_checkpoint(Path(trainer.checkpoint_callback.best_model_path))
    assert (checkpoint.header.epoch, checkpoint.header.global_step) == (1, 4)
    assert checkpoint.header.metrics == {"x": 1}
    np.testing.assert_array_equal(checkpoint.tensors["model/0"], kernels[1])
