"""What the commands do, to be called from Python, as in a notebook; imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_tuner.runner.evaluating import evaluate
    from mnist_tuner.runner.exporting import export
    from mnist_tuner.runner.predicting import predict
    from mnist_tuner.runner.reporting import report, runs
    from mnist_tuner.runner.searching import search
    from mnist_tuner.runner.training import train

_HOMES = {
    "evaluate": "evaluating",
    "export": "exporting",
    "predict": "predicting",
    "report": "reporting",
    "runs": "reporting",
    "search": "searching",
    "train": "training",
}

__all__ = ["evaluate", "export", "predict", "report", "runs", "search", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
