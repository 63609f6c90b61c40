"""Which of two nets is better: the evidence, and the verdict in words."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import MinLen

from mnist_tuner.reports.report import SCHEMA_VERSION
from mnist_tuner.reports.statistics import (
    BOOTSTRAP_SEEDS,
    Count,
    Estimate,
    Finite,
    Positive,
    Share,
    accuracy_interval,
    bootstrap_difference,
    difference_interval,
    mcnemar,
    paired_difference,
    seeds_needed,
    wilson_interval,
)


def net_name(units: Iterable[int]) -> str:
    """What a net with these widths is called, such as "384-224"."""
    return "-".join(map(str, units))


@dataclass(frozen=True)
class Contestant:
    """A net and how well its trainings read the test images.

    Attributes:
        name: what it is called in a sentence, such as "384-224".
        units: the hidden layers' widths.
        parameters: how many; None where nobody knows.
        seeds: of the trainings.
        accuracies: between 0 and 1, in the same order.
        accuracy: the mean with its 95 % interval: Wilson's of one training, of several one that counts seeds and images both.
    """

    name: str
    units: tuple[Positive, ...]
    parameters: Count | None
    seeds: Annotated[tuple[Count, ...], MinLen(1)]
    accuracies: Annotated[tuple[Share, ...], MinLen(1)]
    accuracy: Estimate

    @property
    def sd(self) -> float | None:
        """The accuracies' sample standard deviation; None of fewer than two."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "units": list(self.units),
            "parameters": self.parameters,
            "seeds": list(self.seeds),
            "accuracies": list(self.accuracies),
            "mean": self.accuracy.value,
            "sd": self.sd,
            "count": len(self.accuracies),
            "interval95": [self.accuracy.low, self.accuracy.high],
        }


def contestant(
    name: str,
    units: tuple[int, ...],
    parameters: int | None,
    seeds: tuple[int, ...],
    labels: npt.NDArray[np.integer[Any]],
    predicted: npt.NDArray[np.integer[Any]],
) -> Contestant:
    """Judges a net's predictions.

    Args:
        name, units, parameters, seeds: see `Contestant`.
        labels: integers, shape ``(n,)``.
        predicted: integers, shape ``(trainings, n)``.
    """
    correct = predicted == labels
    hits = correct.sum(axis=1)
    if len(correct) == 1:
        estimate = Estimate(int(hits[0]) / len(labels), *wilson_interval(int(hits[0]), len(labels)))
    else:
        estimate = accuracy_interval(correct)
    return Contestant(name, units, parameters, seeds, tuple(int(count) / len(labels) for count in hits), estimate)


@dataclass(frozen=True)
class Comparison:
    """Two nets on the same test images: `first` has read as many right as `second`, or more.

    Attributes:
        first, second: their names.
        images: how many.
        trainings: of each.
        difference: of the mean accuracies, with its interval.
        confidence: of the interval: 0.95, or more where several nets are compared with one another.
        method: "Welch-Satterthwaite" (several seeds: the interval counts seeds and images) or "McNemar" (one training each: it
            counts images only).
        p: McNemar's.
        only_first, only_second: images that just one of the two read right, where each was trained once.
        bootstrap: the 95 % interval by drawing seeds and images again and again, from five seeds up: a second opinion.
        seed_sd: how much the accuracy of one training moves with its seed, for each net; None where each was trained once.
        seeds_needed: trainings of each with which a difference of this size would be found four times in five; None where no
            number would do: the images are too few.
    """

    first: str
    second: str
    images: Positive
    trainings: tuple[Positive, Positive]
    difference: Estimate
    confidence: Share
    method: str
    p: Finite | None = None
    only_first: Count | None = None
    only_second: Count | None = None
    bootstrap: Estimate | None = None
    seed_sd: tuple[Finite, Finite] | None = None
    seeds_needed: Count | None = None

    @property
    def distinguishable(self) -> bool:
        """Whether the difference is more than chance: its interval lies above zero."""
        return self.difference.excludes_zero

    @property
    def verdict(self) -> str:
        """What follows, in a sentence for everybody."""
        difference, images = self.difference, self.images
        once = self.seed_sd is None
        sure = f"{100 * difference.low:.2f} to {100 * difference.high:.2f} with {100 * self.confidence:.4g} % confidence"
        points = f"{100 * difference.value:.2f} points ({sure})"
        if self.distinguishable and once:
            return f"Of these two trained copies, that of {self.first} is better than that of {self.second}: by {points}."
        if self.distinguishable:
            return f"{self.first} is better than {self.second} by {points}."
        apart = f"{self.first} and {self.second} cannot be told apart" + (" by one training of each" if once else "")
        if difference.value == 0:
            return f"{apart}: they read equally many of {images:,} images right."
        count = difference.value * images
        told = "less than one image" if count < 0.995 else f"{count:,.0f} image{'s' if round(count) > 1 else ''}"
        if once:
            limits = f"from {difference.low * images:,.1f} to {difference.high * images:,.1f}"
            return f"{apart}: the difference is {told} of {images:,}, which may be chance (its interval goes {limits})."
        return (
            f"{apart}: the difference is {told} of {images:,}, and chance alone may move it by {difference.margin * images:,.0f}."
        )

    @property
    def outlook(self) -> str:
        """What it would take to know more; empty where the question is answered, or nobody can say."""
        if self.seed_sd is None:
            return "This does not say which net is better: for that, train each with several seeds (mnist-tuner train --seeds 5)."
        if self.distinguishable:
            close = self.difference.low < 0.1 * self.difference.value
            return "That is close to the limit: more seeds would make it firmer." if close else ""
        if self.seeds_needed is None:
            return f"No number of seeds would show so small a difference: {self.images:,} images are too few for that."
        if self.seeds_needed <= min(self.trainings):
            return ""
        found = f"{self.seeds_needed:,} seeds of each would show it in 4 of 5 tries (here it was {self._count()})"
        return f"That does not mean that they are equal: if the difference is real, {found}."

    def _count(self) -> str:
        first, second = self.trainings
        return str(first) if first == second else f"{first} and {second}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = asdict(self)
        for name in ("difference", "bootstrap"):
            estimate = getattr(self, name)
            values[name] = None if estimate is None else {"value": estimate.value, "interval": [estimate.low, estimate.high]}
        return {
            **values,
            "trainings": list(self.trainings),
            "seed_sd": None if self.seed_sd is None else list(self.seed_sd),
            "distinguishable": self.distinguishable,
            "verdict": self.verdict,
            "outlook": self.outlook,
        }


def compare(
    names: tuple[str, str],
    labels: npt.NDArray[np.integer[Any]],
    predicted: tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.integer[Any]]],
    confidence: float = 0.95,
) -> Comparison:
    """Compares two nets on the same images.

    Args:
        names: of both.
        labels: integers, shape ``(n,)``.
        predicted: by each, integers of shape ``(trainings, n)``.
        confidence: of the interval.
    """
    (a, b), (name_a, name_b) = (each == labels for each in predicted), names
    if b.mean() > a.mean():
        a, b, name_a, name_b = b, a, name_b, name_a
    images, trainings = len(labels), (len(a), len(b))
    if trainings == (1, 1):
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        difference = paired_difference(only_a, only_b, images, confidence)
        p = mcnemar(only_a, only_b)
        return Comparison(name_a, name_b, images, trainings, difference, confidence, "McNemar", p, only_a, only_b)
    found = difference_interval(a, b, confidence)
    variance_a, variance_b, _ = found.variances
    return Comparison(
        name_a,
        name_b,
        images,
        trainings,
        found.estimate,
        confidence,
        "Welch-Satterthwaite",
        bootstrap=bootstrap_difference(a, b) if min(trainings) >= BOOTSTRAP_SEEDS else None,
        seed_sd=(variance_a**0.5, variance_b**0.5),
        seeds_needed=seeds_needed(found.estimate.value, found.of_many_seeds, confidence=confidence),
    )


def compare_all(
    names: list[str], labels: npt.NDArray[np.integer[Any]], predicted: list[npt.NDArray[np.integer[Any]]]
) -> tuple[Comparison, ...]:
    """Compares every two of several nets.

    The intervals are so wide that all of them hold together with 95 % (Bonferroni, "Teoria statistica delle classi e calcolo
    delle probabilità", 1936): who looks at many differences finds one that is chance sooner or later.
    """
    pairs = list(combinations(range(len(names)), 2))
    confidence = 1 - 0.05 / len(pairs)
    return tuple(compare((names[i], names[j]), labels, (predicted[i], predicted[j]), confidence) for i, j in pairs)


@dataclass(frozen=True)
class ComparisonReport:
    """Several runs, compared on the same test images.

    Attributes:
        data: the name of the data.
        images: how many test images.
        run_dirs: the runs' folders, in the order of the contestants.
        contestants: the highest mean accuracy first.
        comparisons: of every two, the first one's first.
        notes: what else the runs differ in.
    """

    data: str
    images: int
    run_dirs: tuple[str, ...]
    contestants: tuple[Contestant, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Who is better, in a sentence for everybody."""
        if len(self.comparisons) == 1:
            return self.comparisons[0].verdict
        best, others = self.contestants[0], self.contestants[1:]
        against = self.comparisons[: len(others)]
        equal = [net.name for net, comparison in zip(others, against, strict=True) if not comparison.distinguishable]
        once = any(comparison.seed_sd is None for comparison in against)
        if not equal:
            count = len(self.contestants)
            return (
                f"This training of {best.name} is the best of these {count}."
                if once
                else f"{best.name} is the best of the {count}."
            )
        return f"{best.name} has the highest accuracy, but cannot be told apart from {_enumerated(equal)}."

    @property
    def outlook(self) -> str:
        """What it would take to know more; empty where the question is answered."""
        if len(self.comparisons) > 1 and all(comparison.seed_sd is not None for comparison in self.comparisons):
            return ""
        return next(
            comparison.outlook for comparison in self.comparisons if comparison.seed_sd is None or len(self.comparisons) == 1
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON document; README.md in this folder has its schema."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "report",
            "data": self.data,
            "images": self.images,
            "runs": [{"run_dir": folder, **net.to_dict()} for folder, net in zip(self.run_dirs, self.contestants, strict=True)],
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "notes": list(self.notes),
            "verdict": self.verdict,
            "outlook": self.outlook,
        }


def _enumerated(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
