"""Data sets, the embedded MNIST among them, and the data module. How they are found and read is in `reading`."""

from __future__ import annotations

import hashlib
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from mnist_tuner.config import NEEDS_VALIDATION, SearchConfig, TrainConfig
from mnist_tuner.errors import InputError
from mnist_tuner.mnist.reading.embedded import (
    EMBEDDED,
    IDX_NAMES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    VALIDATION_IMAGES,
    VALIDATION_LABELS,
)
from mnist_tuner.mnist.reading.finding import find, read
from mnist_tuner.mnist.reading.forms import class_numbers, grey_levels
from mnist_tuner.mnist.reading.idx import checksum, read_idx
from mnist_tuner.mnist.reading.names import TEST, TRAINING, VALIDATION
from mnist_tuner.mnist.reading.oddities import oddities
from mnist_tuner.mnist.reading.splits import stratified_split
from mnist_tuner.trainer.data import ArrayLoader, DataModule

if TYPE_CHECKING:
    import tensorflow as tf

UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]

HELD_OUT = 0.2
"""The share of the training images that are the test images, where none came with the data."""
EVALUATION_BATCH_SIZE = 500
"""Validation and test batches: large, since no gradient is taken, and a divisor of MNIST's 10,000."""


@dataclass(frozen=True)
class Dataset:
    """Labelled images in memory.

    Attributes:
        name: what the reports call it.
        train_images, test_images: uint8, shape ``(n, height, width)``.
        train_labels, test_labels: uint8, shape ``(n,)``, from 0 to ``classes - 1``.
        sha256: the SHA-256 of each array as the bytes of an IDX file, by the name that MNIST's has.
        embedded: whether it is the package's own: then it is pickled as a name, since every machine has it.
        class_names: one for each class, or none at all.
        val_images, val_labels: a validation set that came with the data, as the others.
        held_out: whether the test images were taken from the training images, since none came with the data.
        notes: what was done to the data, and what is odd about it, in sentences.
        files: which were read.
    """

    name: str
    train_images: UInt8Array
    train_labels: UInt8Array
    test_images: UInt8Array
    test_labels: UInt8Array
    sha256: dict[str, str]
    embedded: bool = False
    class_names: tuple[str, ...] = ()
    val_images: UInt8Array | None = None
    val_labels: UInt8Array | None = None
    held_out: bool = False
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __reduce__(self) -> Any:
        if self.embedded:
            return load_dataset, ()
        return Dataset, tuple(getattr(self, field.name) for field in fields(self))

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return cast("tuple[int, int]", self.train_images.shape[1:])

    @cached_property
    def classes(self) -> int:
        """The number of classes: of their names, where they have any; else the largest training label plus one."""
        return len(self.class_names) or int(self.train_labels.max()) + 1


def read_class_names(path: Path) -> tuple[str, ...]:
    """Reads the classes' names: a text file, one name a line, in the order of the labels.

    Raises:
        InputError: it cannot be read, is no text, or has empty or equal lines.
    """
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text in UTF-8") from None
    if not 2 <= len(names) <= 256 or "" in names or len(set(names)) < len(names) or any(not n.isprintable() for n in names):
        raise InputError(f"{path}: expected the names of 2 to 256 classes, one a line, none empty and no two alike")
    return names


def load_dataset(
    source: Path | None = None, classes: Path | None = None, split: str | None = None, transpose: bool = False
) -> Dataset:
    """Reads a data set, or the embedded MNIST when none is given.

    Args:
        source: a folder, an archive or a file: IDX files, ``.npz`` or ``.npy``, CSV, Parquet, or a folder of pictures for each
            class, in any of the ways in which people publish them (see README.md in this folder); images of one size, up to 256
            classes.
        classes: a file of the classes' names (see `read_class_names`); by default ``classes.txt`` in the folder, if there is one.
        split: which, where there are several data sets, as EMNIST's letters.
        transpose: whether the images' rows and columns change places, as EMNIST's must to be upright.

    Raises:
        InputError: a file is missing or damaged, the files contradict each other, or it cannot be told what they mean; the
            message names the file. For the embedded data also: its checksum is not the published one.
    """
    if classes is None and source is not None and (source / "classes.txt").is_file():
        classes = source / "classes.txt"
    names = () if classes is None else read_class_names(classes)
    if source is None:
        if split is not None:
            raise InputError(f"--split {split}: the embedded MNIST is one data set: give --data as well")
        return _embedded(classes, names, transpose)
    notes: list[str] = []
    with ExitStack() as stack:
        found = find(source, split, stack)
        images, labels, own_names, files, odd = read(found)
    grey = grey_levels(images, notes, transpose=transpose)
    numbers, word_names = class_numbers(labels, names)  # may be words of their own
    validated = VALIDATION in grey
    _check_labels(numbers, {part: labels[part].at for part in grey}, bool(word_names))
    del images
    own_names = word_names or (own_names if len(own_names) > numbers[TRAINING].max() else ())
    _check_names(classes, names, numbers)
    held_out = TEST not in grey
    if held_out:
        _hold_out(grey, numbers, source)
    name = source.resolve().name
    name = re.sub(r"(\.(npz|npy|csv|tsv|parquet|zip|tgz|tar|gz|bz2|xz))+$", "", name, flags=re.IGNORECASE) or name
    emnist = "emnist" in " ".join((name, *files)).lower() and not transpose
    names = names or own_names
    train, test = (grey[TRAINING], numbers[TRAINING]), (grey[TEST], numbers[TEST])
    kept = (
        (TRAINING, TRAIN_IMAGES, TRAIN_LABELS),
        (TEST, TEST_IMAGES, TEST_LABELS),
        (VALIDATION, VALIDATION_IMAGES, VALIDATION_LABELS),
    )
    return Dataset(
        name=name if split is None else f"{name}-{split}",
        train_images=train[0],
        train_labels=train[1],
        test_images=test[0],
        test_labels=test[1],
        sha256={
            key: checksum(arrays[part])
            for part, *keys in kept
            if part in grey
            for key, arrays in zip(keys, (grey, numbers), strict=True)
        },
        class_names=names,
        val_images=grey[VALIDATION] if validated else None,
        val_labels=numbers[VALIDATION] if validated else None,
        held_out=held_out,
        notes=(*notes, *odd, *oddities(train, test, names, emnist=emnist)),
        files=tuple(files),
    )


def _embedded(classes: Path | None, names: tuple[str, ...], transpose: bool) -> Dataset:
    arrays: dict[str, UInt8Array] = {}
    sha256: dict[str, str] = {}
    for key in IDX_NAMES:
        arrays[key], sha256[key] = read_idx(EMBEDDED / f"{key}.gz", 3 if "images" in key else 1)
    _check_published(sha256)
    _check_names(classes, names, {TRAINING: arrays[TRAIN_LABELS]})
    if transpose:
        raise InputError("--transpose: the embedded MNIST is upright: give --data as well")
    images, labels, test_images, test_labels = (arrays[key] for key in IDX_NAMES)
    return Dataset("MNIST", images, labels, test_images, test_labels, sha256, embedded=not names, class_names=names)


def _check_labels(numbers: dict[str, UInt8Array], at: dict[str, str], named: bool) -> None:
    """Whether training knows the classes of the other parts.

    Raises:
        InputError: they do not.
    """
    highest = int(numbers[TRAINING].max())
    for part, labels in numbers.items():
        if (most := int(labels.max())) > highest and not named:
            raise InputError(f"{at[part]}: label {most} is out of range: training knows 0 to {highest}")
    if len(np.unique(numbers[TRAINING])) < 2:
        raise InputError(f"{at[TRAINING]}: every label is {highest}; at least two classes are needed")


def _check_names(classes: Path | None, names: tuple[str, ...], numbers: dict[str, UInt8Array]) -> None:
    highest = max(int(labels.max()) for labels in numbers.values())
    if names and len(names) <= highest:
        raise InputError(f"{classes}: {len(names)} names, and the labels go up to {highest}")


def _hold_out(grey: dict[str, UInt8Array], numbers: dict[str, UInt8Array], source: Path) -> None:
    """Takes the test images from the training images: the same ones whatever the seed, so that runs can be compared."""
    kept, taken = stratified_split(numbers[TRAINING], HELD_OUT, seed=0)
    left = np.isin(numbers[TRAINING][taken], numbers[TRAINING][kept])  # of each class one is trained on, at least
    kept, taken = np.sort(np.concatenate([kept, taken[~left]])), taken[left]
    if not len(taken):
        raise InputError(f"{source}: {len(kept)} images, and no test images: too few to hold some out")
    for arrays in (grey, numbers):
        arrays[TEST], arrays[TRAINING] = arrays[TRAINING][taken], arrays[TRAINING][kept]


def _check_published(sha256: dict[str, str]) -> None:
    lines = (EMBEDDED / "SHA256SUMS").read_text().splitlines()
    published = {name: digest for digest, name in map(str.split, lines)}
    for name, digest in sha256.items():
        if digest != published[name]:
            raise InputError(f"{EMBEDDED / name}.gz: not MNIST as published (SHA-256 {digest}); reinstall mnist_tuner")


def scale_pixels(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Grey values 0 to 255 (uint8) to 0 to 1 (float32), within the compiled graph; labels stay as they are.

    A multiplication on purpose: in a graph ``x / 255`` becomes one too, and differs from numpy's division in the last bit.
    """
    import tensorflow as tf

    return tf.cast(image, tf.float32) * np.float32(1 / 255), label


class MNISTDataModule(DataModule):
    """MNIST, or any data set in its format, as the trainer takes it.

    Args:
        dataset: the data; None for the embedded MNIST.
        batch_size: training images per optimizer step.
        val_fraction: the share of the training images held out for validation, 0 <= fraction < 1; seeded and stratified. Where
            a validation set came with the data, that is used instead.
        seed: of the split and of the order of the training images.
        split_seed: of the split alone, where the order is to follow from `seed_everything`.

    Raises:
        InputError: the batch size or the fraction does not fit the data.
    """

    def __init__(
        self,
        dataset: Dataset | None = None,
        batch_size: int = 32,
        val_fraction: float = 0.0,
        seed: int | None = None,
        split_seed: int | None = None,
    ) -> None:
        self.dataset = load_dataset() if dataset is None else dataset
        self.batch_size = batch_size
        self.seed = seed
        n = len(self.dataset.train_labels)
        if not 0 <= val_fraction < 1:
            raise InputError(f"val_fraction is {val_fraction}: expected 0 <= fraction < 1")
        if self.dataset.val_labels is not None:
            val_fraction = 0.0
        split = split_seed if split_seed is not None else seed or 0
        self.train_indices, self.val_indices = stratified_split(self.dataset.train_labels, val_fraction, split)
        if val_fraction and not (len(self.train_indices) and len(self.val_indices)):
            raise InputError(f"val_fraction is {val_fraction}: of {n:,} images it leaves one part empty")
        if self.dataset.val_labels is not None:
            self.val_indices = np.arange(len(self.dataset.val_labels))
        if not 1 <= batch_size <= len(self.train_indices):
            raise InputError(f"batch_size is {batch_size:,}: expected 1 to {len(self.train_indices):,}, the training images")

    def fingerprint(self) -> dict[str, Any]:
        """What tells it from another one: checksums, the validation part, batch size and seed."""
        split = hashlib.sha256(self.val_indices.tobytes()).hexdigest()
        return {**self.dataset.sha256, "validation": split, "batch_size": self.batch_size, "seed": self.seed}

    def train_dataloader(self) -> ArrayLoader:
        """Shuffled batches of the training part."""
        return self._loader(self.dataset.train_images, self.dataset.train_labels, self.train_indices, shuffle=True)

    def val_dataloader(self) -> ArrayLoader | None:
        """The validation part in order; None when there is none."""
        if self.dataset.val_images is not None and self.dataset.val_labels is not None:
            return self._loader(self.dataset.val_images, self.dataset.val_labels)
        if not len(self.val_indices):
            return None
        return self._loader(self.dataset.train_images, self.dataset.train_labels, self.val_indices)

    def test_dataloader(self) -> ArrayLoader:
        """The test images in order."""
        return self._loader(self.dataset.test_images, self.dataset.test_labels)

    def predict_dataloader(self) -> ArrayLoader:
        """The test images in order."""
        return self.test_dataloader()

    def _loader(
        self, images: UInt8Array, labels: UInt8Array, indices: IntArray | None = None, shuffle: bool = False
    ) -> ArrayLoader:
        return ArrayLoader(
            images,
            labels,
            indices=indices if indices is None or len(indices) < len(labels) else None,
            batch_size=self.batch_size if shuffle else EVALUATION_BATCH_SIZE,
            shuffle=shuffle,
            seed=self.seed,
            transform=scale_pixels,
        )


def data_module(config: TrainConfig, dataset: Dataset) -> MNISTDataModule:
    """The data as the options want it.

    Raises:
        InputError: they do not fit the data.
    """
    try:
        data = MNISTDataModule(dataset, config.batch_size, config.val_fraction, config.seed)
    except InputError as error:
        raise InputError("--" + str(error).replace("_", "-")) from None
    if config.early_stopping is not None and not len(data.val_indices):
        raise InputError(NEEDS_VALIDATION)
    return data


def check_data(config: TrainConfig | SearchConfig) -> None:
    """Refuses data that does not exist, before anything is loaded.

    Raises:
        InputError: there is none.
    """
    if config.data is not None and not config.data.exists():
        raise InputError(f"--data {config.data}: no such file or folder")
    if config.classes is not None and not config.classes.is_file():
        raise InputError(f"--classes {config.classes}: no such file")


def timed_load(config: TrainConfig | SearchConfig) -> tuple[Dataset, float]:
    """The data, and the seconds that reading it took."""
    began = time.perf_counter()
    return load_dataset(config.data, config.classes, config.split, config.transpose), time.perf_counter() - began
