"""The interval of a proportion and the confusion matrix."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest

from mnist_tuner.reports.statistics import confusion_matrix, wilson_interval


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
