"""Where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.table import Table

from mnist_tuner.trainer import backend


class Profiler:
    """Measures nothing."""

    @contextmanager
    def profile(self, name: str) -> Iterator[None]:
        """Measures the block under this name."""
        yield

    def record(self, name: str, seconds: float) -> None:
        """Adds what was measured elsewhere."""

    def report(self) -> None:
        """Prints."""


class SimpleProfiler(Profiler):
    """Adds up the seconds under each name and prints them at the end of fit, validate, test or predict.

    Names overlap: a validation's time holds that of its hooks, "display" is that of the hooks of all displays, and a hook that
    saves a checkpoint holds the time of that.

    Args:
        console: where to; by default the standard output.

    Attributes:
        seconds: by name.
        calls: by name.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        if backend.import_seconds:
            self.record("import", backend.import_seconds)

    @contextmanager
    def profile(self, name: str) -> Iterator[None]:
        """Measures the block under this name."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.record(name, time.perf_counter() - began)

    def record(self, name: str, seconds: float) -> None:
        """Adds what was measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.calls[name] = self.calls.get(name, 0) + 1

    def report(self) -> None:
        """Prints the table, the longest first."""
        table = Table(title="Where the time went", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("")
        for heading in ("calls", "seconds"):
            table.add_column(heading, justify="right")
        for name, seconds in sorted(self.seconds.items(), key=lambda item: -item[1]):
            if seconds >= 5e-5:
                table.add_row(name, f"{self.calls[name]:,}", f"{seconds:.4f}")
        self.console.print(table)
