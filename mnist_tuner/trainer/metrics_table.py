"""What an evaluation has measured, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from mnist_tuner.trainer.callbacks.progress_bar import number_text


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
