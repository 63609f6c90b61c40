"""What is reported of predictions and of a run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mnist_tuner.reports.report import (
    ClassificationReport,
    ClassScore,
    Confusion,
    DataSummary,
    Mistake,
    RunReport,
    SeedResult,
    SeedSummary,
    Timing,
    classification_report,
)
from mnist_tuner.reports.statistics import Estimate
from mnist_tuner.runs import to_json

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 0, 2, 0, 0])
CONFIDENCE = np.array([0.9, 0.9, 0.9, 0.5, 0.9, 0.9, 0.875, 0.9, 0.25, 0.75])


@pytest.fixture
def report() -> ClassificationReport:
    return classification_report(LABELS, PREDICTED, CONFIDENCE, 4, loss=0.125)


@pytest.fixture
def run(report: ClassificationReport) -> RunReport:
    return RunReport(
        command="train",
        status="finished",
        run_dir="runs/1",
        seed=3,
        config={"epochs": 2, "hidden": (100, 100)},
        device="CPU (4 cores)",
        threads=1,
        versions={"python": "3.12.1"},
        parameters=89_610,
        data=DataSummary("MNIST", 54_000, 6_000, 10_000, (28, 28), 10, {"train-images-idx3-ubyte": "ab"}),
        epochs=({"epoch": 1, "loss": 0.5, "seconds": 1.5}, {"epoch": 2, "loss": 0.25, "seconds": 1.0}),
        test=report,
        timing=Timing(import_s=2.0, data_s=0.5, compile_s=0.75, fit_s=3.0, test_s=0.25, total_s=6.0),
    )


def test_a_small_example_has_the_scores_worked_out_by_hand(report: ClassificationReport) -> None:
    assert report.matrix == ((3, 1, 0, 0), (1, 2, 0, 0), (1, 0, 1, 0), (1, 0, 0, 0))
    assert report.classes == (
        ClassScore(0, 4, precision=3 / 6, recall=3 / 4, f1=6 / 10),
        ClassScore(1, 3, precision=2 / 3, recall=2 / 3, f1=4 / 6),
        ClassScore(2, 2, precision=1 / 1, recall=1 / 2, f1=2 / 3),
        ClassScore(3, 1, precision=0.0, recall=0.0, f1=0.0),
    )
    assert (report.correct, report.total, report.loss) == (6, 10, 0.125)
    assert report.wilson95 == pytest.approx((0.3127, 0.8318), abs=5e-5)


def test_the_accuracy_is_the_share_that_was_read_right(report: ClassificationReport) -> None:
    assert report.accuracy == 0.6


def test_a_class_that_neither_occurs_nor_is_predicted_scores_zero_without_a_warning() -> None:
    report = classification_report(np.array([0, 1]), np.array([0, 1]), np.ones(2), 3, loss=0.0)
    assert report.classes[2] == ClassScore(2, 0, 0.0, 0.0, 0.0)


def test_mistakes_come_with_the_most_confident_first(report: ClassificationReport) -> None:
    assert report.mistakes == (
        Mistake(index=6, label=1, predicted=0, confidence=0.875),
        Mistake(index=9, label=3, predicted=0, confidence=0.75),
        Mistake(index=3, label=0, predicted=1, confidence=0.5),
        Mistake(index=8, label=2, predicted=0, confidence=0.25),
    )


def test_the_24_most_confident_mistakes_are_kept_and_equals_stay_in_order() -> None:
    labels, predicted = np.zeros(30, np.int64), np.ones(30, np.int64)
    confidence = np.tile([0.6, 0.9, 0.7, 0.9, 0.8], 6)
    report = classification_report(labels, predicted, confidence, 2, loss=1.0)
    assert [mistake.index for mistake in report.mistakes] == sorted(range(30), key=lambda index: -confidence[index])[:24]


def test_the_five_most_frequent_confusions_come_in_order() -> None:
    counts = {(0, 1): 2, (0, 2): 4, (1, 0): 1, (1, 2): 6, (2, 0): 5, (2, 1): 3, (0, 0): 9}
    pairs = np.repeat(list(counts), list(counts.values()), axis=0)
    labels, predicted = pairs.T
    report = classification_report(labels, predicted, np.full(30, 0.5), 3, loss=1.0)
    assert report.confusions == (
        Confusion(1, 2, 6),
        Confusion(2, 0, 5),
        Confusion(0, 2, 4),
        Confusion(2, 1, 3),
        Confusion(0, 1, 2),
    )


def test_several_trainings_are_taken_together() -> None:
    others = np.array([0, 0, 1, 1, 1, 1, 1, 2, 2, 0])
    alone = [classification_report(LABELS, each, CONFIDENCE, 4, loss=None) for each in (PREDICTED, others)]
    report = classification_report(LABELS, np.stack([PREDICTED, others]), np.stack([CONFIDENCE] * 2), 4, loss=0.25)
    assert report.matrix == tuple(
        tuple(a + b for a, b in zip(*rows, strict=True)) for rows in zip(*(each.matrix for each in alone), strict=True)
    )
    assert report.matrix[0] == (5, 3, 0, 0)
    assert (report.correct, report.total, report.accuracy) == (6 + 7, 20, 0.65)
    assert report.wilson95 is None  # 20 readings of 10 images are not 20 images
    assert report.to_dict()["wilson95"] is None
    assert report.classes[0] == ClassScore(0, 8, precision=5 / 9, recall=5 / 8, f1=10 / 17)
    assert report.confusions[0] == Confusion(0, 1, 3)


def test_a_mistake_that_several_trainings_make_comes_before_a_surer_one_of_a_single_training() -> None:
    labels = np.zeros(4, np.int64)
    predicted = np.array([[1, 1, 2, 0], [1, 0, 1, 0], [1, 0, 1, 0]])
    confidence = np.array([[0.5, 0.99, 0.9, 0.9], [0.4, 0.9, 0.3, 0.9], [0.6, 0.9, 0.4, 0.9]])
    report = classification_report(labels, predicted, confidence, 3, loss=0.5)
    assert [(each.index, each.predicted, each.trainings) for each in report.mistakes] == [(0, 1, 3), (1, 1, 1), (2, 2, 1)]
    assert [each.confidence for each in report.mistakes] == pytest.approx([0.5, 0.99, 0.9])


def test_several_seeds_have_a_mean_a_deviation_and_an_interval_of_their_own(run: RunReport) -> None:
    trainings = tuple(SeedResult(seed, accuracy, 0.1, 2.0, ()) for seed, accuracy in ((3, 0.97), (4, 0.98), (5, 0.99)))
    several = replace(run, seeds=SeedSummary(trainings, Estimate(0.98, 0.955, 1.0)), workers=2)
    assert several.accuracy == Estimate(0.98, 0.955, 1.0)
    document = json.loads(json.dumps(several.to_dict()))
    assert (document["workers"], document["seeds"]["count"], document["seeds"]["mean"]) == (2, 3, 0.98)
    assert document["seeds"]["interval95"] == [0.955, 1.0]
    assert document["seeds"]["sd"] == pytest.approx(0.01)
    assert document["seeds"]["trainings"][1] == {"seed": 4, "accuracy": 0.98, "loss": 0.1, "seconds": 2.0, "epochs": []}
    assert run.accuracy is not None
    assert run.test is not None
    assert (run.accuracy.value, (run.accuracy.low, run.accuracy.high)) == (0.6, run.test.wilson95)
    assert replace(run, test=None).accuracy is None


def test_without_mistakes_there_is_nothing_confused() -> None:
    labels = np.array([0, 1, 2, 1], np.uint8)
    report = classification_report(labels, labels, np.ones(4, np.float32), 3, loss=0.5)
    assert (report.confusions, report.mistakes, report.accuracy) == ((), (), 1.0)
    assert report.wilson95 is not None
    assert report.wilson95[1] == 1.0
    assert {score.f1 for score in report.classes} == {1.0}


def test_a_run_becomes_a_json_document_with_every_part(run: RunReport, report: ClassificationReport) -> None:
    document = json.loads(json.dumps(run.to_dict(), allow_nan=False))
    test, scores = document.pop("test"), list(report.classes)
    assert document == {
        "schema_version": 1,
        "command": "train",
        "status": "finished",
        "run_dir": "runs/1",
        "seed": 3,
        "config": {"epochs": 2, "hidden": [100, 100]},
        "device": "CPU (4 cores)",
        "threads": 1,
        "workers": 0,
        "model": {"parameters": 89_610},
        "epochs": [{"epoch": 1, "loss": 0.5, "seconds": 1.5}, {"epoch": 2, "loss": 0.25, "seconds": 1.0}],
        "timing": {
            "import_s": 2.0,
            "data_s": 0.5,
            "compile_s": 0.75,
            "fit_s": 3.0,
            "test_s": 0.25,
            "total_s": 6.0,
        },
        "versions": {"python": "3.12.1"},
        "data": {
            "name": "MNIST",
            "train": 54_000,
            "validation": 6_000,
            "test": 10_000,
            "image_shape": [28, 28],
            "classes": 10,
            "sha256": {"train-images-idx3-ubyte": "ab"},
            "class_names": [],
            "own_validation": False,
            "held_out": False,
            "notes": [],
            "files": [],
        },
        "seeds": None,
        "error": None,
    }
    assert (test["accuracy"], test["correct"], test["total"], test["loss"]) == (0.6, 6, 10, 0.125)
    assert test["wilson95"] == list(report.wilson95)
    assert test["matrix"] == [[3, 1, 0, 0], [1, 2, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]]
    assert test["classes"][0] == {"label": 0, "support": 4, "precision": 0.5, "recall": 0.75, "f1": 0.6}
    assert [entry["label"] for entry in test["classes"]] == [score.label for score in scores]
    assert test["confusions"][0] == {"label": 0, "predicted": 1, "count": 1}
    assert test["mistakes"][0] == {"index": 6, "label": 1, "predicted": 0, "confidence": 0.875, "trainings": 1}


def test_what_a_run_has_not_reached_is_null(run: RunReport) -> None:
    early = replace(run, status="failed", parameters=None, data=None, epochs=(), test=None, timing=None, error="why")
    document = json.loads(json.dumps(early.to_dict(), allow_nan=False))
    assert (document["model"], document["epochs"], document["error"]) == ({"parameters": None}, [], "why")
    assert document["data"] is document["test"] is document["timing"] is None


def test_a_loss_that_is_not_finite_becomes_null_in_the_file(run: RunReport, report: ClassificationReport) -> None:
    document = json.loads(to_json(replace(run, test=replace(report, loss=float("nan"))).to_dict()))
    assert document["test"]["loss"] is None
    assert document["test"]["accuracy"] == 0.6
