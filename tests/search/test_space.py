"""A value has one form, and a name one range."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import keras_tuner
import numpy as np
import pytest

from mnist_tuner.errors import InputError
from mnist_tuner.search.oracles import STRATEGIES
from mnist_tuner.search.space import Space, points
from tests.search.test_oracles import conditional, distinct, oracle_for, plain, search, values_of, widths

Declare = Callable[[Any], Any]


def space(*declare: Declare) -> Space:
    """A space in which these have been asked for."""
    hp = Space()
    for each in declare:
        each(hp)
    return hp


LISTED: dict[str, tuple[Declare, list[Any]]] = {
    "an Int of powers": (lambda hp: hp.Int("u", 8, 128, step=2, sampling="log"), [8, 16, 32, 64, 128]),
    "an Int of powers that ends before its end": (lambda hp: hp.Int("u", 3, 80, step=3, sampling="log"), [3, 9, 27]),
    "an Int with reverse_log": (lambda hp: hp.Int("u", 1, 16, step=2, sampling="reverse_log"), [16, 15, 13, 9, 1]),
    "an Int by threes": (lambda hp: hp.Int("u", 6, 13, step=3), [6, 9, 12]),
    "an Int with numpy's bounds": (
        lambda hp: hp.Int("u", np.int64(2), np.uint8(6), step=np.int32(2), default=np.int64(4)),
        [2, 4, 6],
    ),
    "a Float by tenths": (lambda hp: hp.Float("u", 0.0, 1.0, step=0.1), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
    "a Float by thirds": (lambda hp: hp.Float("u", 0, 1, step=1 / 3), [0.0, 1 / 3, 2 / 3, 1.0]),
    "a Float that ends before its end": (lambda hp: hp.Float("u", 0.0, 1.0, step=0.4), [0.0, 0.4, 0.8]),
    "a Float with ends computed": (lambda hp: hp.Float("u", 0.1, 0.1 * 3, step=0.1), [0.1, 0.2, 0.1 * 3]),
    "a Float of powers": (lambda hp: hp.Float("u", 1e-5, 0.1, step=10, sampling="log"), [1e-5, 1e-4, 1e-3, 1e-2, 0.1]),
    "a Float of half powers": (
        lambda hp: hp.Float("u", 0.01, 1.0, step=10**0.5, sampling="log"),
        [0.01, pytest.approx(10**-1.5), pytest.approx(0.1), pytest.approx(10**-0.5), 1.0],
    ),
    "a Float with numpy's numbers": (
        lambda hp: hp.Float("u", np.float32(0.5), np.float64(1.5), step=np.float32(0.5), default=np.float32(1)),
        [0.5, 1.0, 1.5],
    ),
    "a Choice of what came twice": (lambda hp: hp.Choice("u", [3, 3, 5]), [3, 5]),
    "a Choice of booleans": (lambda hp: hp.Choice("u", [True, False], default=False), [True, False]),
    "a Choice of numpy's ints": (lambda hp: hp.Choice("u", list(np.array([2, 4])), default=np.int64(4)), [2, 4]),
    "a Choice of an array of floats": (lambda hp: hp.Choice("u", np.array([0.5, 1.0])), [0.5, 1.0]),
    "a Choice of numpy's texts": (lambda hp: hp.Choice("u", [np.str_("relu"), np.str_("tanh")]), ["relu", "tanh"]),
    "a Boolean": (lambda hp: hp.Boolean("u", default=np.True_), [True, False]),
    "a Fixed boolean": (lambda hp: hp.Fixed("u", True), [True]),
    "a Fixed numpy number": (lambda hp: hp.Fixed("u", np.int64(3)), [3]),
}


@pytest.mark.parametrize(("declare", "expected"), LISTED.values(), ids=LISTED)
class TestForms:
    def test_the_values_have_pythons_types_and_the_bits_that_were_written(self, declare: Declare, expected: list[Any]) -> None:
        hp = space(declare)
        (only,) = hp.space
        assert list(only.values) == expected
        assert {type(value) for value in only.values} == {type(only.default)} == {type(hp.values["u"])}
        assert type(only.default) in (int, float, bool, str)
        assert json.loads(json.dumps(hp.get_config())) == hp.get_config()

    def test_what_is_drawn_is_one_of_them_and_each_of_them_is_drawn(self, declare: Declare, expected: list[Any]) -> None:
        (only,) = space(declare).space
        listed = {(type(value), value) for value in only.values}
        assert {(type(value), value) for value in (only.random_sample(seed) for seed in range(400))} == listed
        assert {only.prob_to_value(only.value_to_prob(value)) for value in only.values} == set(only.values)

    def test_a_copy_and_what_json_gave_back_are_the_same(self, declare: Declare, expected: list[Any]) -> None:
        (only,) = space(declare).copy().space
        (again,) = Space.from_config(json.loads(json.dumps(space(declare).get_config()))).space
        assert list(only.values) == list(again.values) == expected
        assert type(only.default) is type(again.default)
        assert only.default == again.default

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_every_strategy_tries_each_once(self, strategy: str, declare: Declare, expected: list[Any]) -> None:
        oracle = oracle_for(declare, strategy, max_trials=30, epochs=3)
        found = [plain(values)["u"] for values in values_of(search(oracle)) if not values.get("tuner/trial_id")]
        assert len(found) == len(set(found))
        wanted = {
            (type(value), value) for value in (*oracle.hyperparameters.space[0].values, oracle.hyperparameters.space[0].default)
        }
        assert {(type(value), value) for value in found} <= wanted
        assert len(found) == len(wanted) or strategy == "hyperband"


class TestNumbers:
    @pytest.mark.parametrize("sampling", ["linear", "log", "reverse_log"])
    def test_without_a_step_what_is_drawn_is_within_the_range(self, sampling: str) -> None:
        hp = space(lambda hp: hp.Int("i", 1, 7, sampling=sampling), lambda hp: hp.Float("f", 0.1, 0.7, sampling=sampling))
        for seed in range(300):
            i, f = (each.random_sample(seed) for each in hp.space)
            assert type(i) is int and 1 <= i <= 7
            assert type(f) is float and 0.1 <= f <= 0.7
        for each in hp.space:
            assert sorted(map(each.prob_to_value, (0.0, 1 - 2**-53))) == pytest.approx([each.min_value, each.max_value])

    def test_a_default_between_those_to_choose_from_stays_what_it_is(self) -> None:
        hp = space(
            lambda hp: hp.Int("i", 32, 512, step=32, default=100.0), lambda hp: hp.Float("f", 0.0, 1.0, step=0.25, default=0.3)
        )
        assert hp.values == {"i": 100, "f": 0.3}
        assert type(hp.values["i"]) is int

    def test_a_default_that_rounding_has_moved_is_the_one_to_choose_from(self) -> None:
        assert space(lambda hp: hp.Float("f", 0.0, 1.0, step=0.1, default=0.1 * 3)).values == {"f": 0.3}

    @pytest.mark.parametrize(
        "declare",
        [
            lambda hp: hp.Int("i", 2, 8, default=4.5),
            lambda hp: hp.Float("f", 0, 1, default="0.5"),
            lambda hp: hp.Float("f", 0, 1, default=float("nan")),
            lambda hp: hp.Int("i", 1, 8, step=0),
        ],
    )
    def test_a_default_that_is_no_such_number_and_a_step_of_nothing_are_refused(self, declare: Declare) -> None:
        with pytest.raises(InputError, match=r"hyperparameter '.' ?: (default|step) is .*: expected"):
            space(declare)


class TestRanges:
    @pytest.mark.parametrize(
        "others",
        [
            (lambda hp: hp.Int("u", 2, 4), lambda hp: hp.Int("u", 2, 6)),
            (lambda hp: hp.Int("u", 2, 8, step=2), lambda hp: hp.Int("u", 2, 8, step=3)),
            (lambda hp: hp.Float("u", 1, 2), lambda hp: hp.Float("u", 1, 2, sampling="log")),
            (lambda hp: hp.Int("u", 1, 2), lambda hp: hp.Choice("u", [1, 2])),
            (lambda hp: hp.Choice("u", [0.1, 0.2]), lambda hp: hp.Choice("u", [0.001, 0.002])),
            (lambda hp: hp.Fixed("u", 1), lambda hp: hp.Fixed("u", 2)),
        ],
    )
    def test_a_name_has_one_range(self, others: tuple[Declare, Declare]) -> None:
        with pytest.raises(
            InputError, match=r"hyperparameter 'u' is .* in one place and .* in another: give each .* name .* conditional_scope"
        ):
            space(*others)

    def test_asking_twice_for_the_same_is_no_fault_whatever_the_default(self) -> None:
        hp = space(lambda hp: hp.Int("u", 2, 8, default=4), lambda hp: hp.Int("u", 2, 8), lambda hp: hp.Choice("c", [1, 2]))
        assert hp.Choice("c", [2, 1]) == 1
        assert hp.Int("u", 2, 8) == 4

    @staticmethod
    def excluding(hp: Any) -> None:
        optimizer = hp.Choice("optimizer", ["sgd", "adam"])
        with hp.conditional_scope("optimizer", ["sgd"]):
            slow = hp.Choice("rate", [0.1, 0.2])
        with hp.conditional_scope("optimizer", ["adam"]):
            fast = hp.Choice("rate", [0.001, 0.002, 0.003], default=0.002)
        assert (slow, fast) == ((None, hp.get("rate")) if optimizer == "adam" else (hp.get("rate"), None))

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_scopes_that_exclude_each_other_may_share_a_name(self, strategy: str) -> None:
        oracle = oracle_for(self.excluding, strategy, max_trials=20, epochs=3)
        trials = search(oracle)
        for trial in trials:
            self.excluding(trial.hyperparameters)
        found = {(values["optimizer"], values["rate"]) for values in values_of(trials)}
        every = {("sgd", 0.1), ("sgd", 0.2), ("adam", 0.001), ("adam", 0.002), ("adam", 0.003)}
        assert found == every

    def test_scopes_that_are_active_together_may_not(self) -> None:
        def overlapping(hp: Any) -> None:
            hp.Choice("kind", ["a", "b", "c"], default="b")
            with hp.conditional_scope("kind", ["a", "b"]):
                hp.Int("u", 1, 4)
            with hp.conditional_scope("kind", ["b", "c"]):
                hp.Int("u", 1, 8)

        with pytest.raises(InputError, match="hyperparameter 'u' is Int 1 to 4 by 1 in one place and Int 1 to 8 by 1 in another"):
            space(overlapping)

    def test_a_scope_of_a_stepped_float_or_a_numpy_number_is_found(self) -> None:
        def scoped(hp: Any) -> None:
            hp.Float("rate", 0.0, 1.0, step=0.1)
            with hp.conditional_scope("rate", [0.3]):
                hp.Int("u", 1, 2)
            hp.Int("n", 1, 2)
            with hp.conditional_scope("n", np.array([2])):
                hp.Int("v", 1, 2)

        every = points(space(scoped)) or []
        assert len(every) == (10 + 2) * (1 + 2)


class TestPoints:
    def test_every_combination_is_listed_once(self) -> None:
        listed = points(space(conditional)) or []
        assert len(listed) == len(distinct(listed)) == 24

    def test_a_space_that_is_too_large_or_continuous_is_not_listed(self) -> None:
        hp = space(widths)
        assert points(hp, most=255) is None
        assert len(points(hp, most=256) or []) == 256
        hp.Float("rate", 0.0, 1.0)
        assert points(hp) is None

    def test_a_conditional_space_is_counted_by_its_points(self) -> None:
        def deep(hp: Any) -> None:
            hp.Int("kind", 0, 9)
            for kind in range(10):
                with hp.conditional_scope("kind", [kind]):
                    hp.Int(f"of_{kind}", 1, 10)

        assert len(points(space(deep)) or []) == 100


@pytest.mark.parametrize(("declare", "count"), [(conditional, 5), (TestRanges.excluding, 3)])
def test_kerastuner_reads_the_space_and_its_values(declare: Declare, count: int) -> None:
    hp = space(declare)
    theirs = keras_tuner.HyperParameters.from_config(json.loads(json.dumps(hp.get_config())))
    assert [type(each).__module__.partition(".")[0] for each in theirs.space] == ["keras_tuner"] * count
    assert theirs.values == hp.values
