"""The progress display: one live line for the running epoch, one line that stays for each finished one; an evaluation's table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mnist_tuner.trainer.hooks import Callback
from mnist_tuner.trainer.live import Place, open_place

if TYPE_CHECKING:
    from mnist_tuner.trainer.base import TrainerBase
    from mnist_tuner.trainer.module import Module

REFRESH_SECONDS = 0.1


class RichProgressBar(Callback):
    """Shows the epoch, its metrics, the speed and the time.

    On a terminal the running epoch's line is drawn anew at most ten times a second, between two calls of the compiled loop, in
    a notebook at most four times. Elsewhere there is just a line per finished epoch. The speed leaves out the time of compiling.

    Args:
        console: where to; by default the standard output.
        unit: what an example is called.
    """

    displays = True

    def __init__(self, console: Console | None = None, unit: str = "rows") -> None:
        self.console = console or Console()
        self.unit = unit
        self._live: Place | None = None
        self._columns: list[str] | None = None

    def on_train_start(self, trainer: TrainerBase, module: Module) -> None:
        """Opens the live line."""
        self._columns = None
        self._live = open_place(self.console)

    def on_train_epoch_start(self, trainer: TrainerBase, module: Module) -> None:
        """Starts the epoch's clock."""
        self._began = time.perf_counter()
        self._compiled_before = trainer.compile_seconds
        self._drawn = 0.0
        self._draw(trainer)

    def on_train_steps_end(self, trainer: TrainerBase, module: Module) -> None:
        """Draws the live line anew."""
        if time.perf_counter() - self._drawn >= REFRESH_SECONDS:
            self._draw(trainer)

    def on_train_epoch_end(self, trainer: TrainerBase, module: Module) -> None:
        """Leaves the epoch's line."""
        metrics = trainer.progress_bar_metrics
        if self._columns != list(metrics):
            self._columns = list(metrics)
            self.console.print(self._line("", {name: name for name in metrics}, f"{self.unit}/s", "time"), style="dim")
        texts = {name: number_text(value) for name, value in metrics.items()}
        self.console.print(self._line(self._epoch(trainer), texts, *self._speed(trainer)))

    def on_train_end(self, trainer: TrainerBase, module: Module) -> None:
        """Closes the live line."""
        self._close()

    def on_exception(self, trainer: TrainerBase, module: Module, exception: BaseException) -> None:
        """Closes the live line."""
        self._close()

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _epoch(self, trainer: TrainerBase) -> str:
        total = f"/{trainer.max_epochs}" if trainer.max_epochs > 0 else ""
        return f"Epoch {trainer.current_epoch + 1}{total}"

    def _speed(self, trainer: TrainerBase) -> tuple[str, str]:
        elapsed = time.perf_counter() - self._began
        running = elapsed - (trainer.compile_seconds - self._compiled_before)
        return f"{trainer.rows_in_epoch / max(running, 1e-9):,.0f}", f"{elapsed:.1f} s"

    def _line(self, epoch: str, texts: dict[str, str], speed: str, elapsed: str) -> Text:
        cells = [f"{texts.get(name, '-'):>{max(len(name), 7)}}" for name in self._columns or []]
        return Text("  ".join([f"{epoch:<13}", *cells, f"{speed:>9}", f"{elapsed:>7}"]), no_wrap=False)

    def _draw(self, trainer: TrainerBase) -> None:
        if self._live is None:
            return
        self._live.update(self._bar(trainer), refresh=True)
        self._drawn = time.perf_counter()

    def _bar(self, trainer: TrainerBase) -> RenderableType:
        done, total = trainer.progress.batch, trainer.num_training_batches
        metrics = "  ".join(f"{name} {number_text(value)}" for name, value in trainer.progress_bar_metrics.items())
        speed, elapsed = self._speed(trainer)
        state = f"{speed} {self.unit}/s  {elapsed}  {metrics}" if done else "compiling ..." if not trainer.global_step else ""
        row = Table.grid(padding=(0, 2))
        row.add_row(
            Text(f"{self._epoch(trainer):<13}"),
            ProgressBar(
                total=max(1, total) if total < float("inf") else None,
                completed=done,
                width=max(8, min(30, self.console.width - 75)),
            ),
            Text(state, no_wrap=True, overflow="ellipsis"),
        )
        return row


def number_text(value: float) -> str:
    """A metric as it is shown."""
    if value != value or abs(value) >= 1e5 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:.4f}"


def metrics_table(verb: str, results: Sequence[dict[str, float]]) -> Table:
    """A row for each metric and a column for each loader.

    Args:
        verb: "validate" or "test".
        results: each loader's metrics by name, as `Trainer.test` returns them.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(f"{verb} metric")
    for index in range(len(results)):
        table.add_column("value" if len(results) == 1 else f"dataloader {index}", justify="right")
    columns = [{name.partition("/dataloader_idx_")[0]: value for name, value in metrics.items()} for metrics in results]
    for name in dict.fromkeys(name for metrics in columns for name in metrics):
        values = [number_text(metrics[name]) if name in metrics else "" for metrics in columns]
        table.add_row(Text(name), *values)
    return table
