"""Killed at random instants, again and again, commands end as they would, and of a run nothing is left behind.

``MNIST_TUNER_KILLS=50`` kills each command so many times, at other instants each time.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import mnist_tuner
from tests.support.searches import (
    SEARCHES,
    family,
    launched,
    lives,
    made_once,
    outcome,
    run_in,
    shared_folder,
    wait_until,
    write_pictures,
)

pytestmark = pytest.mark.slow

WISHED = int(os.environ.get("MNIST_TUNER_KILLS", "0"))
INSTANTS = random.Random(None if WISHED else 0)
RUNNING = 3
"""Kills of one run before it is left to end."""


def killed(seconds: float, *arguments: str | Path) -> bool:
    """Starts a command and kills it after so many seconds, and waits for its workers to see it; whether it was still at work."""
    with launched(*arguments) as process:
        time.sleep(seconds)
        workers = [] if process.poll() is not None else family(process)
        at_work = process.poll() is None
        process.kill()
        process.communicate()
    wait_until(lambda: not any(map(lives, workers)))
    return at_work


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def of_seeds(run: Path) -> tuple[bytes, Any]:
    """What a training with several seeds came to, times apart."""
    document = json.loads((run / "run.json").read_text())
    for training in document["seeds"]["trainings"]:
        del training["seconds"]
        for epoch in training["epochs"]:
            epoch.pop("seconds", None)
    return (run / "test_predictions.npz").read_bytes(), [document[name] for name in ("status", "error", "test", "seeds")]


def of_one(run: Path) -> tuple[bytes, Any]:
    """What a training came to, times apart."""
    document = json.loads((run / "run.json").read_text())
    kept = [document.get(name) for name in ("status", "error", "test", "stopped")]
    return (run / "test_predictions.npz").read_bytes(), (kept, (run / "metrics.csv").read_bytes())


KINDS: dict[str, tuple[list[object], Callable[[Path], Any]]] = {
    "seeds": (["train", "--hidden", "16", "--epochs", 3, "--seeds", 3], of_seeds),
    "early stopping": (
        ["train", "--hidden", "16", "--epochs", 60, "--val-fraction", 0.2, "--early-stopping", 2],
        of_one,
    ),
    "hyperband": (["search", "--strategy", "hyperband", *SEARCHES["hyperband"], "--final-seeds", 1, "--workers", 1], outcome),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(shared_folder(tmp_path_factory, "at-random") / "pictures", lambda path: write_pictures(path, 320))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_killed_at_random_instants_ends_as_if_it_had_not_been(kind: str, pictures: Path, tmp_path: Path) -> None:
    options, came_to = KINDS[kind]
    command = [*map(str, options), "--data", str(pictures), "--output"]
    began = time.monotonic()
    mnist_tuner(*command, str(tmp_path / "whole"))
    whole = time.monotonic() - began
    kills = 0
    while kills < (WISHED or 1):
        folder = tmp_path / f"killed-{kills}"
        going_on = [*command, str(folder)]
        for _ in range(RUNNING):
            kills += killed(INSTANTS.uniform(0, whole), *going_on)
            begun = [run for run in folder.glob("*") if (run / "run.json").exists()]
            going_on = [command[0], "--resume", *map(str, begun)] if begun else [*command, str(folder)]
        mnist_tuner(*going_on)
        run = run_in(folder)
        assert came_to(run) == came_to(run_in(tmp_path / "whole"))
        assert temporary_files(folder) == []
        shutil.rmtree(folder)


@pytest.mark.parametrize("format", ["keras", "savedmodel", "litert"])
def test_an_export_that_is_killed_leaves_a_whole_model_or_none(format: str, pictures: Path, tmp_path: Path) -> None:
    mnist_tuner("train", "--hidden", "16", "--epochs", "1", "--data", pictures, "--output", tmp_path / "runs")
    run = run_in(tmp_path / "runs")
    where = tmp_path / "exported" / ("model.keras" if format == "keras" else "model")
    where.parent.mkdir()
    command = ["export", str(run), "--format", format, "--output", str(where)]
    began = time.monotonic()
    mnist_tuner(*command)
    seconds, whole = time.monotonic() - began, files(where.parent)
    for _ in range(WISHED or 1):
        shutil.rmtree(where.parent)
        where.parent.mkdir()
        killed(INSTANTS.uniform(seconds / 2, seconds), *command)
        if not where.exists():
            mnist_tuner(*command)
        assert {path for path in files(where.parent) if path.is_relative_to(where)} == whole
