"""Modules of a person's own: sent to workers, or named where workers lack them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import packages_distributions
from types import ModuleType
from typing import Any

import cloudpickle
from distributed.protocol.pickle import dumps

from mnist_tuner.search.engine import last_line
from mnist_tuner.search.worker import LackingModuleError


def pickled(experiment: Any, modules: Sequence[ModuleType]) -> bytes:
    """An experiment, with what it needs of these modules, their functions and classes, in it."""
    with ExitStack() as stack:
        for module in modules:
            if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)
                stack.callback(cloudpickle.unregister_pickle_by_value, module)
        # Dask's own takes pickle where that can, which knows nothing of such modules.
        by_value = cloudpickle.list_registry_pickle_by_value()
        return bytes((cloudpickle.dumps if by_value else dumps)(experiment))


def lack_of(error: Exception, modules: Sequence[ModuleType]) -> str | None:
    """What is to be said of a worker that lacks a module; None if that is not what an error is about.

    Args:
        error: that was raised there.
        modules: those that were sent.
    """
    if isinstance(error, LackingModuleError):
        name, reason = error.module or "", error.reason
    elif isinstance(error, ModuleNotFoundError) and _is_here(error.name or ""):
        name, reason = error.name or "", last_line(error)
    else:
        return None
    top = name.partition(".")[0]
    if top in (module.__name__.partition(".")[0] for module in modules):
        help = "it is sent by value, which an import within a function does not find: import it at the top of the file"
    elif top in packages_distributions():
        help = f"install {packages_distributions()[top][0]} there"
    else:
        help = f"install it there, or have it sent: Tuner(..., modules=[{top}])"
    return f"it lacks the module {name} ({reason}): {help}"


def _is_here(name: str) -> bool:
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
