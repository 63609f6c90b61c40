"""Who hears of a search's progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mnist_tuner.search.trial import TrialSummary


class Observer:
    """Hears of a search's progress; override what is wanted."""

    def on_trial_asked(self, trial_id: str, values: Mapping[str, Any], cost: float) -> None:
        """A trial has been chosen; `cost` is in proportion to the time that it should take."""

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
