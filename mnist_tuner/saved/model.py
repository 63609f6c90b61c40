"""A model that somebody has saved, and what is known of it: from a run's folder, a .keras file, or a checkpoint.

What is wrong with it is said before TensorFlow is loaded; the network itself is read by `network`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.errors import DAMAGES, InputError
from mnist_tuner.reports.comparison import Contestant
from mnist_tuner.reports.report import DataSummary, RunReport, SeedSummary
from mnist_tuner.reports.search import SearchReport
from mnist_tuner.reports.statistics import Estimate, wilson_interval
from mnist_tuner.reports.stored import load_report
from mnist_tuner.startup import load_tensorflow
from mnist_tuner.trainer.files import check_sizes, open_file, parse_json
from mnist_tuner.trainer.live import status

if TYPE_CHECKING:
    import keras
    from rich.console import Console

    from mnist_tuner.mnist.data import Dataset

METADATA = "mnist_tuner.json"
"""In an exported file: what is known of the model."""


@dataclass(frozen=True)
class SavedModel:
    """Where a model is, and what is known of it.

    Attributes:
        path: the file of the model.
        report: of the run that has trained it; None of a file from elsewhere.
        metadata: what an exported file says of itself; empty of others.
    """

    path: Path
    report: RunReport | SearchReport | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> TrainConfig | SearchConfig | None:
        """The run's."""
        return None if self.report is None else self.report.options

    @property
    def data(self) -> DataSummary | None:
        """What it was trained on; None where nobody knows."""
        return None if self.report is None else self.report.data

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of its classes, if they have any."""
        return self.data.class_names if self.data is not None else tuple(self.metadata.get("class_names", ()))

    @property
    def seed(self) -> int | None:
        """Of its training: of several, the first, whose model it is."""
        match self.report:
            case RunReport():
                return self.report.seed
            case SearchReport(net=Contestant() as net):
                return net.seeds[0]
        return None

    @property
    def accuracy(self) -> Estimate | None:
        """The model's own on the test images, with Wilson's 95 % interval."""
        match self.report:
            case RunReport(seeds=None):
                return self.report.accuracy
            case RunReport(seeds=SeedSummary() as seeds):
                value = seeds.trainings[0].accuracy
            case SearchReport(net=Contestant() as net):
                value = net.accuracies[0]
            case _:
                return None
        images = None if self.data is None else self.data.test
        return None if images is None else Estimate(value, *wilson_interval(round(value * images), images))

    def load(self, screen: Console) -> keras.Model:
        """The network. TensorFlow is loaded for it, of which the screen tells meanwhile.

        Raises:
            InputError: it cannot be loaded.
        """
        options, data, is_checkpoint = self.options, self.data, self.path.suffix == ".safetensors"
        if is_checkpoint and (not isinstance(options, TrainConfig) or data is None):
            raise InputError(
                f"{self.path}: outside of a run's folder a checkpoint does not say of what net it is: give a model.keras"
            )
        with status(screen, "loading TensorFlow ..."):
            load_tensorflow(threads=1)
        from mnist_tuner.saved.network import load_checkpoint, load_keras_file

        if not is_checkpoint or not isinstance(options, TrainConfig) or data is None:
            return load_keras_file(self.path)
        return load_checkpoint(self.path, options.hidden, data.image_shape, data.classes, options.precision)

    def load_data(
        self, data: Path | None = None, classes: Path | None = None, split: str | None = None, transpose: bool | None = None
    ) -> Dataset:
        """The data that is asked for; by default the model's own. Of other data without test images, all are test images.

        Args:
            data: see `load_dataset`; None for what the run had, or the embedded MNIST.
            classes: a file of the classes' names; None for the run's, where the data is its own.
            split, transpose: see `load_dataset`; None for the run's, where the data is its own.

        Raises:
            InputError: it cannot be read, or the run's has changed.
        """
        from mnist_tuner.mnist.data import load_dataset

        options, own = self.options, data is None
        if options is not None:
            data = options.data if own else data
            if data == options.data:
                classes = options.classes if classes is None else classes
                split = options.split if split is None else split
                transpose = options.transpose if transpose is None else transpose
        dataset = load_dataset(data, classes, split, bool(transpose))
        before = self.data.sha256 if self.data is not None and own else {}
        if any(dataset.sha256.get(name) != digest for name, digest in before.items()):
            raise InputError(
                f"{data or dataset.name}: the data of the run has changed since; to take it as it is now, give it as --data"
            )
        if dataset.held_out and self.data is not None and _labels(dataset) != _labels(self.data):  # else the same are held out
            if options is not None and data == options.data:
                note = "the data has changed since the training: of the images that are tested on some may have been trained on"
                return replace(dataset, notes=(*dataset.notes, note))
            images = np.concatenate([dataset.train_images, dataset.test_images])
            labels = np.concatenate([dataset.train_labels, dataset.test_labels])
            note = "all of its images are tested on, since none are set apart for a test and the model was trained on other data"
            return replace(dataset, test_images=images, test_labels=labels, held_out=False, notes=(*dataset.notes, note))
        return dataset

    def image_shape(self, network: keras.Model) -> tuple[int, int]:
        """Height and width of the images that the network takes.

        Raises:
            InputError: it takes something else.
        """
        if self.data is not None:
            return self.data.image_shape
        shape = [size for size in network.inputs[0].shape[1:] if size != 1]
        if shape == [784]:
            return 28, 28
        if len(shape) != 2 or None in shape:
            raise InputError(f"{self.path}: takes inputs of the shape {tuple(network.inputs[0].shape[1:])}: expected images")
        return shape[0], shape[1]


def find_model(path: Path) -> SavedModel:
    """A run's folder, a ``.keras`` file, or a checkpoint.

    Raises:
        InputError: there is no such thing there.
    """
    report: RunReport | SearchReport | None
    if path.is_dir():
        report = load_report(path)
        if report.test is None or not (path / "model.keras").exists():
            raise InputError(f"{path}: the run has not come to its end: it has no tested model")
        return SavedModel(path / "model.keras", report)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix not in (".keras", ".safetensors"):
        raise InputError(f"{path}: expected a run's folder, a .keras file, or a .safetensors checkpoint")
    folder = path.parent.parent if path.suffix == ".safetensors" else path.parent
    report = load_report(folder) if (folder / "run.json").exists() else None
    return SavedModel(path, report, _metadata_in(path) if report is None else {})


def _metadata_in(path: Path) -> dict[str, Any]:
    """What an exported ``.keras`` file says of itself."""
    if path.suffix != ".keras":
        return {}
    try:
        with open_file(path) as content, zipfile.ZipFile(content) as file:
            check_sizes(file)
            metadata = parse_json(file.read(METADATA))
    except DAMAGES:  # whether it is damaged, its loading will tell
        return {}
    names = metadata.get("class_names", []) if isinstance(metadata, dict) else []
    sound = isinstance(names, list) and all(isinstance(name, str) and name.isprintable() for name in names)
    return {"class_names": names} if sound else {}


def _labels(data: Dataset | DataSummary) -> dict[str, str]:
    return {name: digest for name, digest in data.sha256.items() if "labels" in name}
