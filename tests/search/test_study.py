"""A search's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import pytest

from mnist_tuner.errors import InputError
from mnist_tuner.search import Tuner
from mnist_tuner.search.engine import InlineEngine
from mnist_tuner.search.study import Study
from mnist_tuner.search.trial import Replicate, TrialResult
from tests.support.hypermodels import Heard, Layered, Wandering, blobs

X, Y, VALIDATION = blobs()
NAN = float("nan")


def result(trial_id: str = "0", **changes: Any) -> TrialResult:
    """A trial's result, of two replicates and two epochs."""
    replicates = tuple(Replicate(seed, {"loss": (2.0, NAN), "val_accuracy": (0.25, 0.5 + seed)}) for seed in (7, 8))
    options: dict[str, Any] = {
        "status": "completed",
        "replicates": replicates,
        "parameters": 12,
        "seconds": 1.25,
        "worker": "here",
    }
    return TrialResult(trial_id, **{**options, **changes})


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    """An empty one."""
    made = Study(tmp_path, {"seed": 0})
    yield made
    made.close()


class TestRecording:
    def test_a_result_comes_back_in_the_order_in_which_it_came(self, study: Study) -> None:
        study.record({"units": 3}, result("1"))
        study.record({"units": 4}, result("0", status="failed", replicates=(), parameters=None, reason="ValueError: no"))
        found = list(study.results())
        assert [(values["units"], each.trial_id, each.completed) for values, each in found] == [(3, "1", True), (4, "0", False)]
        assert found[0][1].replicates[1].history["val_accuracy"] == (0.25, 8.5)
        assert np.isnan(found[0][1].replicates[1].history["loss"][1])
        assert found[1][1].reason == "ValueError: no"

    def test_weights_states_and_traceback_are_in_files_of_the_trials_folder(self, study: Study) -> None:
        study.record(
            {}, result(weights=b"w", build_config={"input_shape": [None, 4]}, states=(b"a", b"b"), traceback="Traceback")
        )
        folder = study.folder / "trial_0"
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            "checkpoint.weights.h5": b"w",
            "build_config.json": b'{"input_shape": [null, 4]}',
            "replicate-0.safetensors": b"a",
            "replicate-1.safetensors": b"b",
            "error.txt": b"Traceback",
        }
        assert study.states("0", 2) == (b"a", b"b")
        assert next(iter(study.results()))[1].weights == b""

    def test_a_state_that_is_gone_is_named(self, study: Study) -> None:
        with pytest.raises(InputError, match=r"trial_0/replicate-0\.safetensors: is gone"):
            study.states("0", 1)

    def test_a_line_that_is_json_but_no_result_is_named(self, study: Study) -> None:
        study.record({}, result())
        study.journal.append({"trial_id": "1", "values": {}, "status": "completed"})
        with pytest.raises(InputError, match=r"journal\.jsonl: line 3 is damaged"):
            list(study.results())


class TestTable:
    def test_it_has_a_row_for_every_epoch_of_every_replicate_with_trials_in_order(self, study: Study) -> None:
        promoted = (Replicate(9, {"val_accuracy": (0.75,), "extra": (1.0,)}),)
        study.record({"units": 4, "rate": 0.5}, result("1", replicates=promoted, initial_epoch=3))
        last, earlier = result().replicates
        study.record({"units": 2, "name": 'a, "b"'}, result("0", replicates=(last, replace(earlier, scored=1))))
        study.record({"units": 8}, result("2", status="failed", replicates=(), parameters=None, reason="ValueError: no"))
        path = study.folder / "trials.csv"
        study.write_table(path, "val_accuracy")
        assert path.read_text() == (
            "trial,status,units,name,rate,parameters,replicate,seed,epoch,scored,loss,val_accuracy,extra\n"
            '0,completed,2,"a, ""b""",,12,0,7,1,,2.0,0.25,\n'
            '0,completed,2,"a, ""b""",,12,0,7,2,yes,nan,7.5,\n'
            '0,completed,2,"a, ""b""",,12,1,8,1,yes,2.0,0.25,\n'
            '0,completed,2,"a, ""b""",,12,1,8,2,,nan,8.5,\n'
            "1,completed,4,,0.5,12,0,9,4,yes,,0.75,1.0\n"
            "2,failed,8,,,,,,,,,,\n"
        )

    def test_it_depends_neither_on_the_order_of_completion_nor_on_time_and_worker(self, tmp_path: Path) -> None:
        texts = []
        for name, order in (("one", ("0", "1", "2")), ("other", ("2", "0", "1"))):
            study = Study(tmp_path / name, {"seed": 0})
            for number, trial_id in enumerate(order):
                study.record(
                    {f"units_{trial_id}": int(trial_id)}, result(trial_id, seconds=1.0 * number, worker=f"{name}{number}")
                )
            study.write_table(study.folder / "trials.csv", "val_accuracy")
            study.close()
            texts.append((study.folder / "trials.csv").read_text())
        assert texts[0] == texts[1]


class Wider(Wandering):
    """Another space."""

    widest = 32


class TestIdentity:
    @pytest.fixture(scope="module", name="folder")
    @staticmethod
    def a_search_that_has_been_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("study")
        search(folder)
        return folder

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"hypermodel": Wider()}, "another space config max value: it began with 16, and now it is 32"),
            ({"hypermodel": Layered()}, "another space"),
            ({"strategy": "bayesian"}, 'another strategy: it began with "random", and now it is "bayesian"'),
            ({"seed": 1}, "another seed: it began with 0, and now it is 1"),
            ({"objective": "accuracy"}, r'objective: it began with "val_accuracy \(max\)", and now it is "accuracy \(max\)"'),
            ({"objective": keras_tuner.Objective("val_accuracy", "min")}, r"another objective: .* \(max\).* \(min\)"),
            ({"epochs": 2}, "another epochs: it began with 1, and now it is 2"),
            ({"replicates": 2}, "another replicates: it began with 1, and now it is 2"),
            ({"first": {"units": 16}}, "another first trial units: it began with 5, and now it is 16"),
            ({"x": X + 1}, "another data"),
            ({"y": (Y + 1) % 3}, "another data"),
            ({"validation_data": (VALIDATION[0], VALIDATION[1][::-1].copy())}, "another options validation data"),
            ({"batch_size": 16}, "another options batch size: it began with null, and now it is 16"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_a_search_with_another_identity_is_refused_with_the_difference_named(
        self, changes: dict[str, Any], message: str, folder: Path
    ) -> None:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(InputError, match=message) as caught:
            search(folder, **changes)
        assert str(caught.value).startswith(f"{folder}: holds a search with another ")
        assert "\n" not in str(caught.value)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    def test_the_same_search_is_let_in(self, folder: Path) -> None:
        assert len(search(folder).ranked()) == 2

    @pytest.mark.slow
    @pytest.mark.parametrize("strategy", ["bayesian", "hyperband"])
    def test_a_search_may_go_on_with_more_workers_and_does_what_it_would_have_done(self, strategy: str, tmp_path: Path) -> None:
        options: dict[str, Any] = {"strategy": strategy, "max_trials": 7, "epochs": 3}
        search(tmp_path / "whole", **options)
        with pytest.raises(InterruptedError):
            search(tmp_path / "broken", observer=Heard("on_trial_ended", 3), **options)
        search(tmp_path / "broken", workers=3, engine=InlineEngine(), **options)
        assert (tmp_path / "broken/trials.csv").read_bytes() == (tmp_path / "whole/trials.csv").read_bytes()

    def test_a_project_of_kerastuners_own_is_refused(self, tmp_path: Path) -> None:
        stock = keras_tuner.RandomSearch(
            Wandering(), objective="val_accuracy", max_trials=1, directory=tmp_path, project_name="theirs"
        )
        stock.oracle.create_trial("tuner0")
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError, match="theirs: holds a project of KerasTuner's own, which has no journal"):
            search(tmp_path / "theirs")
        assert [path for path in sorted(tmp_path.rglob("*")) if not path.name.startswith(".")] == before


def search(
    folder: Path,
    *,
    hypermodel: Any = None,
    x: Any = X,
    y: Any = Y,
    validation_data: Any = VALIDATION,
    batch_size: int | None = None,
    observer: Heard | None = None,
    engine: InlineEngine | None = None,
    **options: Any,
) -> Tuner:
    """A search of two trials."""
    defaults: dict[str, Any] = {"max_trials": 2, "epochs": 1, "replicates": 1, "workers": 0, "directory": folder}
    tuner = Tuner(hypermodel or Wandering(), **{**defaults, **options})
    more = {} if batch_size is None else {"batch_size": batch_size}
    tuner.search(x, y, validation_data=validation_data, verbose=False, observer=observer, engine=engine, **more)
    return tuner


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("initial_epoch", {}),
        ("initial_epoch", -1),
        ("seconds", "x"),
        ("trial_id", 7),
        ("trial_id", "../../elsewhere"),
        ("status", "lost"),
        ("status", "failed"),
        ("replicates", []),
        ("replicates", [{"seed": 1, "history": {"loss": [0.5]}}]),
        ("replicates", [{"seed": 1, "history": {"val_accuracy": []}}]),
        ("replicates", [{"seed": 1, "history": {"val_accuracy": [0.5]}, "scored": 2}]),
        ("replicates", [{"seed": 1, "history": {"val_accuracy": "high"}}]),
        ("replicates", [{"seed": {}, "history": {"val_accuracy": [0.5]}}]),
        ("parameters", "many"),
        ("worker", None),
        ("found", [1]),
        ("values", [1]),
        ("values", "x" * 10_000),
    ],
)
def test_a_line_in_which_something_is_not_as_it_should_be_is_named(name: str, value: object, tmp_path: Path) -> None:
    study = Study(tmp_path, {"objective": "val_accuracy (max)"})
    study.record({}, result())
    study.journal.append({**result("1").to_json(), "values": {}, name: value})
    with pytest.raises(InputError, match=r"journal\.jsonl: line 3 is damaged: ") as caught:
        list(study.results())
    study.close()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500 + len(str(tmp_path))
    assert [summary.trial_id for summary in Study.summaries(tmp_path, "val_accuracy")] == ["0"]


@pytest.mark.parametrize("text", ['{"trial_id": "\\ud800"}', '{"trial_id": NaN}', '{"trial_id": 1e999}'])
def test_half_a_character_and_what_is_no_number_damage_a_line(text: str, tmp_path: Path) -> None:
    study = Study(tmp_path, {"seed": 0})
    study.record({}, result())
    study.close()
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write(text + "\n")
    study = Study(tmp_path, {"seed": 0})
    with pytest.raises(InputError, match=r"journal\.jsonl: line 3 is damaged: not a JSON object"):
        list(study.results())
    study.close()


def test_a_pipe_in_a_journals_place_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal.jsonl")
    with pytest.raises(InputError, match="expected a file, and it is a pipe"):
        Study(tmp_path, {"seed": 0})
    assert Study.summaries(tmp_path, "val_accuracy") == []
