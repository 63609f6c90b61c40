"""Finished runs on little data, each made when it is first asked for, for the tests that read them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.support.commands import mnist_tuner, python
from tests.support.searches import made_once, run_in, shared_folder, write_pictures

NET = ["--hidden", "48,32", "--epochs", "8", "--val-fraction", "0.1"]
SEARCH = ["--trials", 4, "--epochs", 3, "--replicates", 2, "--widths", "96:192:32", "--seed", 3, "--final-seeds", 2]

SINGLE = """
import sys
from mnist_tuner.cli import app
for seed in range(3):
    app([*sys.argv[1:], "--seed", str(seed), "--output", f"OUTPUT/{seed}", "--quiet"], standalone_mode=False)
"""


class Runs:
    """Runs that nothing has happened to."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self.folder = shared_folder(factory, "runs")
        self.data = made_once(self.folder / "pictures", write_pictures)

    def train(self) -> list[str]:
        """The command of the trainings."""
        return ["train", "--data", str(self.data), *NET]

    def single(self, seed: int) -> Path:
        """A run of one training, with seed 0, 1 or 2."""

        def make(folder: Path) -> None:
            arguments = ", ".join(map(repr, self.train()))
            program = SINGLE.replace("OUTPUT", str(folder)).replace("sys.argv[1:]", f"[{arguments}]")
            python(program)

        return run_in(made_once(self.folder / "single", make) / str(seed))

    def seeds(self) -> Path:
        """A run of the same with the seeds 0, 1 and 2."""
        return run_in(made_once(self.folder / "seeds", partial(self._make, [*self.train(), "--seeds", 3])))

    def wide(self) -> Path:
        """A run of a better net, with three seeds."""
        wanted = ["train", "--data", self.data, "--hidden", 256, "--epochs", 10, "--seeds", 3, "--seed", 5]
        return run_in(made_once(self.folder / "wide", partial(self._make, wanted)))

    def search(self) -> Path:
        """A search in which something else than the baseline wins."""
        return run_in(made_once(self.folder / "search", partial(self._make, ["search", "--data", self.data, *SEARCH])))

    @staticmethod
    def _make(command: list[str | Path | int], output: Path) -> None:
        mnist_tuner(*map(str, command), "--output", output, "--quiet")
