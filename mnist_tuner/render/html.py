"""A report's page: one file that needs nothing else, no network and no JavaScript."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from mnist_tuner.render.drawing import PALETTE, Drawing, to_svg
from mnist_tuner.render.run import interval_text, metric_text
from mnist_tuner.reports.comparison import ComparisonReport
from mnist_tuner.reports.report import ClassificationReport, Mistake, RunReport
from mnist_tuner.reports.search import OBJECTIVE, SearchReport, units_of
from mnist_tuner.search.trial import hyperparameter_names, ranked, score_text

MOST_TRIALS = 200
MOST_FAILED = 50
MOST_CLASSES = 64
"""A confusion matrix with more classes than this is no table any more."""
MOST_PIXELS = 64
"""Larger images of mistakes are thinned out."""


def page(
    report: RunReport | SearchReport | ComparisonReport,
    *,
    mistakes: npt.NDArray[np.uint8] | None,
    drawings: Sequence[Drawing],
    command: str,
) -> str:
    """The page.

    Args:
        report: what it shows.
        mistakes: the images of the report's mistakes, uint8 ``(k, height, width)``; None where there are none.
        drawings: of `figures.draw`.
        command: the command line that makes such a report.

    Returns:
        A whole HTML document; equal for equal reports.
    """
    values: dict[str, Any] = {
        "report": report,
        "command": command,
        "figures": [(drawing, Markup(to_svg(drawing))) for drawing in drawings],
        "palette": PALETTE,
    }
    if isinstance(report, ComparisonReport):
        return _rendered("comparison", values)
    values |= {
        "gallery": _gallery(report.test, mistakes),
        "trainings": _trainings(report),
        "names": report.data.class_names if report.data is not None else (),
        "shows_matrix": report.test is not None and len(report.test.matrix) <= MOST_CLASSES,
    }
    if isinstance(report, SearchReport):
        return _rendered("search", values | _of_trials(report))
    return _rendered("run", values)


def _rendered(template: str, values: Mapping[str, Any]) -> str:
    text = _environment().get_template(f"{template}.html.jinja").render(values)
    return text.encode(errors="replace").decode()  # a folder's name need not be UTF-8


def warm_up() -> None:
    """Compiles the templates."""
    for name in ("run", "search"):
        _environment().get_template(f"{name}.html.jinja")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}",
        "percent": lambda value: f"{value:.2%}",
        "points": lambda value: f"{100 * value:.2f}",
        "four": lambda value: f"{value:.4f}",
        "seconds": lambda value: f"{value:.1f}",
        "interval": interval_text,
        "metric": metric_text,
        "plain": _plain,
        "units": lambda trial: "-".join(map(str, units_of(trial))),
        "score": lambda trial: score_text(trial.mean, trial.sd, len(trial.scores)),
        "plural": lambda number, word: f"{number:,} {word}{'' if number == 1 else 's'}",
    }
    return environment


def _trainings(report: RunReport | SearchReport) -> int:
    """How many trainings the judgement of the classes is of."""
    if isinstance(report, RunReport):
        return len(report.seeds.trainings) if report.seeds else 1
    net = report.winner or report.baseline
    return len(net.accuracies) if net else 1


def _of_trials(report: SearchReport) -> dict[str, Any]:
    """What the table of trials shows: the best ones, the failed ones, and the marks of some."""
    completed = [trial for trial in ranked(report.trials, "max") if trial.completed]
    best, selection = next(iter(completed), None), report.selection
    recommended = None if selection is None else next(t for t in completed if t.trial_id == selection.recommended)
    marks: dict[str, list[str]] = {}
    for trial, mark in ((best, "best"), (recommended, "recommended"), (report.first, "baseline")):
        if trial is not None:
            marks.setdefault(trial.trial_id, []).append(mark)
    failed = [trial for trial in report.trials if not trial.completed]
    return {
        "objective": OBJECTIVE,
        "best": best,
        "recommended": recommended,
        "selection": selection,
        "completed": completed,
        "shown": completed[:MOST_TRIALS],
        "failed": failed,
        "shown_failed": failed[:MOST_FAILED],
        "marks": marks,
        "hyperparameters": hyperparameter_names(trial.values for trial in report.trials),
        "epochs_differ": len({trial.epochs for trial in completed}) > 1,
    }


def _gallery(test: ClassificationReport | None, images: npt.NDArray[np.uint8] | None) -> list[tuple[Mistake, str]]:
    """Each mistake with its image, a data URI."""
    if test is None or images is None:
        return []
    step = -(-max(images.shape[1:]) // MOST_PIXELS)
    return [(mistake, _data_uri(image)) for mistake, image in zip(test.mistakes, images[:, ::step, ::step], strict=False)]


def _data_uri(image: npt.NDArray[np.uint8]) -> str:
    """A grey image, uint8 ``(height, width)``, as a PNG in a URI."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _plain(value: Any) -> str:
    """An option's or a hyperparameter's value."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(each)}" for key, each in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
