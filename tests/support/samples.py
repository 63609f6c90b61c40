"""Reports as runs would make them, from seeded random numbers through the real functions."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.reports.comparison import ComparisonReport, compare, compare_all, contestant
from mnist_tuner.reports.report import (
    ClassificationReport,
    DataSummary,
    RunReport,
    SeedResult,
    SeedSummary,
    Timing,
    classification_report,
)
from mnist_tuner.reports.search import Curve, SearchReport, SearchTiming
from mnist_tuner.reports.statistics import accuracy_interval
from mnist_tuner.runs import RunDirectory
from mnist_tuner.search.trial import TrialSummary
from mnist_tuner.search.versions import WorkerInfo

VERSIONS = {"mnist_tuner": "1.2.3", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.6", "python": "3.12.1"}
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
HOSTILE = """digits <script>alert("1")</script> & 'co' $x^2$ {{ 7 * 7 }} \\ #1b2027"""
"""A folder's name that nobody should have to fear."""

Classes = npt.NDArray[np.uint8]


def truth(classes: int = 10, total: int = 10_000) -> Classes:
    """The labels of the test images, shape ``(total,)``."""
    return np.random.default_rng(classes).integers(0, classes, total).astype(np.uint8)


def read(labels: Classes, accuracies: list[float], seed: int = 0) -> Classes:
    """What trainings with about these accuracies read, shape ``(trainings, n)``. Some images are hard for all of them, and most
    of the wrong readings of an image are the same."""
    classes = int(labels.max()) + 1
    generator = np.random.default_rng(1234)
    hardness, twin = generator.normal(0, 1, len(labels)), generator.integers(1, max(classes, 2), classes)
    generator = np.random.default_rng(seed)
    predicted = np.tile(labels, (len(accuracies), 1))
    for row, accuracy in zip(predicted, accuracies, strict=True):
        trouble = hardness + generator.normal(0, 0.4, len(labels))
        wrong = np.argsort(trouble)[round(accuracy * len(labels)) :]
        other = generator.integers(1, max(classes, 2), len(wrong))
        away = np.where(generator.random(len(wrong)) < 0.6, twin[labels[wrong]], other)
        row[wrong] = (labels[wrong] + away) % classes
    return predicted


def confidence_of(predicted: Classes, seed: int = 0) -> npt.NDArray[np.float32]:
    """Made-up confidences, of the shape of the predictions."""
    return np.random.default_rng(seed).beta(8, 1.2, predicted.shape).astype(np.float32)


def pictures(test: ClassificationReport | None, shape: tuple[int, int] = (28, 28)) -> Classes:
    """Images for the mistakes, uint8 ``(mistakes, *shape)``: rings that are brighter to one side."""
    count = 0 if test is None else len(test.mistakes)
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    generator = np.random.default_rng(5)
    images = np.zeros((count, *shape))
    for image in images:
        a, b, turn = generator.uniform(0.3, 0.7, 3)
        radius = np.hypot((x + 0.4 * y * turn) / a, y / (a + 0.25))
        image[:] = 255 * np.exp(-(((radius - 1) / 0.25) ** 2)) * (x * b + 1).clip(0.1, 1)
    return images.astype(np.uint8)


def epochs_of(count: int, seed: int = 0, *, validation: bool = True, best: float = 0.98) -> tuple[dict[str, float | None], ...]:
    """The metrics of a training that goes well."""
    generator = np.random.default_rng(seed)
    rows = []
    for epoch in range(1, count + 1):
        wobble, more = generator.normal(0, 0.001), generator.normal(0, 0.0015)
        row: dict[str, float | None] = {
            "epoch": epoch,
            "loss": 0.27 / epoch + 0.01 + wobble,
            "accuracy": best + 0.017 - 0.08 / epoch + wobble,
        }
        if validation:
            row |= {"val_loss": 0.06 + 0.1 / epoch + 3 * more, "val_accuracy": best - 0.03 / epoch - more}
        rows.append(row | {"seconds": 0.55 + abs(wobble)})
    return tuple(rows)


def data_summary(name: str = "MNIST", classes: int = 10, validation: int = 6_000) -> DataSummary:
    """The embedded data's, or some with more classes."""
    return DataSummary(
        name, 60_000 - validation, validation, 10_000, (28, 28), classes, {file: f"{i}" * 64 for i, file in enumerate(FILES, 1)}
    )


def test_of(predicted: Classes, labels: Classes, loss: float | None = 0.0821) -> ClassificationReport:
    """The judgement of some predictions."""
    return classification_report(labels, predicted, confidence_of(predicted), int(labels.max()) + 1, loss)


test_of.__test__ = False  # type: ignore[attr-defined]


@cache
def run(classes: int = 10, name: str = "MNIST", epochs: int = 5) -> RunReport:
    """A training."""
    labels = truth(classes)
    config = TrainConfig(epochs=epochs, val_fraction=0.1)
    return RunReport(
        command="train",
        status="finished",
        run_dir="runs/20261122-184100-train-100-100",
        seed=0,
        config=config.to_dict(),
        device="CPU (4 cores)",
        threads=1,
        versions=VERSIONS,
        parameters=89_610,
        data=data_summary(name, classes),
        epochs=epochs_of(epochs),
        test=test_of(read(labels, [0.9753])[0], labels),
        timing=Timing(import_s=3.41, data_s=0.32, compile_s=1.12, fit_s=4.55, test_s=0.21, total_s=8.6),
    )


@cache
def seeds(count: int = 5, epochs: int = 5) -> RunReport:
    """Trainings of one net with several seeds."""
    labels = truth()
    accuracies = np.random.default_rng(3).normal(0.9755, 0.0019, count).tolist()
    predicted = read(labels, accuracies)
    trainings = tuple(
        SeedResult(seed, float(hits), 0.08 + seed / 1000, 3.1 + seed / 10, epochs_of(epochs, seed))
        for seed, hits in enumerate((predicted == labels).mean(axis=1).tolist())
    )
    repeated = SeedSummary(trainings, accuracy_interval(predicted == labels))
    config = TrainConfig(epochs=epochs, seeds=count, val_fraction=0.1)
    return replace(run(), config=config.to_dict(), epochs=(), test=test_of(predicted, labels), seeds=repeated)


def trial(number: int, units: tuple[int, int], scores: tuple[float, ...], *, epochs: int = 5, **more: Any) -> TrialSummary:
    """One that has ended; without scores it failed."""
    first, second = units
    given = {
        "values": {"units_1": first, "units_2": second},
        "status": "completed" if scores else "failed",
        "seeds": tuple(range(1000 * number, 1000 * number + len(scores))),
        "epochs": epochs if scores else 0,
        "parameters": 785 * first + (first + 1) * second + (second + 1) * 10,
        "seconds": 2.5 + (first + second) / 200,
        "worker": "tcp://127.0.0.1:40001",
        "reason": None if scores else "NonFiniteLossError: the loss was not finite at step 17",
    }
    return TrialSummary(trial_id=f"{number:04}", scores=scores, **(given | more))


def trials(count: int, replicates: int = 3, step: int = 32) -> tuple[TrialSummary, ...]:
    """Those of a random search: wider nets are somewhat better; a few fail."""
    generator = np.random.default_rng(count)
    widths = np.arange(32, 513, step)
    places = generator.permutation(len(widths) ** 2)[: count - 1]
    found = [trial(0, (100, 100), tuple(generator.normal(0.9752, 0.0012, replicates).round(6).tolist()))]
    for number, place in enumerate(places.tolist(), 1):
        units = int(widths[place // len(widths)]), int(widths[place % len(widths)])
        mean = 0.984 - 0.35 / units[0] - 0.12 / units[1]
        fails = number % 37 == 20
        found.append(trial(number, units, () if fails else tuple(generator.normal(mean, 0.0012, replicates).round(6).tolist())))
    return tuple(found)


def curve_of(ended: TrialSummary) -> Curve:
    """How a trial came to its scores."""
    epochs = range(1, ended.epochs + 1)
    scores = tuple(tuple(score - 0.03 * (1 / epoch - 1 / ended.epochs) for epoch in epochs) for score in ended.scores)
    return Curve(ended.trial_id, tuple(epochs), scores)


def with_curves(report: SearchReport) -> SearchReport:
    """The same with the curves of the trials that it speaks of."""
    spoken_of = {each.trial_id: each for each in (report.best, report.recommended, report.first) if each and each.completed}
    return replace(report, curves=tuple(map(curve_of, spoken_of.values())))


WORKERS = (
    WorkerInfo("tcp://10.0.0.1:40001", "A processor, avx2", {"python": "3.11.7", "mnist_tuner": "0.1.0"}),
    WorkerInfo("tcp://10.0.0.2:40001", "Another, avx512f", {"python": "3.11.7", "mnist_tuner": "0.1.0"}),
    WorkerInfo("tcp://10.0.0.3:40001", "A processor, avx2", {"python": "3.12.1", "mnist_tuner": None}, "it has no mnist_tuner"),
)


@cache
def unjudged_search(count: int = 100, replicates: int = 3, step: int = 32) -> SearchReport:
    """A search that was interrupted before its comparison."""
    config = SearchConfig(trials=count + 20, replicates=replicates, widths=(32, 512, step))
    space = [
        {"class_name": "Int", "config": {"name": f"units_{i}", "min_value": 32, "max_value": 512, "step": step}} for i in (1, 2)
    ]
    return with_curves(
        SearchReport(
            status="interrupted",
            run_dir="runs/20261122-184100-search-random",
            seed=0,
            config=config.to_dict(),
            device="CPU (4 cores)",
            workers=4,
            versions={**VERSIONS, "keras_tuner": "1.4.8", "distributed": "2026.1.1"},
            space=space,
            total=count + 20,
            data=data_summary(),
            trials=trials(count, replicates, step),
            timing=SearchTiming(start_s=4.1, search_s=312.4, final_s=0.0, total_s=317.0, trials_per_minute=19.2),
        )
    )


@cache
def search(count: int = 100, replicates: int = 3, better: float = 0.0052) -> SearchReport:
    """A search with its comparison.

    Args:
        count: trials.
        replicates: of each.
        better: by how much the winner beats the baseline.
    """
    report, labels, generator = unjudged_search(count, replicates), truth(), np.random.default_rng(8)
    assert report.best is not None
    units = (report.best.values["units_1"], report.best.values["units_2"])
    name = f"{units[0]}-{units[1]}"
    winner, baseline = (read(labels, generator.normal(0.9755 + more, 0.0012, 5).tolist(), 1) for more in (better, 0))
    return replace(
        report,
        status="finished",
        total=count,
        baseline=contestant("100-100", (100, 100), 89_610, (11, 12, 13, 14, 15), labels, baseline),
        winner=contestant(name, units, report.best.parameters, (21, 22, 23, 24, 25), labels, winner),
        comparison=compare((name, "100-100"), labels, (winner, baseline)),
        test=test_of(winner, labels, None),
        timing=SearchTiming(start_s=4.1, search_s=312.4, final_s=41.7, total_s=358.9, trials_per_minute=19.2),
    )


@cache
def comparison(nets: int = 3, trainings: int = 5, names: tuple[str, ...] = ()) -> ComparisonReport:
    """Several runs on the same images."""
    labels, generator = truth(), np.random.default_rng(21)
    names = names or tuple(f"{100 * i}-100" for i in range(1, nets + 1))
    predicted = [read(labels, generator.normal(0.9755 + 0.002 * i, 0.0012, trainings).tolist(), i) for i in range(nets)]
    entries = [
        contestant(name, (100 * i, 100), 89_610 * i, tuple(range(trainings)), labels, row)
        for i, (name, row) in enumerate(zip(names, predicted, strict=True), 1)
    ]
    order = sorted(range(nets), key=lambda i: -entries[i].accuracy.value)
    return ComparisonReport(
        data="MNIST",
        images=len(labels),
        run_dirs=tuple(str(Path("runs", f"20261122-18410{i}-train-{i}")) for i in order),
        contestants=tuple(entries[i] for i in order),
        comparisons=compare_all([names[i] for i in order], labels, [predicted[i] for i in order]),
    )


def written(folder: Path, report: RunReport | SearchReport) -> Path:
    """A run's folder with this report."""
    folder.mkdir(parents=True, exist_ok=True)
    RunDirectory(folder).write_manifest(report.to_dict())
    return folder
