"""A trial: what it is given, what it gives back, and who hears of it."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol

from annotated_types import Ge, Predicate

from mnist_tuner.runs import finite
from mnist_tuner.trainer.checked import checked

Reporter = Callable[[dict[str, Any]], None]
"""Is told of each epoch that a trial ends: replicate (from 0), epoch (from 1), value (the objective)."""


class RunsTrials(Protocol):
    """What all trials have in common: the search's experiment."""

    def run_trial(self, spec: TrialSpec, report: Reporter) -> TrialResult:
        """See `run_trial` in experiment.py."""


@dataclass(frozen=True)
class TrialSpec:
    """What a worker needs to know of a trial, besides the experiment.

    Attributes:
        trial_id: its name; nothing in its result depends on it.
        hyperparameters: KerasTuner's ``HyperParameters.get_config()``.
        seeds: one for each replicate, 0 to 2**32 - 1.
        epochs: the epoch to end before.
        initial_epoch: the epoch to begin with, from 0.
        states: where that is not 0, what each replicate was after the epochs before.
        keeps_states: whether the result is to hold what each replicate is at its end.
    """

    trial_id: str
    hyperparameters: dict[str, Any]
    seeds: tuple[int, ...]
    epochs: int
    initial_epoch: int = 0
    states: tuple[bytes, ...] = ()
    keeps_states: bool = False
    leaves_models: ClassVar[bool] = True

    def run(self, experiment: RunsTrials, report: Reporter) -> TrialResult:
        """Runs it, in a worker."""
        return experiment.run_trial(self, report)


@dataclass(frozen=True)
class Replicate:
    """One training of a trial.

    Attributes:
        seed: of its first weights and the order of its rows.
        history: each metric's value after each epoch; NaN where it was not finite, or not measured.
        scored: which of these epochs, from 1, has the weights that the model was left with; 0: none of them has, as where weights
            are averaged at the end; None: the last one.
    """

    seed: int
    history: Mapping[str, tuple[float, ...]]
    scored: int | None = None

    @property
    def place(self) -> int:
        """The index in a metric's history of the value that belongs to the weights; without one, the last."""
        return (self.scored or 0) - 1


@dataclass(frozen=True)
class _Replicate:
    """A replicate as it is stored: with null where a metric was not finite."""

    seed: int
    history: Mapping[str, tuple[float | None, ...]]
    scored: Annotated[int, Ge(0)] | None = None


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial.

    Attributes:
        trial_id: its name.
        status: "completed" or "failed".
        replicates: in the order of the seeds; empty where the trial failed.
        initial_epoch: the epoch that the histories begin with.
        parameters: the model's; None where none was built.
        seconds: it took.
        worker: where it ran.
        reason: why it failed, in a line.
        traceback: the whole of it, where there was one.
        found: KerasTuner's configurations of hyperparameters that ``fit`` asked for and that were not known.
        weights: those that the first replicate was left with, a Keras weights file; empty where they are on the disk or were not
            wanted.
        build_config: from which Keras builds that model.
        states: see `TrialSpec.keeps_states`.
    """

    trial_id: Annotated[str, Predicate(str.isdecimal)]
    status: Literal["completed", "failed"]
    replicates: tuple[Replicate, ...] = ()
    initial_epoch: Annotated[int, Ge(0)] = 0
    parameters: int | None = None
    seconds: float = 0.0
    worker: str = ""
    reason: str | None = None
    traceback: str = ""
    found: tuple[Mapping[str, Any], ...] = ()
    weights: bytes = b""
    build_config: Mapping[str, Any] | None = None
    states: tuple[bytes, ...] = ()

    @property
    def completed(self) -> bool:
        """Whether it has a score."""
        return self.status == "completed"

    def summary(self, values: Mapping[str, Any], objective: str) -> TrialSummary:
        """What the report needs of it.

        Args:
            values: the hyperparameters'.
            objective: the metric that trials are judged by.
        """
        return TrialSummary(
            trial_id=self.trial_id,
            values=dict(values),
            status=self.status,
            seeds=tuple(replicate.seed for replicate in self.replicates),
            scores=tuple(replicate.history[objective][replicate.place] for replicate in self.replicates),
            epochs=self.initial_epoch + max((len(r.history[objective]) for r in self.replicates), default=0),
            parameters=self.parameters,
            seconds=self.seconds,
            worker=self.worker,
            reason=self.reason,
            scored=tuple(each.scored and self.initial_epoch + each.scored for each in self.replicates),
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values; what is kept in files of its own is left out."""
        return {
            "trial_id": self.trial_id,
            "status": self.status,
            "replicates": [
                {"seed": each.seed, "history": finite(dict(each.history))}
                | ({} if each.scored is None else {"scored": each.scored})
                for each in self.replicates
            ],
            "initial_epoch": self.initial_epoch,
            "parameters": self.parameters,
            "seconds": round(self.seconds, 3),
            "worker": self.worker,
            "reason": self.reason,
            **({"found": list(self.found)} if self.found else {}),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrialResult:
        """What `to_json` gave.

        Raises:
            ValueError, KeyError: it is something else.
        """
        replicates = tuple(
            Replicate(
                each.seed,
                {name: tuple(math.nan if v is None else v for v in of) for name, of in each.history.items()},
                each.scored,
            )
            for each in checked(tuple[_Replicate, ...], values["replicates"])
        )
        kept = {name: value for name, value in values.items() if name not in ("weights", "states", "traceback")}
        result = checked(cls, {**kept, "replicates": replicates})
        if bool(replicates) != result.completed:
            raise ValueError(f"the trial is {result.status} and has {len(replicates)} replicates")
        return result


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """A finished trial in short.

    Attributes:
        trial_id: its name.
        values: the hyperparameters'.
        status: "completed" or "failed".
        seeds: of the replicates.
        scores: the objective of each replicate, after the epoch whose weights it was left with: by default the last one; empty
            where the trial failed.
        epochs: that they were trained for, those before a promotion included.
        parameters: the model's; None where none was built.
        seconds: it took.
        worker: where it ran.
        reason: why it failed.
        scored: that epoch of each replicate, where it is not the last one; see `Replicate`.
    """

    trial_id: str
    values: dict[str, Any]
    status: str
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    epochs: int
    parameters: int | None
    seconds: float
    worker: str
    reason: str | None
    scored: tuple[int | None, ...] = ()

    @property
    def completed(self) -> bool:
        """Whether it has a score."""
        return self.status == "completed"

    @property
    def mean(self) -> float | None:
        """The mean of the scores: what trials are ranked by."""
        return math.fsum(self.scores) / len(self.scores) if self.scores else None

    @property
    def sd(self) -> float | None:
        """The scores' sample standard deviation; None of fewer than two."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


class Observer:
    """Hears of a search's progress; override what is wanted."""

    def on_trial_asked(self, trial_id: str, values: Mapping[str, Any], cost: float) -> None:
        """A trial has been chosen; `cost` is in proportion to the time that it should take."""

    def on_trial_refused(self, values: Mapping[str, Any], reason: str) -> None:
        """These values cannot be trained: others are chosen instead."""

    def on_trial_started(self, trial_id: str, attempt: int, worker: str) -> None:
        """A worker has begun with it."""

    def on_epoch(self, trial_id: str, replicate: int, epoch: int, value: float | None) -> None:
        """An epoch of a replicate (from 0) has ended; `epoch` counts from 1, `value` is the objective."""

    def on_trial_again(self, trial_id: str, reason: str) -> None:
        """It has failed and is tried once more."""

    def on_trial_ended(self, summary: TrialSummary, *, restored: bool) -> None:
        """Its result is on the disk; `restored` where it was so before this search was resumed."""

    def on_tick(self) -> None:
        """Some time has passed."""


def replicate_seeds(search_seed: int, values: Mapping[str, Any], replicates: int) -> tuple[int, ...]:
    """The seeds of a trial's replicates: a pure function of the search's seed and the hyperparameters' values.

    What Hyperband adds to the values ("tuner/epochs" and the like) is left out, so that a net that is promoted goes on with its
    own seeds.
    """
    own = {name: value for name, value in values.items() if not name.startswith("tuner/")}
    text = json.dumps([search_seed, own], sort_keys=True)
    return tuple(int.from_bytes(hashlib.sha256(f"{text} {number}".encode()).digest()[:4], "big") for number in range(replicates))


def in_order(trial_id: str) -> tuple[int, str]:
    """Sorts trials by their numbers: a search that goes on with more of them may have come to longer ones."""
    return len(trial_id), trial_id


def ranked(summaries: Iterable[TrialSummary], direction: str) -> list[TrialSummary]:
    """The trials, the best first, failed ones last; equals in the order of their numbers."""
    sign = -1 if direction == "max" else 1

    def place(summary: TrialSummary) -> tuple[bool, float, tuple[int, str]]:
        return (summary.mean is None, sign * (summary.mean or 0.0), in_order(summary.trial_id))

    return sorted(summaries, key=place)


def hyperparameter_names(trials: Iterable[Mapping[str, Any]]) -> list[str]:
    """The hyperparameters of some trials' values, without what Hyperband adds."""
    return [name for name in dict.fromkeys(name for values in trials for name in values) if not name.startswith("tuner/")]


def score_text(mean: float | None, sd: float | None, count: int | None = None) -> str:
    """A mean with its deviation and, if given, how many it is of."""
    if mean is None:
        return ""
    return f"{mean:.4f}" + ("" if sd is None else f" +/- {sd:.4f}" + ("" if count is None else f" ({count})"))
