"""What is drawn of each report. Importing this imports matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from mnist_tuner.render.drawing import (
    HEAT,
    INK,
    LEFT,
    LEGEND,
    LEVELS,
    LINE,
    MOST_ROWS,
    MUTED,
    PAPER,
    RIGHT,
    SERIES,
    TITLE,
    WIDTH,
    Drawing,
    Floats,
    Row,
    clean,
    dots,
    key,
    legend,
    legend_rows,
    limits,
    not_shown,
    opacity,
    round_numbers,
    scale,
    sheet,
    squares,
    strokes,
    style,
    table_of,
)
from mnist_tuner.reports.comparison import ComparisonReport, Contestant
from mnist_tuner.reports.report import ClassificationReport, DataSummary, RunReport
from mnist_tuner.reports.search import OBJECTIVE, SearchReport, Selection, units_of
from mnist_tuner.reports.statistics import Estimate
from mnist_tuner.search.trial import TrialSummary, score_text


def draw(report: RunReport | SearchReport | ComparisonReport) -> tuple[Drawing, ...]:
    """The figures for which the report has the numbers."""
    with style():
        if isinstance(report, RunReport):
            drawings = _of_run(report)
        elif isinstance(report, SearchReport):
            drawings = _of_search(report)
        else:
            drawings = _of_comparison(report)
        return tuple(drawings)


# What is drawn of each report.


def _of_run(report: RunReport) -> Iterator[Drawing]:
    trainings = [training.epochs for training in report.seeds.trainings] if report.seeds else [report.epochs]
    panels = []
    for metric in ("loss", "accuracy"):
        lines = [
            _Line(name, colour, table_of([[epoch.get(f"{prefix}{metric}") for epoch in epochs] for epochs in trainings]))
            for name, prefix, colour in (("training", "", SERIES[0]), ("validation", "val_", SERIES[1]))
        ]
        panels.append((metric, [line for line in lines if np.isfinite(line.runs).any()]))
    panels = [(metric, lines) for metric, lines in panels if lines]
    if panels:
        yield _curves(panels)
    if report.test is not None:
        yield _confusion(report.test, report.data)
    if report.seeds is not None:
        row = (f"{len(trainings)} seeds", [training.accuracy for training in report.seeds.trainings], report.seeds.mean)
        yield _accuracies("seed-accuracies", "Test accuracy of each seed", [row])


def _of_search(report: SearchReport) -> Iterator[Drawing]:
    completed = [trial for trial in report.trials if trial.mean is not None and math.isfinite(trial.mean)]
    selection = report.selection
    roles = _roles(report, selection)
    lines = [
        _Line(roles[curve.trial].name, roles[curve.trial].colour, table_of(curve.scores), curve.epochs)
        for curve in report.curves
        if curve.trial in roles
    ]
    lines = [line for line in lines if np.isfinite(line.runs).any()]
    if lines:
        yield _curves([("validation accuracy", lines)])
    if completed:
        if any(trial.parameters for trial in completed):
            yield _by_parameters([trial for trial in completed if trial.parameters], roles.values(), selection)
        yield _width_map(completed, roles.values(), report.config["widths"])
        yield _in_order(completed)
    nets = [("winner", report.winner), ("baseline", report.baseline)]
    rows = [_row(net, f"{role} {net.name}") for role, net in nets if net is not None]
    if rows:
        yield _accuracies("test-accuracies", "Test accuracy of the nets trained anew", rows)
    if report.test is not None:
        yield _confusion(report.test, report.data)


def _of_comparison(report: ComparisonReport) -> Iterator[Drawing]:
    yield _accuracies("accuracies", "Test accuracy of each run", [_row(net, net.name) for net in report.contestants])
    differences = [
        (f"{_short(each.first, 13)} minus {_short(each.second, 13)}", (), each.difference) for each in report.comparisons
    ]
    if differences:
        yield _differences(differences, report.comparisons[0].confidence)


def _row(net: Contestant, label: str) -> Row:
    return label, net.accuracies, net.accuracy


@dataclass(frozen=True)
class _Role:
    """A trial that is marked."""

    trial: TrialSummary
    name: str
    colour: str
    marker: str

    @property
    def key(self) -> Line2D:
        return key(self.name, self.colour, self.marker)

    def mark(self, axes: Axes, x: float, y: float) -> None:
        axes.plot(x, y, self.marker, color=self.colour, markersize=8, markeredgecolor=PAPER, markeredgewidth=1.2, zorder=5)


def _roles(report: SearchReport, selection: Selection | None) -> dict[str, _Role]:
    """The best, the recommended and the baseline's trial, by their numbers; one may be several of them."""
    if selection is None:
        return {}
    found: dict[str, _Role] = {}
    best, recommended = (next(t for t in report.trials if t.trial_id == n) for n in (selection.best, selection.recommended))
    looks = zip(("best", "recommended", "baseline"), (SERIES[0], SERIES[2], SERIES[1]), "s^D", strict=True)
    for trial, (role, colour, marker) in zip((best, recommended, report.first), looks, strict=True):
        if trial is not None and trial.completed:
            old = found.get(trial.trial_id)
            name = f"{old.name.rpartition(' ')[0]}, {role}" if old else role
            look = (old.colour, old.marker) if old else (colour, marker)
            found[trial.trial_id] = _Role(trial, f"{name} {_units(trial)}", *look)
    return found


# Figures.


@dataclass(frozen=True)
class _Line:
    """A metric by epoch: of one training or of several, ``runs`` of shape ``(trainings, epochs)``, NaN where there is none."""

    name: str
    colour: str
    runs: Floats
    epochs: Sequence[int] = ()

    @property
    def x(self) -> Floats:
        longest = self.runs.shape[1]
        return np.array(self.epochs if len(self.epochs) == longest else range(1, longest + 1), float)

    @property
    def mean(self) -> Floats:
        known = np.isfinite(self.runs)
        return np.where(known.any(0), np.where(known, self.runs, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)

    @property
    def band(self) -> tuple[Floats, Floats]:
        known = np.isfinite(self.runs)
        least, greatest = (np.where(known, self.runs, np.inf).min(0), np.where(known, self.runs, -np.inf).max(0))
        return np.where(known.any(0), least, np.nan), np.where(known.any(0), greatest, np.nan)


def _curves(panels: Sequence[tuple[str, Sequence[_Line]]]) -> Drawing:
    names = {line.name: line.colour for _, lines in panels for line in lines}
    keys = [key(name, colour) for name, colour in names.items()]
    figure, plots = sheet("Learning curves", [150 if len(panels) > 1 else 230] * len(panels), keys, head=18)
    told = []
    for axes, (metric, lines) in zip(plots, panels, strict=True):
        for line in lines:
            x, mean = line.x, line.mean
            if len(line.runs) > 1:
                axes.fill_between(x, *line.band, color=line.colour, alpha=0.16, linewidth=0)
                for run in line.runs[:20]:
                    axes.plot(x, run, color=line.colour, alpha=0.4, linewidth=0.6)
            axes.plot(x, mean, color=line.colour, marker="o" if len(x) <= 30 else None, markersize=3.5)
            last = np.flatnonzero(np.isfinite(mean))[-1]
            told.append(f"{line.name} {metric} {mean[last]:.4f} after epoch {x[last]:.0f}")
        axes.text(0, 1.03, metric, transform=axes.transAxes, fontweight="bold")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        most = max(line.x[-1] for line in lines)
        axes.set_xlim(0.5, 1.5) if most == 1 else axes.set_xlim(1 - 0.02 * most, most + 0.02 * most)
        scale(axes, "y", _percent if "accuracy" in metric else _plain)
    plots[-1].set_xlabel("epoch")
    legend(figure, keys)
    several = max(len(line.runs) for _, lines in panels for line in lines)
    note = f"Bold: the mean of {several} trainings. The band reaches from the least to the greatest." if several > 1 else ""
    means = " (means of the trainings)" if several > 1 else ""
    return Drawing("learning-curves", "Learning curves", f"Metrics by epoch{means}: {'; '.join(told)}.", figure, note)


def _called(label: int, names: Sequence[str]) -> str:
    return names[label] if names else str(label)


def _confusion(test: ClassificationReport, data: DataSummary | None) -> Drawing:
    names = list(data.class_names) if data is not None else []
    classes = len(test.matrix)
    figure, (axes,) = sheet("Confusion matrix", [WIDTH - LEFT - RIGHT], [], bottom=32)
    axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), xlabel="read as", ylabel="true class")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    matrix = np.array(test.matrix)
    off = matrix * (1 - np.eye(classes, dtype=int))
    most = math.log1p(off.max())
    for level in range(1, LEVELS + 1):
        rows, columns = np.nonzero((off > 0) & (np.ceil(LEVELS * np.log1p(off) / (most or 1)) == level))
        squares(axes, columns, rows, 0.47, HEAT, opacity(level))
    squares(axes, np.arange(classes), np.arange(classes), 0.47, LINE, 0.55)
    if classes <= 20:
        size = min(9.0, (WIDTH - LEFT - RIGHT) / classes / (0.66 * max(2, len(str(matrix.max())))))
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                weight = "bold" if row == column else "normal"
                axes.text(column, row, str(count), ha="center", va="center_baseline", size=size, weight=weight)
    step = math.ceil(classes / 30)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(0, classes, step))
        axis.set_tick_params(length=0, labelsize=9 if classes <= 20 else 7)
    worst = ", ".join(
        f"{_called(pair.label, names)} read as {_called(pair.predicted, names)} ({pair.count:,})" for pair in test.confusions[:3]
    )
    alt = f"Row: true class, column: what it was read as. {test.correct:,} of {test.total:,} were read right, on the diagonal."
    note = "The stronger the colour, the more often the one was read as the other (logarithmic). Right ones are grey."
    if names:
        note += f" The classes: {', '.join(f'{label} {name}' for label, name in enumerate(names))}."
    most_often = f" The most frequent mistakes: {worst}." if worst else " There are no mistakes."
    return Drawing("confusion-matrix", "Confusion matrix", alt + most_often, figure, note)


def _accuracies(name: str, title: str, rows: Sequence[Row]) -> Drawing:
    values = [f"{e.value:.2%} ({_interval(e)})" for _, _, e in rows]
    told = "; ".join(f"{label}: {value}" for (label, _, _), value in zip(rows[:MOST_ROWS], values, strict=False))
    note = "Dots: one training each. Diamond and bar: the mean with its 95 % interval."
    figure = _rows(title, rows, values, "test accuracy", _percent)
    return Drawing(name, title, f"Test accuracy with its 95 % interval: {told}{_rest(rows)}.", figure, note + _rest(rows))


def _differences(rows: Sequence[Row], confidence: float) -> Drawing:
    values = [f"{100 * e.value:+.2f} points ({100 * e.low:.2f} to {100 * e.high:.2f})" for _, _, e in rows]
    told = "; ".join(f"{label}: {value}" for (label, _, _), value in zip(rows[:MOST_ROWS], values, strict=False))
    width = _plain(round(100 * confidence, 2))
    note = f"A bar ({width} % interval) that reaches over the line at zero: the two cannot be told apart."
    figure = _rows("Differences", rows, values, "points of accuracy", _points, zero=True)
    return Drawing("differences", "Differences", f"Difference in test accuracy: {told}{_rest(rows)}.", figure, note + _rest(rows))


def _rows(
    title: str, rows: Sequence[Row], values: Sequence[str], label: str, shown: Callable[[float], str], *, zero: bool = False
) -> Figure:
    """A row for each: its name and value, its dots, its mean with the interval."""
    rows = rows[:MOST_ROWS]
    figure, (axes,) = sheet(title, [42 * len(rows)], [], left=RIGHT)
    reach = [x for _, dots, e in rows for x in (*dots, e.low, e.high)] + [0.0] * zero
    margin = 0.06 * (max(reach) - min(reach)) or 0.005
    axes.set(xlim=(min(reach) - margin, max(reach) + margin), ylim=(len(rows) - 0.5, -0.5), xlabel=label)
    axes.spines["left"].set_visible(False)
    axes.grid(False, axis="y")
    axes.set_yticks([])
    scale(axes, "x", shown)
    if zero:
        axes.axvline(0, color=MUTED, linewidth=1)
    transform, ground = axes.get_yaxis_transform(), {"facecolor": PAPER, "edgecolor": "none", "pad": 1.5}
    for row, ((name, each, mean), value) in enumerate(zip(rows, values, strict=False)):
        at = row - 0.26
        axes.text(0, at, _short(name, 32), transform=transform, weight="bold", va="center", size=8.5, bbox=ground)
        axes.text(1, at, value, transform=transform, ha="right", va="center", size=8, color=MUTED, bbox=ground)
        if each:
            dots(axes, each, [row + 0.04 + 0.045 * (i % 3) for i in range(len(each))], SERIES[0], 4.5, 0.75)
        y = row + 0.3
        axes.plot((mean.low, mean.high), (y, y), color=INK, linewidth=1.8)
        axes.plot(mean.value, y, "D", color=INK, markersize=5, markeredgecolor=PAPER, markeredgewidth=0.8)
    return figure


def _by_parameters(trials: Sequence[TrialSummary], roles: Collection[_Role], selection: Selection | None) -> Drawing:
    error = selection.standard_error if selection else None
    marked = [role for role in roles if role.trial.parameters]
    keys = [*(role.key for role in marked), key("a net", MUTED, "o")]
    if error is not None:
        keys.append(key("one standard error", INK, style="--"))
    figure, (axes,) = sheet("Accuracy by size", [230], keys)
    x = np.array([trial.parameters for trial in trials], float)
    bars = len(trials) <= 1000  # of more, nobody could tell them apart
    y, sd = np.array(_means(trials)), np.array([trial.sd or 0.0 if bars else 0.0 for trial in trials])
    low, high = limits(y, sd)
    axes.set_xscale("log")
    axes.set(xlim=(x.min() / 1.15, x.max() * 1.15), ylim=(low, high), xlabel="parameters (logarithmic)")
    axes.xaxis.set_major_locator(FixedLocator(round_numbers(x.min() / 1.15, x.max() * 1.15)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    scale(axes, "y", _percent)
    seen = (y >= low) & (y <= high)
    if bars:
        strokes(axes, np.stack([x, x], 1)[seen], np.stack([y - sd, y + sd], 1)[seen], MUTED, 0.7, 0.55)
    dots(axes, x[seen], y[seen], MUTED, 4 if len(trials) <= 300 else 2.2, 1)
    if error is not None:
        axes.axhline(y.max() - error, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    for role in marked:
        role.mark(axes, role.trial.parameters or 0, role.trial.mean or 0)
    legend(figure, keys)
    told = "; ".join(f"{role.name}: {role.trial.parameters:,} parameters, {_score(role.trial)}" for role in marked)
    note = f"Each dot is a net{', its bar one standard deviation of its trainings' if bars else ''}." + not_shown(y, low)
    if error is not None:
        note += " The narrowest net above the dashed line is the recommended one."
    alt = f"{OBJECTIVE} of {len(trials):,} nets by their number of parameters. {told}."
    return Drawing("accuracy-by-parameters", "Accuracy by size", alt, figure, note)


def _width_map(trials: Sequence[TrialSummary], roles: Collection[_Role], widths: tuple[int, int, int]) -> Drawing:
    last: dict[tuple[int, ...], TrialSummary] = {}
    for trial in sorted(trials, key=lambda t: t.epochs):  # Hyperband tries the same widths with more and more epochs
        last[units_of(trial)] = trial
    keys = [role.key for role in roles]
    figure, (axes,) = sheet("Accuracy by widths", [WIDTH - LEFT - RIGHT], keys, head=26)
    units = np.array(list(last))
    least, greatest, step = widths
    size = max(step, (greatest - least) / 40, 1.0)
    cells: dict[tuple[int, int], list[float]] = {}
    for (first, second), trial in last.items():
        # The baseline need not be on the grid; its mark is where it is.
        cells.setdefault((round((first - least) / size), round((second - least) / size)), []).append(trial.mean or 0.0)
    where = np.array(list(cells)) * size + least
    score = np.array([np.mean(scores) for scores in cells.values()])
    low, high = float(np.quantile(score, 0.1)), float(score.max())
    level = np.clip(np.ceil((score - low) / ((high - low) or 1) * LEVELS), 1, LEVELS)
    for each in range(1, LEVELS + 1):
        squares(axes, where[level == each, 0], where[level == each, 1], size * 0.48, HEAT, opacity(each))
    edges = min(least, units.min()) - 0.7 * size, max(greatest, units.max()) + 0.7 * size
    axes.set(xlim=edges, ylim=edges, xlabel="units of the first layer", ylabel="units of the second layer")
    axes.grid(False)
    for role in roles:
        role.mark(axes, *units_of(role.trial))
    right, top = WIDTH - RIGHT, TITLE + LEGEND * legend_rows(keys) + 12
    height = figure.get_figheight() * 72
    for each in range(1, LEVELS + 1):
        corner = (right - 45 - 9 * (LEVELS - each + 1)) / WIDTH, 1 - (top + 5) / height
        figure.add_artist(Rectangle(corner, 9 / WIDTH, 8 / height, facecolor=HEAT, alpha=opacity(each), linewidth=0))
    figure.text((right - 45 - 9 * LEVELS - 4) / WIDTH, 1 - top / height, f"{low:.4f} or less", ha="right", va="center", size=8)
    figure.text((right - 41) / WIDTH, 1 - top / height, f"{high:.4f}", va="center", size=8)
    legend(figure, keys)
    told = "; ".join(f"{role.name}: {_score(role.trial)}" for role in roles)
    means = _means(last.values())
    alt = f"Mean {OBJECTIVE} of {len(last):,} pairs of widths, from {min(means):.4f} to {max(means):.4f}."
    together = " A cell with several nets has their mean." if len(cells) < len(last) else ""
    note = f"A cell for each pair of widths that was tried: the stronger the colour, the better.{together}"
    return Drawing("width-map", "Accuracy by widths", f"{alt} {told}.", figure, note)


def _in_order(trials: Sequence[TrialSummary]) -> Drawing:
    keys = [key("a trial", MUTED, "o"), key("best so far", SERIES[0])]
    figure, (axes,) = sheet("Trials in their order", [200], keys)
    trials = sorted(trials, key=lambda trial: int(trial.trial_id))
    x, y = np.array([float(trial.trial_id) for trial in trials]), np.array(_means(trials))
    best = np.maximum.accumulate(y)
    low, high = limits(y)
    axes.set(xlim=(-0.02 * x[-1] - 0.5, 1.02 * x[-1] + 0.5), ylim=(low, high), xlabel="trial")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    scale(axes, "y", _percent)
    seen = y >= low
    dots(axes, x[seen], y[seen], MUTED, 4 if len(x) <= 300 else 2, 1)
    rises = np.flatnonzero(np.diff(best, prepend=-np.inf) > 0)
    axes.plot([*x[rises], x[-1]], [*best[rises], best[-1]], color=SERIES[0], drawstyle="steps-post")
    legend(figure, keys)
    alt = (
        f"Mean {OBJECTIVE} of {len(trials):,} trials in their order. The best score was {best[0]:.4f} at first and "
        f"{best[-1]:.4f} in the end, reached by trial {trials[rises[-1]].trial_id}."
    )
    return Drawing("trials-in-order", "Trials in their order", alt, figure, not_shown(y, low).strip())


def _means(trials: Collection[TrialSummary]) -> list[float]:
    return [trial.mean or 0.0 for trial in trials]


def _units(trial: TrialSummary) -> str:
    return "-".join(map(str, units_of(trial)))


def _score(trial: TrialSummary) -> str:
    return score_text(trial.mean, trial.sd, len(trial.scores))


def _percent(value: float) -> str:
    return f"{round(100 * value, 6):g}%"


def _points(value: float) -> str:
    return f"{round(100 * value, 6):g}"


def _plain(value: float) -> str:
    return f"{round(value, 6):g}"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low * 100:.2f} to {estimate.high * 100:.2f} %"


def _rest(rows: Sequence[Row]) -> str:
    return f" (the first {MOST_ROWS} of {len(rows):,})" if len(rows) > MOST_ROWS else ""


def _short(text: str, most: int) -> str:
    """The text as it can be drawn, cut in its middle."""
    text = clean(text)
    return text if len(text) <= most else f"{text[: most // 2]}\N{HORIZONTAL ELLIPSIS}{text[-(most // 2 - 1) :]}"
