"""Small searches in processes of their own: to start, to watch and to compare."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.support.commands import DEADLINE, environment, mnist_tuner

SEARCHES = {
    "random": ["--trials", 3, "--epochs", 2, "--widths", "96:192:32", "--replicates", 2],
    "bayesian": ["--trials", 7, "--epochs", 2, "--widths", "8:32:8", "--replicates", 1],
    "hyperband": ["--epochs", 3, "--widths", "8:32:8", "--replicates", 1],
}
WHOLE_BATCHES = 320
"""Training images of which, and of the nine tenths that a trial trains on, all batches are whole: a short one is a program of its
own, which each net would have to compile."""
TRIALS = {"random": 3, "bayesian": 7, "hyperband": 7}


def write_pictures(folder: Path, training: int = 400) -> Path:
    """A folder of four IDX files, hard enough that nets differ: training and 200 test images of 6 x 6 pixels in 4 classes."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(7)
    patterns = generator.integers(0, 256, (4, 6, 6))
    for part, count in (("train", training), ("t10k", 200)):
        labels = (generator.permutation(count) % 4).astype(np.uint8)
        images = (0.4 * patterns[labels] + 0.6 * generator.integers(0, 256, (count, 6, 6))).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return folder


def search(strategy: str, data: Path, output: Path, workers: int | None) -> list[str]:
    """A small search."""
    where = ["--data", data, "--output", output, "--final-seeds", 1, *([] if workers is None else ["--workers", workers])]
    return ["search", "--strategy", strategy, *map(str, [*SEARCHES[strategy], *where])]


@contextmanager
def launched(*arguments: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """``mnist-tuner`` at work, in processes of its own; at the end it is dead, whatever happened."""
    command = [sys.executable, "-u", "-m", "mnist_tuner", *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment(), **options}
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_trials(process: subprocess.Popen[str], number: int) -> str:
    """Reads what a search prints until so many trials have ended, or, if that is none, until the first one begins."""
    assert process.stdout is not None
    printed, ended = "", 0
    for line in process.stdout:
        printed += line
        ended += "  trial " in line and " s" in line
        if ended == number and (ended or line.startswith("Search")):
            return printed
    assert process.stderr is not None
    raise AssertionError(f"the search ended before {number} trials:\n{printed}\n{process.stderr.read()}")


def wait_until(true: Callable[[], bool]) -> None:
    """Looks again and again, until the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < deadline, f"it did not happen within {DEADLINE:.0f} seconds"
        time.sleep(0.01)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """All processes that a search has started."""
    return list(psutil.Process(process.pid).children(recursive=True))


def lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until_at_work(processes: list[psutil.Process]) -> psutil.Process:
    """Waits until one of these processes has computed for a while, and gives the one that has computed most."""

    def computed(process: psutil.Process) -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    before = {process: computed(process) for process in processes}
    wait_until(lambda: any(computed(process) - before[process] > 0.3 for process in processes))
    return max(processes, key=lambda process: computed(process) - before[process])


def run_in(folder: Path) -> Path:
    """The only run in a folder."""
    (run,) = folder.iterdir()
    return run


def journal(run: Path, name: str = "study/journal.jsonl") -> list[str]:
    """The whole lines of a journal; the first one says what it is of."""
    path = run / name
    return path.read_text().splitlines(keepends=True) if path.exists() else []


def outcome(run: Path) -> tuple[bytes, bytes, dict[str, Any]]:
    """What a finished search came to, times apart."""
    document = json.loads((run / "run.json").read_text())
    assert document["status"] == "finished"
    assert document["error"] is None
    for trial in [*document["trials"], document["best"], document["baseline"]]:
        del trial["seconds"]
    judged = {name: document[name] for name in ("strategy", "seed", "space", "trials", "best", "baseline", "final")}
    return (run / "trials.csv").read_bytes(), (run / "test_predictions.npz").read_bytes(), judged


def check_folder(run: Path, trials: int) -> None:
    """All files of a finished search are whole, there are none that do not belong there, and no trial was made twice."""
    for path in run.rglob("*.json"):
        json.loads(path.read_text())
    assert list(run.rglob(".*")) == []
    made = [json.loads(line)["trial_id"] for line in journal(run)[1:]]
    assert sorted(map(int, made)) == list(range(trials))
    judged = [json.loads(line)["of"] for line in journal(run, "trainings.jsonl")[1:]]
    assert len(set(judged)) == len(judged) in (1, 2)
    assert {path.name for path in (run / "study").glob("trial_*")} == {f"trial_{trial_id}" for trial_id in made}


def shared_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A temporary folder that is the same one for all processes that run tests side by side."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


def made_once(path: Path, make: Callable[[Path], object]) -> Path:
    """A path that is made when it is first asked for, by whichever process."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make(path)
    return path


class Undisturbed:
    """Searches that nothing has happened to, each made when it is first asked for. They run in one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = made_once(folder / "pictures", partial(write_pictures, training=WHOLE_BATCHES))

    def run(self, strategy: str) -> Path:
        """The folder of such a search."""

        def make(output: Path) -> None:
            mnist_tuner(*search(strategy, self.data, output, workers=0))
            check_folder(run_in(output), TRIALS[strategy])

        return run_in(made_once(self.folder / strategy, make))

    def outcome(self, strategy: str) -> tuple[bytes, bytes, dict[str, Any]]:
        """What it came to."""
        return outcome(self.run(strategy))
