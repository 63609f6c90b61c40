"""What is reported of a run, as frozen dataclasses. The console, JSON and HTML are three renderings of them."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import MinLen, Predicate

from mnist_tuner.config import TrainConfig
from mnist_tuner.reports.statistics import Count, Estimate, Finite, Positive, Share, confusion_matrix, wilson_interval

if TYPE_CHECKING:
    from mnist_tuner.mnist.data import MNISTDataModule

SCHEMA_VERSION = 1
Status = Literal["running", "finished", "interrupted", "failed"]
Epochs = tuple[dict[str, Count | Finite | None], ...]
MOST_MISTAKES = 24


@dataclass(frozen=True)
class ClassScore:
    """How one class fared. Precision, recall and F1 are between 0 and 1; 0 where they are not defined."""

    label: Count
    support: Count
    precision: Share
    recall: Share
    f1: Share


@dataclass(frozen=True)
class Confusion:
    """A pair of classes: how often the one was read as the other."""

    label: Count
    predicted: Count
    count: Count


@dataclass(frozen=True)
class Mistake:
    """An image that was read wrong. `confidence` is the softmax of the logits at the class that was read; where the net was
    trained several times, the mean over the `trainings` that read it so."""

    index: Count
    label: Count
    predicted: Count
    confidence: Share
    trainings: Count = 1


@dataclass(frozen=True)
class ClassificationReport:
    """How good a net is on a set of labelled images: one training of it, or several taken together.

    Attributes:
        correct, total: images; each counts once for each training.
        loss: the mean.
        wilson95: Wilson's 95 % interval of the accuracy; None of several trainings, which are no independent images.
        classes: one score per class.
        matrix: row = true class, column = what it was read as.
        confusions: the most frequent off-diagonal pairs.
        mistakes: the most confident ones.
    """

    correct: Count
    total: Positive
    loss: Finite | None
    wilson95: tuple[Finite, Finite] | None
    classes: tuple[ClassScore, ...]
    matrix: Annotated[tuple[tuple[Count, ...], ...], MinLen(2)]
    confusions: tuple[Confusion, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def accuracy(self) -> float:
        """The share of the images that was read right."""
        return self.correct / self.total

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"accuracy": self.accuracy, **asdict(self), "wilson95": list(self.wilson95) if self.wilson95 else None}


def classification_report(
    labels: npt.NDArray[np.integer[Any]],
    predicted: npt.NDArray[np.integer[Any]],
    confidence: npt.NDArray[np.floating[Any]],
    classes: int,
    loss: float | None,
) -> ClassificationReport:
    """Judges predictions.

    Args:
        labels: integers, shape ``(n,)``.
        predicted: integers, shape ``(n,)``, or ``(trainings, n)``.
        confidence: of what was predicted, of the same shape.
        classes: how many there are.
        loss: the mean loss, as the trainer measured it.
    """
    predicted, confidence = np.atleast_2d(predicted), np.atleast_2d(confidence)
    trainings = len(predicted)
    matrix = confusion_matrix(np.tile(labels, trainings), predicted.ravel(), classes)
    hits, support, read = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    recall = hits / np.maximum(support, 1)
    precision = hits / np.maximum(read, 1)
    f1 = 2 * hits / np.maximum(support + read, 1)
    off = matrix - np.diag(hits)
    pairs = np.argsort(-off, axis=None, kind="stable")[:5]
    return ClassificationReport(
        correct=int(hits.sum()),
        total=predicted.size,
        loss=loss,
        wilson95=wilson_interval(int(hits.sum()), len(labels)) if trainings == 1 else None,
        classes=tuple(
            ClassScore(label, int(support[label]), float(precision[label]), float(recall[label]), float(f1[label]))
            for label in range(classes)
        ),
        matrix=tuple(tuple(int(count) for count in row) for row in matrix),
        confusions=tuple(
            Confusion(int(pair // classes), int(pair % classes), int(off.flat[pair])) for pair in pairs if off.flat[pair]
        ),
        mistakes=_worst(labels, predicted, confidence, classes),
    )


def _worst(
    labels: npt.NDArray[np.integer[Any]],
    predicted: npt.NDArray[np.integer[Any]],
    confidence: npt.NDArray[np.floating[Any]],
    classes: int,
) -> tuple[Mistake, ...]:
    """The images that most trainings read wrong with most confidence: each with the class that it was then read as."""
    training, image = np.nonzero(predicted != labels)
    read = predicted[training, image].astype(np.int64)
    place = image * classes + read
    weight = np.bincount(place, confidence[training, image].astype(np.float64), minlength=len(labels) * classes)
    count = np.bincount(place, minlength=len(labels) * classes)
    strongest = weight.reshape(-1, classes).argmax(axis=1) + classes * np.arange(len(labels))
    order = np.argsort(-weight[strongest], kind="stable")[:MOST_MISTAKES]
    return tuple(
        Mistake(int(i), int(labels[i]), int(at % classes), float(weight[at] / count[at]), int(count[at]))
        for i, at in zip(order, strongest[order], strict=True)
        if count[at]
    )


@dataclass(frozen=True)
class DataSummary:
    """The data of a run. See `Dataset`; `own_validation` says that the validation images came with the data."""

    name: str
    train: Count
    validation: Count
    test: Count
    image_shape: tuple[Positive, Positive]
    classes: Positive
    sha256: dict[str, str]
    class_names: tuple[Annotated[str, Predicate(str.isprintable)], ...] = ()
    own_validation: bool = False
    held_out: bool = False
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def test_images(self) -> str:
        """How many test images, and where they are from, if they did not come with the data."""
        return f"{self.test:,} test images" + (f" {HELD_OUT}" if self.held_out else "")


HELD_OUT = "held out of the training images"


def summarize(data: MNISTDataModule) -> DataSummary:
    """What the report says of the data."""
    dataset = data.dataset
    return DataSummary(
        name=dataset.name,
        train=len(data.train_indices),
        validation=len(data.val_indices),
        test=len(dataset.test_labels),
        image_shape=dataset.image_shape,
        classes=dataset.classes,
        sha256=dataset.sha256,
        class_names=dataset.class_names,
        own_validation=dataset.val_labels is not None,
        held_out=dataset.held_out,
        notes=dataset.notes,
        files=dataset.files,
    )


@dataclass(frozen=True)
class Timing:
    """Seconds. `data_s` passes while TensorFlow is imported; `fit_s` is the whole of `Trainer.fit`, `compile_s` within it.

    Of several trainings `import_s` is the start of the workers, `fit_s` lasts from the first training's beginning to the last
    one's end, tests included, and `compile_s` and `test_s` are None.
    """

    import_s: Finite
    data_s: Finite
    compile_s: Finite | None
    fit_s: Finite
    test_s: Finite | None
    total_s: Finite


@dataclass(frozen=True)
class SeedResult:
    """One of several trainings of the same net.

    Attributes:
        seed: of its first weights and the order of its images.
        accuracy, loss: on the test images.
        seconds: it took, the test included.
        epochs: as in `RunReport`.
    """

    seed: Count
    accuracy: Share
    loss: Finite | None
    seconds: Finite
    epochs: Epochs


@dataclass(frozen=True)
class SeedSummary:
    """What several trainings of the same net came to.

    Attributes:
        trainings: in the order of their seeds.
        mean: the mean accuracy with its 95 % interval, which counts seeds and images both.
    """

    trainings: Annotated[tuple[SeedResult, ...], MinLen(2)]
    mean: Estimate

    @property
    def sd(self) -> float:
        """The accuracies' sample standard deviation."""
        return statistics.stdev(training.accuracy for training in self.trainings)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "count": len(self.trainings),
            "mean": self.mean.value,
            "sd": self.sd,
            "interval95": [self.mean.low, self.mean.high],
            "trainings": [asdict(training) for training in self.trainings],
        }


@dataclass(frozen=True)
class RunReport:
    """A run of ``train``.

    Attributes:
        status: "running", "finished", "interrupted" or "failed".
        stopped: why the training ended before its last epoch, where it was meant to; else None.
        config: the options, by name.
        parameters: the model's, once it is built.
        epochs: one dict per finished epoch: epoch (from 1), the metrics, seconds; empty where there are several trainings.
        test: None until the model has been tested; of several trainings together.
        seeds: where the net was trained with several.
        workers: the processes in which it was; 0 for the command's own.
    """

    command: str
    status: Status
    run_dir: str
    seed: Count
    config: dict[str, Any]
    device: str
    threads: Count
    versions: dict[str, str]
    parameters: Count | None = None
    data: DataSummary | None = None
    epochs: Epochs = ()
    test: ClassificationReport | None = None
    seeds: SeedSummary | None = None
    workers: Count = 0
    timing: Timing | None = None
    stopped: str | None = None
    error: str | None = None

    @property
    def options(self) -> TrainConfig:
        """`config`, checked."""
        return TrainConfig.from_dict(self.config)

    @property
    def units(self) -> tuple[int, ...]:
        """The hidden layers' widths."""
        return tuple(self.config["hidden"])

    @property
    def accuracy(self) -> Estimate | None:
        """On the test images, with its 95 % interval; None until the test."""
        if self.seeds is not None:
            return self.seeds.mean
        if self.test is None or self.test.wilson95 is None:
            return None
        return Estimate(self.test.accuracy, *self.test.wilson95)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document; README.md in this folder has its schema."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": self.command,
            "status": self.status,
            "run_dir": self.run_dir,
            "seed": self.seed,
            "config": self.config,
            "device": self.device,
            "threads": self.threads,
            "workers": self.workers,
            "model": {"parameters": self.parameters},
            "epochs": list(self.epochs),
            "test": None if self.test is None else self.test.to_dict(),
            "seeds": None if self.seeds is None else self.seeds.to_dict(),
            "timing": None if self.timing is None else asdict(self.timing),
            "versions": self.versions,
            "data": None if self.data is None else asdict(self.data),
            "error": self.error,
            **({"stopped": self.stopped} if self.stopped else {}),
        }


@dataclass(frozen=True)
class Evaluation:
    """A test of a saved model.

    Attributes:
        model: its file.
        data: the name of the data.
        class_names: one for each class, or none at all.
        test: the result.
        held_out, notes: as in `DataSummary`.
    """

    model: str
    data: str
    class_names: tuple[str, ...]
    test: ClassificationReport
    held_out: bool = False
    notes: tuple[str, ...] = ()

    @property
    def accuracy(self) -> Estimate:
        """On the test images, with Wilson's 95 % interval."""
        assert self.test.wilson95 is not None
        return Estimate(self.test.accuracy, *self.test.wilson95)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document; README.md in this folder has its schema."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "evaluate",
            "model": self.model,
            "data": self.data,
            "class_names": list(self.class_names),
            "test": self.test.to_dict(),
            "held_out": self.held_out,
            "notes": list(self.notes),
        }
