"""Runs the real commands in processes of their own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mnist_tuner.startup import is_tried

tried = pytest.mark.skipif(not is_tried(), reason="with this TensorFlow nothing is changed or kept")
"""What is done with one release of TensorFlow only."""
ROOT = Path(__file__).parent.parent.parent
DEADLINE = 300.0 * float(os.environ.get("MNIST_TUNER_TEST_PATIENCE", "1"))
"""Seconds that anything may take before it counts as stuck; MNIST_TUNER_TEST_PATIENCE multiplies them on a starved machine."""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what changes the commands' output, and without what a command that was run in this
    process has set for itself."""
    dropped = {"TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM"}
    dropped |= {"TF_XLA_FLAGS", "XLA_FLAGS", "_MNIST_TUNER_SET_LOG_LEVEL"}
    return {name: value for name, value in os.environ.items() if name not in dropped} | changes


def mnist_tuner(*arguments: str | Path, code: int = 0, **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs ``mnist-tuner`` and expects an exit code."""
    command = [sys.executable, "-m", "mnist_tuner", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(**changes), timeout=DEADLINE, check=False)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def python(program: str, **changes: str) -> str:
    """Runs a Python program and returns what it prints."""
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment(**changes), timeout=DEADLINE, check=True
    ).stdout


def on_a_terminal(*arguments: str | Path, columns: int = 80, **changes: str) -> str:
    """Runs ``mnist-tuner`` on a pseudo-terminal and returns what it drew there."""
    ours, theirs = pty.openpty()
    drawn: list[bytes] = []

    def read() -> None:
        try:
            while piece := os.read(ours, 65536):
                drawn.append(piece)
        except OSError:  # the other side has closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    command = [sys.executable, "-m", "mnist_tuner", *map(str, arguments)]
    env = environment(**{"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": str(columns)} | changes)
    subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, timeout=DEADLINE, check=True)
    os.close(theirs)
    reader.join(timeout=DEADLINE)
    os.close(ours)
    return b"".join(drawn).decode()
