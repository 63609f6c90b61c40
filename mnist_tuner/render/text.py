"""Numbers as text: the same on the console, in figures and on pages."""

from __future__ import annotations

from mnist_tuner.reports.statistics import Estimate
from mnist_tuner.search.trial import TrialSummary, score_text


def count(number: int | None) -> str:
    """With separators, such as "60,000"; empty where nobody knows."""
    return "" if number is None else f"{number:,}"


def plural(number: int, word: str) -> str:
    """So many things, such as "1 epoch" and "60,000 images"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def percent(share: float | None) -> str:
    """A share from 0 to 1 in per cent, such as "97.53%"; empty where nobody knows."""
    return "" if share is None else f"{share:.2%}"


def points(difference: float) -> str:
    """A difference of shares in hundredths, such as "0.12"."""
    return f"{100 * difference:.2f}"


def limits(estimate: Estimate, between: str = " to ") -> str:
    """An interval in hundredths, such as "97.21 to 97.82"."""
    return points(estimate.low) + between + points(estimate.high)


def interval(accuracy: Estimate) -> str:
    """The interval of an accuracy, such as "97.21 to 97.82 %"."""
    return f"{limits(accuracy)} %"


def deviation(sd: float | None) -> str:
    """What follows a mean accuracy, such as " +/- 0.12%"; empty of a single one."""
    return "" if sd is None else f" +/- {sd:.2%}"


def four(value: float | None) -> str:
    """A loss, or a share from 0 to 1, with four digits; empty where there is none."""
    return "" if value is None else f"{value:.4f}"


def seconds(value: float) -> str:
    """Seconds, or trials a minute."""
    return f"{value:.1f}"


def metric(value: float | None, name: str) -> str:
    """A metric of an epoch; the epoch's number and seconds are shorter."""
    if value is None:
        return "not finite"
    return f"{value:.3g}" if name in ("epoch", "seconds") else four(value)


def score(trial: TrialSummary) -> str:
    """A trial's mean score, such as "0.9761 +/- 0.0012 (3)"; empty where it has none."""
    return score_text(trial.mean, trial.sd, len(trial.scores))
