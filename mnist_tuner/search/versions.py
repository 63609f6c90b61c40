"""What a search knows of each worker: versions and processor, and whether it may be given work."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_COMPARED = {"python": 2, "mnist_tuner": None, "tensorflow": None, "keras": None, "keras_tuner": None, "numpy": 1}
"""So many parts of a version must be the same, or all: of numpy the first, which its pickles depend on."""


@dataclass(frozen=True)
class WorkerInfo:
    """A worker.

    Attributes:
        address: Dask's; "this machine" for all those that a search has started itself.
        processor: its name and its widest vectors; bits may differ between processors of different kinds.
        versions: Python's and of packages; None where one is missing.
        refused: why it is given no work, and what would help; None where it is.
    """

    address: str
    processor: str
    versions: Mapping[str, str | None]
    refused: str | None = None


def describe() -> dict[str, Any]:
    """The processor and the versions of this process.

    It travels to workers as a text, since one with another Python could not run its code, and one without this package has no
    other way to it: so it stands alone.
    """
    import platform
    from importlib import metadata
    from pathlib import Path

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    try:
        from mnist_tuner._version import __version__ as own_version
    except ImportError:
        own_version = ""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        lines = []
    told = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    name = told.get("model name") or " ".join(told.get(part, "") for part in ("CPU implementer", "CPU part")).strip()
    flags = told.get("flags", told.get("Features", "")).split()
    vectors = next((flag for flag in ("amx_tile", "avx512f", "avx2", "avx", "sve2", "sve") if flag in flags), "")
    return {
        "processor": ", ".join(filter(None, (name or platform.processor() or platform.machine(), vectors))),
        "versions": {
            "python": platform.python_version(),
            "mnist_tuner": own_version or None,
            "tensorflow": version("tensorflow") or version("tensorflow-cpu"),
            "keras": version("keras"),
            "keras_tuner": version("keras-tuner"),
            "numpy": version("numpy"),
        },
    }


def of_this_machine() -> WorkerInfo:
    """Those workers that a search has started itself."""
    return WorkerInfo("this machine", **describe())


def question() -> str:
    """An expression whose value is what `describe` finds, for `eval` in any Python and without this package."""
    source = f"from __future__ import annotations\n{inspect.getsource(describe)}"
    return f"exec({source!r}, space := {{}}) or space['describe']()"


def difference(there: Mapping[str, str | None], here: Mapping[str, str | None]) -> str | None:
    """What a worker's versions keep it from, and what is to be installed there; None where it can be used.

    Args:
        there: the worker's versions.
        here: those of the search.
    """
    wrong = [name for name, parts in _COMPARED.items() if _parts(there.get(name), parts) != _parts(here.get(name), parts)]
    if not wrong:
        return None
    has = ", ".join(f"{_label(name)} {there[name]}" if there.get(name) else f"no {_label(name)}" for name in wrong)
    needs = ", ".join(f"{_label(name)} {'.'.join(_parts(here[name], _COMPARED[name]) or ())}" for name in wrong)
    return f"it has {has}: install {needs} there"


def _label(name: str) -> str:
    return {"python": "Python", "keras_tuner": "keras-tuner"}.get(name, name)


def _parts(version: str | None, number: int | None) -> list[str] | None:
    return None if version is None else version.split(".")[:number]
