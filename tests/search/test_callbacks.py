"""Callbacks of a search belong to one training each."""

from __future__ import annotations

import csv
import threading
from pathlib import Path
from typing import Any

import keras
import pytest

from mnist_tuner import trainer
from mnist_tuner.errors import InputError
from mnist_tuner.search import Tuner
from mnist_tuner.search.callbacks import check_copies, copies
from tests.support.hypermodels import Wandering, blobs, net, trained

X, Y, VALIDATION = blobs()
PLACE = "trial_0/replicate_1"


class Locked(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Fitted(Wandering):
    """Its fit is Keras's own."""

    def fit(self, hp: Any, model: keras.Model, *arguments: Any, **options: Any) -> Any:
        return model.fit(*arguments, **options, verbose=0)


class TestCopies:
    def test_they_share_nothing_with_what_was_given_and_keep_what_they_share_among_themselves(self) -> None:
        first, second = keras.callbacks.Callback(), keras.callbacks.Callback()
        first.seen = second.seen = []
        mine, other = copies([first, second], PLACE)
        assert (mine is first, other is second) == (False, False)
        assert mine.seen is other.seen
        mine.seen.append(1)
        assert first.seen == []

    @pytest.mark.parametrize(("given", "count"), [(None, 0), ([], 0), (keras.callbacks.Callback(), 1), ((Locked(),)[:0], 0)])
    def test_none_one_and_several_are_taken(self, given: Any, count: int) -> None:
        assert len(copies(given, PLACE)) == count

    @pytest.mark.parametrize("given", [Locked(), [keras.callbacks.Callback(), Locked()]])
    def test_one_that_cannot_be_copied_is_named_with_the_way_out(self, given: Any) -> None:
        with pytest.raises(InputError, match=r"^callbacks: a Locked cannot be copied .*, such as callbacks=make_callbacks$"):
            check_copies(given)

    def test_a_function_makes_what_cannot_be_copied(self) -> None:
        check_copies(lambda: [Locked()])
        (one,), (other,) = copies(lambda: [Locked()], PLACE), copies(Locked, PLACE)
        assert one.lock is not other.lock


class TestPaths:
    def test_each_kind_that_has_one_writes_below_it(self, tmp_path: Path) -> None:
        given = [
            keras.callbacks.TensorBoard(tmp_path / "logs"),
            keras.callbacks.ModelCheckpoint(tmp_path / "kept/{epoch}.keras"),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            trainer.ModelCheckpoint(tmp_path / "states"),
            trainer.ModelCheckpoint(),
        ]
        board, kept, log, states, unnamed = copies(given, PLACE)
        assert Path(board.log_dir) == tmp_path / "logs" / PLACE
        assert Path(kept.filepath) == tmp_path / "kept" / PLACE / "{epoch}.keras"
        assert Path(log.filename) == tmp_path / PLACE / "log.csv"
        assert Path(log.filename).parent.is_dir()  # which Keras does not make
        assert states.dirpath == tmp_path / "states" / PLACE
        assert unnamed.dirpath == Path("checkpoints") / PLACE
        assert given[0].log_dir == str(tmp_path / "logs")

    @pytest.mark.parametrize("kind", [str, Path])
    def test_a_backup_of_another_attempt_is_not_gone_on_with(self, kind: Any, tmp_path: Path) -> None:
        def fit(backup: Any) -> list[int]:
            model = net()
            return list(model.fit(X, Y, epochs=3, callbacks=[backup], verbose=0).epoch)

        given = keras.callbacks.BackupAndRestore(kind(tmp_path / "backup"), delete_checkpoint=False)
        (backup,) = copies([given], PLACE)
        assert fit(backup) == [0, 1, 2]
        assert (tmp_path / "backup" / PLACE / "latest.weights.h5").exists()
        assert [path.name for path in (tmp_path / "backup").iterdir()] == ["trial_0"]
        (again,) = copies([given], PLACE)
        assert fit(again) == [0, 1, 2]

    @pytest.mark.slow
    @pytest.mark.parametrize("hypermodel", [trained, Fitted()], ids=["our loop", "a fit of its own"])
    def test_no_two_trainings_of_a_search_write_into_one_file(self, hypermodel: Any, tmp_path: Path) -> None:
        found = Tuner(hypermodel, max_trials=2, epochs=2, replicates=2, workers=0, directory=tmp_path / "search")
        logs = [keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))]
        found.search(X, Y, validation_data=VALIDATION, callbacks=logs, verbose=False)
        with (tmp_path / "search/trials.csv").open() as file:
            rows = list(csv.DictReader(file))
        for trial in "01":
            for replicate in "01":
                with (tmp_path / f"trial_{trial}/replicate_{replicate}/log.csv").open() as file:
                    values = [float(row["val_accuracy"]) for row in csv.DictReader(file)]
                mine = [row for row in rows if (row["trial"], row["replicate"]) == (trial, replicate)]
                assert values == [float(row["val_accuracy"]) for row in mine]
        assert not (tmp_path / "log.csv").exists()

    @pytest.mark.slow
    def test_a_checkpoint_of_ours_is_kept_by_each_training(self, tmp_path: Path) -> None:
        found = Tuner(trained, max_trials=1, epochs=2, replicates=2, workers=0, directory=tmp_path / "search")
        kept = trainer.ModelCheckpoint(tmp_path / "kept", "{epoch}", monitor="val_loss", save_top_k=-1)
        found.search(X, Y, validation_data=VALIDATION, callbacks=[kept], verbose=False)
        for replicate in "01":
            names = {path.name for path in (tmp_path / f"kept/trial_0/replicate_{replicate}").iterdir()}
            assert names == {"epoch=0.safetensors", "epoch=1.safetensors"}

    def test_a_search_whose_callbacks_cannot_be_copied_is_refused_before_anything_runs(self, tmp_path: Path) -> None:
        found = Tuner(Wandering(), workers=0, directory=tmp_path / "search")
        with pytest.raises(InputError, match="a Locked cannot be copied"):
            found.search(X, Y, validation_data=VALIDATION, callbacks=[Locked()])
        assert not (tmp_path / "search").exists()
