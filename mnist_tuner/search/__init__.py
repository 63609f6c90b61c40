"""The search: KerasTuner's strategies over parallel workers. Names are imported when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_tuner.search.trial import Observer, TrialSummary
    from mnist_tuner.search.tuner import Tuner

_HOMES = {"Observer": "trial", "TrialSummary": "trial", "Tuner": "tuner"}

__all__ = ["Observer", "TrialSummary", "Tuner"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
