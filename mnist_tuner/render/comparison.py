"""The comparison of several runs on the console."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mnist_tuner.render.run import line
from mnist_tuner.render.text import count, interval, limits, percent
from mnist_tuner.reports.comparison import Comparison, ComparisonReport


def result(report: ComparisonReport) -> list[RenderableType]:
    """Who is better, and what that rests on."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("net", "parameters", "seeds", "test accuracy", "sd", "95 % interval"):
        table.add_column(name, justify="left" if name == "net" else "right", overflow="fold")
    for net in report.contestants:
        table.add_row(
            line(net.name),
            count(net.parameters),
            str(len(net.seeds)),
            percent(net.accuracy.value),
            percent(net.sd),
            interval(net.accuracy),
        )
    runs = [line(f"{net.name}: {folder}") for net, folder in zip(report.contestants, report.run_dirs, strict=True)]
    several = len(report.comparisons) > 1
    distinguishable = any(comparison.distinguishable for comparison in report.comparisons)
    parts: list[RenderableType] = [
        line(
            f"{len(report.contestants)} runs, measured on the same {report.images:,} test images of {report.data}", style="bold"
        ),
        *runs,
        table,
        *(line(_evidence(comparison)) for comparison in report.comparisons),
    ]
    if several:
        parts.append(Text("All these intervals hold together with 95 %: each is wider than it would be alone.", style="dim"))
    parts += ["", line(report.verdict, style="bold green" if distinguishable else "bold")]
    return [*parts, *(line(sentence) for sentence in (report.outlook, *report.notes) if sentence)]


def _evidence(comparison: Comparison) -> str:
    difference = comparison.difference
    text = f"{comparison.first} against {comparison.second}: {100 * difference.value:+.2f} points ({limits(difference)})"
    if comparison.p is None:
        return f"{text}, counting seeds and images"
    counts = f"{comparison.only_first:,} images only the first reads right, {comparison.only_second:,} only the second"
    return f"{text}; {counts}: McNemar's p = {comparison.p:.3g}"
