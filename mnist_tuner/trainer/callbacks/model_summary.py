"""Prints the network before it is trained."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mnist_tuner.trainer.hooks import Callback

if TYPE_CHECKING:
    import keras

    from mnist_tuner.trainer.base import TrainerBase
    from mnist_tuner.trainer.module import Module


class RichModelSummary(Callback):
    """Prints each layer's name, kind, output shape and number of parameters when a fit starts.

    Args:
        console: where to; by default the standard output.
    """

    displays = True

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()

    def on_fit_start(self, trainer: TrainerBase, module: Module) -> None:
        """Prints the table, where there is a model."""
        if module.model is not None:
            self.console.print(summary_table(module.model))


def summary_table(model: keras.Model) -> Table:
    """The model's layers as a table."""
    import keras

    # A model without a call(), whose train_step calls its parts, is never built itself.
    total = f"{sum(math.prod(variable.shape) for variable in model.weights):,}"
    built = all(layer.built for layer in model.layers)
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Layer", footer="total")
    table.add_column("Kind")
    table.add_column("Output", footer="")
    table.add_column("Parameters", justify="right", footer=total if built else "not built")
    for layer in model.layers:
        # By the graph's own tensor: a layer that was called more than once has no single `output`.
        shape = "x".join(str(size) for size in layer.output.shape[1:]) if _has_output(layer) else ""
        activation = getattr(layer, "activation", None)
        name = keras.activations.serialize(activation) if callable(activation) else ""
        kind = type(layer).__name__ + (f", {name}" if isinstance(name, str) and name not in ("", "linear") else "")
        table.add_row(Text(layer.name), Text(kind), shape or "-", f"{layer.count_params():,}" if layer.built else "not built")
    return table


def _has_output(layer: keras.Layer) -> bool:
    try:
        return layer.output is not None and not isinstance(layer.output, (list, tuple, dict))
    except (AttributeError, ValueError):
        return False
