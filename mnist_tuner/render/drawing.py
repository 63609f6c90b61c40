"""How figures are drawn: colours, the sheet, marks, and what a figure becomes. Importing this imports matplotlib."""

from __future__ import annotations

import html
import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mnist_tuner.reports.statistics import Estimate
from mnist_tuner.trainer.files import atomic_write

PALETTE = {  # name: on light, on dark
    "paper": ("#ffffff", "#171b21"),
    "ink": ("#1b2027", "#e7eaee"),
    "muted": ("#596370", "#a0a9b4"),
    "line": ("#dce0e5", "#323a44"),
    "series-1": ("#1764b5", "#78b4f5"),
    "series-2": ("#b3541e", "#efa26a"),
    "series-3": ("#2b7d5b", "#6cc7a0"),
    "heat": ("#86b6e6", "#2a5c94"),
}
"""Figures are drawn in the light colours, each of which occurs once here: on the page they become variables of these names.
`ink` can be read on `heat`."""
INK, MUTED, LINE, PAPER, HEAT = (PALETTE[name][0] for name in ("ink", "muted", "line", "paper", "heat"))
SERIES = tuple(PALETTE[f"series-{number}"][0] for number in (1, 2, 3))
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
WIDTH = 340
"""Points. All figures are as wide, so that their text is as large everywhere, and still legible on a telephone."""
TITLE, LEGEND, LEFT, RIGHT, BOTTOM = 26, 16, 46, 14, 34
LEVELS = 8
MOST_ROWS = 40
STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,  # a folder's name may hold dollar signs
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
}
_TAG = re.compile(r"<[^<>]*>")
Floats = npt.NDArray[np.float64]
Row = tuple[str, Sequence[float], Estimate]


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        name: of its files and in the page, such as "learning-curves".
        title: its heading.
        alt: what it shows, with its main numbers, for who cannot see it.
        figure: in the light colours.
        note: how it is read.
    """

    name: str
    title: str
    alt: str
    figure: Figure
    note: str = ""

    @cached_property
    def svg(self) -> str:
        """An SVG document in the light colours; equal for equal figures."""
        content = io.StringIO()
        with style({"svg.hashsalt": self.name}):
            FigureCanvasSVG(self.figure).print_svg(content, metadata={"Date": None})  # type: ignore[no-untyped-call]
        text = re.sub(r"<!--.*?-->\s*", "", content.getvalue(), flags=re.DOTALL)
        head, _, body = text[text.index("<svg") :].partition("<g id=")
        size = re.search(r'viewBox="[^"]*"', head)
        assert size is not None
        used = {"title", *re.findall(r'(?:href="|url\()#([^")]*)', body)}

        def tag(found: re.Match[str]) -> str:
            tag = re.sub(r"(\.\d\d)\d+", r"\1", found[0])  # hundredths of a point are enough
            tag = re.sub(r' id="([^"]*)"', lambda m: f' id="{self.name}-{m[1]}"' if m[1] in used else "", tag)
            return re.sub(r'(href="|url\()#', rf"\g<1>#{self.name}-", tag).replace("'DejaVu Sans'", FONT)

        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {size[0]} '
            f'stroke-linejoin="round" role="img" aria-label="{html.escape(clean(self.alt))}">\n{_TAG.sub(tag, f"<g id={body}")}'
        )

    @property
    def png(self) -> bytes:
        """150 dots an inch."""
        content = io.BytesIO()
        with style():
            self.figure.dpi = 150
            FigureCanvasAgg(self.figure).print_png(  # type: ignore[no-untyped-call]
                content, metadata={"Software": None}, pil_kwargs={"compress_level": 4}
            )
        return content.getvalue()


def warm_up() -> None:
    """Draws something, so that fonts are loaded when something is to be drawn."""
    with style():
        figure, (axes,) = sheet("0", [40], [key("0", INK)])
        axes.text(0, 0, "0", weight="bold")
    drawing = Drawing("warm-up", "", "", figure)
    assert drawing.svg and drawing.png


def to_svg(drawing: Drawing) -> str:
    """An ``svg`` element for a page that has the variables of `PALETTE`; without the title, which the page has."""
    names = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}

    def variable(color: re.Match[str]) -> str:
        return f": {names.get(color[1], color[1])}"

    text = _TAG.sub(lambda tag: re.sub(r": (#\w{6})", variable, tag[0]), drawing.svg)
    text = re.sub(rf'<g id="{drawing.name}-title">.*?</g>\s*', "", text, count=1, flags=re.DOTALL)
    return re.sub(r'viewBox="0 0 (\S+) (\S+)"', lambda m: f'viewBox="0 {TITLE} {m[1]} {float(m[2]) - TITLE:g}"', text, count=1)


def save(drawings: Sequence[Drawing], folder: Path) -> None:
    """Writes each as a PNG and as an SVG file, in the light colours.

    Raises:
        OSError: a file could not be written.
    """
    for drawing in drawings:
        atomic_write(folder / f"{drawing.name}.png", drawing.png, durable=False)
        atomic_write(folder / f"{drawing.name}.svg", f'<?xml version="1.0" encoding="utf-8"?>\n{drawing.svg}', durable=False)


@contextmanager
def style(more: Any = None) -> Iterator[None]:
    """Ours, whatever the user's settings of matplotlib are; they are back afterwards."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A browser has other fonts for what matplotlib's lacks.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**STYLE, **(more or {})})
        yield


def sheet(
    title: str, heights: Sequence[float], legend: Sequence[Line2D], *, left: float = LEFT, bottom: float = BOTTOM, head: float = 6
) -> tuple[Figure, list[Axes]]:
    """A figure with panels of these heights, one below the other, each with room for a heading; all in points. Margins are
    given, since finding them takes matplotlib longer than all the rest."""
    height = TITLE + LEGEND * legend_rows(legend) + sum(heights) + (head + 16) * len(heights) - 16 + bottom
    figure = Figure((WIDTH / 72, height / 72), facecolor=PAPER)
    figure.text(RIGHT / WIDTH, 1 - 17 / height, title, size=11, weight="bold", gid="title")
    top, plots = height - TITLE - LEGEND * legend_rows(legend), []
    for each in heights:
        top -= head + each
        plots.append(figure.add_axes((left / WIDTH, top / height, 1 - (left + RIGHT) / WIDTH, each / height), facecolor="none"))
        top -= 16
    return figure, plots


def legend_rows(keys: Sequence[Line2D]) -> int:
    return math.ceil(len(keys) / _legend_columns(keys)) if keys else 0


def _legend_columns(keys: Sequence[Line2D]) -> int:
    longest = max(len(str(key.get_label())) for key in keys)
    return max(1, min(len(keys), int((WIDTH - 20) // (4.6 * longest + 30))))


def legend(figure: Figure, keys: Sequence[Line2D]) -> None:
    if keys:
        place = RIGHT / WIDTH, 1 - TITLE / (72 * figure.get_figheight())
        columns = _legend_columns(keys)
        figure.legend(
            handles=list(keys), loc="upper left", bbox_to_anchor=place, ncols=columns, borderaxespad=0, borderpad=0.2,
            handlelength=1.6, handletextpad=0.6, columnspacing=1.4, labelspacing=0.45,
        )  # fmt: skip


def key(name: str, colour: str, marker: str = "", style: Literal["-", "--", "none"] = "-") -> Line2D:
    style, size = "none" if marker else style, 5 if marker == "o" else 7
    return Line2D([], [], color=colour, marker=marker, linestyle=style, label=name, markersize=size, markeredgecolor=PAPER)


def scale(axes: Axes, which: str, shown: Callable[[float], str]) -> None:
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))


def squares(axes: Axes, x: npt.ArrayLike, y: npt.ArrayLike, half: float, colour: str, alpha: float) -> None:
    """Filled squares as one path: ten thousand of them are still a small file."""
    corners = half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)])
    places = np.stack([np.asarray(x, float), np.asarray(y, float)], 1)
    if len(places):
        points = (places[:, None] + corners).reshape(-1, 2)
        _add(axes, points, [1, 2, 2, 2, 79] * len(places), facecolor=colour, edgecolor="none", alpha=alpha)


def strokes(axes: Axes, x: Floats, y: Floats, colour: str, width: float, alpha: float) -> None:
    """Lines as one path; x and y of shape ``(n, 2)``."""
    if len(x):
        points = np.stack([x.ravel(), y.ravel()], 1)
        _add(axes, points, [1, 2] * len(x), fill=False, edgecolor=colour, linewidth=width, alpha=alpha, capstyle="round")


def dots(axes: Axes, x: npt.ArrayLike, y: npt.ArrayLike, colour: str, size: float, alpha: float) -> None:
    """Dots as one path: very short lines with round ends. The limits of the axes must have been set."""
    places = axes.transData.transform(np.stack([np.asarray(x, float), np.asarray(y, float)], 1))
    ends = np.stack([places, places + np.array((0.05, 0.0))], 1).reshape(-1, 2)
    points = axes.transData.inverted().transform(ends).reshape(-1, 2, 2)
    strokes(axes, points[..., 0], points[..., 1], colour, size, alpha)


def _add(axes: Axes, points: Floats, codes: Sequence[int], **options: Any) -> None:
    outline = Outline(points, codes)
    outline.should_simplify = False
    patch = PathPatch(outline, **options)
    axes.add_artist(patch)
    patch.set_clip_path(axes.patch)
    patch.set_snap(False)  # to whole pixels, which would leave nothing of a dot


def opacity(level: int) -> float:
    """How much heat there is at a level of 1 to `LEVELS`: more than nothing."""
    return 0.16 + 0.84 * level / LEVELS


def table_of(rows: Sequence[Sequence[float | None]]) -> Floats:
    """Shape ``(rows, longest)``; NaN where there is no finite number."""
    filled = itertools.zip_longest(*rows)
    values = np.array([[math.nan if value is None else value for value in column] for column in filled], float).T
    return np.where(np.isfinite(values), values, np.nan).reshape(len(rows), -1)


def axis_limits(values: Floats, spread: Floats | float = 0.0) -> tuple[float, float]:
    """The limits of an axis: nets that are far worse than most would press the others together."""
    low, middle = np.quantile(values, [0.25, 0.75])
    seen = values >= low - 4 * (middle - low) - 0.01
    least, most = float((values - spread)[seen].min()), float((values + spread)[seen].max())
    margin = 0.06 * (most - least) or 0.005
    return least - margin, most + margin


def not_shown(values: Floats, low: float) -> str:
    count = int((values < low).sum())
    return f" {count:,} far below {'are' if count > 1 else 'is'} not shown." if count else ""


def round_numbers(low: float, high: float) -> list[float]:
    """Five numbers or so for a logarithmic axis."""
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(np.arange(10, 100) / 10)):
        found = [d * 10**e for e in range(int(math.log10(low)), int(math.log10(high)) + 1) for d in digits]
        found = [number for number in found if low <= number <= high]
        if len(found) >= 4:
            return found[:: math.ceil(len(found) / 7)]
    return found


def clean(text: str) -> str:
    """The text without control characters, which XML cannot hold."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
