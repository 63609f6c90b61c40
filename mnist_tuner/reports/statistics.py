"""Pure functions on counts and on which digits were read right.

A recipe (a net and how it is trained) has an accuracy in expectation: over all seeds, and over all digits of which the test
set is a sample. Both move what is measured (Bouthillier et al., "Accounting for variance in machine learning benchmarks",
MLSys 2021). Which functions count which is said with each. Every interval is meant to hold the truth in 95 % of cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

Count = Annotated[int, Interval(ge=0, lt=2**63)]
Positive = Annotated[int, Interval(ge=1, lt=2**63)]
Share = Annotated[float, Interval(ge=0, le=1)]
Finite = Annotated[float, Interval(ge=-1e30, le=1e30)]
"""Numbers with the bounds that hold for them in a report; what is read back from a file is checked."""

Correct = npt.NDArray[np.bool_ | np.uint8]  # shape (seeds, n): whether (1 or 0) the training with that seed read that digit right


BOOTSTRAP_SEEDS = 5
"""With fewer seeds of each net there is too little to draw from."""


@dataclass(frozen=True)
class Estimate:
    """A number and its interval, of 95 % unless something else is said."""

    value: Finite
    low: Finite
    high: Finite

    @property
    def margin(self) -> float:
        """How far the interval reaches from the number, to the side where that is further."""
        return max(self.high - self.value, self.value - self.low)

    @property
    def excludes_zero(self) -> bool:
        """Whether all of the interval is above zero, or below."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Difference:
    """How much more accurate one recipe is than another.

    Attributes:
        estimate: the difference of the mean accuracies, between -1 and 1.
        variances: that of the accuracy of one training of the first recipe between its seeds, the same of the second, and
            that of the difference from one set of so many digits to another.
        of_many_seeds: the same, for `seeds_needed`. What depends on seed and digit together is in the digits' variance as long
            as there are few seeds, and averages out with more: here it is counted with the seeds.
    """

    estimate: Estimate
    variances: tuple[float, float, float]
    of_many_seeds: tuple[float, float, float]


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson, "Probable inference, the law of succession, and statistical
    inference", JASA 22, 1927).

    Assumes independent trials with the same probability. It covers this set of test images as a sample of all images; how
    much another seed's training would differ is another question.

    Args:
        successes: 0 <= successes <= trials.
        trials: 1 or more.
        confidence: 0 < confidence < 1.

    Returns:
        The lower and the upper limit, within [0, 1].

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 0 <= successes <= trials or trials < 1 or not 0 < confidence < 1:
        raise ValueError(f"no interval for {successes} of {trials} at confidence {confidence}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (p * (1 - p) / trials + z * z / (4 * trials * trials)) ** 0.5
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)


def confusion_matrix(
    labels: npt.NDArray[np.integer[Any]], predicted: npt.NDArray[np.integer[Any]], classes: int
) -> npt.NDArray[np.int64]:
    """How often each class (row) was read as each class (column).

    Args:
        labels, predicted: integers from 0 to ``classes - 1``, shape ``(n,)``.
        classes: the number of classes.

    Returns:
        Counts, int64, shape ``(classes, classes)``.
    """
    pairs = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's test, exact (McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12, 1947; recommended for two trained models by Dietterich, "Approximate statistical tests for
    comparing supervised classification learning algorithms", Neural Computation 10, 1998).

    Assumes independent digits. It is about these two trainings: it knows nothing of what other seeds would have given.

    Args:
        only_a, only_b: how many digits only the one, and only the other, read right; 0 or more.

    Returns:
        The two-sided p-value, 1.0 where no digit tells them apart.

    Raises:
        ValueError: a count is negative.
    """
    from scipy.stats import binomtest

    if min(only_a, only_b) < 0:
        raise ValueError(f"counts of digits are 0 or more, not {only_a} and {only_b}")
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def paired_difference(only_a: int, only_b: int, n: int, confidence: float = 0.95) -> Estimate:
    """The difference in accuracy of two trainings on the same digits.

    Of the d digits that tell the two apart, the first read a share right; the exact interval of that share (Clopper and
    Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 26, 1934) becomes
    one of the difference, d / n * (2 * share - 1). So it takes d as given, and excludes zero exactly where `mcnemar` is below
    1 - confidence. Where d is 0, the limits are what n digits without a single such digit leave open: Clopper and
    Pearson's for 0 of n, about 3.7 / n, to either side.

    Assumes independent digits. As `mcnemar`, it knows nothing of other seeds.

    Args:
        only_a, only_b: how many digits only the one, and only the other, read right; 0 or more.
        n: all digits, 1 or more.
        confidence: of the interval, 0 < confidence < 1.

    Returns:
        ``(only_a - only_b) / n`` with its interval, within [-1, 1].

    Raises:
        ValueError: a count is out of its range.
    """
    from scipy.stats import binomtest

    discordant = only_a + only_b
    if min(only_a, only_b) < 0 or n < max(discordant, 1):
        raise ValueError(f"no difference of {only_a} and {only_b} among {n} digits")
    if discordant == 0:
        return Estimate(0.0, -_unseen(n, confidence), _unseen(n, confidence))
    share = binomtest(only_a, discordant).proportion_ci(confidence, method="exact")
    low, high = (discordant / n * (2 * float(limit) - 1) for limit in share)
    return Estimate((only_a - only_b) / n, low, high)


def accuracy_interval(correct: Correct) -> Estimate:
    """The accuracy of a recipe, over other seeds and other digits.

    The variance of the mean has two parts: that of the seeds' accuracies, over the number of seeds R, and that of the share of
    seeds that read a digit right, over the number of digits n. The degrees of freedom are those of Satterthwaite ("An
    approximate distribution of estimates of variance components", Biometrics Bulletin 2, 1946), from R - 1 and n - 1. What
    depends on the seed and the digit together is in both parts, which makes the interval a little wider than it need be.

    The digits' part is at least so large that n digits without a single error leave open what Clopper and Pearson's limit does
    (about 3.7 / n): no net is certain to be right because none was seen to err.

    Assumes independent seeds and independent digits, and some ten errors or more, so that the mean is about normal. Simulated,
    it holds the truth in 94 to 96 % of cases; in 90 % with 2 seeds where they matter far more than the digits.

    Args:
        correct: bool or uint8, shape ``(seeds, n)``, each 2 or more.

    Returns:
        The mean accuracy and its interval, within [0, 1].

    Raises:
        ValueError: the shape is another. (One training's accuracy has `wilson_interval`.)
    """
    n, seeds = _digits(correct), len(correct)
    if seeds < 2:
        raise ValueError("an interval over seeds takes 2 or more; wilson_interval is for one")
    between_seeds = float(correct.mean(axis=1).var(ddof=1))
    margin = _welch([(between_seeds / seeds, seeds - 1), (_variance_of_digits(correct.mean(axis=0)), n - 1)])
    value = float(correct.mean())
    return Estimate(value, max(value - margin, 0.0), min(value + margin, 1.0))


def difference_interval(correct_a: Correct, correct_b: Correct, confidence: float = 0.95) -> Difference:
    """How much more accurate recipe a is than recipe b, over other seeds and other digits.

    As `accuracy_interval`, with three variances: those of either recipe's seeds, and that of the digits, which is the variance
    over digits of the difference between the shares of seeds that read a digit right. Both recipes are tested on the same
    digits, so that what makes a digit hard for both cancels. The degrees of freedom are those of Welch ("The generalization of
    'Student's' problem when several different population variances are involved", Biometrika 34, 1947) and Satterthwaite (1946).

    A recipe with a single seed is taken to vary from seed to seed as much as the other does. That is an assumption, which
    nothing in the data can check.

    The digits' part is at least so large that n digits without a difference leave open what Clopper and Pearson's limit does
    (about 3.7 / n): nets are not certain to be equal, or to differ, because they did on every digit.

    Assumes independent seeds and independent digits. Simulated, it holds the truth in 95 to 97 % of cases; in 92 % with 1 and
    2 seeds where they matter more than the digits.

    Args:
        correct_a, correct_b: bool or uint8, shapes ``(seeds of a, n)`` and ``(seeds of b, n)``; one of them 2 seeds or more.
        confidence: of the interval, 0 < confidence < 1.

    Returns:
        The difference, its interval within [-1, 1], and the variances that are in it.

    Raises:
        ValueError: the shapes are others, or both have a single seed. (Two trainings have `paired_difference`.)
    """
    n, seeds_a, seeds_b = _digits(correct_a, correct_b), len(correct_a), len(correct_b)
    if max(seeds_a, seeds_b) < 2:
        raise ValueError("one of the two takes 2 or more seeds; paired_difference is for one of each")
    between_a = float((correct_a if seeds_a > 1 else correct_b).mean(axis=1).var(ddof=1))
    between_b = float((correct_b if seeds_b > 1 else correct_a).mean(axis=1).var(ddof=1))
    digits = _variance_of_digits(correct_a.mean(axis=0) - correct_b.mean(axis=0))
    if min(seeds_a, seeds_b) > 1:
        seeds = [(between_a / seeds_a, seeds_a - 1), (between_b / seeds_b, seeds_b - 1)]
    else:
        seeds = [(between_a / seeds_a + between_b / seeds_b, max(seeds_a, seeds_b) - 1)]
    margin = _welch([*seeds, (digits, n - 1)], (1 + confidence) / 2)
    value = float(correct_a.mean() - correct_b.mean())
    estimate = Estimate(value, max(value - margin, -1.0), min(value + margin, 1.0))
    both_a, both_b = (
        float((c if len(c) > 1 else o).var(axis=0, ddof=1).mean()) / n
        for c, o in ((correct_a, correct_b), (correct_b, correct_a))
    )
    rest = max(digits - both_a / seeds_a - both_b / seeds_b, 0.0)
    return Difference(estimate, (between_a, between_b, digits), (between_a + both_a, between_b + both_b, rest))


def bootstrap_difference(correct_a: Correct, correct_b: Correct, *, draws: int = 2000, seed: int = 0) -> Estimate:
    """The same difference with an interval that assumes no distribution: a check on `difference_interval`.

    Each draw takes seeds of a, seeds of b, and digits with replacement, the same digits for both (Owen, "The pigeonhole
    bootstrap", Annals of Applied Statistics 1, 2007). The percentiles 2.5 and 97.5 are then moved away from the difference by
    the factor sqrt(R / (R - 1)), R the fewer seeds, because resampling R values shows only (R - 1) / R of their variance
    (Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69, 2015), and to a margin of
    `_unseen` at least. Simulated with 5 seeds of each: it holds the truth in 97 to 98 % of cases where seeds move the
    accuracy by 0.2 points, and in 93 to 95 % where they move it by a whole point, far more than the digits.

    Assumes independent seeds and independent digits.

    Args:
        correct_a, correct_b: bool or uint8, shapes ``(seeds of a, n)`` and ``(seeds of b, n)``, 5 seeds or more of each.
        draws: 100 or more.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        The difference of the mean accuracies, a minus b, and its interval, within [-1, 1].

    Raises:
        ValueError: the shapes are others, or there are too few seeds or draws.
    """
    n, seeds_a, seeds_b = _digits(correct_a, correct_b), len(correct_a), len(correct_b)
    fewest = min(seeds_a, seeds_b)
    if fewest < BOOTSTRAP_SEEDS or draws < 100:
        least = f"{BOOTSTRAP_SEEDS} or more seeds of each and 100 or more draws"
        raise ValueError(f"a bootstrap takes {least}, not {seeds_a}, {seeds_b} and {draws}")
    generator = np.random.default_rng(seed)
    shares = np.concatenate([correct_a / seeds_a, -(correct_b / seeds_b)]).T / n  # all of them sum to the difference
    differences = np.empty(draws)
    at_once = max(1, 1_000_000 // n)  # draws whose digits are in memory together, in some 30 MB
    for first in range(0, draws, at_once):
        rows = min(at_once, draws - first)
        drawn = generator.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        digits = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        seeds = [generator.multinomial(count, [1 / count] * count, rows) for count in (seeds_a, seeds_b)]
        differences[first : first + rows] = ((digits @ shares) * np.hstack(seeds)).sum(axis=1)
    value = float(correct_a.mean() - correct_b.mean())
    low, high = value + (np.quantile(differences, [0.025, 0.975]) - value) * math.sqrt(fewest / (fewest - 1))
    return Estimate(value, max(min(low, value - _unseen(n)), -1.0), min(max(high, value + _unseen(n)), 1.0))


def seeds_needed(
    difference: float, variances: tuple[float, float, float], *, power: float = 0.8, confidence: float = 0.95
) -> int | None:
    """How many seeds of each recipe it takes to find a difference.

    Found is where the interval of `difference_interval` excludes zero. R seeds of each find a difference with the wanted
    probability where it is more than t(confidence) + t(power) standard errors, the square of which is (a + b) / R + digits: the
    usual approximation, in which the noncentral t is a shifted one. More seeds do not make the digits' part smaller. Beyond 1,000
    the normal distribution stands for Student's.

    Args:
        difference: the true one, of either sign.
        variances: a, b and digits, as in `Difference.of_many_seeds`; 0 or more.
        power: the wanted probability, 0.5 <= power < 1.
        confidence: of the interval, 0 < confidence < 1.

    Returns:
        The least number of seeds for each, 2 or more; None where no number is enough: there are too few digits.

    Raises:
        ValueError: an argument is out of its range.
    """
    a, b, digits = variances
    if min(variances) < 0 or not 0.5 <= power < 1:
        raise ValueError(f"no number of seeds for variances {variances} and power {power}")
    normal = NormalDist()
    reach = normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(power)
    rest = (difference / reach) ** 2 - digits
    if rest <= 0:
        return None
    least = math.ceil((a + b) / rest)  # Student's t takes more
    for seeds in range(max(2, least), 1001):
        parts = [(a / seeds, seeds - 1), (b / seeds, seeds - 1), (digits, math.inf)]
        if abs(difference) > _welch(parts, (1 + confidence) / 2) + _welch(parts, power):
            return seeds
    return max(1001, least)


def expected_maximum(k: int) -> float:
    """The largest of k independent standard normal values, in expectation: by how many standard errors the best of k equal
    nets seems better than they are. The integral of x times the maximum's density, k * pdf(x) * cdf(x)^(k - 1), is summed by
    the trapezoidal rule, which converges geometrically for such a function (tables: Harter, "Expected values of normal order
    statistics", Biometrika 48, 1961).

    Args:
        k: 1 to 10^15.

    Returns:
        0 for 1 value, 0.564 for 2, 1.539 for 10, 2.508 for 100.

    Raises:
        ValueError: k is out of its range.
    """
    from scipy.special import log_ndtr

    if not 1 <= k <= 10**15:
        raise ValueError(f"no maximum of {k} values")
    x = np.linspace(-12, 12, 2401)
    density = k / math.sqrt(2 * math.pi) * np.exp((k - 1) * log_ndtr(x) - x * x / 2)
    return max(0.0, float(np.sum(x * density) * (x[1] - x[0])))


def pooled_sd(groups: Sequence[Sequence[float]]) -> float | None:
    """The standard deviation within groups: the root of the mean of their variances, weighted by degrees of freedom.

    Assumes that all groups vary alike around means of their own.

    Args:
        groups: scores, in any unit; a group of fewer than two says nothing.

    Returns:
        The standard deviation in that unit; None where no group has two values.
    """
    told = [group for group in groups if len(group) > 1]
    if not told:
        return None
    squares = sum(float(np.var(group, ddof=1)) * (len(group) - 1) for group in told)
    return math.sqrt(squares / sum(len(group) - 1 for group in told))


def narrowest_within(means: Sequence[float], parameters: Sequence[int], standard_error: float) -> int:
    """The one-standard-error rule: the smallest net that is about as good as the best (Breiman, Friedman, Olshen and Stone,
    "Classification and regression trees", 1984, section 3.4.3).

    Args:
        means: each candidate's mean score, the greater the better; finite.
        parameters: how many each has, in the same order.
        standard_error: of the best one's mean, in the same unit; 0 or more.

    Returns:
        The index of the candidate with the fewest parameters among those whose mean is at most one standard error below the
        greatest. Of equally small ones the better, of equally good ones the first.

    Raises:
        ValueError: there are no candidates, not as many parameters as means, or a number is out of its range.
    """
    if len(means) < 1 or len(means) != len(parameters) or not np.isfinite(means).all() or not standard_error >= 0:
        raise ValueError(f"no choice among means {means} with parameters {parameters} within {standard_error}")
    least = max(means) - standard_error
    candidates = [index for index, mean in enumerate(means) if mean >= least]
    return min(candidates, key=lambda index: (parameters[index], -means[index]))


def _digits(*nets: Correct) -> int:
    """The number of digits, checked."""
    shapes = [correct.shape for correct in nets]
    if any(len(shape) != 2 or shape[0] < 1 or shape[1] < 2 or shape[1] != shapes[0][1] for shape in shapes):
        raise ValueError(f"what was read right has the shape (seeds, digits), with the same 2 or more digits, not {shapes}")
    return int(shapes[0][1])


def _unseen(n: int, confidence: float = 0.95) -> float:
    """How large a share of all digits may be of a kind that was not seen among n: Clopper and Pearson's limit for 0 of n."""
    return float(1 - ((1 - confidence) / 2) ** (1 / n))


def _variance_of_digits(shares: npt.NDArray[np.float64]) -> float:
    """The variance of the mean of a number per digit, and at least that with which the mean's margin is `_unseen`."""
    n = len(shares)
    return max(float(shares.var(ddof=1)) / n, (_unseen(n) / NormalDist().inv_cdf(0.975)) ** 2)


def _welch(parts: Sequence[tuple[float, float]], probability: float = 0.975) -> float:
    """Student's t at a probability, in units of the score.

    Args:
        parts: independent variances of which the sum is that of the score, each with its degrees of freedom.
    """
    from scipy.special import stdtrit

    variance = sum(part for part, _ in parts)
    doubt = sum(part**2 / degrees for part, degrees in parts)
    degrees = variance**2 / doubt if doubt else math.inf
    return float(stdtrit(degrees, probability)) * math.sqrt(variance)
