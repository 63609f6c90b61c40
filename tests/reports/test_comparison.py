"""Which of two nets is better, and with what right that is said."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from mnist_tuner.reports.comparison import Comparison, ComparisonReport, Contestant, compare, compare_all, contestant
from mnist_tuner.reports.statistics import (
    Estimate,
    accuracy_interval,
    difference_interval,
    mcnemar,
    paired_difference,
    seeds_needed,
    wilson_interval,
)

Classes = npt.NDArray[np.uint8]
Correct = npt.NDArray[np.bool_]
DIGITS = 1_500


def labels(count: int = DIGITS) -> Classes:
    """The classes of the digits."""
    return np.random.default_rng(0).integers(0, 10, count).astype(np.uint8)


def trainings(
    generator: np.random.Generator, shape: tuple[int, ...], seeds: int, digits: int = DIGITS, *, ability: npt.ArrayLike = 0.0
) -> Correct:
    """Which digits trainings of nets read right, shape ``(*shape, nets' seeds, digits)``: all nets of a row are measured on the
    same digits, of which some are hard. About 98 % are read right; a seed moves that by about 0.2 points, as the baseline's.

    Args:
        generator: of the random numbers.
        shape: rows of nets.
        seeds: trainings of each.
        digits: how many.
        ability: of each net, in logits: 0.1 are about 0.15 points.
    """
    ease = generator.normal(5.6, 2.0, (*shape[:-1], 1, 1, digits)).astype(np.float32)
    luck = generator.normal(0, 0.1, (*shape, seeds, 1)).astype(np.float32)
    right = 1 / (1 + np.exp(-(ease + luck + np.asarray(ability, np.float32)[..., None, None])))
    return generator.random((*shape, seeds, digits), np.float32) < right


def as_read(correct: Correct, truth: Classes) -> Classes:
    """Predictions that are right there and nowhere else."""
    return np.where(correct, truth, (truth + 1) % 10).astype(np.uint8)


def counted(only_first: int, only_second: int, both: int, neither: int) -> tuple[Classes, tuple[Classes, Classes]]:
    """The labels and what two trainings read, with so many digits of each kind."""
    kinds = [(True, False)] * only_first + [(False, True)] * only_second + [(True, True)] * both + [(False, False)] * neither
    truth = labels(len(kinds))
    first, second = np.array(kinds).T
    return truth, (as_read(first[None], truth), as_read(second[None], truth))


def announced(correct_a: Correct, correct_b: Correct, confidence: float = 0.95) -> Comparison:
    """What `compare` makes of these, without what takes long and has no part in the verdict."""
    found = difference_interval(correct_a, correct_b, confidence)
    estimate = found.estimate
    if estimate.value < 0:
        estimate = Estimate(-estimate.value, -estimate.high, -estimate.low)
    counts, seed_sd = (len(correct_a), len(correct_b)), (found.variances[0] ** 0.5, found.variances[1] ** 0.5)
    return Comparison("a", "b", correct_a.shape[1], counts, estimate, confidence, "Welch-Satterthwaite", seed_sd=seed_sd)


def test_the_one_that_reads_more_digits_right_comes_first_in_whichever_order_they_are_given() -> None:
    truth, (worse, better) = counted(only_first=10, only_second=40, both=900, neither=50)
    given, turned = compare(("worse", "better"), truth, (worse, better)), compare(("better", "worse"), truth, (better, worse))
    assert given == turned
    assert (given.first, given.second, given.difference.value) == ("better", "worse", pytest.approx(0.03))
    assert (given.only_first, given.only_second) == (40, 10)


def test_several_seeds_are_put_in_order_by_their_mean_and_each_keeps_its_own_numbers() -> None:
    generator, truth = np.random.default_rng(1), labels()
    worse, better = trainings(generator, (2,), 5, ability=[0.0, 2.0])
    worse = worse[:3]
    found = compare(("worse", "better"), truth, (as_read(worse, truth), as_read(better, truth)))
    assert (found.first, found.second, found.trainings, found.images) == ("better", "worse", (5, 3), DIGITS)
    assert found.difference.value == pytest.approx(better.mean() - worse.mean())
    sd = [float(each.mean(axis=1).std(ddof=1)) for each in (better, worse)]
    assert found.seed_sd == pytest.approx(sd)
    turned = compare(("better", "worse"), truth, (as_read(better, truth), as_read(worse, truth)))
    assert turned == found


def test_one_training_each_is_judged_by_mcnemar_and_the_sentence_is_about_these_trainings() -> None:
    truth, read = counted(only_first=40, only_second=10, both=900, neither=50)
    found = compare(("384-224", "100-100"), truth, read)
    interval = paired_difference(40, 10, 1000)
    assert (found.method, found.trainings, found.p, found.difference) == ("McNemar", (1, 1), mcnemar(40, 10), interval)
    assert (found.seed_sd, found.seeds_needed, found.bootstrap) == (None, None, None)
    assert found.distinguishable
    assert found.verdict == (
        "Of these two trained copies, that of 384-224 is better than that of 100-100: by 3.00 points "
        f"({100 * interval.low:.2f} to {100 * interval.high:.2f} with 95 % confidence)."
    )
    assert found.outlook == (
        "This does not say which net is better: for that, train each with several seeds (mnist-tuner train --seeds 5)."
    )


def test_one_training_each_that_chance_explains_is_told_in_digits() -> None:
    truth, read = counted(only_first=30, only_second=21, both=900, neither=49)
    found = compare(("384-224", "100-100"), truth, read)
    assert not found.distinguishable
    assert found.p is not None
    assert found.p > 0.05
    low, high = 1000 * found.difference.low, 1000 * found.difference.high
    assert low < 0 < 9 < high
    assert found.verdict == (
        "384-224 and 100-100 cannot be told apart by one training of each: the difference is 9 images of 1,000, "
        f"which may be chance (its interval goes from {low:.1f} to {high:.1f})."
    )
    assert "does not say which net is better" in found.outlook


@pytest.mark.parametrize(("only_first", "only_second"), [(6, 0), (5, 0), (40, 22), (40, 23), (15, 5), (14, 5)])
def test_one_training_each_is_told_apart_exactly_where_mcnemar_says_so(only_first: int, only_second: int) -> None:
    found = compare(("a", "b"), *counted(only_first, only_second, 900, 40))
    assert found.distinguishable == (mcnemar(only_first, only_second) < 0.05)
    assert found.distinguishable == ("better" in found.verdict)


def test_a_difference_of_one_digit_is_told_in_the_singular() -> None:
    found = compare(("a", "b"), *counted(only_first=3, only_second=2, both=995, neither=0))
    assert ": the difference is 1 image of 1,000, which may be chance" in found.verdict
    found = compare(("a", "b"), *counted(only_first=4, only_second=2, both=994, neither=0))
    assert ": the difference is 2 images of 1,000, which may be chance" in found.verdict


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_nets_that_read_the_same_are_equal_and_not_certainly_so(seeds: int) -> None:
    truth = labels()
    (net,) = trainings(np.random.default_rng(2), (1,), seeds)
    read = as_read(net, truth)
    found = compare(("a", "b"), truth, (read, read.copy()))
    assert not found.distinguishable
    assert found.difference.value == 0
    assert found.difference.low < 0 < found.difference.high
    once = " by one training of each" if seeds == 1 else ""
    assert found.verdict == f"a and b cannot be told apart{once}: they read equally many of 1,500 images right."
    if seeds > 1:
        assert found.outlook == "No number of seeds would show so small a difference: 1,500 images are too few for that."


def test_several_seeds_that_differ_are_told_with_the_intervals_numbers() -> None:
    truth = labels()
    better, worse = trainings(np.random.default_rng(3), (2,), 5, ability=[1.5, 0.0])
    found = compare(("512-256", "100-100"), truth, (as_read(better, truth), as_read(worse, truth)))
    interval = difference_interval(better, worse).estimate
    assert (found.method, found.p, found.only_first) == ("Welch-Satterthwaite", None, None)
    assert found.difference == interval
    assert interval.low > 0
    half = 100 * (interval.high - interval.low) / 2
    limits = f"{100 * interval.low:.2f} to {100 * interval.high:.2f} with 95 % confidence"
    assert found.verdict == f"512-256 is better than 100-100 by {100 * interval.value:.2f} points ({limits})."
    assert found.outlook == ""
    assert found.bootstrap is not None  # the second opinion, from five seeds up
    assert found.bootstrap.value == pytest.approx(interval.value)
    assert found.bootstrap.low == pytest.approx(interval.low, abs=half / 100)


def test_several_seeds_that_chance_explains_are_told_in_digits_with_what_it_would_take() -> None:
    truth = labels(10_000)
    better, worse = trainings(np.random.default_rng(3), (2,), 3, 10_000, ability=[0.25, 0.0])
    found = compare(("512-256", "100-100"), truth, (as_read(better, truth), as_read(worse, truth)))
    low, high = found.difference.low, found.difference.high
    assert low <= 0 < found.difference.value < high
    digits = round(10_000 * (better.mean() - worse.mean()))
    assert digits == 38
    assert found.verdict == (
        "512-256 and 100-100 cannot be told apart: the difference is 38 images of 10,000, and chance alone may move it by "
        f"{round(10_000 * (high - low) / 2)}."
    )
    assert found.bootstrap is None  # three seeds are too few
    assert found.seeds_needed == seeds_needed(found.difference.value, difference_interval(better, worse).of_many_seeds)
    assert found.seeds_needed is not None
    assert found.seeds_needed > 3
    seeds = found.seeds_needed
    shown = f"if the difference is real, {seeds} seeds of each would show it in 4 of 5 tries (here it was 3)."
    assert found.outlook == f"That does not mean that they are equal: {shown}"
    assert replace(found, trainings=(3, 2)).outlook.endswith("in 4 of 5 tries (here it was 3 and 2).")


def test_as_many_seeds_as_are_said_to_be_needed_find_the_difference_four_times_in_five() -> None:
    generator = np.random.default_rng(4)
    better, worse = trainings(generator, (2,), 60, 4_000, ability=[0.45, 0.0])  # so many that their variances are the true ones
    large = difference_interval(better, worse)
    needed = seeds_needed(large.estimate.value, large.of_many_seeds)
    assert needed is not None
    assert 3 <= needed <= 12
    duels = trainings(generator, (150, 2), needed, 4_000, ability=[0.45, 0.0])
    assert 0.65 < np.mean([announced(a, b).distinguishable for a, b in duels]) < 0.95


def test_one_seed_against_five_counts_the_seeds_of_the_five_for_both() -> None:
    truth = labels()
    five, one = trainings(np.random.default_rng(6), (2,), 5, ability=[1.5, 0.0])
    one = one[:1]
    found = compare(("one", "five"), truth, (as_read(one, truth), as_read(five, truth)))
    assert (found.method, found.first, found.trainings) == ("Welch-Satterthwaite", "five", (5, 1))
    assert found.difference == difference_interval(five, one).estimate
    assert found.seed_sd is not None
    assert found.seed_sd[0] == found.seed_sd[1] == pytest.approx(five.mean(axis=1).std(ddof=1))
    assert found.bootstrap is None
    alone = compare(("one", "five"), truth, (as_read(one, truth), as_read(five[:1], truth)))
    assert alone.method == "McNemar"
    assert "by one training of each" not in found.verdict
    assert "This training" not in found.verdict
    more = compare(("five", "more"), truth, (as_read(five, truth), as_read(five, truth)))
    assert found.difference.high - found.difference.low > more.difference.high - more.difference.low


def test_a_contestant_has_wilsons_interval_of_one_training_and_one_that_counts_seeds_of_several() -> None:
    truth = labels()
    (net,) = trainings(np.random.default_rng(7), (1,), 3)
    read = as_read(net, truth)
    one = contestant("100-100", (100, 100), 89_610, (7,), truth, read[:1])
    hits = int(net[0].sum())
    assert one.accuracy == Estimate(hits / DIGITS, *wilson_interval(hits, DIGITS))
    assert (one.sd, one.accuracies, one.seeds) == (None, (hits / DIGITS,), (7,))
    assert one.to_dict()["count"] == 1
    several = contestant("100-100", (100, 100), None, (7, 8, 9), truth, read)
    assert several.accuracy == accuracy_interval(net)
    assert several.accuracies == tuple((read == truth).mean(axis=1).tolist())
    assert several.sd == pytest.approx(np.std(several.accuracies, ddof=1))
    document = several.to_dict()
    assert (document["mean"], document["interval95"]) == (several.accuracy.value, [several.accuracy.low, several.accuracy.high])
    assert (document["parameters"], document["seeds"], document["count"]) == (None, [7, 8, 9], 3)


def test_a_comparison_becomes_json_with_its_sentences() -> None:
    found = compare(("a", "b"), *counted(40, 10, 900, 50))
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    interval = [found.difference.low, found.difference.high]
    assert document["difference"] == {"value": found.difference.value, "interval": interval}
    assert (document["verdict"], document["outlook"]) == (found.verdict, found.outlook)
    assert (document["distinguishable"], document["method"], document["p"]) == (True, "McNemar", found.p)
    assert (document["bootstrap"], document["seed_sd"], document["trainings"]) == (None, None, [1, 1])


def test_the_intervals_of_several_comparisons_are_wider_than_that_of_one() -> None:
    truth = labels()
    correct = trainings(np.random.default_rng(8), (4,), 3)
    read = [as_read(each, truth) for each in correct]
    found = compare_all(["a", "b", "c", "d"], truth, read)
    assert [{each.first, each.second} for each in found] == [set(pair) for pair in combinations("abcd", 2)]
    for each, (i, j) in zip(found, combinations(range(4), 2), strict=True):
        alone = compare(("abcd"[i], "abcd"[j]), truth, (read[i], read[j]))
        assert each.confidence == pytest.approx(1 - 0.05 / 6)
        assert alone.confidence == 0.95
        assert each.difference.value == alone.difference.value
        assert each.difference.margin > 1.2 * alone.difference.margin
    (two,) = compare_all(["a", "b"], truth, read[:2])
    assert two == compare(("a", "b"), truth, (read[0], read[1]))


def test_several_single_trainings_are_compared_with_wider_intervals_too() -> None:
    truth, (a, b) = counted(24, 10, 900, 66)
    assert compare(("a", "b"), truth, (a, b)).distinguishable
    found = compare_all(["a", "b", "c"], truth, [a, b, b])
    assert [each.distinguishable for each in found] == [False, False, False]
    assert found[0].difference == paired_difference(24, 10, 1000, 1 - 0.05 / 3)


def three(distinguishable: dict[tuple[str, str], bool]) -> ComparisonReport:
    """A report of three nets, a the best."""
    nets = tuple(
        Contestant(name, (8, 8), 10, (0, 1), (mean, mean), Estimate(mean, mean - 0.01, mean + 0.01))
        for name, mean in (("a", 0.98), ("b", 0.97), ("c", 0.96))
    )
    pairs = tuple(
        Comparison(x, y, 1000, (2, 2), Estimate(0.01, 0.005 if apart else -0.005, 0.025), 0.983, "Welch", seed_sd=(0.1, 0.1))
        for (x, y), apart in distinguishable.items()
    )
    return ComparisonReport("MNIST", 1000, ("1", "2", "3"), nets, pairs)


@pytest.mark.parametrize(
    ("b", "c", "verdict"),
    [
        (True, True, "a is the best of the 3."),
        (True, False, "a has the highest accuracy, but cannot be told apart from c."),
        (False, True, "a has the highest accuracy, but cannot be told apart from b."),
        (False, False, "a has the highest accuracy, but cannot be told apart from b and c."),
    ],
)
def test_of_several_nets_the_best_is_named_with_those_that_are_as_good(b: bool, c: bool, verdict: str) -> None:
    assert three({("a", "b"): b, ("a", "c"): c, ("b", "c"): True}).verdict == verdict


@pytest.mark.slow
def test_two_identical_nets_are_told_apart_in_no_more_than_one_of_twenty_duels() -> None:
    """Of trained nets that are the same in expectation, each digit as hard for one as for the other."""
    generator, duels = np.random.default_rng(11), 4_000
    told, better = 0, 0
    for _ in range(duels // 200):
        for a, b in trainings(generator, (200, 2), 5, 2_000):
            found = announced(a, b)
            told += "is better than" in found.verdict
            better += found.distinguishable
    assert told == better
    assert told / duels <= 0.05 + 3 * (0.05 * 0.95 / duels) ** 0.5
    assert told / duels > 0.002  # nor is it so careful that it never says anything


def test_what_the_duels_are_judged_by_is_what_compare_says() -> None:
    generator, truth = np.random.default_rng(12), labels(1_000)
    for a, b in trainings(generator, (6, 2), 5, 1_000):
        found, short = compare(("a", "b"), truth, (as_read(a, truth), as_read(b, truth))), announced(a, b)
        assert found.difference.low == pytest.approx(short.difference.low, abs=1e-12)
        assert found.difference.high == pytest.approx(short.difference.high, abs=1e-12)
        assert re.sub(r"\b[ab]\b", "x", found.verdict) == re.sub(r"\b[ab]\b", "x", short.verdict)


def test_a_better_net_is_found_out_in_most_duels() -> None:
    generator = np.random.default_rng(13)
    won = [announced(a, b) for a, b in trainings(generator, (200, 2), 5, 1_000, ability=[1.0, 0.0])]
    assert np.mean([each.distinguishable for each in won]) > 0.6


@pytest.mark.slow
def test_four_identical_nets_are_told_apart_in_no_more_than_one_of_twenty_families() -> None:
    generator, families = np.random.default_rng(14), 1_600
    told = alone = 0
    for _ in range(families // 100):
        for nets in trainings(generator, (100, 4), 5, 2_000):
            pairs = list(combinations(nets, 2))
            told += any(announced(a, b, 1 - 0.05 / len(pairs)).distinguishable for a, b in pairs)
            alone += any(announced(a, b).distinguishable for a, b in pairs)
    assert told / families <= 0.05 + 3 * (0.05 * 0.95 / families) ** 0.5
    assert alone > 2 * told  # which is what the wider intervals are for
