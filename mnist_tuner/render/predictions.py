"""Pictures that a model has read, on the console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text

from mnist_tuner.errors import printable
from mnist_tuner.render.run import half_blocks, line
from mnist_tuner.render.text import percent
from mnist_tuner.reports.predictions import Prediction, Problem


def sentence(prediction: Prediction) -> Text:
    """What was read, in a line."""
    if prediction.empty:
        return Text("nothing to read: the picture is empty", style="yellow")
    style = "bold yellow" if prediction.doubt else "bold green"
    text = Text.assemble(line(prediction.name, style), f"  {percent(prediction.confidence)}")
    text.append(line(f"  runner-up {prediction.second_name} {percent(prediction.second_confidence)}", "dim"))
    if prediction.doubt:
        text.append(f"  doubtful: {prediction.doubt}", "yellow")
    return text


def with_picture(prediction: Prediction, image: npt.NDArray[np.uint8]) -> RenderableType:
    """What was read, beside what the net saw: uint8 ``(height, width)``."""
    lines = [Text(printable(prediction.file), overflow="fold")]
    if prediction.empty:
        return Columns([Picture(image), Group(*lines, sentence(prediction))], padding=(0, 2))
    lines.append(Text.assemble(line(prediction.name, "bold"), f"  {percent(prediction.confidence)}"))
    lines.append(line(f"runner-up {prediction.second_name}  {percent(prediction.second_confidence)}", "dim"))
    if prediction.doubt:
        lines.append(line(f"doubtful: {prediction.doubt}", "yellow"))
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
