"""What a search's choice is worth: how much of the best score is luck, and the narrowest net that is as good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mnist_tuner.reports.statistics import expected_maximum, narrowest_within, pooled_sd
from mnist_tuner.search.trial import TrialSummary


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
