"""What is reported of a run, as frozen dataclasses. The console and JSON are two renderings of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_tuner.reports.statistics import confusion_matrix, wilson_interval

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ClassScore:
    """How one class fared. Precision, recall and F1 are between 0 and 1; 0 where they are not defined."""

    label: int
    support: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Confusion:
    """A pair of classes: how often the one was read as the other."""

    label: int
    predicted: int
    count: int


@dataclass(frozen=True)
class Mistake:
    """An image that was read wrong. `confidence` is the softmax of the logits at the class that was read."""

    index: int
    label: int
    predicted: int
    confidence: float


@dataclass(frozen=True)
class ClassificationReport:
    """How good a model is on a set of labelled images.

    Attributes:
        correct, total: images.
        loss: the mean.
        wilson95: Wilson's 95 % interval of the accuracy.
        classes: one score per class.
        matrix: row = true class, column = what it was read as.
        confusions: the most frequent off-diagonal pairs.
        mistakes: the most confident ones.
    """

    correct: int
    total: int
    loss: float
    wilson95: tuple[float, float]
    classes: tuple[ClassScore, ...]
    matrix: tuple[tuple[int, ...], ...]
    confusions: tuple[Confusion, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def accuracy(self) -> float:
        """The share of the images that was read right."""
        return self.correct / self.total


def classification_report(
    labels: npt.NDArray[np.integer],
    predicted: npt.NDArray[np.integer],
    probabilities: npt.NDArray[np.floating],
    loss: float,
) -> ClassificationReport:
    """Judges predictions.

    Args:
        labels, predicted: integers, shape ``(n,)``.
        probabilities: shape ``(n, classes)``.
        loss: the mean loss, as the trainer measured it.
    """
    classes = probabilities.shape[1]
    matrix = confusion_matrix(labels, predicted, classes)
    hits, support, read = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    recall = hits / np.maximum(support, 1)
    precision = hits / np.maximum(read, 1)
    f1 = 2 * hits / np.maximum(support + read, 1)
    wrong = np.flatnonzero(labels != predicted)
    confidence = probabilities[np.arange(len(labels)), predicted]
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:6]
    off = matrix - np.diag(hits)
    pairs = np.argsort(-off, axis=None, kind="stable")[:5]
    return ClassificationReport(
        correct=int(hits.sum()),
        total=len(labels),
        loss=float(loss),
        wilson95=wilson_interval(int(hits.sum()), len(labels)),
        classes=tuple(
            ClassScore(label, int(support[label]), float(precision[label]), float(recall[label]), float(f1[label]))
            for label in range(classes)
        ),
        matrix=tuple(tuple(int(count) for count in row) for row in matrix),
        confusions=tuple(
            Confusion(int(pair // classes), int(pair % classes), int(off.flat[pair])) for pair in pairs if off.flat[pair]
        ),
        mistakes=tuple(Mistake(int(i), int(labels[i]), int(predicted[i]), float(confidence[i])) for i in worst),
    )


@dataclass(frozen=True)
class DataSummary:
    """The data of a run. `sha256` is that of each IDX file's raw bytes."""

    name: str
    train: int
    validation: int
    test: int
    image_shape: tuple[int, int]
    classes: int
    sha256: dict[str, str]


@dataclass(frozen=True)
class Timing:
    """Seconds. `data_s` passes while TensorFlow is imported; `fit_s` is the whole of `Trainer.fit`, `compile_s` within it."""

    import_s: float
    data_s: float
    compile_s: float
    fit_s: float
    test_s: float
    total_s: float


@dataclass(frozen=True)
class RunReport:
    """A run of ``train``.

    Attributes:
        status: "running", "finished", "interrupted" or "failed".
        stopped: why the training ended before its last epoch, where it was meant to; else None.
        config: the options, by name.
        parameters: the model's, once it is built.
        epochs: one dict per finished epoch: epoch (from 1), the metrics, seconds.
        test: None until the model has been tested.
    """

    command: str
    status: str
    run_dir: str
    seed: int
    config: dict[str, Any]
    device: str
    threads: int
    versions: dict[str, str]
    parameters: int | None = None
    data: DataSummary | None = None
    epochs: tuple[dict[str, float], ...] = ()
    test: ClassificationReport | None = None
    timing: Timing | None = None
    stopped: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON document; the README has its schema."""
        test = None
        if self.test is not None:
            test = {"accuracy": self.test.accuracy, **asdict(self.test), "wilson95": list(self.test.wilson95)}
        return {
            "schema_version": SCHEMA_VERSION,
            "command": self.command,
            "status": self.status,
            "run_dir": self.run_dir,
            "seed": self.seed,
            "config": self.config,
            "device": self.device,
            "threads": self.threads,
            "model": {"parameters": self.parameters},
            "epochs": list(self.epochs),
            "test": test,
            "timing": None if self.timing is None else asdict(self.timing),
            "versions": self.versions,
            "data": None if self.data is None else asdict(self.data),
            "error": self.error,
            **({"stopped": self.stopped} if self.stopped else {}),
        }
