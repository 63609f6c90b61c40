"""What a run stands on."""

from __future__ import annotations

import os
import platform
import shlex
from importlib.metadata import version

from mnist_tuner._version import __version__


def versions_of(*packages: str) -> dict[str, str]:
    """The project's version, the packages' and Python's."""
    versions = {name.replace("-", "_"): version(name) for name in packages}
    return {"mnist_tuner": __version__, **versions, "python": platform.python_version()}


def command(name: str) -> str:
    """How a person calls a command: the script that was started, where it was one."""
    script = os.environ.get("MNIST_TUNER_SCRIPT")
    return shlex.quote(script) if script else f"mnist-tuner {name}"


def available_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
