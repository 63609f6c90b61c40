"""A run's report on the console: rich renderables that know nothing of the console they are printed on."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from rich import box
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, ConsoleRenderable, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from mnist_tuner.errors import printable
from mnist_tuner.render.text import count, four, interval, metric, percent, plural, points, seconds
from mnist_tuner.reports.report import (
    HELD_OUT,
    ClassificationReport,
    ClassScore,
    DataSummary,
    Mistake,
    RunReport,
    SeedSummary,
    Timing,
)
from mnist_tuner.reports.statistics import Estimate


class Terminal(Console):
    """A console whose reader may go away, and on which no text can be more than text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments, with control characters shown as what they are: names of files and data may hold some."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text, kept="\n\t"), segment.style)

    def on_broken_pipe(self) -> None:
        """The reader has gone (``| head``): with nobody to report to, it ends as after Ctrl-C."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        raise KeyboardInterrupt


GALLERY = 6
MOST_CLASSES = 50
"""With more classes than this the table shows the worst of them only."""


def line(text: str, style: str = "") -> Text:
    """One line, whatever the names of files, data and classes are that are in it."""
    return Text(printable(text), style=style)


def as_text(parts: Sequence[RenderableType], width: int = 80) -> str:
    """What these look like as plain text.

    Args:
        parts: one below the other.
        width: columns.
    """
    file = io.StringIO()
    console = Terminal(file=file, width=width, force_terminal=False, color_system=None, force_jupyter=False)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def headline(versions: dict[str, str]) -> Text:
    """The first line: the project and the versions under it."""
    names = {"tensorflow": "TensorFlow", "keras": "Keras", "python": "Python"}
    under = "  ".join(f"{names[name]} {versions[name]}" for name in names)
    return Text.assemble(line(f"mnist_tuner {versions['mnist_tuner']}", "bold"), "  ", line(under, "dim"))


def heading(run: RunReport) -> list[RenderableType]:
    """What stands above the result: versions, data, net."""
    return [headline(run.versions), *([] if run.data is None else [setting(run, run.data)])]


def result(run: RunReport, images: npt.NDArray[np.uint8] | None = None, *, epochs: bool) -> list[RenderableType]:
    """What a run came to, as far as it came.

    Args:
        run: its report.
        images: see `test_report`.
        epochs: whether to begin with their table, which the progress display has shown already.
    """
    parts: list[RenderableType] = [epoch_table(run.epochs)] if epochs and run.epochs else []
    if run.stopped:
        parts.append(stopped_line(run.stopped))
    if run.status != "finished":
        parts.append(line(f"The run is {run.status}" + (f": {run.error}" if run.error else ""), style="yellow"))
    if run.test is not None:
        parts += [*([] if epochs and run.epochs else [""]), test_report(run, images), ""]
    if run.timing is not None:
        parts.append(timing_line(run.timing))
    return parts


def setting(run: RunReport, data: DataSummary) -> Table:
    """What is run on what."""
    table = Table.grid(padding=(0, 2))
    processes = f"{plural(run.workers, 'worker')}, one thread each" if run.workers else plural(run.threads, "thread")
    table.add_row("Device", line(f"{run.device}, {processes}"))
    add_data(table, data)
    widths = " - ".join(map(str, (math.prod(data.image_shape), *run.units, data.classes)))
    epochs = plural(run.config["epochs"], "epoch")
    table.add_row("Net", f"{widths}, Adam, learning rate {run.config['learning_rate']:g}")
    precision = run.config.get("precision", "32-true")
    mixed = "" if precision == "32-true" else f", precision {precision}"
    last = run.seed + run.config.get("seeds", 1) - 1
    seeds = f"seed {run.seed}" if last == run.seed else f"seeds {run.seed} to {last}"
    table.add_row("Run", f"{epochs}, batch size {run.config['batch_size']}, {seeds}{mixed}")
    return table


def add_data(table: Table, data: DataSummary) -> None:
    """Adds the name, the images and their shape, and what is odd about them. As Text: a name may look like rich's markup."""
    own = " (its own)" if data.own_validation else ""
    images = f"{data.train:,} training, " + (f"{data.validation:,} validation{own}, " if data.validation else "")
    height, width = data.image_shape
    table.add_row("Data", line(f"{data.name}: {images}{data.test_images}, {height} x {width}, {data.classes} classes"))
    for note in data.notes:
        table.add_row("", line(note, "yellow"))


def test_report(run: RunReport, images: npt.NDArray[np.uint8] | None = None) -> ConsoleRenderable:
    """The result and what is behind it.

    Args:
        run: which has been tested.
        images: those of its mistakes, uint8 ``(mistakes, height, width)``; with them the most confident ones are drawn.
    """
    test = run.test
    assert test is not None
    parts: list[ConsoleRenderable] = [accuracy_line(run)]
    if test.loss is not None:
        parts.append(Text(f"Test loss {four(test.loss)}" + (" (mean)" if run.seeds else "")))
    if run.seeds is not None:
        parts += [Text(), seed_table(run.seeds)]
    return Group(*parts, Text(), class_report(test, images, run.data.class_names if run.data is not None else ()))


def class_report(
    test: ClassificationReport, images: npt.NDArray[np.uint8] | None = None, names: Sequence[str] = ()
) -> ConsoleRenderable:
    """How each class fared, and the mistakes.

    Args:
        test: the result.
        images: see `test_report`.
        names: the classes'; without any their numbers stand for them.
    """
    names = names or [str(score.label) for score in test.classes]
    parts: list[ConsoleRenderable] = [Columns([_class_table(test.classes, names), _Matrix(test.matrix)], padding=(0, 4))]
    if test.confusions:
        pairs = ", ".join(f"{names[pair.label]} as {names[pair.predicted]} ({pair.count})" for pair in test.confusions)
        parts.append(Text())
        parts.append(Text.assemble(("Most confused: ", "bold"), pairs))
    if images is not None and len(images) and test.mistakes:
        parts.append(_Gallery(test.mistakes[:GALLERY], images[:GALLERY], names))
    return Group(*parts)


def accuracy_line(run: RunReport) -> Text:
    """The result in one line."""
    assert run.test is not None
    assert run.accuracy is not None
    held_out = run.data is not None and run.data.held_out
    if run.seeds is None:
        return accuracy_text(run.accuracy, run.test, held_out=held_out)
    spread = f"mean of {len(run.seeds.trainings)} seeds, standard deviation {points(run.seeds.sd)} points"
    limits = f"95 % interval {interval(run.accuracy)}, which counts seeds and images both"
    limits += f"\non {run.data.test_images}" if run.data is not None and held_out else ""
    return Text.assemble((f"Test accuracy {percent(run.accuracy.value)}", "bold green"), f"  {spread}\n{limits}")


def accuracy_text(accuracy: Estimate, test: ClassificationReport, *, held_out: bool = False) -> Text:
    """One training's result in one line, or in two where its test images did not come with the data."""
    counts = f"  {test.correct:,} of {test.total:,}  95 % interval {interval(accuracy)}"
    counts += f"\non images {HELD_OUT}" if held_out else ""
    return Text.assemble((f"Test accuracy {percent(accuracy.value)}", "bold green"), counts)


def seed_table(seeds: SeedSummary) -> Table:
    """Each seed's result."""
    table = Table(box=box.SIMPLE_HEAD, title="Each seed", title_justify="left", title_style="bold", pad_edge=False)
    for name in ("seed", "test accuracy", "test loss", "seconds"):
        table.add_column(name, justify="right")
    for training in seeds.trainings:
        table.add_row(str(training.seed), percent(training.accuracy), four(training.loss), seconds(training.seconds))
    return table


def epoch_table(epochs: Sequence[dict[str, int | float | None]]) -> Table:
    """The metrics of each epoch."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in epochs[0]:
        table.add_column(Text(name), justify="right")
    for epoch in epochs:
        table.add_row(*(metric(value, name) for name, value in epoch.items()))
    return table


def stopped_line(reason: str) -> Text:
    """Why the training ended before its last epoch."""
    return line(f"Stopped {reason}", style="yellow")


def timing_line(timing: Timing) -> Text:
    """Where the time went."""
    if timing.compile_s is None or timing.test_s is None:  # several trainings: each has compiled and tested in its worker
        split = f"start {timing.import_s:.1f}, trainings {timing.fit_s:.1f}"
    else:
        split = (
            f"import {timing.import_s:.1f} (data {timing.data_s:.1f} meanwhile), compile {timing.compile_s:.1f}, "
            f"train {timing.fit_s - timing.compile_s:.1f}, test {timing.test_s:.1f}"
        )
    return Text.assemble(("Time ", "bold"), f"{timing.total_s:.1f} s: {split}")


def _class_table(scores: Sequence[ClassScore], names: Sequence[str]) -> Table:
    title = "Per class"
    if len(scores) > MOST_CLASSES:
        scores = sorted((score for score in scores if score.support), key=lambda score: score.f1)[:20]
        title = "The 20 classes with the lowest F1"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    named = any(names[score.label] != str(score.label) for score in scores)
    for name in ("class", *(["name"] if named else []), "images", "precision", "recall", "F1"):
        table.add_column(name, justify="left" if name == "name" else "right", overflow="fold")
    lowest = min(scores, key=lambda score: score.f1)
    for score in scores:
        table.add_row(
            str(score.label),
            *([Text(names[score.label])] if named else []),
            count(score.support),
            *map(four, (score.precision, score.recall, score.f1)),
            style="yellow" if score is lowest else "",
        )
    return table


class _Matrix:
    """The confusion matrix: the diagonal plain, the mistakes shaded by how many they are, zeros as dots."""

    title = "Confusion matrix (row: true, column: read as)"

    def __init__(self, matrix: Sequence[Sequence[int]]) -> None:
        self.matrix = matrix
        self.cell = 1 + max(len(str(number)) for row in (*matrix, [len(matrix) - 1]) for number in row)
        self.most = max((n for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j), default=0)

    @property
    def width(self) -> int:
        return 6 + self.cell * len(self.matrix)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = min(max(self.width, len(self.title)), options.max_width)
        return Measurement(width, width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.title, style="bold")
        if self.width > options.max_width:
            yield Text(f"{len(self.matrix)} x {len(self.matrix)} classes are too wide for this console.")
            return
        yield Text()
        yield Text(" " * 6 + "".join(f"{label:>{self.cell}}" for label in range(len(self.matrix))), style="bold")
        zero = "." if options.ascii_only else "\N{MIDDLE DOT}"
        for label, row in enumerate(self.matrix):
            line = Text(f"{label:>5} ", style="bold")
            for predicted, number in enumerate(row):
                if label == predicted:
                    line.append(f"{number:>{self.cell}}", "not bold dim")
                elif number == 0:
                    line.append(f"{zero:>{self.cell}}", "not bold dim")
                else:
                    line.append(" ", "not bold")
                    line.append(f"{number:>{self.cell - 1}}", self._shade(number))
            yield line

    def _shade(self, number: int) -> Style:
        # The rare ones plain, the others black on a warm ground of growing strength: it reads on a dark and on a light
        # terminal alike.
        share = number / self.most
        if share <= 0.1:
            return Style(bold=False)
        return Style.parse(f"not bold rgb(0,0,0) on rgb(255,{int(225 - 110 * share)},{int(170 - 130 * share)})")


def half_blocks(upper: npt.NDArray[np.uint8], lower: npt.NDArray[np.uint8]) -> Iterator[Segment]:
    """Two rows of pixels, one above the other, as a row of characters."""
    for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
        yield Segment("\N{UPPER HALF BLOCK}", Style.parse(f"rgb({above},{above},{above}) on rgb({below},{below},{below})"))


class _Gallery:
    """Images as half blocks: each character holds two pixels, one above the other."""

    def __init__(self, mistakes: Sequence[Mistake], images: npt.NDArray[np.uint8], names: Sequence[str]) -> None:
        self.mistakes, self.names = mistakes, names
        pictures = images
        step = -(-max(pictures.shape[1:]) // 28)
        pictures = pictures[:, ::step, ::step]
        ink = np.flatnonzero(pictures.max(axis=(0, 1))), np.flatnonzero(pictures.max(axis=(0, 2)))
        if len(ink[0]) and len(ink[1]):  # the same cut for all: as much as the widest and the tallest need
            pictures = pictures[:, ink[1][0] : ink[1][-1] + 1, ink[0][0] : ink[0][-1] + 1]
        self.pictures = np.pad(pictures, ((0, 0), (1, 1 + pictures.shape[1] % 2), (1, 1)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.ascii_only or console.color_system is None or console.no_color:
            return
        yield Text()
        yield Text.assemble(("Most confident mistakes", "bold"), " (confidence: the softmax of the logits)")
        width = max(self.pictures.shape[2], 24, *(len(self._caption(mistake)) for mistake in self.mistakes))
        fitting = max(1, min(len(self.mistakes), (options.max_width + 2) // (width + 2)))
        per_row = -(-len(self.mistakes) // -(-len(self.mistakes) // fitting))  # rows of equal length, as few as fit
        for first in range(0, len(self.mistakes), per_row):
            chosen = range(first, min(first + per_row, len(self.mistakes)))
            for top in range(0, self.pictures.shape[1], 2):
                for i in chosen:
                    yield from half_blocks(self.pictures[i, top], self.pictures[i, top + 1])
                    yield Segment(" " * (width + 2 - self.pictures.shape[2]))
                yield Segment.line()
            for i in chosen:
                yield Segment(f"{self._caption(self.mistakes[i]):<{width + 2}}")
            yield Segment.line()
            yield Segment.line()

    def _caption(self, mistake: Mistake) -> str:
        return f"{self.names[mistake.label]} read as {self.names[mistake.predicted]}, {percent(mistake.confidence)}"
