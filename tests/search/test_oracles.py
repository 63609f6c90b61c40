"""What the four strategies choose."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

import keras_tuner
import pytest
from keras_tuner import oracles

from mnist_tuner.search.oracles import STRATEGIES, make_oracle

Space = Callable[[keras_tuner.HyperParameters], Any]
Values = dict[str, Any]


def widths(hp: keras_tuner.HyperParameters, high: int = 512) -> None:
    """Two widths whose default is none of those to choose from."""
    for name in ("units_1", "units_2"):
        hp.Int(name, 32, high, step=32, default=100)


def four_by_four(hp: keras_tuner.HyperParameters) -> None:
    """16 points, the default one among them."""
    hp.Int("a", 1, 4)
    hp.Choice("b", [10, 20, 30, 40])


def conditional(hp: keras_tuner.HyperParameters) -> None:
    """Every kind of hyperparameter: 6 shallow points and 18 deep ones."""
    hp.Choice("kind", ["shallow", "deep"])
    hp.Boolean("bias")
    hp.Fixed("classes", 3)
    with hp.conditional_scope("kind", ["deep"]):
        hp.Int("depth", 1, 3)
    hp.Float("rate", 0.0, 1.0, step=0.5)


def oracle_for(space: Space, strategy: str, **options: Any) -> Any:
    """An oracle that knows a space."""
    defaults = {"objective": "val_accuracy", "max_trials": None, "epochs": 9, "seed": 0, "first": {}}
    oracle = make_oracle(strategy, **{**defaults, **options})
    hp = oracle.get_space()
    space(hp)
    oracle.update_space(hp)
    return oracle


def tell(oracle: Any, trial: Any, score: float | None) -> None:
    """Ends a trial; without a score it has failed."""
    if score is None:
        trial.status = "FAILED"
    else:
        trial.metrics.register("val_accuracy", "max")
        trial.metrics.update("val_accuracy", score, step=0)
        trial.status = "COMPLETED"
    oracle.end_trial(trial)


def plain(values: Values) -> Values:
    """The values without what Hyperband adds."""
    return {name: value for name, value in values.items() if not name.startswith("tuner/")}


def by_size(values: Values) -> float:
    """A score that grows with the hyperparameters."""
    return sum(value for value in plain(values).values() if isinstance(value, (int, float))) / 10_000


def search(oracle: Any, score: Callable[[Values], float | None] = by_size, outstanding: int = 1, most: int = 10_000) -> list[Any]:
    """Asks and tells, the oldest first, until nothing is left; returns the trials."""
    waiting: deque[Any] = deque()
    trials: list[Any] = []
    while True:
        while len(waiting) < outstanding and len(trials) < most:
            trial = oracle.create_trial(f"ask-{len(trials)}")
            if trial.status != "RUNNING":
                break
            waiting.append(trial)
            trials.append(trial)
        if not waiting:
            return trials
        tell(oracle, waiting[0], score(waiting[0].hyperparameters.values))
        waiting.popleft()


def values_of(trials: Iterable[Any]) -> list[Values]:
    """Their hyperparameters' values."""
    return [dict(trial.hyperparameters.values) for trial in trials]


def distinct(values: Iterable[Values]) -> set[str]:
    """For counting."""
    return {repr(sorted(plain(each).items())) for each in values}


class TestAllStrategies:
    @pytest.mark.parametrize("strategy", ["random", "bayesian", "hyperband"])
    def test_zero_is_a_seed_like_any_other(self, strategy: str) -> None:
        runs = [values_of(search(oracle_for(widths, strategy, seed=seed), most=8)) for seed in (0, 0, 1)]
        assert runs[0] == runs[1]
        assert runs[0][1:] != runs[2][1:]

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_the_first_trial_has_the_defaults_even_where_they_are_not_among_the_choices(self, strategy: str) -> None:
        first, second = values_of(search(oracle_for(widths, strategy), most=2))
        assert plain(first) == {"units_1": 100, "units_2": 100}
        assert all(value in range(32, 513, 32) for value in plain(second).values())

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_other_values_than_the_defaults_can_be_the_first_trials(self, strategy: str) -> None:
        oracle = oracle_for(widths, strategy, first={"units_2": 64})
        assert plain(values_of(search(oracle, most=1))[0]) == {"units_1": 100, "units_2": 64}

    @pytest.mark.parametrize("strategy", ["random", "bayesian", "hyperband"])
    def test_the_first_trial_does_not_shift_the_points_after_it(self, strategy: str) -> None:
        ours = values_of(search(oracle_for(widths, strategy, first={"units_1": 7}, seed=5), most=4))
        others = values_of(search(oracle_for(widths, strategy, seed=5), most=4))
        assert ours[1:] == others[1:]

    def test_after_the_first_trial_come_kerastuners_own_points(self) -> None:
        stock = oracles.RandomSearchOracle(objective="val_accuracy", max_trials=5, seed=4)
        hp = stock.get_space()
        widths(hp)
        stock.update_space(hp)
        theirs = [stock.populate_space(str(number))["values"] for number in range(5)]
        assert values_of(search(oracle_for(widths, "random", seed=4), most=6))[1:] == theirs

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_no_more_trials_than_the_cap(self, strategy: str) -> None:
        assert len(search(oracle_for(widths, strategy, max_trials=7))) == 7

    @pytest.mark.slow
    @pytest.mark.parametrize("strategy", ["random", "grid", "bayesian"])
    @pytest.mark.parametrize("outstanding", [1, 5])
    def test_every_point_of_a_small_space_is_tried_once(self, strategy: str, outstanding: int) -> None:
        trials = search(oracle_for(four_by_four, strategy, max_trials=100), outstanding=outstanding)
        assert len(trials) == len(distinct(values_of(trials))) == 16

    @pytest.mark.slow
    @pytest.mark.parametrize("strategy", ["random", "grid", "bayesian"])
    def test_conditional_hyperparameters_are_there_only_where_they_are_active(self, strategy: str) -> None:
        found = values_of(search(oracle_for(conditional, strategy, max_trials=100)))
        assert len(found) == len(distinct(found)) == 24
        assert Counter((values["kind"], "depth" in values) for values in found) == {("deep", True): 18, ("shallow", False): 6}
        assert {values["classes"] for values in found} == {3}
        assert Counter(values["rate"] for values in found) == {0.0: 8, 0.5: 8, 1.0: 8}

    def test_hyperband_takes_every_kind_of_hyperparameter(self) -> None:
        found = values_of(search(oracle_for(conditional, "hyperband", epochs=3)))
        assert all(("depth" in values) == (values["kind"] == "deep") and values["classes"] == 3 for values in found)

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_a_failing_half_stops_nothing(self, strategy: str) -> None:
        def score(values: Values) -> float | None:
            return None if values["a"] % 2 else by_size(values)

        trials = search(oracle_for(four_by_four, strategy, max_trials=100), score, outstanding=3)
        assert distinct(values_of(trials)) >= distinct({"a": a, "b": b} for a in (1, 2, 3, 4) for b in (10, 20, 30, 40))

    def test_a_trials_score_is_the_mean_over_its_replicates_after_the_last_epoch(self) -> None:
        oracle = oracle_for(widths, "random")
        trial = oracle.create_trial("ask")
        trial.metrics.register("val_accuracy", "max")
        for step, values in enumerate([[0.9, 0.8], [0.5, 0.7]]):
            trial.metrics.metrics["val_accuracy"].update(values, step=step)
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        assert (trial.score, trial.best_step) == (pytest.approx(0.6), 1)


class TestRandom:
    def test_the_sequence_does_not_depend_on_how_many_asks_are_outstanding(self) -> None:
        runs = [values_of(search(oracle_for(widths, "random", max_trials=30), outstanding=n)) for n in range(1, 9)]
        assert all(run == runs[0] for run in runs)

    def test_failures_and_scores_do_not_change_the_sequence(self) -> None:
        runs = [values_of(search(oracle_for(widths, "random", max_trials=30), score)) for score in (by_size, lambda values: None)]
        assert runs[0] == runs[1]

    def test_a_space_that_cannot_be_counted_is_searched_up_to_the_cap(self) -> None:
        oracle = oracle_for(lambda hp: hp.Float("rate", 1e-4, 1e-1, sampling="log"), "random", max_trials=50)
        assert len(distinct(values_of(search(oracle)))) == 50

    def test_a_space_of_nothing_has_one_trial(self) -> None:
        assert values_of(search(oracle_for(lambda hp: None, "random", max_trials=5))) == [{}]


class TestGrid:
    def test_all_points_and_the_baseline_are_there_before_any_has_ended(self) -> None:
        oracle = oracle_for(lambda hp: widths(hp, high=128), "grid")
        asked = [oracle.create_trial(f"ask-{number}") for number in range(18)]
        assert [trial.status for trial in asked] == ["RUNNING"] * 17 + ["STOPPED"]
        assert len(distinct(values_of(asked[:17]))) == 17
        assert all(100 not in values.values() for values in values_of(asked[1:17]))

    def test_the_points_come_in_the_same_order_whoever_has_ended(self) -> None:
        runs = [values_of(search(oracle_for(conditional, "grid"), outstanding=n)) for n in (1, 4, 40)]
        assert runs[0] == runs[1] == runs[2]

    def test_a_default_that_is_a_point_of_the_grid_comes_once(self) -> None:
        found = values_of(search(oracle_for(four_by_four, "grid")))
        assert found[0] == {"a": 1, "b": 10}
        assert found.count(found[0]) == 1

    def test_a_space_that_is_found_out_about_piece_by_piece_is_covered(self) -> None:
        oracle = oracle_for(lambda hp: (hp.Int("layers", 1, 2), hp.Int("units_0", 1, 2)), "grid")
        found = []
        while (trial := oracle.create_trial(f"ask-{len(found)}")).status == "RUNNING":
            for i in range(trial.hyperparameters.get("layers")):
                trial.hyperparameters.Int(f"units_{i}", 1, 2)
            oracle.update_space(trial.hyperparameters)
            found.append(dict(trial.hyperparameters.values))
            tell(oracle, trial, 0.5)
            assert len(found) < 20
        deep = {(values["units_0"], values["units_1"]) for values in found if values["layers"] == 2}
        assert deep == {(1, 1), (1, 2), (2, 1), (2, 2)}
        assert {values["units_0"] for values in found if values["layers"] == 1} == {1, 2}


class TestBayesian:
    @staticmethod
    def hill(values: Values) -> float:
        return 1 - ((values["a"] - 9) / 12) ** 2 - ((values["b"] - 4) / 12) ** 2

    @staticmethod
    def field(hp: keras_tuner.HyperParameters) -> None:
        hp.Int("a", 1, 12)
        hp.Int("b", 1, 12)

    @pytest.mark.slow
    def test_asks_at_the_same_time_get_different_points_that_are_spread(self) -> None:
        oracle = oracle_for(self.field, "bayesian", max_trials=30)
        search(oracle, self.hill, most=10)
        asked = values_of(oracle.create_trial(f"parallel-{number}") for number in range(4))
        assert len(distinct(asked)) == 4

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_it_finds_the_top_of_a_hill_among_144_points_in_20_trials(self, seed: int) -> None:
        found = values_of(search(oracle_for(self.field, "bayesian", max_trials=20, seed=seed), self.hill))
        assert {"a": 9, "b": 4} in found  # by chance: one time in seven

    @pytest.mark.slow
    def test_it_finds_the_bottom_where_less_is_better(self) -> None:
        objective = keras_tuner.Objective("val_accuracy", "min")
        oracle = oracle_for(self.field, "bayesian", max_trials=20, objective=objective)
        assert {"a": 9, "b": 4} in values_of(search(oracle, lambda values: -self.hill(values)))

    @pytest.mark.slow
    def test_the_same_results_in_the_same_order_give_the_same_points(self) -> None:
        runs = [values_of(search(oracle_for(self.field, "bayesian", max_trials=14), self.hill, outstanding=3)) for _ in range(2)]
        assert runs[0] == runs[1]

    @pytest.mark.slow
    @pytest.mark.parametrize("known", [5, 11, 16])
    def test_a_resumed_search_that_knows_the_first_points_goes_on_with_the_same_ones(self, known: int) -> None:
        trials = search(oracle_for(self.field, "bayesian", max_trials=16), self.hill, outstanding=2)
        resumed = oracle_for(self.field, "bayesian", max_trials=16)
        resumed.known = {trial.trial_id: dict(trial.hyperparameters.values) for trial in trials[:known]}
        assert values_of(search(resumed, self.hill, outstanding=2)) == values_of(trials)

    @pytest.mark.slow
    def test_a_flat_score_disturbs_nothing(self) -> None:
        assert len(search(oracle_for(four_by_four, "bayesian", max_trials=12), lambda values: 0.5)) == 12

    def test_where_everything_fails_points_are_still_not_repeated(self) -> None:
        trials = search(oracle_for(four_by_four, "bayesian", max_trials=100), lambda values: None)
        assert len(trials) == len(distinct(values_of(trials))) == 16

    def test_a_space_that_cannot_be_counted_is_searched(self) -> None:
        oracle = oracle_for(lambda hp: hp.Float("rate", 1e-4, 1e-1, sampling="log"), "bayesian", max_trials=8)
        found = values_of(search(oracle, lambda values: -abs(values["rate"] - 0.01)))
        assert len(distinct(found)) == 8
        assert all(1e-4 <= values["rate"] <= 1e-1 for values in found)


def rounds(trials: Iterable[Any]) -> Counter[tuple[int, int, int, int]]:
    """How many completed trials there are of each bracket, round, first epoch and last one; a net that failed later on does not
    count."""
    struck = set()
    for trial in reversed(list(trials)):
        if trial.status != "COMPLETED" or trial.trial_id in struck:
            struck |= {trial.trial_id, trial.hyperparameters.values.get("tuner/trial_id")}
    return Counter(
        tuple(trial.hyperparameters.values[f"tuner/{name}"] for name in ("bracket", "round", "initial_epoch", "epochs"))
        for trial in trials
        if trial.trial_id not in struck and "tuner/bracket" in trial.hyperparameters.values
    )


NINE_EPOCHS = {(2, 0, 0, 1): 9, (2, 1, 1, 3): 3, (2, 2, 3, 9): 1, (1, 0, 0, 3): 5, (1, 1, 3, 9): 2, (0, 0, 0, 9): 3}
"""Hyperband's table for 9 epochs and a factor of 3, as KerasTuner rounds it."""


class TestHyperband:
    @pytest.mark.parametrize("outstanding", [1, 2, 7])
    def test_brackets_have_the_sizes_and_epochs_of_the_formula(self, outstanding: int) -> None:
        trials = search(oracle_for(widths, "hyperband"), outstanding=outstanding)
        assert rounds(trials) == NINE_EPOCHS

    def test_the_first_trial_is_outside_the_brackets_and_trains_for_all_epochs(self) -> None:
        first = values_of(search(oracle_for(widths, "hyperband"), most=1))[0]
        assert first == {"units_1": 100, "units_2": 100, "tuner/epochs": 9, "tuner/initial_epoch": 0}

    @pytest.mark.parametrize("epochs", [1, 2, 3, 5, 9, 10, 27])
    def test_the_trials_are_as_many_as_announced(self, epochs: int) -> None:
        oracle = oracle_for(widths, "hyperband", epochs=epochs)
        assert len(search(oracle, outstanding=3)) == 1 + oracle.trials_in_all()

    @pytest.mark.parametrize("direction", ["max", "min"])
    @pytest.mark.parametrize("outstanding", [1, 4])
    def test_the_best_of_a_round_go_on(self, direction: str, outstanding: int) -> None:
        oracle = oracle_for(widths, "hyperband", objective=keras_tuner.Objective("val_accuracy", direction))
        trials = search(oracle, outstanding=outstanding)
        for bracket in (2, 1):
            for number in range(1, bracket + 1):
                of = {}
                for each in (number - 1, number):
                    of[each] = [
                        trial
                        for trial in trials
                        if trial.hyperparameters.values.get("tuner/bracket") == bracket
                        and trial.hyperparameters.values["tuner/round"] == each
                    ]
                ordered = sorted(of[number - 1], key=lambda trial: trial.score, reverse=direction == "max")
                best = {trial.score for trial in ordered[: len(of[number])]}
                parents = [oracle.trials[trial.hyperparameters.values["tuner/trial_id"]] for trial in of[number]]
                assert len({parent.trial_id for parent in parents}) == len(parents)
                assert {parent.score for parent in parents} == best
                for trial, parent in zip(of[number], parents, strict=True):
                    assert plain(trial.hyperparameters.values) == plain(parent.hyperparameters.values)

    @pytest.mark.parametrize("failing", [{1}, {3, 4, 9}, {11}, {13}, {5, 12, 14, 16}, set(range(1, 30, 2))])
    @pytest.mark.parametrize("outstanding", [1, 3])
    def test_failed_trials_are_replaced_and_every_bracket_is_completed(self, failing: set[int], outstanding: int) -> None:
        numbers = iter(range(10_000))

        def score(values: Values) -> float | None:
            return None if next(numbers) in failing else by_size(values)

        trials = search(oracle_for(widths, "hyperband"), score, outstanding=outstanding)
        assert rounds(trials) == NINE_EPOCHS

    def test_a_space_with_too_few_points_still_promotes(self) -> None:
        trials = search(oracle_for(lambda hp: hp.Int("a", 1, 6), "hyperband"), outstanding=2)
        found = rounds(trials)
        assert found[2, 0, 0, 1] == 5  # the sixth point was the first trial's
        assert found[2, 1, 1, 3] == 3
        assert found[2, 2, 3, 9] == 1

    def test_a_space_of_one_point_ends(self) -> None:
        trials = search(oracle_for(lambda hp: hp.Fixed("a", 1), "hyperband"))
        assert [plain(values) for values in values_of(trials)] == [{"a": 1}]

    def test_where_all_fail_the_search_ends_with_the_space(self) -> None:
        trials = search(oracle_for(four_by_four, "hyperband"), lambda values: None)
        assert len(trials) == len(distinct(values_of(trials))) == 16

    def test_the_cap_ends_it_in_the_middle_of_a_bracket(self) -> None:
        trials = search(oracle_for(widths, "hyperband", max_trials=11))
        assert len(trials) == 11
        assert rounds(trials) == {(2, 0, 0, 1): 9, (2, 1, 1, 3): 1}


def test_an_unknown_strategy_is_named() -> None:
    with pytest.raises(ValueError, match="strategy is 'annealing': expected random, grid, bayesian or hyperband"):
        oracle_for(widths, "annealing")


def test_an_objective_without_a_known_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="objective"):
        oracle_for(widths, "random", objective="beauty")
