"""What is reported of a search, as frozen dataclasses. The console and JSON are two renderings of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import ConsoleRenderable, Group
from rich.table import Table
from rich.text import Text

from mnist_tuner.reports.report import SCHEMA_VERSION, DataSummary
from mnist_tuner.search.display import ranked, trial_table
from mnist_tuner.search.trial import TrialSummary

OBJECTIVE = "val_accuracy"
MOST_ROWS = 40
"""With more trials than this the table shows the best of them only."""


@dataclass(frozen=True)
class Retrained:
    """A net that was trained anew on all training images and measured on the test images, with several seeds.

    Attributes:
        units: the widths.
        parameters: how many.
        seeds: of the trainings; none of them has been used in the search.
        accuracies: between 0 and 1, in the same order.
    """

    units: tuple[int, ...]
    parameters: int
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean accuracy."""
        return statistics.fmean(self.accuracies)

    @property
    def sd(self) -> float | None:
        """The accuracies' sample standard deviation; None of fewer than two."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "mean": self.mean, "sd": self.sd, "count": len(self.accuracies)}


@dataclass(frozen=True)
class SearchTiming:
    """Seconds, and trials a minute from the first one's start to the last one's end; since it was resumed, if it was."""

    start_s: float
    search_s: float
    final_s: float
    total_s: float
    trials_per_minute: float


@dataclass(frozen=True)
class SearchReport:
    """A run of ``search``.

    Attributes:
        status: "running", "finished", "interrupted" or "failed".
        stopped: why the search ended before its last trial, where it was meant to; else None.
        space: the hyperparameters to choose from, as KerasTuner writes them.
        trials: that have ended, in the order of their numbers; trial 0 is the baseline.
        baseline, winner: of the comparison on the test images, once it has been made; no winner where it is the baseline.
    """

    status: str
    run_dir: str
    seed: int
    config: dict[str, Any]
    device: str
    workers: int
    versions: dict[str, str]
    space: list[dict[str, Any]]
    data: DataSummary | None = None
    trials: tuple[TrialSummary, ...] = ()
    baseline: Retrained | None = None
    winner: Retrained | None = None
    timing: SearchTiming | None = None
    stopped: str | None = None
    error: str | None = None

    @property
    def best(self) -> TrialSummary | None:
        """The trial with the highest mean validation accuracy; None while none has been completed."""
        first = next(iter(ranked(self.trials, "max")), None)
        return first if first is not None and first.completed else None

    def to_dict(self) -> dict[str, Any]:
        """The JSON document; the README has its schema."""
        best, baseline = self.best, next((trial for trial in self.trials if not int(trial.trial_id)), None)
        final = None
        if self.baseline is not None:
            final = {"baseline": self.baseline.to_dict(), "winner": None if self.winner is None else self.winner.to_dict()}
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "search",
            "status": self.status,
            "run_dir": self.run_dir,
            "strategy": self.config["strategy"],
            "seed": self.seed,
            "config": self.config,
            "device": self.device,
            "workers": self.workers,
            "space": self.space,
            "trials": [_trial(trial) for trial in self.trials],
            "best": None if best is None else _trial(best),
            "baseline": None if baseline is None else _trial(baseline),
            "final": final,
            "timing": None if self.timing is None else asdict(self.timing),
            "versions": self.versions,
            "data": None if self.data is None else asdict(self.data),
            "error": self.error,
            **({"stopped": self.stopped} if self.stopped else {}),
        }


def units_of(trial: TrialSummary) -> tuple[int, ...]:
    """A trial's widths."""
    return tuple(int(trial.values[f"units_{i}"]) for i in (1, 2))


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


def setting(report: SearchReport, total: int | None) -> Table:
    """What is searched with what."""
    config, data = report.config, report.data
    table = Table.grid(padding=(0, 2))
    processes = f"{report.workers} worker{'s' if report.workers > 1 else ''}" if report.workers else "no workers"
    where = f" of {config['scheduler']}" if config["scheduler"] else ""
    table.add_row("Device", Text(f"{report.device}, {processes}{where}, one thread each"))
    if data is not None:
        height, width = data.image_shape
        images = f"{data.train:,} training, {data.validation:,} validation, {data.test:,} test images"
        table.add_row("Data", Text(f"{data.name}: {images}, {height} x {width}, {data.classes} classes"))
    low, high, step = config["widths"]
    table.add_row("Space", f"two hidden layers of {low} to {high} by {step}; trial 0 is the baseline, 100-100")
    trials = f"{total} trials" if total else "trials as Hyperband needs"
    replicates = f"{config['replicates']} replicate{'s' if config['replicates'] > 1 else ''}"
    epochs = f"{config['epochs']} epoch{'s' if config['epochs'] > 1 else ''}"
    table.add_row("Search", f"{config['strategy']}: {trials}, {replicates} each, {epochs}, seed {report.seed}")
    return table


def search_result(report: SearchReport) -> ConsoleRenderable:
    """The ranked table, and the comparison on the test images."""
    trials = ranked(report.trials, "max")
    completed = sum(trial.completed for trial in trials)
    shown = trials[:MOST_ROWS]
    title = f"Trials by {OBJECTIVE}" + (f", the best {MOST_ROWS} of {len(trials)}" if len(trials) > len(shown) else "")
    parts: list[ConsoleRenderable] = [trial_table(shown, OBJECTIVE, title)]
    note = f"{OBJECTIVE}: mean +/- standard deviation (replicates) after the last epoch"
    parts.append(Text(f"{note}; a trial's weights are those of its first replicate.", style="dim"))
    if completed < len(trials):
        parts.append(Text(f"{len(trials) - completed} of {len(trials)} trials failed.", style="red"))
    if report.stopped:
        parts.append(Text(f"Stopped {report.stopped}", style="yellow"))
    if report.baseline is not None:
        parts += [Text(), *_comparison(report)]
    return Group(*parts)


def _comparison(report: SearchReport) -> Iterable[ConsoleRenderable]:
    assert report.baseline is not None
    nets: Sequence[tuple[str, Retrained]] = [("baseline", report.baseline)]
    if report.winner is not None:
        nets = [("winner", report.winner), *nets]
    data = report.data
    images = f"{data.test:,} test images" if data is not None else "the test images"
    yield Text(f"Trained anew on all training images, measured on {images}", style="bold")
    table = Table(box=None, pad_edge=False)
    for name in ("", "units", "parameters", "test accuracy"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_column("each seed", overflow="fold")
    for name, net in nets:
        sd = "" if net.sd is None else f" +/- {net.sd:.2%}"
        table.add_row(
            name,
            "-".join(map(str, net.units)),
            f"{net.parameters:,}",
            Text(f"{net.mean:.2%}{sd} ({len(net.accuracies)})", style="bold green" if net is nets[0][1] else ""),
            " ".join(f"{accuracy:.2%}" for accuracy in net.accuracies),
        )
    yield table
    if report.winner is None:
        yield Text("The baseline itself has the best validation accuracy: there is nothing to compare it with.")
    else:
        yield Text("Mean +/- standard deviation (seeds). The choice was made on validation images, before these were seen.")


def result_line(report: SearchReport) -> Text:
    """The result in one line."""
    best = report.best
    if best is None:
        return Text("no trial was completed")
    units = "-".join(map(str, units_of(best)))
    text = Text.assemble((f"Best widths {units}", "bold green"), f"  {OBJECTIVE} {best.mean:.4f}")
    if best.sd is not None:
        text.append(f" +/- {best.sd:.4f} ({len(best.scores)})")
    for name, net in (("test", report.winner or report.baseline), ("baseline", report.baseline if report.winner else None)):
        if net is not None:
            sd = "" if net.sd is None else f" +/- {net.sd:.2%}"
            text.append(f"  {name} {net.mean:.2%}{sd} ({len(net.accuracies)})")
    return text


def timing_line(timing: SearchTiming) -> Text:
    """Where the time went."""
    split = f"start {timing.start_s:.1f}, search {timing.search_s:.1f}, comparison {timing.final_s:.1f}"
    return Text.assemble(("Time ", "bold"), f"{timing.total_s:.1f} s: {split}; {timing.trials_per_minute:.1f} trials a minute")
