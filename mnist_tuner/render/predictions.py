"""What is reported of pictures that a model has read."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text

from mnist_tuner.render.run import half_blocks
from mnist_tuner.reports.report import SCHEMA_VERSION


@dataclass(frozen=True)
class Prediction:
    """A picture that was read.

    Attributes:
        file: its name.
        label: the class that it was read as; name: what that is called.
        confidence: the softmax of the logits there.
        second, second_name, second_confidence: the runner-up.
        doubt: why the reading cannot be trusted, if it cannot.
    """

    file: str
    label: int
    name: str
    confidence: float
    second: int
    second_name: str
    second_confidence: float
    doubt: str | None


@dataclass(frozen=True)
class Problem:
    """A picture that could not be read, and why."""

    file: str
    error: str


@dataclass(frozen=True)
class Predictions:
    """What became of all pictures."""

    model: str
    predictions: tuple[Prediction, ...]
    problems: tuple[Problem, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON document; the README has its schema."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "predict",
            "model": self.model,
            "predictions": [asdict(prediction) for prediction in self.predictions],
            "problems": [asdict(problem) for problem in self.problems],
        }

    def to_csv(self) -> str:
        """A table: a row for each picture that was read."""
        text = io.StringIO()
        names = list(Prediction.__dataclass_fields__)
        table = csv.DictWriter(text, names, lineterminator="\n")
        table.writeheader()
        table.writerows({**asdict(prediction), "doubt": prediction.doubt or ""} for prediction in self.predictions)
        return text.getvalue()


EMPTY = "empty"


def sentence(prediction: Prediction) -> Text:
    """What was read, in a line."""
    if (prediction.doubt or "").startswith(EMPTY):
        return Text("nothing to read: the picture is empty", style="yellow")
    style = "bold yellow" if prediction.doubt else "bold green"
    text = Text.assemble((prediction.name, style), f"  {prediction.confidence:.2%}")
    text.append(f"  runner-up {prediction.second_name} {prediction.second_confidence:.2%}", "dim")
    if prediction.doubt:
        text.append(f"  doubtful: {prediction.doubt}", "yellow")
    return text


def with_picture(prediction: Prediction, image: npt.NDArray[np.uint8]) -> RenderableType:
    """What was read, beside what the net saw: uint8 ``(height, width)``."""
    lines = [Text(prediction.file, overflow="fold")]
    if (prediction.doubt or "").startswith(EMPTY):
        return Columns([Picture(image), Group(*lines, sentence(prediction))], padding=(0, 2))
    lines.append(Text.assemble((prediction.name, "bold"), f"  {prediction.confidence:.2%}"))
    lines.append(Text(f"runner-up {prediction.second_name}  {prediction.second_confidence:.2%}", "dim"))
    if prediction.doubt:
        lines.append(Text(f"doubtful: {prediction.doubt}", "yellow"))
    return Columns([Picture(image), Group(*lines)], padding=(0, 2))


class Picture:
    """An image as half blocks: each character holds two pixels, one above the other. Without colours it is drawn in ASCII.

    Args:
        image: uint8 ``(height, width)``.
    """

    def __init__(self, image: npt.NDArray[np.uint8]) -> None:
        step = -(-max(image.shape) // 28)
        self.image = np.pad(image[::step, ::step], ((0, -(-image.shape[0] // step) % 2), (0, 0)))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Any:
        from rich.measure import Measurement

        return Measurement(self.image.shape[1], self.image.shape[1])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        coloured = console.color_system is not None and not console.no_color and not options.ascii_only
        for upper, lower in zip(self.image[::2], self.image[1::2], strict=True):
            if coloured:
                yield from half_blocks(upper, lower)
            else:
                yield Segment("".join(" .:-=+*#%@"[(int(a) + int(b)) * 9 // 510] for a, b in zip(upper, lower, strict=True)))
            yield Segment.line()


def summary(predictions: Sequence[Prediction], problems: Sequence[Problem]) -> Text:
    """How many were read."""
    doubtful = sum(prediction.doubt is not None for prediction in predictions)
    text = Text(f"{len(predictions):,} read")
    text.append(f", {doubtful:,} of them doubtful" if doubtful else "")
    text.append(f", {len(problems):,} not readable" if problems else "")
    return text
