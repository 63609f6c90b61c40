"""What is drawn again and again in the same place: on a terminal, or in a notebook's cell."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

NOTEBOOK_SECONDS = 0.25
"""Between two drawings in a notebook: each is a message to the browser."""


class Place(Protocol):
    """Where it is drawn."""

    def update(self, renderable: RenderableType, *, refresh: bool = False) -> None:
        """Draws something else there."""

    def stop(self) -> None:
        """Removes it."""


def open_place(console: Console) -> Place | None:
    """A place at the end of what has been printed; None where nothing can be drawn again, as in a file."""
    if console.is_jupyter:
        return NotebookPlace(console)
    if console.is_terminal and not console.is_dumb_terminal:
        live = Live(console=console, auto_refresh=False, transient=True)
        live.start()
        return live
    return None


class NotebookPlace:
    """A part of a cell's output that is replaced. Rich's own needs ipywidgets for that."""

    def __init__(self, console: Console) -> None:
        from IPython.display import HTML, display

        self.console, self._html = console, HTML
        self._handle: Any = display(HTML(""), display_id=True)
        self._drawn = 0.0

    def update(self, renderable: RenderableType, *, refresh: bool = False) -> None:
        """Draws it, four times a second at most."""
        if time.monotonic() - self._drawn < NOTEBOOK_SECONDS:
            return
        self._drawn = time.monotonic()
        recorder = Console(file=io.StringIO(), record=True, force_jupyter=False, force_terminal=True, width=self.console.width)
        recorder.print(renderable)
        style = "white-space:pre;overflow-x:auto;line-height:normal;font-family:Menlo,Consolas,monospace"
        page = recorder.export_html(inline_styles=True, code_format=f'<pre style="{style}">{{code}}</pre>')
        self._handle.update(self._html(page))

    def stop(self) -> None:
        """Leaves nothing."""
        self._handle.update(self._html(""))


class Status:
    """A line that says what is going on.

    Args:
        place: where; None for nowhere.
    """

    def __init__(self, place: Any = None) -> None:
        self._place = place

    def update(self, text: str) -> None:
        """Says something else."""
        if self._place is not None:
            self._place.update(Text(text) if isinstance(self._place, NotebookPlace) else text)


@contextmanager
def status(console: Console, text: str) -> Iterator[Status]:
    """Within the block, a line says what is going on: with a spinner on a terminal, without one in a notebook."""
    if not console.is_jupyter:
        with console.status(text) as spinner:
            yield Status(spinner)
        return
    place = NotebookPlace(console)
    place.update(Text(text))
    try:
        yield Status(place)
    finally:
        place.stop()
