"""What is reported of a search, as frozen dataclasses. The console, JSON and HTML are three renderings of them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.errors import InputError
from mnist_tuner.reports.comparison import Comparison, Contestant, net_name
from mnist_tuner.reports.report import SCHEMA_VERSION, ClassificationReport, DataSummary, Status
from mnist_tuner.reports.statistics import Count, Finite, Share, expected_maximum, narrowest_within, pooled_sd
from mnist_tuner.search.trial import TrialSummary
from mnist_tuner.search.versions import WorkerInfo
from mnist_tuner.trainer.checked import what_is_wrong
from mnist_tuner.trainer.files import read_file

OBJECTIVE = "val_accuracy"


@dataclass(frozen=True)
class Curve:
    """How a trial's validation accuracy rose.

    Attributes:
        trial: its number.
        epochs: from 1.
        scores: after each epoch, for each replicate; None where it was not finite.
    """

    trial: str
    epochs: tuple[Count, ...]
    scores: tuple[tuple[Share | None, ...], ...]


def read_curves(path: Path, wanted: Collection[str]) -> tuple[Curve, ...]:
    """Some trials' curves, from the table that a search writes.

    Args:
        path: of ``trials.csv``.
        wanted: the trials' numbers.

    Returns:
        One for each trial that is in the table and has been completed, in its order.

    Raises:
        InputError: it is damaged.
    """
    found: dict[str, dict[str, dict[int, float | None]]] = {}
    try:
        for row in csv.DictReader(io.StringIO(read_file(path).decode(), newline="")):
            if row["trial"] in wanted and row["epoch"]:
                replicate = found.setdefault(row["trial"], {}).setdefault(row["replicate"], {})
                score = float(row[OBJECTIVE] or "nan")
                replicate[int(row["epoch"])] = score if math.isfinite(score) else None
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: damaged: {what_is_wrong(error)}") from None
    return tuple(
        Curve(trial, tuple(next(iter(of.values()))), tuple(tuple(scores.values()) for scores in of.values()))
        for trial, of in found.items()
    )


@dataclass(frozen=True)
class SearchTiming:
    """Seconds, and trials a minute from the first one's start to the last one's end; since it was resumed, if it was."""

    start_s: Finite
    search_s: Finite
    final_s: Finite
    total_s: Finite
    trials_per_minute: Finite


@dataclass(frozen=True)
class SearchReport:
    """A run of ``search``.

    Attributes:
        status: "running", "finished", "interrupted" or "failed".
        stopped: why the search ended before its last trial, where it was meant to; else None.
        space: the hyperparameters to choose from, as KerasTuner writes them.
        total: how many trials there are to be; None where nobody knows beforehand.
        trials: that have ended, in the order of their numbers; trial 0 is the baseline.
        curves: of the trials that the report speaks of: the best, the recommended, the baseline.
        baseline, winner: trained anew on all training images, with seeds that are not the search's, and measured on the test
            images; None until then, and no winner where it is the baseline.
        comparison: of the two.
        looked_before: nets that had won, and had been measured on the test images, before the search was resumed.
        worker_info: each worker that there has been, those that were refused included.
        test: what the winner (or the baseline, where it is the winner) makes of each class.
    """

    status: Status
    run_dir: str
    seed: Count
    config: dict[str, Any]
    device: str
    workers: Count
    versions: dict[str, str]
    space: list[dict[str, Any]]
    total: Count | None = None
    data: DataSummary | None = None
    trials: tuple[TrialSummary, ...] = ()
    curves: tuple[Curve, ...] = ()
    baseline: Contestant | None = None
    winner: Contestant | None = None
    comparison: Comparison | None = None
    looked_before: tuple[str, ...] = ()
    worker_info: tuple[WorkerInfo, ...] = ()
    test: ClassificationReport | None = None
    timing: SearchTiming | None = None
    stopped: str | None = None
    error: str | None = None

    @property
    def command(self) -> str:
        """As on the command line."""
        return "search"

    @property
    def options(self) -> SearchConfig:
        """`config`, checked."""
        return SearchConfig.from_dict(self.config)

    @property
    def net(self) -> Contestant | None:
        """The net that it ended with: the winner, or the baseline where that is it; None before the comparison."""
        return self.winner or self.baseline

    @property
    def units(self) -> tuple[int, ...]:
        """That net's widths."""
        return () if self.net is None else self.net.units

    @property
    def parameters(self) -> int | None:
        """How many it has."""
        return None if self.net is None else self.net.parameters

    @property
    def best(self) -> TrialSummary | None:
        """The trial with the highest mean validation accuracy; None while none has been completed."""
        return max((trial for trial in self.trials if trial.completed), key=lambda trial: trial.mean or 0.0, default=None)

    @property
    def first(self) -> TrialSummary | None:
        """The baseline's trial, once it has ended."""
        return next((trial for trial in self.trials if not int(trial.trial_id)), None)

    @cached_property
    def selection(self) -> Selection | None:
        """What the choice among the trials is worth."""
        return select(self.trials)

    @property
    def recommended(self) -> TrialSummary | None:
        """The narrowest net that is as good as the best, as far as one standard error can tell."""
        selection = self.selection
        return None if selection is None else next(t for t in self.trials if t.trial_id == selection.recommended)

    @property
    def verdict(self) -> str | None:
        """Whether other widths are better than the baseline's; None before the comparison."""
        if self.comparison is not None:
            return self.comparison.verdict
        if self.baseline is None:
            return None
        if self.selection is not None and self.selection.candidates == 1:
            return f"No other widths were tried than the baseline's, {self.baseline.name}."
        return f"No other widths had a better validation accuracy than the baseline's, {self.baseline.name}: keep it."

    @property
    def advice(self) -> str | None:
        """What to do next, in a sentence or two; None where there is nothing to add."""
        comparison, winner, baseline = self.comparison, self.winner, self.baseline
        if comparison is None or winner is None or baseline is None:
            return None
        if not comparison.distinguishable:
            narrow, wide = sorted((winner, baseline), key=lambda net: net.parameters or 0)
            keep = f"Keep {narrow.name}{_fewer(narrow, wide)} until there is evidence for {wide.name}."
            if comparison.seeds_needed is None or comparison.seeds_needed <= min(comparison.trainings):
                return keep
            other = f"the same with --hidden {','.join(map(str, baseline.units))}"
            look = f"{self._train(winner.units, comparison.seeds_needed)}, {other}"
            return f"{keep} To look closer: {look}, and mnist-tuner report with both folders."
        if comparison.first == baseline.name:
            return f"Keep {baseline.name}."
        recommended = self.recommended
        if recommended is None or units_of(recommended) == winner.units:
            return f"Use {winner.name}; a trained copy is model.keras in the run's folder."
        name = net_name(units_of(recommended))
        narrower = f"{name}, with fewer parameters, was within one standard error of it on the validation images"
        if units_of(recommended) == baseline.units:
            return f"Use {winner.name}; a trained copy is model.keras in the run's folder. (The baseline {narrower}.)"
        test = self._train(units_of(recommended), max(2, len(winner.seeds)))
        return f"Use {winner.name}; a trained copy is model.keras in the run's folder. But {narrower}: {test} tests it."

    def _train(self, units: tuple[int, ...], seeds: int) -> str:
        """The command that trains a net with several seeds, on the search's data and for as many epochs."""
        own = self.options
        config = TrainConfig(epochs=own.epochs, hidden=units, seeds=min(seeds, 1000), data=own.data, classes=own.classes)
        return config.command

    def to_dict(self) -> dict[str, Any]:
        """The JSON document; README.md in this folder has its schema."""
        best, baseline, selection = self.best, self.first, self.selection
        final = None
        if self.baseline is not None:
            final = {
                "baseline": self.baseline.to_dict(),
                "winner": None if self.winner is None else self.winner.to_dict(),
                "comparison": None if self.comparison is None else self.comparison.to_dict(),
                "looked_before": list(self.looked_before),
                "verdict": self.verdict,
                "advice": self.advice,
            }
        return {
            "schema_version": SCHEMA_VERSION,
            "command": self.command,
            "status": self.status,
            "run_dir": self.run_dir,
            "strategy": self.config["strategy"],
            "seed": self.seed,
            "config": self.config,
            "device": self.device,
            "workers": self.workers,
            "worker_info": [asdict(worker) for worker in self.worker_info],
            "space": self.space,
            "total": self.total,
            "trials": [_trial(trial) for trial in self.trials],
            "best": None if best is None else _trial(best),
            "baseline": None if baseline is None else _trial(baseline),
            "selection": None if selection is None else selection.to_dict(),
            "curves": [asdict(curve) for curve in self.curves],
            "final": final,
            "test": None if self.test is None else self.test.to_dict(),
            "timing": None if self.timing is None else asdict(self.timing),
            "versions": self.versions,
            "data": None if self.data is None else asdict(self.data),
            "error": self.error,
            **({"stopped": self.stopped} if self.stopped else {}),
        }


def units_of(trial: TrialSummary) -> tuple[int, ...]:
    """A trial's widths."""
    return tuple(int(trial.values[f"units_{i}"]) for i in (1, 2))


def _fewer(narrow: Contestant, wide: Contestant) -> str:
    share = 1 - narrow.parameters / wide.parameters if narrow.parameters and wide.parameters else 0.0
    return f", which has {share:.0%} fewer parameters," if share >= 0.01 else ""


def _trial(trial: TrialSummary) -> dict[str, Any]:
    return {
        "id": trial.trial_id,
        "units": list(units_of(trial)),
        "parameters": trial.parameters,
        "replicates": [
            {"seed": seed, OBJECTIVE: score, "epochs": trial.epochs}
            for seed, score in zip(trial.seeds, trial.scores, strict=True)
        ],
        "mean": trial.mean,
        "sd": trial.sd,
        "seconds": trial.seconds,
        "status": trial.status,
        **({"reason": trial.reason} if trial.reason else {}),
    }


@dataclass(frozen=True)
class Selection:
    """The choice among a search's trials, by their validation scores.

    Attributes:
        best: the number of the trial with the highest mean score.
        candidates: how many trials it was chosen from.
        standard_error: of a trial's mean score, by the spread of the replicates within all candidates; None where there is one
            replicate: then nobody can tell luck from merit.
        luck: by how much the best of so many nets, all equally good, would be expected to surpass their common score, by its
            seeds alone; None as above.
        recommended: the number of the trial with the fewest parameters whose score is within one standard error of the best.
    """

    best: str
    candidates: int
    standard_error: float | None
    luck: float | None
    recommended: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def select(trials: Sequence[TrialSummary]) -> Selection | None:
    """Judges the choice; None where no trial was completed.

    Only trials of as many epochs as the best one's are candidates to be recommended: Hyperband has ended the others early. But
    the best was chosen from all.
    """
    completed = [trial for trial in trials if trial.completed]
    if not completed:
        return None
    means = [trial.mean or 0.0 for trial in completed]
    best = completed[means.index(max(means))]
    peers = [trial for trial in completed if trial.epochs == best.epochs]
    candidates = len({tuple(sorted(_widths(trial).items())) for trial in completed})
    spread = pooled_sd([trial.scores for trial in peers])
    if spread is None:
        return Selection(best.trial_id, candidates, None, None, best.trial_id)
    error = spread / len(best.scores) ** 0.5
    chosen = narrowest_within([trial.mean or 0.0 for trial in peers], [trial.parameters or 0 for trial in peers], error)
    return Selection(best.trial_id, candidates, error, error * expected_maximum(candidates), peers[chosen].trial_id)


def _widths(trial: TrialSummary) -> dict[str, object]:
    return {name: value for name, value in trial.values.items() if not name.startswith("tuner/")}
