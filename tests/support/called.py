"""The commands called within this process, which has TensorFlow already: for all that does not need a process of its own."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mnist_tuner import cli
from tests.support.commands import environment
from tests.support.searches import made_once, run_in, shared_folder

SHADES = ("shade [bold]one[/bold]", "<b>two</b> & more", "drei \N{EM DASH} 三")
"""Names of classes with what rich and HTML might take for markup."""


class Done(NamedTuple):
    """What a command has left: its exit code, and what it has printed."""

    code: int
    out: str
    err: str


@contextmanager
def surroundings(stdin: bytes, **changes: str) -> Iterator[None]:
    """The surroundings of a command, which are as before afterwards: what it has put into the environment is gone."""
    before = dict(os.environ), warnings.showwarning, signal.getsignal(signal.SIGTERM), sys.argv, sys.stdin
    main = sys.modules["__main__"]
    package = main.__package__
    wanted = environment(MNIST_TUNER_COMPILE_CACHE="off") | changes
    os.environ.clear()
    os.environ.update(wanted)
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    main.__package__ = None  # else the program would be called pytest
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before[0])
        _, warnings.showwarning, handler, sys.argv, sys.stdin = before
        signal.signal(signal.SIGTERM, handler)
        main.__package__ = package


def called(*arguments: str | Path | int, code: int = 0, stdin: bytes = b"", **changes: str) -> Done:
    """Runs ``mnist-tuner`` in this process and expects an exit code.

    Args:
        arguments: of the command line.
        code: that is expected.
        stdin: what stands on the standard input.
        changes: of the environment.
    """
    out, err = io.StringIO(), io.StringIO()
    with surroundings(stdin, **changes), redirect_stdout(out), redirect_stderr(err):
        sys.argv = ["mnist-tuner", *map(str, arguments)]
        try:
            cli.main()
        except SystemExit as end:
            done = Done(int(end.code or 0), out.getvalue(), err.getvalue())
    assert done.code == code, f"exit {done.code}\n{done.out}\n{done.err}"
    return done


def refused(*arguments: str | Path | int, **changes: str) -> str:
    """Runs a command that is refused: with code 2 and one line, which is returned."""
    done = called(*arguments, code=2, **changes)
    (line,) = done.err.splitlines()
    assert line.startswith("mnist-tuner: error: ")
    return line


def write_shades(path: Path, height: int = 7, width: int = 5, training: int = 90) -> Path:
    """An ``.npz`` file of images in 3 classes, told apart by which third is light."""
    generator = np.random.default_rng(7)
    arrays = {}
    for part, count in (("train", training), ("test", 30)):
        labels = (generator.permutation(count) % 3).astype(np.uint8)
        light = np.arange(width)[None, :] * 3 // width == labels[:, None]
        noise = generator.integers(0, 60, (count, height, width))
        arrays[f"x_{part}"] = (noise + 190 * light[:, None, :]).astype(np.uint8)
        arrays[f"y_{part}"] = labels
    np.savez(path, **arrays)
    return path


class Made:
    """Data and finished runs that several tests read, each made when it is first asked for."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self.folder = shared_folder(factory, "used")

    def digits(self) -> Path:
        """A run of one epoch on the embedded MNIST, with seed 4."""

        def make(output: Path) -> None:
            called("train", "--epochs", 1, "--seed", 4, "--output", output, "--quiet")

        return run_in(made_once(self.folder / "digits", make))

    def shades(self) -> Path:
        """A folder with a data set of 7 x 5 pixels in 3 classes, and their names."""

        def make(folder: Path) -> None:
            folder.mkdir()
            write_shades(folder / "data.npz")
            (folder / "classes.txt").write_text("\n".join(SHADES) + "\n", encoding="utf-8")

        return made_once(self.folder / "shades", make)

    def named(self) -> Path:
        """A run on that."""
        return run_in(made_once(self.folder / "named", partial(self._train, self.shades())))

    @staticmethod
    def _train(data: Path, output: Path) -> None:
        called("train", "--data", data, "--hidden", "16", "--epochs", 40, "--output", output, "--quiet", "--seed", 9)
