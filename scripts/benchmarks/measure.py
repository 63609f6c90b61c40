"""How everything is measured: each run is a process of its own, whose seconds and peak memory are taken from outside.

This module loads nothing but the standard library: what it imports, every measured process would import, too.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
MNIST_TUNER = [sys.executable, "-m", "mnist_tuner"]


@dataclass(frozen=True)
class Run:
    """What a process came to."""

    output: str
    """Its standard output."""
    seconds: float
    """From its start to its end, or to its first line."""
    peak_mb: float
    """Its peak memory, in MB."""


def run(command: Sequence[str | Path], *, terminal: bool = False, first_line: bool = False, **environment: str) -> Run:
    """Runs a command.

    Args:
        command: the program and its arguments.
        terminal: whether its standard error is a terminal, so that a display is really drawn.
        first_line: whether it is over for us when it has printed a line: then it is killed.
        environment: more variables.

    Raises:
        SystemExit: if it fails.
    """
    began = time.perf_counter()
    variables = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    stderr = subprocess.DEVNULL
    if terminal:
        ours, stderr = pty.openpty()
        variables.pop("TF_CPP_MIN_LOG_LEVEL")
        variables |= {"TERM": "xterm-256color", "COLUMNS": "100"}
        threading.Thread(target=_drain, args=(ours,), daemon=True).start()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=variables) as process:
        assert process.stdout is not None
        output = (process.stdout.readline() if first_line else process.stdout.read()).decode()
        seconds = time.perf_counter() - began
        if first_line:
            process.kill()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if not first_line:
        seconds = time.perf_counter() - began
    if terminal:
        os.close(stderr)
    if process.returncode and not first_line:
        raise SystemExit(f"{' '.join(map(str, command))} failed with code {process.returncode}")
    return Run(output, seconds, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3))


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 65536):
            pass
    except OSError:  # the other side has closed
        os.close(descriptor)


def child(function: Callable[..., Any], *arguments: str | int, python: Path = Path(sys.executable), **environment: str) -> Any:
    """Calls a function of this package in a process of its own.

    Args:
        function: returns a dict of JSON values.
        arguments: its arguments.
        python: that runs it.
        environment: more variables.

    Returns:
        What it returns, with the `command_s` and `peak_mb` of its process.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    done = run([python, FOLDER, "child", name, *map(str, arguments)], **environment)
    return {**json.loads(done.output.splitlines()[-1]), "command_s": done.seconds, "peak_mb": done.peak_mb}


def medians(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: median(row[name] for row in rows) for name in rows[0]}


def spread(values: list[float], form: str, unit: str = "") -> str:
    """The median of paired differences or ratios, and how far they lie apart."""
    low, high = (format(value, form) for value in (min(values), max(values)))
    return f"{median(values):{form}}{unit} (median of {len(values)}, from {low} to {high})"


def progress(text: str) -> None:
    """Says what goes on, apart from the results."""
    print(text, file=sys.stderr, flush=True)


def ensure_environment(folder: Path, packages: Sequence[str]) -> Path:
    """Makes a virtual environment where there is none that was made whole, with these packages and this Python.

    Args:
        folder: of the environment; what is there is removed if it is another one.
        packages: for pip, whose own settings hold.

    Returns:
        Its Python.
    """
    python, stamp = folder / "bin" / "python", folder / "stamp"
    wanted = "\n".join((str(folder), sys.version, *packages))
    if stamp.exists() and stamp.read_text() == wanted and python.exists():
        return python
    progress(f"Installing {', '.join(packages)} into {folder} (once) ...")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, stdout=sys.stderr)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True, stdout=sys.stderr)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, subprocess.CalledProcessError):
            raise
        raise SystemExit("error: the installation failed (its messages are above); nothing half-made was kept") from None
    stamp.write_text(wanted)
    return python


class EpochClock:
    """When a training's epochs begin, and when the last one has ended, so that nothing in between is left out."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def tick(self, *_: Any) -> None:
        """Notes the time."""
        self.starts.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Of each epoch."""
        return [after - before for before, after in pairwise(self.starts)]

    def of_ours(self, *, batches: bool = False) -> Any:
        """A callback for our trainer; with a batch hook it makes each step a call."""
        from mnist_tuner import LambdaCallback

        hooks = {"on_train_batch_end": lambda *_: None} if batches else {}
        return LambdaCallback(on_train_epoch_start=self.tick, on_train_end=self.tick, **hooks)

    def of_keras(self, *, batches: bool = False) -> Any:
        """A callback for `keras.Model.fit`."""
        import keras

        hooks = {"on_train_batch_end": lambda *_: None} if batches else {}
        return keras.callbacks.LambdaCallback(on_epoch_begin=self.tick, on_train_end=self.tick, **hooks)
