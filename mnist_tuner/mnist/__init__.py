"""The baseline network, and the search space around it; imported when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_tuner.mnist.baseline import build_baseline, class_probabilities
    from mnist_tuner.mnist.hypermodel import WidthHyperModel

_HOMES = {"build_baseline": "baseline", "class_probabilities": "baseline", "WidthHyperModel": "hypermodel"}

__all__ = ["WidthHyperModel", "build_baseline", "class_probabilities"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
