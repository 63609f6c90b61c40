"""Searching one's own hypermodel on one's own arrays."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
from rich.console import Console

from mnist_tuner.errors import InputError, RunError
from mnist_tuner.search import Tuner
from mnist_tuner.search.dask_engine import DaskEngine
from mnist_tuner.search.oracles import STRATEGIES
from tests.support.commands import DEADLINE, environment
from tests.support.hypermodels import Asking, Heard, Layered, Wandering, accuracy, blobs, net, trained

pytestmark = pytest.mark.slow

X, Y, VALIDATION = blobs()


def tuner(folder: Path, hypermodel: Any = None, **options: Any) -> Tuner:
    """A small search in this process."""
    defaults: dict[str, Any] = {"epochs": 3, "replicates": 2, "max_trials": 5, "workers": 0, "directory": folder}
    return Tuner(hypermodel or Wandering(), **{**defaults, **options})


def search(found: Tuner, **options: Any) -> Tuner:
    """Runs it to its end."""
    found.search(X, Y, **{"validation_data": VALIDATION, "verbose": False, **options})
    return found


def table(folder: Path) -> list[dict[str, str]]:
    """The rows of the trials' table."""
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", name="trained_search")
def a_search_that_trains(tmp_path_factory: pytest.TempPathFactory) -> Tuner:
    """Three nets of each two real trainings, with our own loop."""
    folder = tmp_path_factory.mktemp("trained")
    return search(tuner(folder, trained, max_trials=3))


class TestResults:
    def test_trials_are_ranked_by_the_mean_after_the_last_epoch(self, trained_search: Tuner) -> None:
        ranked = trained_search.ranked()
        rows = table(trained_search.folder)
        for summary in ranked:
            last = [float(row["val_accuracy"]) for row in rows if row["trial"] == summary.trial_id and row["epoch"] == "3"]
            assert list(summary.scores) == last
            assert summary.mean == pytest.approx(sum(last) / 2)
        means = [summary.mean or 0.0 for summary in ranked]
        assert means == sorted(means, reverse=True)
        assert len({summary.values["units"] for summary in ranked}) == 3

    def test_the_first_trial_has_the_default_that_is_not_on_the_grid(self, trained_search: Tuner) -> None:
        assert trained_search.summaries["0"].values == {"units": 5}

    def test_the_best_models_are_the_first_replicates(self, trained_search: Tuner) -> None:
        models = trained_search.get_best_models(3)
        for model, summary in zip(models, trained_search.ranked(), strict=True):
            _, val_accuracy = model.evaluate(*VALIDATION, verbose=0)
            assert val_accuracy == pytest.approx(summary.scores[0], abs=1e-6)
            assert accuracy(model, VALIDATION) == pytest.approx(summary.scores[0], abs=1e-6)

    def test_the_best_models_can_be_trained_further_with_keras(self, trained_search: Tuner) -> None:
        model = trained_search.get_best_models()[0]
        model.fit(X, Y, verbose=0)

    def test_the_best_hyperparameters_build_the_best_model(self, trained_search: Tuner) -> None:
        best = trained_search.get_best_hyperparameters(2)
        assert [hp.values for hp in best] == [summary.values for summary in trained_search.ranked()[:2]]
        assert trained(best[0]).count_params() == trained_search.ranked()[0].parameters

    def test_a_smaller_objective_can_be_the_better_one(self, tmp_path: Path) -> None:
        class Loss(Wandering):
            def fit(self, hp: Any, model: Any, *arguments: Any, **options: Any) -> Any:
                return {"val_loss": float(hp.get("units"))}

        found = search(tuner(tmp_path, Loss(), objective="val_loss", replicates=1))
        assert [summary.mean for summary in found.ranked()] == sorted(summary.values["units"] for summary in found.ranked())

    def test_a_model_is_ranked_stored_and_reported_by_the_epoch_whose_weights_were_restored(self, tmp_path: Path) -> None:
        def leaping(hp: Any) -> keras.Model:
            return net(keras.layers.Dense(hp.Int("units", 4, 8, step=2), activation="relu"), optimizer=keras.optimizers.SGD(2.0))

        stopping = keras.callbacks.EarlyStopping("val_loss", patience=9, restore_best_weights=True)
        found = search(tuner(tmp_path, leaping, objective="val_loss", max_trials=3, epochs=6), callbacks=[stopping])
        rows = table(tmp_path)
        for model, summary in zip(found.get_best_models(3), found.ranked(), strict=True):
            mine = [row for row in rows if row["trial"] == summary.trial_id]
            scored = [row for row in mine if row["scored"] == "yes"]
            assert [float(row["val_loss"]) for row in scored] == list(summary.scores)
            assert [int(row["epoch"]) for row in scored] == [epoch or 6 for epoch in summary.scored]
            for number, score in enumerate(summary.scores):
                assert score == min(float(row["val_loss"]) for row in mine if row["replicate"] == str(number))
            assert model.evaluate(*VALIDATION, verbose=0)[0] == pytest.approx(summary.scores[0], abs=1e-5)
            kept = json.loads((tmp_path / f"trial_{summary.trial_id}/trial.json").read_text())
            assert kept["score"] == summary.mean
            assert kept["best_step"] == int(scored[0]["epoch"]) - 1
        assert any(epoch for summary in found.ranked() for epoch in summary.scored)
        written = Console(file=StringIO(), width=120)
        found.results_summary(console=written)
        assert isinstance(written.file, StringIO)
        assert "that whose weights were restored" in written.file.getvalue()
        assert " of 6 " in written.file.getvalue()
        assert [s.scored for s in tuner(tmp_path, leaping, objective="val_loss").ranked()] == [s.scored for s in found.ranked()]

    def test_a_function_of_the_hyperparameters_will_do(self, trained_search: Tuner) -> None:
        assert trained_search.complete

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_the_number_of_trials_is_known_beforehand(self, strategy: str, tmp_path: Path) -> None:
        found = tuner(tmp_path, strategy=strategy, max_trials=None if strategy in ("grid", "hyperband") else 7, replicates=1)
        found.find_space()
        total = found.total
        assert total == {"random": 7, "bayesian": 7, "grid": 8 * 2 + 1, "hyperband": 7}[strategy]
        assert len(search(found).ranked()) == total

    def test_numbers_out_of_range_are_refused(self, tmp_path: Path) -> None:
        for name, value in {"seed": -1, "replicates": 0, "epochs": 0, "max_trials": 0, "workers": -1, "strategy": "luck"}.items():
            with pytest.raises(InputError, match=f"{name} is "):
                tuner(tmp_path, **{name: value})


class Measured(Wandering):
    """Keras's own fit, with metrics that Keras names."""

    def __init__(self, *metrics: Any) -> None:
        super().__init__()
        self.metrics = metrics

    def build(self, hp: Any) -> Any:
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(hp.Int("units", 2, 6, step=2)), keras.layers.Dense(3, "sigmoid")]
        )
        model.compile("sgd", "mse", metrics=[metric() for metric in self.metrics])
        return model

    def fit(self, hp: Any, model: Any, x: Any, y: Any, validation_data: Any, **options: Any) -> Any:
        one_hot = np.eye(3, dtype="float32")
        return model.fit(x, one_hot[y], validation_data=(validation_data[0], one_hot[validation_data[1]]), verbose=0, **options)


class TestNames:
    @pytest.mark.parametrize("workers", [0, 1])
    def test_what_keras_names_has_the_same_name_in_each_replicate_and_trial(self, workers: int, tmp_path: Path) -> None:
        for _ in range(2):
            before = keras.metrics.AUC().name  # the person's own
        hypermodel = Measured(keras.metrics.AUC)
        found = search(tuner(tmp_path, hypermodel, objective="val_auc", workers=workers, max_trials=3))
        assert [summary.completed for summary in found.ranked()] == [True] * 3
        assert {name for name in table(tmp_path)[0] if "auc" in name} == {"auc", "val_auc"}
        after = keras.metrics.AUC().name
        assert [int(name.removeprefix("auc_")) for name in (before, after)] == [count := int(before[4:]), count + 1]

    def test_outputs_are_called_by_their_layers_names_in_each_of_them(self, tmp_path: Path) -> None:
        class TwoOutputs(Measured):
            def build(self, hp: Any) -> Any:
                inputs = keras.Input((4,))
                hidden = keras.layers.Dense(hp.Int("units", 2, 6, step=2))(inputs)
                model = keras.Model(inputs, [keras.layers.Dense(1)(hidden), keras.layers.Dense(1)(hidden)])
                model.compile("sgd", "mse")
                return model

            def fit(self, hp: Any, model: Any, x: Any, y: Any, validation_data: Any, **options: Any) -> Any:
                return model.fit(x, [y, y], validation_data=(validation_data[0], [validation_data[1]] * 2), verbose=0, **options)

        objective = keras_tuner.Objective("val_dense_2_loss", "min")
        found = search(tuner(tmp_path, TwoOutputs(), objective=objective, max_trials=3, epochs=1))
        assert [summary.completed for summary in found.ranked()] == [True] * 3


class TestObjectives:
    def test_a_list_is_minimized_as_a_sum_in_which_what_is_to_grow_is_negative(self, tmp_path: Path) -> None:
        class Several(Wandering):
            def fit(self, hp: Any, model: Any, *arguments: Any, **options: Any) -> Any:
                return {"val_loss": hp.get("units") / 10, "val_accuracy": hp.get("units") / 20, "size": 3.0}

        objectives = [keras_tuner.Objective("val_accuracy", "max"), "val_loss"]
        found = search(tuner(tmp_path, Several(), objective=objectives, replicates=1))
        assert (found.objective, found.direction) == ("multi_objective", "min")
        for summary in found.ranked():
            assert summary.mean == pytest.approx(summary.values["units"] / 20)
        assert [s.mean for s in found.ranked()] == sorted(s.mean or 0.0 for s in found.ranked())
        with pytest.raises(InputError, match="another objective"):
            search(tuner(tmp_path, Several(), objective=[*objectives[:1], "loss"], replicates=1))

    def test_a_sum_is_that_of_each_epoch_with_the_compiled_loop(self, tmp_path: Path) -> None:
        search(tuner(tmp_path, trained, objective=["val_loss", "val_accuracy"], max_trials=1, replicates=1))
        for row in table(tmp_path):
            assert float(row["multi_objective"]) == pytest.approx(float(row["val_loss"]) - float(row["val_accuracy"]))

    @pytest.mark.parametrize(
        ("objective", "message"),
        [
            ([], r"objective is \[\]: expected a metric"),
            (["val_loss", "beauty"], "beauty"),
            (3, "objective"),
            (
                keras_tuner.Objective("val_loss", "down"),
                "the direction of objective 'val_loss' is 'down': expected 'min' or 'max'",
            ),
        ],
    )
    def test_what_is_none_is_refused_when_the_tuner_is_made(self, objective: Any, message: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=message):
            tuner(tmp_path, objective=objective)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_one_that_is_not_among_the_metrics_ends_the_search_with_what_there_is(self, workers: int, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"the objective is 'val_acc': expected one of accuracy, val_accuracy$"):
            search(tuner(tmp_path / "one", objective="val_acc", workers=workers))
        with pytest.raises(InputError, match=r"the objective is 'val_acc': expected one of accuracy, val_accuracy$"):
            search(tuner(tmp_path / "several", objective=["val_accuracy", "val_acc"], workers=workers))

    @pytest.mark.parametrize("own_fit", [True, False])
    def test_a_metric_with_a_value_for_each_class_is_named(self, own_fit: bool, tmp_path: Path) -> None:
        class Looped(Measured):
            fit = keras_tuner.HyperModel.fit

        hypermodel = (Measured if own_fit else Looped)(lambda: keras.metrics.F1Score(threshold=0.5))
        one_hot = np.eye(3, dtype="float32")
        data = (X, Y if own_fit else one_hot[Y])
        validation = VALIDATION if own_fit else (VALIDATION[0], one_hot[VALIDATION[1]])
        objective = keras_tuner.Objective("val_f1_score", "max")
        with pytest.raises(
            InputError, match=r"the objective is 'val_f1_score', a metric with a value for each class.*average=\"macro\""
        ):
            tuner(tmp_path / "whole", hypermodel, objective=objective).search(*data, validation_data=validation, verbose=False)
        objective = keras_tuner.Objective("val_f1_score_1", "max")
        found = tuner(tmp_path / "part", hypermodel, objective=objective, max_trials=2)
        found.search(*data, validation_data=validation, verbose=False)
        assert [summary.completed for summary in found.ranked()] == [True, True]

    def test_a_macro_average_is_one_number(self, tmp_path: Path) -> None:
        hypermodel = Measured(lambda: keras.metrics.F1Score(threshold=0.5, average="macro"))
        found = search(tuner(tmp_path, hypermodel, objective=keras_tuner.Objective("val_f1_score", "max"), max_trials=2))
        assert [summary.completed for summary in found.ranked()] == [True, True]


class TestFirst:
    @pytest.mark.parametrize(
        ("first", "message"),
        [
            ({"units": 4, "depth": 2}, "first has 'depth': expected 'units', 'activation'"),
            ({"units": 18}, "first: 'units' is 18: expected 2 to 16"),
            ({"units": 2.5}, "first: 'units' is 2.5: expected an integer"),
            ({"units": "4"}, "first: 'units' is '4': expected a number"),
            ({"activation": "gelu"}, "first: 'activation' is 'gelu': expected one of 'relu', 'tanh'"),
        ],
    )
    def test_what_does_not_fit_the_space_is_refused(self, first: dict[str, Any], message: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=message):
            search(tuner(tmp_path, first=first))
        assert not (tmp_path / "journal.jsonl").exists()

    def test_a_value_takes_the_form_that_it_has_in_the_space(self, tmp_path: Path) -> None:
        found = search(tuner(tmp_path, first={"units": np.float64(8)}, max_trials=1))
        assert found.summaries["0"].values == {"units": 8, "activation": "relu"}
        assert type(found.summaries["0"].values["units"]) is int

    def test_it_may_have_names_that_only_its_own_model_has(self, tmp_path: Path) -> None:
        found = search(tuner(tmp_path, Layered(), first={"layers": 3, "units_2": 4}, max_trials=2, replicates=1))
        assert found.summaries["0"].values == {"layers": 3, "units_0": 2, "units_1": 2, "units_2": 4}
        with pytest.raises(InputError, match="first has 'units_3': expected 'layers', 'units_0', 'units_1', 'units_2'"):
            tuner(tmp_path / "other", Layered(), first={"layers": 3, "units_3": 4}).find_space()

    def test_a_name_that_is_not_active_there_is_refused(self, tmp_path: Path) -> None:
        def build(hp: Any) -> keras.Model:
            hp.Choice("kind", ["shallow", "deep"])
            with hp.conditional_scope("kind", ["deep"]):
                hp.Int("depth", 1, 3)
            return trained(hp)

        tuner(tmp_path, build, first={"kind": "deep", "depth": 2}).find_space()
        with pytest.raises(InputError, match="first has 'depth', which is not active with the other values"):
            tuner(tmp_path, build, first={"depth": 2}).find_space()


class Dependent(Wandering):
    """One name whose range depends on another one."""

    def build(self, hp: Any) -> Any:
        hp.Int("least", 2, hp.Int("units", 2, 16, step=2))
        return super().build(hp)


class Late(Wandering):
    """The other range is asked for where the model is trained."""

    def fit(self, hp: Any, model: Any, *arguments: Any, **options: Any) -> Any:
        hp.Int("units", 2, 99)
        return super().fit(hp, model, *arguments, **options)


class TestRanges:
    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_a_name_with_two_ranges_ends_the_search_before_one_is_passed_over(self, strategy: str, tmp_path: Path) -> None:
        with pytest.raises(
            InputError, match=r"hyperparameter 'least' is Int 2 to 2 by 1 in one place and Int 2 to .* in another"
        ):
            search(tuner(tmp_path, Dependent(), strategy=strategy))

    @pytest.mark.parametrize("workers", [0, 1])
    def test_it_does_so_where_it_is_trained(self, workers: int, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="hyperparameter 'units' is Int 2 to 16 by 2 in one place and Int 2 to 99"):
            search(tuner(tmp_path, Late(), workers=workers))
        assert not list(tmp_path.glob("trial_*"))


class TestDynamicSpaces:
    @staticmethod
    def layered(strategy: str, folder: Path) -> Tuner:
        """A search of a space that grows as it is looked at."""
        epochs = 9 if strategy == "hyperband" else 2
        return tuner(folder, Layered(), strategy=strategy, max_trials=14, epochs=epochs, replicates=1)

    @pytest.fixture(scope="class", params=["random", "bayesian", "hyperband"], name="whole")
    @staticmethod
    def search_of_a_growing_space(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tuner:
        """Such a search that nothing happens to, of each strategy."""
        return search(TestDynamicSpaces.layered(request.param, tmp_path_factory.mktemp("growing")))

    def test_hyperparameters_that_appear_on_the_way_are_searched(self, whole: Tuner) -> None:
        values = [summary.values for summary in whole.ranked()]
        assert {each["layers"] for each in values} == {1, 2, 3}
        for each in values:
            assert {f"units_{i}" for i in range(each["layers"])} <= set(each)
        assert {each["units_2"] for each in values if each["layers"] == 3} == {2, 4}

    def test_a_grid_of_them_is_covered_without_repeats(self, tmp_path: Path) -> None:
        found = search(tuner(tmp_path, Layered(), strategy="grid", max_trials=60, epochs=1, replicates=1))
        nets = Counter(
            (each["layers"], *(each[f"units_{i}"] for i in range(each["layers"])))
            for each in (summary.values for summary in found.ranked())
        )
        assert len(nets) == 2 + 4 + 8
        assert sum(nets.values()) < 60

    def test_such_a_search_is_resumed_to_the_same_table(self, whole: Tuner, tmp_path: Path) -> None:
        with pytest.raises(InterruptedError):
            search(self.layered(whole.strategy, tmp_path), observer=Heard("on_trial_ended", 4))
        search(self.layered(whole.strategy, tmp_path))
        assert (tmp_path / "trials.csv").read_bytes() == (whole.folder / "trials.csv").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tuner]:
    """Gives a search by a strategy that nothing happens to, made when it is first asked for; `log_of` tells its fits."""

    @cache
    def make(strategy: str) -> Tuner:
        folder = tmp_path_factory.mktemp("whole") / "search"
        return search(tuner(folder, Wandering(log_of(folder)), strategy=strategy))

    return make


def log_of(folder: Path) -> Path:
    """A file beside a search's folder, for its fits."""
    return folder.with_name("fits")


class TestResume:
    @pytest.mark.parametrize(
        ("strategy", "event", "number"),
        [
            *(("random", "on_trial_started", 0), ("random", "on_trial_ended", 2)),
            *(("grid", "on_trial_ended", 0), ("grid", "on_trial_ended", 4)),
            *(("bayesian", "on_trial_started", 0), ("bayesian", "on_trial_ended", 1)),
            *(("hyperband", "on_trial_ended", 2), ("hyperband", "on_trial_ended", 3), ("hyperband", "on_trial_ended", 4)),
        ],
    )
    def test_a_search_stopped_at_any_trial_ends_with_the_same_table(
        self, strategy: str, event: str, number: int, undisturbed: Callable[[str], Tuner], tmp_path: Path
    ) -> None:
        whole = undisturbed(strategy)
        folder = tmp_path / "search"
        log = log_of(folder)
        options = {"strategy": strategy}
        with pytest.raises(InterruptedError):
            search(tuner(folder, Wandering(log), **options), observer=Heard(event, number))
        heard = Heard()
        found = search(tuner(folder, Wandering(log), **options), observer=heard)
        assert (folder / "trials.csv").read_bytes() == (whole.folder / "trials.csv").read_bytes()
        assert len(heard.restored) == number + (event == "on_trial_ended")
        assert len(heard.started) == 5 - len(heard.restored)
        assert len(log.read_text().splitlines()) == 5 * 2
        assert [summary.trial_id for summary in found.ranked()] == [summary.trial_id for summary in whole.ranked()]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, InterruptedError])
    def test_a_search_stopped_in_the_middle_of_a_trial_trains_only_that_one_again(
        self, error: type[BaseException], undisturbed: Callable[[str], Tuner], tmp_path: Path
    ) -> None:
        whole = undisturbed("random")
        log = tmp_path / "fits"
        with pytest.raises(error):  # trial 2, its second replicate
            search(tuner(tmp_path / "broken", Wandering(log)), observer=Heard("on_epoch", 2 * 6 + 4, error))
        search(tuner(tmp_path / "broken", Wandering(log)))
        assert (tmp_path / "broken/trials.csv").read_bytes() == (whole.folder / "trials.csv").read_bytes()
        assert len(log.read_text().splitlines()) == 5 * 2 + 2

    def test_a_finished_search_finds_nothing_to_do(self, undisturbed: Callable[[str], Tuner], tmp_path: Path) -> None:
        first = undisturbed("random")
        shutil.copytree(first.folder.parent, tmp_path, dirs_exist_ok=True)
        log = log_of(tmp_path / "search")
        before = log.read_text(), (tmp_path / "search/trials.csv").read_bytes()
        again = search(tuner(tmp_path / "search", Wandering(log)))
        assert (log.read_text(), (tmp_path / "search/trials.csv").read_bytes()) == before
        assert len(before[0].splitlines()) == 5 * 2
        assert again.ranked() == [  # the journal rounds the seconds
            type(s)(**{**{n: getattr(s, n) for n in s.__slots__}, "seconds": round(s.seconds, 3)}) for s in first.ranked()
        ]

    def test_kerastuners_files_are_made_again_where_they_are_missing_or_torn(
        self, undisturbed: Callable[[str], Tuner], tmp_path: Path
    ) -> None:
        shutil.copytree(undisturbed("random").folder, tmp_path, dirs_exist_ok=True)
        trial = (tmp_path / "trial_3/trial.json").read_bytes()
        (tmp_path / "trial_3/trial.json").write_bytes(trial[:20])
        (tmp_path / "trial_4/trial.json").unlink()
        (tmp_path / "oracle.json").write_text("{")
        (tmp_path / "tuner0.json").unlink()
        found = search(tuner(tmp_path))
        assert (tmp_path / "trial_3/trial.json").read_bytes() == trial
        assert (tmp_path / "trial_4/trial.json").exists()
        assert (tmp_path / "oracle.json").read_text().startswith('{"ongoing_trials"')
        assert (tmp_path / "tuner0.json").read_text() == "{}"
        assert found.complete

    @pytest.mark.parametrize("strategy", ["grid", "bayesian"])  # one that does not learn from results, and one that does
    def test_a_search_whose_time_is_over_says_so_and_can_be_resumed(
        self, strategy: str, undisturbed: Callable[[str], Tuner], tmp_path: Path
    ) -> None:
        found = search(tuner(tmp_path, strategy=strategy), max_time="0s")
        assert found.ranked() == []
        assert not found.complete
        assert search(tuner(tmp_path, strategy=strategy)).complete
        assert (tmp_path / "trials.csv").read_bytes() == (undisturbed(strategy).folder / "trials.csv").read_bytes()

    def test_two_searches_at_once_in_one_folder_are_refused(self, tmp_path: Path) -> None:
        class Nested(Heard):
            def on_trial_ended(self, *arguments: Any, **options: Any) -> None:
                with pytest.raises(InputError):
                    search(tuner(tmp_path))
                raise InterruptedError

        with pytest.raises(InterruptedError):
            search(tuner(tmp_path), observer=Nested())


class TestMoreTrials:
    @pytest.mark.parametrize("strategy", ["random", "grid", "bayesian"])
    def test_a_finished_search_goes_on_with_more_as_if_it_had_begun_with_them(
        self, strategy: str, undisturbed: Callable[[str], Tuner], tmp_path: Path
    ) -> None:
        first = undisturbed(strategy)
        folder = tmp_path / "search"
        shutil.copytree(first.folder, folder)
        log = log_of(folder)
        found = search(tuner(folder, Wandering(log), strategy=strategy, max_trials=8))
        assert found.complete
        assert len(log.read_text().splitlines()) == (8 - 5) * 2
        text = (folder / "trials.csv").read_text()
        assert text.startswith((first.folder / "trials.csv").read_text())
        whole = search(tuner(tmp_path / "whole", strategy=strategy, max_trials=8))
        assert text == (whole.folder / "trials.csv").read_text()

    def test_names_stay_as_long_as_they_were_and_trials_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        search(tuner(tmp_path / "grown", max_trials=3, replicates=1))
        assert search(tuner(tmp_path / "grown", max_trials=11, replicates=1)).complete
        search(tuner(tmp_path / "whole", max_trials=11, replicates=1))
        grown, whole = (table(tmp_path / name) for name in ("grown", "whole"))
        assert list(dict.fromkeys(row["trial"] for row in grown)) == [str(number) for number in range(11)]
        assert list(dict.fromkeys(row["trial"] for row in whole)) == [f"{number:02}" for number in range(11)]
        assert [{**row, "trial": ""} for row in grown] == [{**row, "trial": ""} for row in whole]
        again = tuner(tmp_path / "grown", max_trials=None, strategy="random", replicates=1)
        assert sorted(search(again).summaries, key=int) == [str(number) for number in range(16)]

    def test_hyperbands_cap_may_be_raised(self, tmp_path: Path) -> None:
        search(tuner(tmp_path / "grown", strategy="hyperband", max_trials=4, replicates=1))
        search(tuner(tmp_path / "grown", strategy="hyperband", max_trials=None, replicates=1))
        search(tuner(tmp_path / "whole", strategy="hyperband", max_trials=4, replicates=1))
        search(tuner(tmp_path / "whole", strategy="hyperband", max_trials=7, replicates=1))
        assert (tmp_path / "grown/trials.csv").read_text() == (tmp_path / "whole/trials.csv").read_text()

    def test_fewer_than_have_been_begun_are_refused_and_more_than_that_are_enough(
        self, undisturbed: Callable[[str], Tuner], tmp_path: Path
    ) -> None:
        shutil.copytree(undisturbed("random").folder, tmp_path / "search")
        with pytest.raises(InputError, match="5 trials have been begun, and now the search is to have 4: expected at least 5"):
            search(tuner(tmp_path / "search", max_trials=4))
        with pytest.raises(InterruptedError):
            search(tuner(tmp_path / "other", max_trials=9), observer=Heard("on_trial_ended", 2))
        search(tuner(tmp_path / "other", max_trials=5))
        assert (tmp_path / "other/trials.csv").read_bytes() == (undisturbed("random").folder / "trials.csv").read_bytes()


class Refusing(Wandering):
    """Refuses some widths before anything is trained, after it has asked for all that it has."""

    def __init__(self, refuses: Callable[[int], bool], log: Path | None = None) -> None:
        super().__init__(log)
        self.refuses = refuses

    def build(self, hp: Any) -> Any:
        model = super().build(hp)
        if self.refuses(hp.get("units")):
            raise keras_tuner.errors.FailedTrialError(f"no {hp.get('units')} units")
        return model


class TestRefusals:
    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_what_is_refused_uses_up_no_trial(self, strategy: str, tmp_path: Path) -> None:
        hypermodel = Refusing(lambda units: units % 4 == 0, tmp_path / "fits")
        found = search(tuner(tmp_path / "search", hypermodel, strategy=strategy, replicates=1, max_trials=7))
        assert [summary.completed for summary in found.ranked()] == [True] * 7
        assert sorted(found.summaries) == [str(number) for number in range(7)]
        assert all(summary.values["units"] % 4 for summary in found.ranked())
        assert found.refused
        assert {reason for _, reason in found.refused} <= {f"no {units} units" for units in (4, 8, 12, 16)}
        assert len({str(values) for values, _ in found.refused}) == len(found.refused)

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_such_a_search_is_resumed_to_the_same_table(self, strategy: str, tmp_path: Path) -> None:
        def fresh(name: str) -> Tuner:
            return tuner(tmp_path / name, Refusing(lambda units: units > 8), strategy=strategy, replicates=1, max_trials=7)

        whole = search(fresh("whole"))
        with pytest.raises(InterruptedError):
            search(fresh("broken"), observer=Heard("on_trial_ended", 3))
        search(fresh("broken"))
        assert (tmp_path / "broken/trials.csv").read_bytes() == (whole.folder / "trials.csv").read_bytes()

    @pytest.mark.parametrize("strategy", ["random", "grid"])
    def test_all_that_is_not_refused_is_found(self, strategy: str, tmp_path: Path) -> None:
        hypermodel = Refusing(lambda units: units != 6)
        found = search(tuner(tmp_path, hypermodel, strategy=strategy, replicates=1, max_trials=9))
        assert found.complete
        assert sorted(summary.values["activation"] for summary in found.ranked()) == ["relu", "tanh"]
        assert len(found.refused) == 7 * 2 + 1

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_models_that_are_too_large_are_not_trained(self, strategy: str, tmp_path: Path) -> None:
        found = search(tuner(tmp_path, strategy=strategy, max_model_size=50, replicates=1, max_trials=6))
        assert all((summary.parameters or 99) <= 50 for summary in found.ranked())
        assert all(reason.endswith("parameters, more than max_model_size, 50") for _, reason in found.refused)
        assert found.refused
        with pytest.raises(InputError, match="another max model size: it began with 50, and now it is 60"):
            search(tuner(tmp_path, strategy=strategy, max_model_size=60, replicates=1, max_trials=6))

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_where_all_are_refused_it_says_so(self, strategy: str, tmp_path: Path) -> None:
        found = tuner(tmp_path, Refusing(lambda units: True), strategy=strategy, max_trials=20)
        for _ in range(2):
            with pytest.raises(RunError, match=r"no trial was begun\. 1[67] combinations were refused, the last one units="):
                search(found)

    def test_after_a_hundred_in_a_row_no_more_are_tried(self, tmp_path: Path) -> None:
        def build(hp: Any) -> keras.Model:
            if hp.Float("rate", 0.0, 1.0) > 0:
                raise keras_tuner.errors.FailedTrialError("too fast")
            return trained(hp)

        found = search(tuner(tmp_path, build, replicates=1))
        assert [summary.values for summary in found.ranked()] == [{"rate": 0.0, "units": 5}]
        console = Console(file=StringIO(), width=200)
        found.results_summary(console=console)
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "100 combinations were refused, the last one rate=0." in shown
        assert "too fast. After 100 in a row no more were tried." in shown


class Pair(keras.Model):  # type: ignore[misc]
    """A model without a call, of a part that its own step trains."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.part = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units), keras.layers.Dense(1)])

    def train_step(self, data: Any) -> dict[str, Any]:
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.part(x)[:, 0] - tf.cast(y, "float32")) ** 2)
        weights = self.part.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


@pytest.mark.parametrize("own_fit", [True, False])
def test_a_model_without_a_call_is_searched(own_fit: bool, tmp_path: Path) -> None:
    class Pairs(Wandering):
        def build(self, hp: Any) -> Any:
            model = Pair(hp.Int("units", 2, 8, step=2))
            model.compile("sgd")
            return model

        def fit(self, hp: Any, model: Any, *arguments: Any, **options: Any) -> Any:
            return model.fit(*arguments, verbose=0, **options)

    class Looped(Pairs):
        fit = keras_tuner.HyperModel.fit

    found = tuner(tmp_path, (Pairs if own_fit else Looped)(), objective="loss", max_trials=2, max_model_size=40)
    found.search(X, Y, verbose=False)
    for summary, model in zip(found.ranked(), found.get_best_models(2), strict=True):
        assert summary.parameters == summary.values["units"] * 6 + 1 == model.part.count_params()
        assert model.part.get_weights()[1].any()  # biases, which are zeros at first


class TestFailures:
    @pytest.fixture(scope="module", name="failing")
    @staticmethod
    def a_search_with_failures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuner, Heard, list[str]]:
        """A grid on which nets of 8 units and more raise, in a process of its own search."""
        folder = tmp_path_factory.mktemp("failing")
        heard = Heard()
        hypermodel = Wandering(folder / "fits", fails=lambda units: units >= 8)
        found = search(tuner(folder / "search", hypermodel, strategy="grid", max_trials=None), observer=heard)
        return found, heard, (folder / "fits").read_text().splitlines()

    def test_the_others_go_on(self, failing: tuple[Tuner, Heard, list[str]]) -> None:
        found, _, _ = failing
        assert found.complete
        assert Counter(summary.status for summary in found.ranked()) == {"completed": 1 + 2 * 3, "failed": 2 * 5}

    def test_a_failing_trial_is_tried_twice(self, failing: tuple[Tuner, Heard, list[str]]) -> None:
        found, heard, fits = failing
        counts = Counter(fits)
        assert {counts[str(s.values)] for s in found.ranked()} == {2}  # two replicates, or two attempts at the first
        assert len(heard.again) == 2 * 5
        assert set(heard.again) == {
            (s.trial_id, f"LookupError: units of {s.values['units']} cannot be had") for s in found.ranked() if not s.completed
        }

    def test_reason_and_traceback_are_kept(self, failing: tuple[Tuner, Heard, list[str]]) -> None:
        found, _, _ = failing
        failed = next(summary for summary in found.ranked() if summary.values["units"] == 8)
        assert failed.reason == "LookupError: units of 8 cannot be had"
        text = (found.folder / f"trial_{failed.trial_id}/error.txt").read_text()
        assert text.startswith("Traceback (most recent call last)")
        assert "hypermodels.py" in text
        assert text.rstrip().endswith("LookupError: units of 8 cannot be had")

    def test_failed_trials_rank_last_and_stand_in_the_table(self, failing: tuple[Tuner, Heard, list[str]]) -> None:
        found, _, _ = failing
        assert [summary.completed for summary in found.ranked()] == [True] * 7 + [False] * 10
        rows = [row for row in table(found.folder) if row["status"] == "failed"]
        assert len(rows) == 10
        assert all(row["val_accuracy"] == row["replicate"] == "" for row in rows)

    def test_a_failed_trial_is_never_among_the_best(self, failing: tuple[Tuner, Heard, list[str]]) -> None:
        found, _, _ = failing
        assert len(found.get_best_hyperparameters(100)) == len(found.get_best_models(100)) == 7
        assert all(hp.get("units") < 8 for hp in found.get_best_hyperparameters(100))

    def test_failures_are_not_tried_again_on_resume(self, failing: tuple[Tuner, Heard, list[str]]) -> None:
        found, _, fits = failing
        hypermodel = Wandering(found.folder.parent / "fits")  # would not fail any more
        again = search(tuner(found.folder, hypermodel, strategy="grid", max_trials=None))
        assert (found.folder.parent / "fits").read_text().splitlines() == fits
        assert sum(not summary.completed for summary in again.ranked()) == 10

    def test_a_trial_that_hangs_is_ended_and_its_worker_replaced_and_the_others_go_on(self, tmp_path: Path) -> None:
        class Hanging(Wandering):
            def fit(self, hp: Any, model: Any, *arguments: Any, **options: Any) -> Any:
                if hp.get("units") == 5 and not finished.exists():
                    threading.Event().wait()
                return super().fit(hp, model, *arguments, **options)

        finished = tmp_path / "finished"
        heard = Heard()
        found = search(tuner(tmp_path / "search", Hanging(), workers=1, max_trials=3, trial_time="10s"), observer=heard)
        assert {(s.trial_id, s.reason) for s in found.ranked() if not s.completed} == {("0", "it took longer than 10s")}
        assert heard.again == []
        assert found.summaries["0"].worker not in {s.worker for s in found.ranked() if s.completed}
        before = (tmp_path / "search/trials.csv").read_bytes()
        finished.touch()
        again = search(tuner(tmp_path / "search", Hanging(), max_trials=3))  # without a limit
        assert not again.summaries["0"].completed
        assert (tmp_path / "search/trials.csv").read_bytes() == before

    def test_in_this_process_it_is_ended_when_an_epoch_ends(self, tmp_path: Path) -> None:
        log = tmp_path / "fits"
        with pytest.raises(RunError, match="the first one failed: it took longer than 0s"):
            search(tuner(tmp_path / "search", Wandering(log), max_trials=2, trial_time="0s"))
        assert len(log.read_text().splitlines()) == 2

    @pytest.mark.parametrize("wrong", ["soon", "10", 10])
    def test_a_time_that_is_none_is_refused(self, wrong: Any, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=f"trial_time is {wrong!r}: expected a duration such as 90s"):
            tuner(tmp_path, trial_time=wrong)

    def test_where_all_fail_there_is_no_best(self, tmp_path: Path) -> None:
        found = tuner(tmp_path, Wandering(fails=lambda units: True), max_trials=3)
        with pytest.raises(RunError, match="no trial was completed; the first one failed: LookupError: units of 5"):
            search(found)
        assert found.complete
        assert found.get_best_hyperparameters() == found.get_best_models() == []

    def test_a_trial_that_gives_nan_is_failed_at_once(self, tmp_path: Path) -> None:
        class Nan(Wandering):
            def fit(self, hp: Any, model: Any, *arguments: Any, **options: Any) -> Any:
                history = super().fit(hp, model, *arguments, **options)
                if hp.get("units") != 5:
                    history.history["val_accuracy"][-1] = float("nan")
                return history

        heard = Heard()
        log = tmp_path / "fits"
        found = search(tuner(tmp_path / "search", Nan(log), max_trials=4), observer=heard)
        assert heard.again == []
        assert len(log.read_text().splitlines()) == 2 + 3
        assert {s.reason for s in found.ranked() if not s.completed} == {
            "NotFiniteError: val_accuracy is nan after the last epoch"
        }


class TestWorkers:
    @pytest.mark.parametrize(
        ("strategy", "hypermodel", "trials", "counts"), [("random", "trained", 3, (1, 2)), ("grid", "wandering", 6, (0, 4))]
    )
    def test_the_table_is_the_same_bytes_with_any_number_of_workers(
        self, strategy: str, hypermodel: str, trials: int, counts: tuple[int, ...], tmp_path: Path
    ) -> None:
        # Real trainings in this process are compared by the command's tests: this one has not its threads and XLA flags.
        tables = set()
        for workers in counts:
            given = trained if hypermodel == "trained" else Wandering()
            options: dict[str, Any] = {"strategy": strategy, "max_trials": trials, "epochs": 2, "workers": workers}
            tables.add((search(tuner(tmp_path / str(workers), given, **options)).folder / "trials.csv").read_text())
        assert len(tables) == 1

    @pytest.mark.parametrize("strategy", ["bayesian", "hyperband"])
    def test_a_strategy_that_learns_is_reproducible_with_the_same_number_of_workers(self, strategy: str, tmp_path: Path) -> None:
        tables = [
            (
                search(tuner(tmp_path / name, strategy=strategy, workers=2, max_trials=9, replicates=1)).folder / "trials.csv"
            ).read_text()
            for name in ("one", "other")
        ]
        assert tables[0] == tables[1]
        assert len({line.split(",")[0] for line in tables[0].splitlines()[1:]}) == (9 if strategy == "bayesian" else 7)

    def test_failures_in_workers_have_their_traceback_and_leave_the_others_alone(self, tmp_path: Path) -> None:
        heard = Heard()
        found = search(tuner(tmp_path, Wandering(fails=lambda units: units == 5), workers=1, max_trials=3), observer=heard)
        assert [summary.completed for summary in found.ranked()] == [True, True, False]
        assert heard.again == [("0", "LookupError: units of 5 cannot be had")]
        assert "in fit" in (tmp_path / "trial_0/error.txt").read_text()
        assert all(summary.worker.startswith("tls://127.0.0.1:") for summary in found.ranked())

    def test_what_dask_draws_by_chance_leaves_the_generators_of_a_trial_alone(self, tmp_path: Path) -> None:
        class Measuring(Wandering):
            def fit(self, hp: Any, model: Any, *arguments: Any, **options: Any) -> float:
                import random

                from dask.sizeof import sizeof

                before = random.getstate()
                sizeof(list(range(1_000)))  # as for each message that comes or goes, in another thread than the trial's
                return float(random.getstate() == before)

        found = search(tuner(tmp_path, Measuring(), workers=1, max_trials=1, replicates=1))
        assert [summary.mean for summary in found.ranked()] == [1.0]

    def test_a_script_that_does_not_ask_for_its_name_is_not_run_by_the_workers(self, tmp_path: Path) -> None:
        script = tmp_path / "script.py"
        script.write_text(
            """
import sys
import keras
import numpy as np
from mnist_tuner.search import Tuner

print("the script begins")
width = 3

def build(hp):
    hidden = keras.layers.Dense(width, hp.Choice("a", ["relu", "tanh"]))
    model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(2)])
    model.compile("adam", "mse", metrics=["mae"])
    return model

x, y = np.ones((20, 4), "float32"), np.zeros((20, 2), "float32")
tuner = Tuner(build, objective="val_loss", max_trials=1, epochs=1, replicates=1, workers=1, directory=sys.argv[1])
tuner.search(x, y, validation_data=(x, y))
print("found", len(tuner.ranked()), all(summary.completed for summary in tuner.ranked()))
"""
        )
        command = [sys.executable, str(script), str(tmp_path / "search")]
        path = os.pathsep.join([str(Path(__file__).parent.parent.parent), os.environ.get("PYTHONPATH", "")])
        env = environment(PYTHONPATH=path)
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=DEADLINE, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("the script begins") == 1
        assert done.stdout.splitlines()[-1] == "found 1 True"


def test_the_searchs_seed_is_the_tables(undisturbed: Callable[[str], Tuner], tmp_path: Path) -> None:
    tables = [(undisturbed("random").folder / "trials.csv").read_bytes()]
    for name, seed in (("zero again", 0), ("one", 1)):
        found = search(tuner(tmp_path / name, seed=seed))
        tables.append((found.folder / "trials.csv").read_bytes())
    assert tables[0] == tables[1] != tables[2]


def test_the_users_generators_are_left_where_they_were(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    expected = np.random.random()
    keras.utils.set_random_seed(3)
    search(tuner(tmp_path, max_trials=2))
    assert np.random.random() == expected


def test_the_display_of_a_search_that_is_no_terminals_is_a_line_per_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = search(tuner(tmp_path, max_trials=3), verbose=True)
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 3
    assert out.startswith("1 of 3  trial 0  units=5 activation=relu  ")
    found.results_summary()
    assert "+/-" in capsys.readouterr().out


class TestWhatPeopleTry:
    def test_a_build_that_raises_for_some_values_fails_these_trials_only(self, tmp_path: Path) -> None:
        class Picky(Wandering):
            def build(self, hp: Any) -> Any:
                model = super().build(hp)
                if hp.get("units") not in (5, 7):
                    raise ValueError("too wide")
                return model

        found = search(tuner(tmp_path, Picky()))
        outcomes = {summary.values["units"]: (summary.completed, summary.reason) for summary in found.ranked()}
        assert outcomes.pop(5) == (True, None)
        assert {reason for completed, reason in outcomes.values() if not completed} == {"ValueError: too wide"}

    def test_a_hyperparameter_that_fit_asks_for_is_searched_whatever_the_number_of_workers(self, tmp_path: Path) -> None:
        tables = set()
        for workers in (0, 2):
            found = search(tuner(tmp_path / str(workers), Asking(), max_trials=6, replicates=1, workers=workers))
            assert {summary.values.get("speed") for summary in found.ranked()} == {None, 1, 2}
            tables.add((found.folder / "trials.csv").read_text())
        assert len(tables) == 1
        again = tuner(tmp_path / "0", Asking(), max_trials=6, replicates=1)
        assert {hp.values.get("speed") for hp in again.get_best_hyperparameters(6)} == {None, 1, 2}

    def test_options_that_nobody_takes_are_refused_before_anything_runs(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="epochs belongs to the tuner"):
            tuner(tmp_path).search(X, Y, epochs=3, verbose=False)
        with pytest.raises(InputError, match="unexpected keyword argument 'batchsize'"):
            tuner(tmp_path, trained).search(X, Y, batchsize=3, verbose=False)
        with pytest.raises(InputError, match=r"the objective is 'val_acc': expected one of"):
            search(tuner(tmp_path, objective=keras_tuner.Objective("val_acc", "max")))

    def test_a_finished_search_is_read_without_its_data_and_can_be_begun_anew(
        self, trained_search: Tuner, tmp_path: Path
    ) -> None:
        found = trained_search.ranked()[0]
        shutil.copytree(trained_search.folder, tmp_path, dirs_exist_ok=True)
        (tmp_path / "mine").write_text("not the search's")
        read = tuner(tmp_path, trained, max_trials=3)
        assert read.ranked()[0].scores == found.scores
        assert accuracy(read.get_best_models()[0], VALIDATION) == pytest.approx(found.scores[0], abs=1e-6)
        anew = search(tuner(tmp_path, max_trials=2, overwrite=True))
        assert len(anew.ranked()) == 2
        assert (tmp_path / "mine").exists()

    def test_hidden_files_of_others_are_left_alone(self, tmp_path: Path) -> None:
        search(tuner(tmp_path, max_trials=2))
        torn, others = tmp_path / "trial_0" / ".mnist_tuner-01234567-trial.json", tmp_path / ".env-20240131"
        for path in (torn, others):
            path.write_text("{")
        search(tuner(tmp_path, max_trials=2))
        assert not torn.exists()
        assert others.exists()

    def test_a_worker_whose_memory_grows_is_replaced(self, tmp_path: Path) -> None:
        class Impatient(DaskEngine):
            most_growth = -math.inf  # too much from the beginning

        with closing(Impatient(1)) as engine:
            found = search(tuner(tmp_path, Wandering(), max_trials=2, replicates=1), engine=engine)
        assert len({summary.worker for summary in found.ranked()}) == 2
        assert all(summary.completed for summary in found.ranked())
