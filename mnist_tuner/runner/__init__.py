"""What the commands do, to be called from Python, as in a notebook; imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_tuner.runner.reporting import report, runs
    from mnist_tuner.runner.searching import search
    from mnist_tuner.runner.training import train
    from mnist_tuner.saved.evaluate import evaluate
    from mnist_tuner.saved.export import export
    from mnist_tuner.saved.predict import predict

_HOMES = {
    "evaluate": "saved.evaluate",
    "export": "saved.export",
    "predict": "saved.predict",
    "report": "runner.reporting",
    "runs": "runner.reporting",
    "search": "runner.searching",
    "train": "runner.training",
}

__all__ = ["evaluate", "export", "predict", "report", "runs", "search", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"mnist_tuner.{_HOMES[name]}"), name)
