"""Pure functions on counts."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt


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


def confusion_matrix(labels: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], classes: int) -> npt.NDArray[np.int64]:
    """How often each class (row) was read as each class (column).

    Args:
        labels, predicted: integers from 0 to ``classes - 1``, shape ``(n,)``.
        classes: the number of classes.

    Returns:
        Counts, int64, shape ``(classes, classes)``.
    """
    pairs = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
