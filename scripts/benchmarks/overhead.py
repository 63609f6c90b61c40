"""Trials without a training: what the search's machinery itself costs, of ours, of Dask and of stock KerasTuner."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.measure import child, medians, spread
from benchmarks.search import wait_for_workers

WIDE = 32 * 4_000
"""So many widths for each layer that instant trials do not run out of them."""


def instant_driver(trials: int) -> dict[str, Any]:
    """So many instant trials through our oracle, journal, files and table, without an engine's cost."""
    engine = _Instant()
    with _search_of_instant_trials(engine, trials) as (driver, seconds):
        before = _rss()
        driver.run()
    stamps = seconds()
    return {"ms": [1000 * (b - a) for a, b in pairwise(stamps)], "rss_mb": [before, _rss()]}


def instant_search(trials: int) -> dict[str, Any]:
    """So many instant trials through the whole machinery on two workers, and as many tasks through Dask alone."""
    from mnist_tuner.search.dask_engine import DaskEngine

    engine = DaskEngine(2)
    wait_for_workers(engine, 2)
    with _search_of_instant_trials(engine, trials) as (driver, _):
        engine.begin(driver.experiment)
        alone = _dask_alone(engine, trials // 2)
        began = time.perf_counter()
        driver.run()
        whole = 1000 * (time.perf_counter() - began) / trials
        alone = mean([alone, _dask_alone(engine, trials // 2)])
    engine.close()
    return {"whole_ms": whole, "dask_ms": alone}


def _dask_alone(engine: Any, tasks: int) -> float:
    """Milliseconds a task: as many in flight as there are workers, each result fetched."""
    from distributed import as_completed

    client = engine._client
    began = time.perf_counter()
    waiting = iter(range(tasks))
    running = as_completed([client.submit(_nothing, next(waiting), pure=False) for _ in range(2)], loop=client.loop)
    for future in running:
        future.result()
        for number in waiting:
            running.add(client.submit(_nothing, number, pure=False))
            break
    return 1000 * (time.perf_counter() - began) / tasks


def _nothing(number: int) -> int:
    return number


def stock_instant(trials: int) -> dict[str, Any]:
    """So many instant trials by stock KerasTuner."""
    import keras_tuner

    class Instant(keras_tuner.RandomSearch):  # type: ignore[misc]
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> float:
            stamps.append(time.perf_counter())
            return _score(trial.hyperparameters.values)

    stamps: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        hp = keras_tuner.HyperParameters()
        for i in (1, 2):
            hp.Int(f"units_{i}", 32, WIDE, step=32, default=100)
        objective = keras_tuner.Objective("val_accuracy", "max")
        tuner = Instant(objective=objective, max_trials=trials, hyperparameters=hp, directory=folder, seed=1)
        tuner.search(verbose=0)
    return {"ms": [1000 * (b - a) for a, b in pairwise(stamps)]}


def _score(values: dict[str, int]) -> float:
    return 1 / (1 + abs(values["units_1"] - 300) + abs(values["units_2"] - 200))


class _Instant:
    """An engine that has done everything at once."""

    slots = 2

    def __init__(self) -> None:
        self.queue: list[tuple[str, Any]] = []

    def submit(self, key: str, spec: Any, limit: Any = None) -> None:
        """Takes it."""
        self.queue.append((key, spec))

    def wait(self, handle: Callable[[Any], None], timeout: float) -> None:
        """Gives the result of the first."""
        from mnist_tuner.search.engine import Done, Started

        key, spec = self.queue.pop(0)
        handle(Started(key, "here"))
        handle(Done(key, instant_trial(spec), "here"))


def instant_trial(spec: Any) -> Any:
    """A result without a training, a function of the widths."""
    from mnist_tuner.search.trial import Replicate, TrialResult

    score = _score(spec.hyperparameters["values"])
    return TrialResult(spec.trial_id, "completed", (Replicate(spec.seeds[0], {"val_accuracy": (score,)}),), parameters=1)


@contextmanager
def _search_of_instant_trials(engine: Any, trials: int) -> Iterator[tuple[Any, Callable[[], list[float]]]]:
    """A driver for instant trials, with its table on a terminal of 40 lines; and the times at which they ended."""
    from rich.console import Console

    from mnist_tuner.search.display import SearchDisplay
    from mnist_tuner.search.driver import Driver
    from mnist_tuner.search.experiment import Experiment
    from mnist_tuner.search.oracles import make_oracle
    from mnist_tuner.search.study import Study
    from mnist_tuner.search.trial import TrialSpec

    class Instant(Experiment):
        def run_trial(self, spec: TrialSpec, report: Any) -> Any:
            return instant_trial(spec)

    stamps: list[float] = []

    class Display(SearchDisplay):
        def on_trial_ended(self, summary: Any, *, restored: bool) -> None:
            super().on_trial_ended(summary, restored=restored)
            stamps.append(time.perf_counter())

    oracle = make_oracle("random", objective="val_accuracy", max_trials=trials, epochs=1, seed=1, first={})
    for i in (1, 2):
        oracle.hyperparameters.Int(f"units_{i}", 32, WIDE, step=32, default=100)
    common: dict[str, Any] = {"objective": "val_accuracy", "replicates": 1, "epochs": 1}
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        study = Study(Path(folder) / "study", {"benchmark": trials})
        console = Console(file=nowhere, force_terminal=True, width=110, height=40)
        with Display(console, direction="max", total=trials, workers=2, **common) as display:
            driver: Any = Driver(oracle, study, engine, display, seed=1, ahead=256, discover=lambda hp: 1.0, **common)
            driver.experiment = Instant(None, "val_accuracy")
            yield driver, lambda: stamps


def _rss() -> float:
    """This process's memory, in MB."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    except OSError:  # no such file: then its peak
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


# How it is measured.


def overhead(repeats: int) -> dict[str, Any]:
    """Instant trials: what the search's machinery itself costs."""
    stock = child(stock_instant, 1600)["ms"]
    print(f"stock KerasTuner: {median(stock[50:150]):.1f} ms a trial at 100, {median(stock[-100:]):.1f} ms at 1,600")
    ours = child(instant_driver, 10000)
    for place in (100, 1_000, 9_900):  # the first hundred import what is needed
        part = ours["ms"][place : place + 100]
        print(f"our driver alone: {mean(part):.2f} ms a trial after {place:,} (median {median(part):.2f})")
    growth = (ours["rss_mb"][1] - ours["rss_mb"][0]) / 10
    print(f"our driver's memory grows by {growth:.1f} MB per 1,000 trials")
    rows = [child(instant_search, 1000) for _ in range(repeats)]
    found, above = medians(rows), [row["whole_ms"] - row["dask_ms"] for row in rows]
    print(
        f"the whole with two workers: {found['whole_ms']:.1f} ms a trial; Dask alone {found['dask_ms']:.1f} ms a task: "
        f"above it {spread(above, '.1f', ' ms')}"
    )
    first, last = (mean(ours["ms"][a:b]) for a, b in ((100, 1100), (-1000, None)))
    return {"stock_ms": stock, "first_ms": first, "last_ms": last, "growth_mb": growth, "rows": rows}
