"""What the search is measured by: `scripts/benchmark search` and `scripts/benchmark overhead`."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, ClassVar

WIDTHS = [(512, 512), (320, 416), (192, 128), (96, 512), (128, 128), (64, 64)]
EQUAL = [(256, 128)] * 8
EPOCHS, BATCH_SIZE, VAL_FRACTION = 5, 32, 0.1


# Run in child processes.


def stock_search() -> dict[str, Any]:
    """The six trials by stock KerasTuner: its RandomSearch, given this list to draw from, and plain `model.fit`."""
    import keras
    import keras_tuner

    from mnist_tuner.mnist.data import MNISTDataModule

    data = MNISTDataModule(val_fraction=VAL_FRACTION, split_seed=0)
    images, labels = data.dataset.train_images / 255.0, data.dataset.train_labels

    def build(hp: Any) -> Any:
        units = [hp.Int(f"units_{i}", 32, 512, step=32) for i in (1, 2)]
        model = keras.Sequential(
            [
                keras.Input((28, 28)),
                keras.layers.Flatten(),
                *(keras.layers.Dense(width, activation="relu") for width in units),
                keras.layers.Dense(10, activation="sigmoid"),
            ]
        )
        model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.RandomSearch(build, objective="val_accuracy", max_trials=len(WIDTHS), directory=folder)
        listed = iter(WIDTHS)
        tuner.oracle.populate_space = lambda trial_id: {"status": "RUNNING", "values": _values(*next(listed))}
        train, validation = data.train_indices, data.val_indices
        tuner.search(
            images[train],
            labels[train],
            validation_data=(images[validation], labels[validation]),
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            verbose=0,
        )
        best = tuner.oracle.get_best_trials()[0]
        finals = [trial.metrics.get_history("val_accuracy")[-1].mean() for trial in tuner.oracle.trials.values()]
        return {"best": list(best.hyperparameters.values.values()), "score": float(best.score), "scores": [*map(float, finals)]}


def our_search() -> dict[str, Any]:
    """The six trials by ours, on all cores."""
    return _our_trials(WIDTHS, len(os.sched_getaffinity(0)))


def our_equal_trials() -> dict[str, Any]:
    """Eight equal trials with WORKERS workers."""
    return _our_trials(EQUAL, int(os.environ["WORKERS"]))


def _our_trials(widths: list[tuple[int, int]], workers: int) -> dict[str, Any]:
    from mnist_tuner.search.loading import prepare_forking
    from mnist_tuner.startup import load_keras_tuner, load_tensorflow

    prepare_forking()  # as the command does it
    load_tensorflow(threads=1, cached=False)
    load_keras_tuner(bayesian=False)

    from mnist_tuner.mnist import WidthHyperModel
    from mnist_tuner.mnist.data import MNISTDataModule
    from mnist_tuner.search.dask_engine import DaskEngine
    from mnist_tuner.search.tuner import Tuner

    engine = DaskEngine(workers)
    data = MNISTDataModule(batch_size=BATCH_SIZE, val_fraction=VAL_FRACTION, split_seed=0)
    with tempfile.TemporaryDirectory() as folder:
        tuner = Tuner(WidthHyperModel(), max_trials=len(widths), epochs=EPOCHS, replicates=1, directory=folder)
        listed = iter(widths)
        tuner.oracle.populate_space = lambda trial_id: {"status": "RUNNING", "values": _values(*next(listed))}
        if widths is EQUAL:
            _wait_for_workers(engine, workers)
        began = time.perf_counter()
        ranked = tuner.search(data, engine=engine, verbose=False)
        search_s = time.perf_counter() - began
    engine.close()
    best, scores = ranked[0], [tuner.summaries[trial].mean for trial in sorted(tuner.summaries)]
    return {"best": list(best.values.values()), "score": best.mean, "scores": scores, "search_s": search_s}


@dataclass(frozen=True)
class Ready:
    """A piece of work that is done when its worker has loaded TensorFlow."""

    leaves_models: ClassVar[bool] = False

    def run(self, experiment: Any, report: Any) -> None:
        """Takes long enough for each worker to get one."""
        time.sleep(1)


def _wait_for_workers(engine: Any, workers: int) -> None:
    from mnist_tuner.search.engine import Done, Failed
    from mnist_tuner.search.experiment import Experiment

    engine.begin(Experiment(None, ""))
    for number in range(workers):
        engine.submit(f"ready-{number}", Ready())
    left = workers

    def handle(event: Any) -> None:
        nonlocal left
        if isinstance(event, Failed):
            raise RuntimeError(event.traceback or event.reason)
        left -= isinstance(event, Done)

    while left:
        engine.wait(handle, 1)


def _values(first: int, second: int) -> dict[str, int]:
    return {"units_1": first, "units_2": second}


WIDE = 32 * 4_000
"""So many widths for each layer that instant trials do not run out of them."""


def instant_driver() -> dict[str, Any]:
    """TRIALS instant trials through our oracle, journal, files and table, without an engine's cost."""
    engine = _Instant()
    with _search_of_instant_trials(engine, int(os.environ["TRIALS"])) as (driver, seconds):
        before = _rss()
        driver.run()
    stamps = seconds()
    return {"ms": [1000 * (b - a) for a, b in pairwise(stamps)], "rss_mb": [before, _rss()]}


def instant_search() -> dict[str, Any]:
    """TRIALS instant trials through the whole machinery on two workers, and as many tasks through Dask alone."""
    from mnist_tuner.search.dask_engine import DaskEngine

    trials = int(os.environ["TRIALS"])
    engine = DaskEngine(2)
    _wait_for_workers(engine, 2)
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


def stock_instant() -> dict[str, Any]:
    """TRIALS instant trials by stock KerasTuner."""
    import keras_tuner

    class Instant(keras_tuner.RandomSearch):  # type: ignore[misc]
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> float:
            stamps.append(time.perf_counter())
            return _score(trial.hyperparameters.values)

    stamps: list[float] = []
    trials = int(os.environ["TRIALS"])
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

    def submit(self, key: str, spec: Any) -> None:
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


CHILDREN: dict[str, Callable[[], dict[str, Any]]] = {
    function.__name__: function
    for function in (stock_search, our_search, our_equal_trials, instant_driver, instant_search, stock_instant)
}


# The benchmarks.


def search_study(repeats: int, child: Callable[..., dict[str, Any]], say: Callable[[str], None]) -> dict[str, Any]:
    """Six fixed trials by stock KerasTuner and by ours on all cores; eight equal ones with one worker and with two."""
    rows: dict[str, list[dict[str, Any]]] = {"stock_search": [], "our_search": [], "one": [], "two": []}
    for repeat in range(repeats):
        for name, program, workers in (
            ("our_search", "our_search", ""),
            ("one", "our_equal_trials", "1"),
            ("two", "our_equal_trials", "2"),
            ("stock_search", "stock_search", ""),
        ):
            rows[name].append(child(program, WORKERS=workers))
            say(f"{repeat + 1}/{repeats} {name}: {rows[name][-1]['command_s']:.1f} s")
    ratios = [a["command_s"] / b["command_s"] for a, b in zip(rows["stock_search"], rows["our_search"], strict=True)]
    gains = [a["search_s"] / b["search_s"] for a, b in zip(rows["one"], rows["two"], strict=True)]
    per_minute = {name: 60 * len(WIDTHS) / median(row["command_s"] for row in rows[name]) for name in rows if "search" in name}
    say(
        f"Six trials, start-up included: {per_minute['our_search']:.2f} a minute by ours on {len(os.sched_getaffinity(0))} "
        f"cores, {per_minute['stock_search']:.2f} by stock KerasTuner: {median(ratios):.1f} times as many "
        f"(median of {repeats} pairs, {min(ratios):.1f} to {max(ratios):.1f})."
    )
    say(f"Eight equal trials, start-up apart: two workers are {median(gains):.2f} times as fast as one.")
    for name in ("stock_search", "our_search"):
        row = rows[name][0]
        scores = " ".join(f"{score:.4f}" for score in row["scores"])
        say(f"{name}: validation accuracy after the last epoch {scores}; best {row['best']} with {row['score']:.4f}")
    return {"rows": rows, "ratios": ratios, "gains": gains, "trials_per_minute": per_minute}


def overhead_study(repeats: int, child: Callable[..., dict[str, Any]], say: Callable[[str], None]) -> dict[str, Any]:
    """Instant trials: what the machinery itself costs, of ours, of Dask and of stock KerasTuner."""
    stock = child("stock_instant", TRIALS="1600")["ms"]
    say(f"stock KerasTuner: {median(stock[50:150]):.1f} ms a trial at 100, {median(stock[-100:]):.1f} ms at 1,600")
    ours = child("instant_driver", TRIALS="10000")
    for place in (100, 1_000, 9_900):  # the first hundred import what is needed
        part = ours["ms"][place : place + 100]
        say(f"our driver alone: {mean(part):.2f} ms a trial after {place:,} (median {median(part):.2f})")
    growth = (ours["rss_mb"][1] - ours["rss_mb"][0]) / 10
    say(f"our driver's memory grows by {growth:.1f} MB per 1,000 trials")
    rows = [child("instant_search", TRIALS="1000") for _ in range(repeats)]
    above = [row["whole_ms"] - row["dask_ms"] for row in rows]
    say(
        f"the whole with two workers: {median(row['whole_ms'] for row in rows):.1f} ms a trial; Dask alone "
        f"{median(row['dask_ms'] for row in rows):.1f} ms a task: {median(above):.1f} ms above "
        f"(median of {repeats}, {min(above):.1f} to {max(above):.1f})"
    )
    first, last = (mean(ours["ms"][a:b]) for a, b in ((100, 1100), (-1000, None)))
    return {"stock_ms": stock, "first_ms": first, "last_ms": last, "growth_mb": growth, "rows": rows}
