"""Keras's backend, which must be TensorFlow, and what the import of TensorFlow costs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version

import_seconds = 0.0
"""What the import of TensorFlow through the trainer has cost; 0 where it was there already."""


_TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-rocm", "tf-nightly", "tf-nightly-cpu")
"""The names under which the module is published."""


def installed_version(package: str) -> str:
    """A package's version, without importing it; TensorFlow's, whichever of its packages is installed.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    for name in _TENSORFLOWS if package == "tensorflow" else (package,):
        with suppress(PackageNotFoundError):
            return version(name)
    raise PackageNotFoundError(package)


def check_backend(used: str | None = None) -> None:
    """Refuses another backend than TensorFlow.

    Args:
        used: what Keras says, once it is imported; until then it is the environment that is asked.

    Raises:
        ImportError: the environment, or the user's ``keras.json``, asks for another backend.
    """
    needs = "mnist_tuner needs Keras's TensorFlow backend"
    wanted = os.environ.get("KERAS_BACKEND", "tensorflow")
    if used is None and wanted != "tensorflow":
        raise ImportError(f"{needs}, and KERAS_BACKEND is {wanted!r}: unset it")
    if used not in (None, "tensorflow"):
        raise ImportError(f"{needs}, and keras.json asks for {used!r}: set KERAS_BACKEND=tensorflow")


def choose_backend() -> None:
    """Has Keras use TensorFlow in this process and its children, whatever the environment and ``keras.json`` ask for."""
    os.environ["KERAS_BACKEND"] = "tensorflow"


@contextmanager
def importing() -> Iterator[None]:
    """What is done around an import of the trainer's modules: the backend is checked, and TensorFlow's import is timed.

    Raises:
        ImportError: see `check_backend`.
    """
    global import_seconds
    check_backend()
    began, loaded = time.perf_counter(), "tensorflow" in sys.modules
    yield
    if not loaded and "tensorflow" in sys.modules:
        import_seconds = time.perf_counter() - began
