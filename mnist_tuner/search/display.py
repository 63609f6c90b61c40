"""A search as it goes on, and its table of trials."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from mnist_tuner.errors import printable
from mnist_tuner.search.trial import Observer, TrialSummary, hyperparameter_names, in_order, ranked, score_text
from mnist_tuner.trainer.duration import duration_text
from mnist_tuner.trainer.live import Place, open_place

REFRESH_SECONDS = 0.25
"""A table takes 10 to 20 ms to draw."""
MOST_ROWS = 20
OVERHEAD_COST = 60_000
"""What a training costs besides its parameters, in parameters: for the estimate of the time that is left."""


def trial_table(summaries: Sequence[TrialSummary], objective: str, title: str | None = None) -> Table:
    """Finished trials, in the order in which they are given.

    Args:
        summaries: one a row.
        objective: the metric that they are judged by.
        title: of the table.
    """
    names = hyperparameter_names(summary.values for summary in summaries)
    epochs = len({summary.epochs for summary in summaries if summary.completed}) > 1 or any(
        any(summary.scored) for summary in summaries
    )
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for name in ("trial", *names, "parameters", *(["epochs"] if epochs else []), objective, "seconds"):
        table.add_column(Text(name), justify="right", overflow="fold")
    for summary in summaries:
        score = score_text(summary.mean, summary.sd, len(summary.scores))
        table.add_row(
            summary.trial_id,
            *(Text(_value(summary.values.get(name, ""))) for name in names),
            "" if summary.parameters is None else f"{summary.parameters:,}",
            *([_epochs(summary)] if epochs else []),
            Text(score if summary.completed else f"failed: {summary.reason}"),
            f"{summary.seconds:.1f}",
            style="" if summary.completed else "red",
        )
    return table


def score_note(summaries: Iterable[TrialSummary]) -> str:
    """Of which epoch the scores of a `trial_table` are: the foot of it."""
    scored = [epoch for summary in summaries for epoch in summary.scored if epoch is not None]
    note = "after the last epoch"
    if any(scored):
        note += ", or the one that the table names: that whose weights were restored, or the last that was validated"
    if 0 in scored:
        note += "; some weights were changed after it (averaged, say), and are no epoch's"
    return note


def _epochs(summary: TrialSummary) -> str:
    """How many there were, and after which of them each replicate's score was taken, where that is not the last."""
    if not any(summary.scored):
        return str(summary.epochs)
    return f"{', '.join(str(epoch or 'last') for epoch in summary.scored)} of {summary.epochs}"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _values(summary: TrialSummary) -> str:
    return " ".join(f"{name}={_value(summary.values[name])}" for name in hyperparameter_names([summary.values]))


@dataclass
class _Running:
    """A trial that has been asked for and has not ended."""

    values: dict[str, Any]
    cost: float
    state: str = "waits"
    attempt: int = 1
    worker: str = ""
    began: float = 0.0
    replicate: int = 0
    epoch: int = 0
    value: float | None = None
    epochs_done: int = 0
    epochs: int = 0

    @property
    def left(self) -> float:
        """The work that is left, in cost times epochs."""
        return self.cost * max(0, self.epochs - self.epochs_done)


class SearchDisplay(Observer):
    """A live table on a terminal and in a notebook, a line per trial elsewhere.

    Args:
        console: where it is drawn.
        objective: the metric that trials are judged by.
        direction: "max" or "min".
        total: the number of trials, where it is known.
        replicates: of each trial.
        epochs: of each replicate.
        workers: how many there are.
        trainings_afterwards: how often the best trial's net and the first one's are trained after the search.
    """

    def __init__(
        self,
        console: Console,
        *,
        objective: str,
        direction: str,
        total: int | None,
        replicates: int,
        epochs: int,
        workers: int,
        trainings_afterwards: int = 0,
    ) -> None:
        self.console, self.objective, self.direction, self.total = console, objective, direction, total
        self.replicates, self.epochs, self.workers = replicates, epochs, workers
        self.trainings_afterwards = trainings_afterwards
        self.running: dict[str, _Running] = {}
        self.ended: list[TrialSummary] = []
        self.best: TrialSummary | None = None
        self.restored = 0
        self.failed = self.refused = 0
        self._spent = self._work = 0.0
        self._asked, self._asked_work = 0, 0.0
        self._first_cost = 0.0
        self._numbers: dict[str, int] = {}
        self._began = time.monotonic()
        self._drawn = 0.0
        self._live: Place | None = None

    def __enter__(self) -> SearchDisplay:
        self._live = open_place(self.console)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    # What is heard.

    def on_trial_refused(self, values: Mapping[str, Any], reason: str) -> None:
        """It is counted."""
        self.refused += 1

    def on_trial_asked(self, trial_id: str, values: Mapping[str, Any], cost: float) -> None:
        """A row of the table, in time."""
        epochs = int(values.get("tuner/epochs", self.epochs)) - int(values.get("tuner/initial_epoch", 0))
        row = self.running[trial_id] = _Running(dict(values), cost + OVERHEAD_COST, epochs=epochs * self.replicates)
        self._asked += 1
        self._asked_work += row.left
        self._first_cost = self._first_cost or row.cost

    def on_trial_started(self, trial_id: str, attempt: int, worker: str) -> None:
        """It runs."""
        row = self.running[trial_id]
        row.state, row.attempt, row.worker, row.began = "runs", attempt, worker, time.monotonic()
        row.replicate = row.epoch = row.epochs_done = 0
        self._numbers.setdefault(worker, len(self._numbers) + 1)
        self._draw()

    def on_epoch(self, trial_id: str, replicate: int, epoch: int, value: float | None) -> None:
        """How far it is."""
        row = self.running[trial_id]
        row.replicate, row.epoch, row.value = replicate, epoch, value
        row.epochs_done += 1
        self._draw()

    def on_trial_again(self, trial_id: str, reason: str) -> None:
        """It is tried once more."""
        self.running[trial_id].state = "again"
        if self._live is None:
            self.say(f"trial {trial_id} failed ({reason}) and is tried once more")

    def on_trial_ended(self, summary: TrialSummary, *, restored: bool) -> None:
        """It is finished."""
        row = self.running.pop(summary.trial_id)
        self.ended.append(summary)
        self.restored += restored
        self.failed += not summary.completed
        if summary.completed:
            self.best = ranked([summary, *([self.best] if self.best else [])], self.direction)[0]
        if summary.completed:
            self._work += row.cost * row.epochs
            self._spent += summary.seconds
        if self._live is None and not restored:
            self.say(self._line(summary))
        self._draw()

    def on_tick(self) -> None:
        """The clock goes on."""
        self._draw()

    # What is shown.

    @property
    def trials_per_minute(self) -> float:
        """Those since it was begun or resumed."""
        return 60 * (len(self.ended) - self.restored) / max(1e-9, time.monotonic() - self._began)

    def seconds_left(self) -> float | None:
        """An estimate; None before the first trial has ended, and where nobody knows how many there will be."""
        if not self._work or self.total is None:
            return None
        left = sum(row.left for row in self.running.values())
        left += max(0, self.total - self._asked) * self._asked_work / self._asked
        if self.best is not None:
            best_cost = (self.best.parameters or 0) + OVERHEAD_COST
            left += self.trainings_afterwards * self.epochs * (best_cost + self._first_cost)
        return self._spent / self._work * left / max(1, self.workers)

    def summary_line(self) -> Text:
        """How far the search is."""
        of = f" of {self.total}" if self.total else ""
        parts = [f"{len(self.ended)}{of} trials"]
        if len(self.ended) > self.restored:
            parts.append(f"{self.trials_per_minute:.1f} trials a minute")
        if self.refused:
            parts.insert(1, f"{self.refused} refused")
        if self.failed:
            parts.insert(1, f"{self.failed} failed")
        left = self.seconds_left()
        if left is not None:
            parts.append(f"about {duration_text(left)} left")
        return Text("  ".join(parts))

    def best_line(self) -> Text:
        """The best of the completed trials."""
        if self.best is None:
            return Text("Best so far: none yet")
        score = score_text(self.best.mean, self.best.sd, len(self.best.scores))
        what = f"trial {self.best.trial_id}: {_values(self.best)}  {self.objective} {score}"
        return Text.assemble(("Best so far ", "bold"), what)

    def _line(self, summary: TrialSummary) -> str:
        of = f" of {self.total}" if self.total else ""
        score = score_text(summary.mean, summary.sd, len(summary.scores))
        outcome = f"{self.objective} {score}" if summary.completed else f"failed: {summary.reason}"
        parameters = "" if summary.parameters is None else f"{summary.parameters:,} parameters  "
        left = self.seconds_left()
        rest = "" if left is None else f"  about {duration_text(left)} left"
        head = f"{len(self.ended)}{of}  trial {summary.trial_id}  {_values(summary)}  {parameters}{outcome}"
        return f"{head}  {summary.seconds:.1f} s{rest}"

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self.console.print(Text(printable(text)), soft_wrap=True)

    def _draw(self) -> None:
        if self._live is None or time.monotonic() - self._drawn < REFRESH_SECONDS:
            return
        self._drawn = time.monotonic()
        self._live.update(Group(self._table(), self.best_line(), self.summary_line()), refresh=True)

    def _table(self) -> Table:
        active = {trial_id: row for trial_id, row in self.running.items() if row.state != "waits"}
        room = max(3, min(MOST_ROWS, self.console.height - 9) - len(active))
        shown = sorted(self.ended[-room:], key=lambda summary: in_order(summary.trial_id))
        names = hyperparameter_names([*(s.values for s in shown), *(row.values for row in active.values())])
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))  # it fits 80 columns
        for name in ("trial", "state", *names, "parameters", "epoch", self.objective, "seconds", "worker"):
            table.add_column(Text(name), justify="left" if name == "state" else "right", no_wrap=True)
        for summary in shown:
            table.add_row(
                summary.trial_id,
                Text("done" if summary.completed else "failed", style="green" if summary.completed else "red"),
                *(Text(_value(summary.values.get(name, ""))) for name in names),
                "" if summary.parameters is None else f"{summary.parameters:,}",
                str(summary.epochs) if summary.completed else "",
                Text(score_text(summary.mean, summary.sd) or (summary.reason or "")[:40]),
                f"{summary.seconds:.1f}",
                self._worker(summary.worker),
                style="bold" if summary is self.best else "",
            )
        for trial_id, row in active.items():
            of = f"{row.replicate + 1}/{self.replicates}: " if self.replicates > 1 else ""
            table.add_row(
                trial_id,
                Text(row.state if row.attempt == 1 else f"{row.state} ({row.attempt}.)", style="yellow"),
                *(Text(_value(row.values.get(name, ""))) for name in names),
                f"{round(row.cost - OVERHEAD_COST):,}" if row.cost > OVERHEAD_COST + 1 else "",
                f"{of}{row.epoch}",
                "" if row.value is None else f"{row.value:.4f}",
                f"{time.monotonic() - row.began:.1f}",
                self._worker(row.worker),
                style="dim",
            )
        return table

    def _worker(self, address: str) -> str:
        return str(self._numbers.get(address, "")) if address else ""
