"""A search of real trials: by stock KerasTuner, and by ours."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, ClassVar

from benchmarks.measure import child, progress, spread

WIDTHS = [(512, 512), (320, 416), (192, 128), (96, 512), (128, 128), (64, 64)]
EQUAL = [(256, 128)] * 8
EPOCHS, BATCH_SIZE, VAL_FRACTION = 5, 32, 0.1


# Run in processes of their own.


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


def our_equal_trials(workers: int) -> dict[str, Any]:
    """Eight equal trials with so many workers."""
    return _our_trials(EQUAL, workers)


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
            wait_for_workers(engine, workers)
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


def wait_for_workers(engine: Any, workers: int) -> None:
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


# How it is measured.


def search(repeats: int) -> dict[str, Any]:
    """Six fixed trials by stock KerasTuner and by ours on all cores; eight equal ones with one worker and with two."""
    rows: dict[str, list[dict[str, Any]]] = {"stock_search": [], "our_search": [], "one": [], "two": []}
    for repeat in range(repeats):
        for name, measure in (
            ("our_search", partial(child, our_search)),
            ("one", partial(child, our_equal_trials, 1)),
            ("two", partial(child, our_equal_trials, 2)),
            ("stock_search", partial(child, stock_search)),
        ):
            rows[name].append(measure())
            progress(f"{repeat + 1}/{repeats} {name}: {rows[name][-1]['command_s']:.1f} s")
    ratios = [a["command_s"] / b["command_s"] for a, b in zip(rows["stock_search"], rows["our_search"], strict=True)]
    gains = [a["search_s"] / b["search_s"] for a, b in zip(rows["one"], rows["two"], strict=True)]
    per_minute = {name: 60 * len(WIDTHS) / median(row["command_s"] for row in rows[name]) for name in rows if "search" in name}
    print(
        f"Six trials, start-up included: {per_minute['our_search']:.2f} a minute by ours on {len(os.sched_getaffinity(0))} "
        f"cores, {per_minute['stock_search']:.2f} by stock KerasTuner: {spread(ratios, '.1f', ' times as many')}."
    )
    print(f"Eight equal trials, start-up apart: two workers are {median(gains):.2f} times as fast as one.")
    for name in ("stock_search", "our_search"):
        row = rows[name][0]
        scores = " ".join(f"{score:.4f}" for score in row["scores"])
        print(f"{name}: validation accuracy after the last epoch {scores}; best {row['best']} with {row['score']:.4f}")
    return {"rows": rows, "ratios": ratios, "gains": gains, "trials_per_minute": per_minute}
