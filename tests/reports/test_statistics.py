"""Intervals, tests, and what chance alone would do: published examples, edges, and simulations in which the truth is known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import log_ndtr, stdtrit
from scipy.stats import binomtest, ttest_1samp, ttest_ind_from_stats, ttest_rel

from mnist_tuner.reports.statistics import (
    Correct,
    Estimate,
    accuracy_interval,
    bootstrap_difference,
    confusion_matrix,
    difference_interval,
    expected_maximum,
    mcnemar,
    narrowest_within,
    paired_difference,
    pooled_sd,
    seeds_needed,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_that_of_newcombes_worked_examples(successes: int, trials: int, low: float, high: float) -> None:
    """Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17, 1998, table I."""
    assert tuple(round(limit, 4) for limit in wilson_interval(successes, trials)) == (low, high)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_limits_are_where_the_score_test_just_rejects(confidence: float) -> None:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    for limit in wilson_interval(37, 50, confidence):
        assert abs(37 / 50 - limit) == pytest.approx(z * (limit * (1 - limit) / 50) ** 0.5)


def test_the_interval_holds_the_proportion_and_stays_within_0_and_1() -> None:
    for trials in range(1, 40):
        for successes in range(trials + 1):
            low, high = wilson_interval(successes, trials)
            assert 0 <= low <= successes / trials <= high <= 1
            assert (low == 0, high == 1) == (successes == 0, successes == trials)


def test_successes_and_failures_have_mirrored_intervals() -> None:
    low, high = wilson_interval(9_752, 10_000)
    assert wilson_interval(248, 10_000) == pytest.approx((1 - high, 1 - low))


def test_more_confidence_makes_the_interval_wider() -> None:
    (low90, high90), (low99, high99) = (wilson_interval(30, 40, confidence) for confidence in (0.9, 0.99))
    assert low99 < low90 < high90 < high99


@pytest.mark.parametrize(
    ("successes", "trials", "confidence"),
    [(-1, 10, 0.95), (11, 10, 0.95), (0, 0, 0.95), (-2, -1, 0.95), (5, 10, 0.0), (5, 10, 1.0), (5, 10, float("nan"))],
)
def test_arguments_out_of_range_have_no_interval(successes: int, trials: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="no interval for"):
        wilson_interval(successes, trials, confidence)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_the_confusion_matrix_counts_every_pair(dtype: npt.DTypeLike) -> None:
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 7, (2, 500)).astype(dtype)
    expected = [[0] * 7 for _ in range(7)]
    for label, read in zip(labels.tolist(), predicted.tolist(), strict=True):
        expected[label][read] += 1
    matrix = confusion_matrix(labels, predicted, 7)
    assert matrix.tolist() == expected
    assert matrix.dtype == np.int64


def test_the_confusion_matrix_keeps_256_classes_of_bytes_apart() -> None:
    labels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(confusion_matrix(labels, labels[::-1], 256), np.eye(256)[::-1])


def test_classes_that_never_occur_have_empty_rows_and_columns() -> None:
    matrix = confusion_matrix(np.array([0, 0]), np.array([1, 0]), 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0] * 4, [0] * 4, [0] * 4]


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(10, 2, 0.0386), (2, 10, 0.0386), (2, 9, 0.06543), (5, 0, 0.0625), (6, 0, 0.03125), (4, 4, 1.0), (0, 0, 1.0)],
)
def test_mcnemars_p_is_that_of_a_fair_coin(only_a: int, only_b: int, p: float) -> None:
    """2 and 9: Fay, "Exact McNemar's test and matching confidence intervals", a vignette of R's package exact2x2."""
    assert mcnemar(only_a, only_b) == pytest.approx(p, abs=5e-5)


def test_the_paired_interval_is_that_of_published_examples() -> None:
    # Fay's 2 against 9 (as above): the odds' exact interval is 0.02336 to 1.07364, and a share of the 11 is odds / (1 + odds).
    estimate = paired_difference(2, 9, 100)
    assert [(1 + limit / 0.11) / (1 - limit / 0.11) for limit in (estimate.low, estimate.high)] == pytest.approx(
        [0.02336464, 1.07363844], rel=1e-6
    )
    # Agresti, "Categorical data analysis", 10.1: 150 and 86 of 1,600 changed their minds; 0.04, about 0.022 to 0.058.
    estimate = paired_difference(150, 86, 1600)
    assert estimate.value == pytest.approx(0.04)
    assert (estimate.low, estimate.high) == pytest.approx((0.022, 0.058), abs=1.5e-3)


@pytest.mark.slow
def test_the_paired_interval_excludes_zero_exactly_where_mcnemar_does() -> None:
    for only_a in range(26):
        for only_b in range(26):
            estimate = paired_difference(only_a, only_b, 60)
            assert estimate.excludes_zero == (mcnemar(only_a, only_b) < 0.05)
            assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_two_trainings_that_no_digit_tells_apart_are_not_certain_to_be_equal() -> None:
    for n in (1, 20, 1000):
        estimate = paired_difference(0, 0, n)
        assert estimate.value == 0
        assert -estimate.low == estimate.high == pytest.approx(binomtest(0, n).proportion_ci().high)


@pytest.mark.parametrize("counts", [(-1, 0, 10), (0, -1, 10), (6, 5, 10), (0, 0, 0)])
def test_impossible_counts_have_no_difference(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no difference of"):
        paired_difference(*counts)


def test_mcnemar_takes_no_negative_counts() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        mcnemar(-1, 3)


def test_an_estimate_knows_its_margin_and_whether_zero_is_outside() -> None:
    assert Estimate(2.0, 1.0, 4.0).margin == 2.0  # to the farther side
    assert Estimate(2.0, 0.0, 3.0).margin == 2.0
    excluded = [
        Estimate(0.0, low, high).excludes_zero for low, high in [(0.1, 1.0), (-1.0, -0.1), (-1.0, 1.0), (0.0, 1.0), (-1.0, 0.0)]
    ]
    assert excluded == [True, True, False, False, False]


def around(counts: Sequence[int], n: int) -> Correct:
    """As many digits right with each seed as told, side by side around a circle, so that every digit is read right by as many
    seeds as any other (if the counts add up to a multiple of n): the digits then have no variance."""
    ends = np.cumsum([0, *counts])
    return np.array([np.isin(np.arange(n), np.arange(*pair) % n) for pair in itertools.pairwise(ends)])


def test_without_variance_of_seeds_the_difference_is_the_paired_t_of_the_digits() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 1, 300)) < 0.8
    expected = ttest_rel(a[0].astype(float), b[0].astype(float)).confidence_interval()
    found = difference_interval(np.repeat(a, 4, axis=0), np.repeat(b, 7, axis=0))
    assert (found.estimate.low, found.estimate.high) == pytest.approx((expected.low, expected.high))
    assert found.variances == pytest.approx((0, 0, (a[0].astype(float) - b[0]).var(ddof=1) / 300))
    alone = ttest_1samp(a[0], 0.0).confidence_interval()
    accuracy = accuracy_interval(np.repeat(a, 3, axis=0))
    assert (accuracy.low, accuracy.high) == pytest.approx((alone.low, alone.high))


def test_a_single_seed_is_taken_to_vary_as_the_other_nets_do() -> None:
    n = 50_000
    one, five = around([n], n), around([9_000, 9_900, 11_000, 10_500, 9_600], n)
    scores = five.mean(axis=1)
    pooled = ttest_ind_from_stats(1.0, 0.0, 1, scores.mean(), scores.std(ddof=1), 5, equal_var=True)
    for sign, found in [(1, difference_interval(one, five)), (-1, difference_interval(five, one))]:
        assert found.estimate.value == pytest.approx(sign * 0.8)
        assert found.estimate.value / found.estimate.margin == pytest.approx(sign * pooled.statistic / 2.776445, rel=1e-5)
        assert found.variances[0] == found.variances[1] == pytest.approx(scores.var(ddof=1))


def test_what_was_the_same_on_every_digit_is_still_not_certain() -> None:
    right, wrong = np.ones((5, 1000), bool), np.zeros((5, 1000), bool)
    limit = binomtest(0, 1000).proportion_ci().high
    accuracy = accuracy_interval(right)
    assert (accuracy.low, accuracy.high) == pytest.approx((1 - limit, 1.0), rel=1e-4)
    assert accuracy_interval(wrong) == Estimate(0.0, 0.0, pytest.approx(limit, rel=2e-3))
    for find in (lambda a, b: difference_interval(a, b).estimate, bootstrap_difference):
        same, all_of_it = find(right, right), find(right, wrong)
        assert (same.low, same.value, same.high) == pytest.approx((-limit, 0.0, limit), rel=2e-3)
        assert (all_of_it.low, all_of_it.value, all_of_it.high) == pytest.approx((1 - limit, 1.0, 1.0), rel=1e-4)


@pytest.mark.parametrize("shape", [(1000,), (0, 1000), (5, 1), (5, 0), (5, 4, 3)])
def test_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    good, bad = np.ones((5, 1000), bool), np.ones(shape, bool)
    calls = [lambda: accuracy_interval(bad)]
    calls += [lambda compare=compare: compare(good, bad) for compare in (difference_interval, bootstrap_difference)]
    calls += [lambda compare=compare: compare(bad, good) for compare in (difference_interval, bootstrap_difference)]
    for call in calls:
        with pytest.raises(ValueError, match="shape"):
            call()


def test_too_few_seeds_are_an_error_that_names_what_to_use() -> None:
    one, four, five = (np.ones((seeds, 100), bool) for seeds in (1, 4, 5))
    with pytest.raises(ValueError, match="wilson_interval"):
        accuracy_interval(one)
    with pytest.raises(ValueError, match="paired_difference"):
        difference_interval(one, one)
    for pair in ((four, five), (five, four)):
        with pytest.raises(ValueError, match="5 or more seeds"):
            bootstrap_difference(*pair)
    with pytest.raises(ValueError, match="100 or more draws"):
        bootstrap_difference(five, five, draws=99)


HARD, SPREAD = 8.3, 4.0  # of two nets the worse one's mean easiness of a digit, and its standard deviation over digits
SEED = 0.17  # standard deviation of a seed's effect on the easiness of all digits: 0.2 points of accuracy


def trained(generator: np.random.Generator, nets: Sequence[tuple[float, int]], n: int, seed_sd: float = SEED) -> list[Correct]:
    """What nets of some mean easiness, with so many seeds each, read right of n new digits.

    A digit is read right where its easiness, a seed's effect, and a part that is new for each seed and digit are together above
    0. Four fifths of the variance of the easiness is common to all nets.
    """
    common = generator.standard_normal(n, np.float32)
    found = []
    for mean, seeds in nets:
        easiness = mean + SPREAD * (0.8**0.5 * common + 0.2**0.5 * generator.standard_normal(n, np.float32))
        effects = seed_sd * generator.standard_normal((seeds, 1), np.float32)
        found.append(easiness + effects + generator.standard_normal((seeds, n), np.float32) > 0)
    return found


def accuracy(mean: float, seed_sd: float = SEED) -> float:
    """Of such a net, over all digits and seeds."""
    return NormalDist().cdf(mean / (SPREAD**2 + seed_sd**2 + 1) ** 0.5)


CASES = 2_000
AT_LEAST = 0.95 - 3 * (0.95 * 0.05 / CASES) ** 0.5  # 95 % but for three standard errors of the simulation
AT_MOST = 1 - AT_LEAST


def test_the_simulated_nets_are_like_those_of_mnist() -> None:
    correct = trained(np.random.default_rng(0), [(HARD, 60)], 40_000)[0]
    assert correct.mean() == pytest.approx(accuracy(HARD), abs=0.002) == pytest.approx(0.978, abs=0.003)
    assert correct.mean(axis=1).std(ddof=1) == pytest.approx(0.002, rel=0.2)


def test_wilsons_interval_holds_the_truth_in_95_percent_of_cases() -> None:
    generator = np.random.default_rng(1)
    truths = generator.uniform(0.9, 0.999, CASES)  # over one proportion after another: at a single one the coverage oscillates
    limits = [wilson_interval(successes, 500) for successes in generator.binomial(500, truths).tolist()]
    covered = np.mean([low <= truth <= high for (low, high), truth in zip(limits, truths, strict=True)])
    assert AT_LEAST <= covered <= 0.97


@pytest.mark.parametrize(("seeds", "n", "seed_sd"), [(5, 1000, SEED), (2, 1000, SEED), (5, 1000, 0.5)])
def test_the_interval_of_an_accuracy_holds_the_truth_in_95_percent_of_cases(seeds: int, n: int, seed_sd: float) -> None:
    generator = np.random.default_rng(3)
    truth = accuracy(HARD, seed_sd)
    estimates = [accuracy_interval(*trained(generator, [(HARD, seeds)], n, seed_sd)) for _ in range(CASES)]
    assert AT_LEAST <= np.mean([estimate.low <= truth <= estimate.high for estimate in estimates]) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds_a", "seeds_b", "n", "seed_sd"),
    [(5, 5, 1000, SEED), (2, 8, 1000, SEED), (1, 5, 1000, SEED), (5, 5, 1000, 0.5), (1, 5, 1000, 0.8)],
)
def test_the_interval_of_a_difference_holds_the_truth_in_95_percent_of_cases(
    seeds_a: int, seeds_b: int, n: int, seed_sd: float
) -> None:
    generator = np.random.default_rng(4)
    truth = accuracy(HARD + 0.4, seed_sd) - accuracy(HARD, seed_sd)
    nets = [(HARD + 0.4, seeds_a), (HARD, seeds_b)]
    estimates = [difference_interval(*trained(generator, nets, n, seed_sd)).estimate for _ in range(CASES)]
    assert AT_LEAST <= np.mean([estimate.low <= truth <= estimate.high for estimate in estimates]) <= 0.985


@pytest.mark.slow
def test_of_two_equal_nets_one_is_found_better_in_at_most_5_percent_of_cases() -> None:
    generator = np.random.default_rng(5)
    found = [difference_interval(*trained(generator, [(HARD, 5)] * 2, 1000)) for _ in range(CASES)]
    assert np.mean([difference.estimate.excludes_zero for difference in found]) <= AT_MOST


@pytest.mark.slow
@pytest.mark.parametrize("seed_sd", [SEED, 2.0])
def test_the_bootstraps_interval_holds_the_truth_in_95_percent_of_cases(seed_sd: float) -> None:
    generator = np.random.default_rng(6)
    truth = accuracy(HARD + 0.4, seed_sd) - accuracy(HARD, seed_sd)
    nets = [(HARD + 0.4, 5), (HARD, 5)]
    estimates = [bootstrap_difference(*trained(generator, nets, 200, seed_sd), draws=200, seed=case) for case in range(CASES)]
    assert AT_LEAST <= np.mean([estimate.low <= truth <= estimate.high for estimate in estimates]) <= 0.99


@pytest.mark.slow
def test_mcnemar_finds_a_difference_between_equal_trainings_in_at_most_5_percent_of_cases() -> None:
    generator = np.random.default_rng(7)
    discordant = generator.integers(6, 120, CASES)
    only_a = generator.binomial(discordant, 0.5)
    found = [mcnemar(a, d - a) < 0.05 for a, d in zip(only_a.tolist(), discordant.tolist(), strict=True)]
    assert 0.01 <= np.mean(found) <= AT_MOST


@pytest.mark.slow
def test_the_bootstrap_agrees_with_the_interval_of_the_difference_at_the_size_of_mnist() -> None:
    a, b = trained(np.random.default_rng(8), [(HARD + 0.4, 10), (HARD, 8)], 10_000)
    drawn, computed = bootstrap_difference(a, b), difference_interval(a, b).estimate
    assert drawn.value == computed.value
    assert (drawn.low, drawn.high) == pytest.approx((computed.low, computed.high), abs=0.15 * computed.margin)
    assert bootstrap_difference(a.astype(np.uint8), b.astype(np.uint8)) == drawn
    assert bootstrap_difference(a, b, seed=1) != drawn


@pytest.mark.parametrize(("effect", "seeds"), [(1.0, 17), (0.8, 26), (0.5, 64)])
def test_the_seeds_needed_are_those_of_cohens_table(effect: float, seeds: int) -> None:
    """Cohen, "Statistical power analysis for the behavioral sciences", 1988, table 2.4.1: two-sided 5 %, power 80 %."""
    assert seeds_needed(effect * 0.002, (4e-6, 4e-6, 0.0)) == seeds
    assert seeds_needed(-effect * 0.002, (4e-6, 4e-6, 0.0)) == seeds


def test_more_confidence_takes_more_seeds() -> None:
    usual, more = (seeds_needed(0.003, (9e-6, 4e-6, 2e-7), confidence=confidence) for confidence in (0.95, 0.995))
    assert usual is not None
    assert more is not None
    assert usual < more


def test_beyond_a_thousand_seeds_the_number_is_still_told() -> None:
    # ((1.95996 + 0.84162) / 1e-4) ** 2 * 2e-6
    assert seeds_needed(1e-4, (1e-6, 1e-6, 0.0)) == 1570


def test_seeds_do_not_help_where_the_digits_are_too_few() -> None:
    # The bound is (1.95996 + 0.84162) standard deviations of the digits.
    assert seeds_needed(0.0281, (1e-6, 1e-6, 1e-4)) is not None
    assert seeds_needed(0.0280, (1e-6, 1e-6, 1e-4)) is None
    assert seeds_needed(0.0, (0.0, 0.0, 0.0)) is None
    assert seeds_needed(0.001, (0.0, 0.0, 0.0)) == 2


def test_more_power_takes_more_seeds() -> None:
    needed = [seeds_needed(0.003, (9e-6, 4e-6, 2e-7), power=power) for power in (0.5, 0.8, 0.95)]
    assert None not in needed
    assert needed == sorted(set(needed))


def test_with_the_seeds_needed_the_difference_is_found_as_often_as_wanted() -> None:
    variances = (4e-6, 1e-6, 4e-7)
    seeds = seeds_needed(0.003, variances)
    assert seeds is not None
    draws = np.random.default_rng(9).normal(size=(3, 20_000, seeds)) * np.sqrt(variances)[:, None, None]
    a, b = draws[0] + 0.003 + draws[2][:, :1], draws[1]
    total = (a.var(axis=1, ddof=1) + b.var(axis=1, ddof=1)) / seeds + variances[2]
    doubt = (a.var(axis=1, ddof=1) ** 2 + b.var(axis=1, ddof=1) ** 2) / seeds**2 / (seeds - 1)
    found = a.mean(axis=1) - b.mean(axis=1) > stdtrit(total**2 / doubt, 0.975) * np.sqrt(total)
    assert 0.78 <= found.mean() <= 0.88


@pytest.mark.parametrize(("variances", "power"), [((-1.0, 1.0, 1.0), 0.8), ((1.0, 1.0, 1.0), 0.4), ((1.0, 1.0, 1.0), 1.0)])
def test_impossible_variances_or_power_have_no_number_of_seeds(variances: tuple[float, float, float], power: float) -> None:
    with pytest.raises(ValueError, match="no number of seeds"):
        seeds_needed(1.0, variances, power=power)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, 0.0),
        (2, 0.56419),
        (3, 0.84628),
        (4, 1.02938),
        (5, 1.16296),
        (10, 1.53875),
        (20, 1.86748),
        (50, 2.24907),
        (100, 2.50759),
    ],
)
def test_the_expected_maximum_is_that_of_harters_table(k: int, expected: float) -> None:
    """Harter, "Expected values of normal order statistics", Biometrika 48, 1961."""
    assert expected_maximum(k) == pytest.approx(expected, abs=6e-6)
    assert expected_maximum(k) >= 0


def test_the_expected_maximum_of_many_values_is_that_of_the_integral_of_its_distribution() -> None:
    for k in (1_000, 100_000, 10**12):
        x = np.linspace(0, 15, 15_001)
        assert expected_maximum(k) == pytest.approx(float(np.trapezoid(-np.expm1(k * log_ndtr(x)), x)), abs=1e-6)
    for k in (0, -1, 10**15 + 1):
        with pytest.raises(ValueError, match="no maximum"):
            expected_maximum(k)


def test_the_pooled_deviation_weighs_groups_by_their_degrees_of_freedom() -> None:
    # Variances 2 (1 degree of freedom) and 5 / 3 (3 degrees): (2 + 5) / 4.
    assert pooled_sd([[1.0, 3.0], [11.0, 12.0, 13.0, 14.0], [500.0], []]) == pytest.approx((7 / 4) ** 0.5)
    assert pooled_sd([[1.0], [2.0], []]) is None
    assert pooled_sd([]) is None
    assert pooled_sd([[0.5, 0.5]]) == 0


@pytest.mark.parametrize(
    ("means", "parameters", "standard_error", "chosen"),
    [
        ([0.970, 0.979, 0.981, 0.982], [10, 20, 40, 80], 0.002, 2),
        ([0.970, 0.979, 0.981, 0.982], [10, 20, 40, 80], 0.003001, 1),
        ([0.970, 0.979, 0.981, 0.982], [10, 20, 40, 80], 0.0, 3),
        ([0.982, 0.981, 0.9815], [80, 40, 40], 0.002, 2),
        ([0.982, 0.981, 0.981], [80, 40, 40], 0.002, 1),
        ([0.75, 0.5, 0.25], [3, 2, 1], 0.25, 1),
        ([0.9], [7], 0.0, 0),
    ],
)
def test_the_smallest_net_within_one_standard_error_of_the_best_is_chosen(
    means: list[float], parameters: list[int], standard_error: float, chosen: int
) -> None:
    assert narrowest_within(means, parameters, standard_error) == chosen


@pytest.mark.parametrize(
    ("means", "parameters", "standard_error"),
    [([], [], 0.1), ([0.9], [1, 2], 0.1), ([0.9], [1], -0.1), ([0.9, np.nan], [1, 2], 0.1), ([0.9], [1], np.nan)],
)
def test_there_is_no_choice_among_what_cannot_be_compared(
    means: list[float], parameters: list[int], standard_error: float
) -> None:
    with pytest.raises(ValueError, match="no choice"):
        narrowest_within(means, parameters, standard_error)
