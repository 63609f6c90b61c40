"""MNIST and every data set in its format: the readers of IDX and .npz files, checksums, splits, and the data module."""

from __future__ import annotations

import gzip
import hashlib
import struct
import time
import zipfile
import zlib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.errors import InputError
from mnist_tuner.trainer.data import ArrayLoader, DataModule

if TYPE_CHECKING:
    import tensorflow as tf

UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]

EMBEDDED = Path(__file__).parent / "dataset"
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
IDX_NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

EVALUATION_BATCH_SIZE = 500
"""Validation and test batches: large, since no gradient is taken, and a divisor of MNIST's 10,000."""


@dataclass(frozen=True)
class Dataset:
    """Labelled images in memory.

    Attributes:
        name: what the reports call it.
        train_images, test_images: uint8, shape ``(n, height, width)``.
        train_labels, test_labels: uint8, shape ``(n,)``, from 0 to ``classes - 1``.
        sha256: the SHA-256 of each IDX file's raw (uncompressed) bytes, by the file's name.
        embedded: whether it is the package's own: then it is pickled as a name, since every machine has it.
        class_names: one for each class, or none at all.
    """

    name: str
    train_images: UInt8Array
    train_labels: UInt8Array
    test_images: UInt8Array
    test_labels: UInt8Array
    sha256: dict[str, str]
    embedded: bool = False
    class_names: tuple[str, ...] = ()

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


def read_idx(path: Path, dimensions: int) -> tuple[UInt8Array, str]:
    """Reads one IDX file of unsigned bytes, gzipped if its name ends in ``.gz``.

    The format (http://yann.lecun.com/exdb/mnist/): two zero bytes, a type code (8: unsigned byte), the number of
    dimensions, each dimension as a big-endian uint32, then the values in row-major order.

    Args:
        path: the file.
        dimensions: how many dimensions it must have: 3 for images, 1 for labels.

    Returns:
        The array (uint8, read-only) and the SHA-256 of the file's uncompressed bytes, in hexadecimal.

    Raises:
        InputError: the file is missing, unreadable, not gzip though named so, not IDX, too short or too long.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw, shape = _read_idx_bytes(cast("BinaryIO", file), path, dimensions)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except gzip.BadGzipFile as error:
        raise InputError(f"{path}: not a sound gzip file, although its name ends in .gz ({error})") from None
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path}: the gzip stream is truncated or damaged ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    header = 4 + 4 * dimensions
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape), hashlib.sha256(raw).hexdigest()


def _read_idx_bytes(file: BinaryIO, path: Path, dimensions: int) -> tuple[bytes, tuple[int, ...]]:
    header = file.read(4)
    expected_magic = bytes([0, 0, 8, dimensions])
    if header != expected_magic:
        raise InputError(
            f"{path}: not an IDX file of unsigned bytes in {dimensions} dimension(s): "
            f"its magic number is {header.hex() or 'missing'}, expected {expected_magic.hex()}"
        )
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise InputError(f"{path}: truncated within its header")
    shape = struct.unpack(f">{dimensions}I", sizes)
    expected = 1
    for size in shape:
        expected *= size
    if expected == 0:
        raise InputError(f"{path}: holds no data (its dimensions are {'x'.join(map(str, shape))})")
    # In pieces: a header that promises more than there is must not reserve that much memory.
    pieces, got = [header, sizes], 0
    while got <= expected and (piece := file.read(min(1 << 24, expected + 1 - got))):
        pieces.append(piece)
        got += len(piece)
    if got < expected:
        raise InputError(f"{path}: truncated: {got:,} bytes of data, its header promises {expected:,}")
    if got > expected:
        raise InputError(f"{path}: trailing bytes after the {expected:,} that its header promises")
    return b"".join(pieces), shape


def read_npz(path: Path) -> tuple[dict[str, UInt8Array], dict[str, str]]:
    """Reads a file as Keras distributes MNIST: the arrays x_train, y_train, x_test and y_test.

    Args:
        path: the file. Images are uint8 ``(n, height, width)``, perhaps with a last axis of 1; labels are integers from 0 to 255,
            ``(n,)`` or ``(n, 1)``.

    Returns:
        The four arrays, uint8, by the names of the IDX files that would hold the same, and the SHA-256 that these would have.

    Raises:
        InputError: it is missing, damaged, or holds something else. Arrays of Python objects are never read.
    """
    arrays: dict[str, UInt8Array] = {}
    sha256: dict[str, str] = {}
    try:
        if path.exists() and not zipfile.is_zipfile(path):
            raise InputError(f"{path}: not an .npz file")
        with np.load(path, allow_pickle=False) as file:
            for name, key in zip(IDX_NAMES, ("x_train", "y_train", "x_test", "y_test"), strict=True):
                if key not in file:
                    raise InputError(f"{path}: has no {key}: expected x_train, y_train, x_test and y_test")
                array = file[key]
                if not isinstance(array, np.ndarray):
                    raise InputError(f"{path}: {key} is no array")
                dimensions = 3 if "images" in name else 1
                if array.ndim == dimensions + 1 and array.shape[-1] == 1:
                    array = array[..., 0]
                whole = array.dtype == np.uint8 if dimensions == 3 else np.issubdtype(array.dtype, np.integer)
                if array.ndim != dimensions or not whole or not array.size:
                    expected = "uint8 images (n, height, width)" if dimensions == 3 else "integer labels (n,)"
                    raise InputError(f"{path}: {key} is {array.dtype} of the shape {array.shape}: expected {expected}")
                if array.min() < 0 or array.max() > 255:
                    raise InputError(f"{path}: {key} has labels from {array.min()} to {array.max()}: expected 0 to 255")
                arrays[name] = np.ascontiguousarray(array, np.uint8)
                header = bytes([0, 0, 8, dimensions]) + struct.pack(f">{dimensions}I", *array.shape)
                sha256[name] = hashlib.sha256(header + arrays[name].tobytes()).hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except Exception as error:  # whatever numpy makes of a damaged archive, tokenize's errors among them
        raise InputError(f"{path}: not an .npz file of arrays, or a damaged one ({' '.join(str(error).split())[:200]})") from None
    return arrays, sha256


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


def load_dataset(source: Path | None = None, classes: Path | None = None) -> Dataset:
    """Reads a data set, or the embedded MNIST when none is given.

    Args:
        source: an ``.npz`` file (see `read_npz`), or a folder that holds one, or ``train-images-idx3-ubyte``,
            ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each as it is or with ``.gz``;
            images of one size, labels from 0 to at most 255.
        classes: a file of the classes' names (see `read_class_names`); by default ``classes.txt`` in the folder, if there is one.

    Raises:
        InputError: a file is missing or damaged, or the files contradict each other; the message names the file. For the
            embedded data also: its checksum is not the published one.
    """
    folder = source
    source = EMBEDDED if source is None else source
    if not source.is_dir() and source.suffix != ".npz":
        raise InputError(f"{source}: no such folder of data, nor an .npz file")
    packed = [source] if source.suffix == ".npz" and not source.is_dir() else sorted(source.glob("*.npz"))
    if len(packed) == 1 and not any(source.glob("*-idx?-ubyte*")):
        arrays, sha256 = read_npz(packed[0])
        paths = dict.fromkeys(IDX_NAMES, packed[0])
    else:
        paths = {name: _find(source, name) for name in IDX_NAMES}
        arrays, sha256 = {}, {}
        for name, path in paths.items():
            arrays[name], sha256[name] = read_idx(path, 3 if "images" in name else 1)
    if folder is None:
        _check_published(sha256)
    for images, labels in ((TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)):
        if len(arrays[images]) != len(arrays[labels]):
            raise InputError(
                f"{paths[labels]}: {len(arrays[labels]):,} labels for the {len(arrays[images]):,} images of {paths[images].name}"
            )
    if arrays[TRAIN_IMAGES].shape[1:] != arrays[TEST_IMAGES].shape[1:]:
        sizes = ["x".join(map(str, arrays[name].shape[1:])) for name in (TEST_IMAGES, TRAIN_IMAGES)]
        raise InputError(f"{paths[TEST_IMAGES]}: images of {sizes[0]} pixels, the training images have {sizes[1]}")
    highest, tested = int(arrays[TRAIN_LABELS].max()), int(arrays[TEST_LABELS].max())
    if tested > highest:
        raise InputError(f"{paths[TEST_LABELS]}: label {tested} is out of range: training knows 0 to {highest}")
    if highest == 0:
        raise InputError(f"{paths[TRAIN_LABELS]}: every label is 0; at least two classes are needed")
    if classes is None and source.is_dir() and (source / "classes.txt").exists():
        classes = source / "classes.txt"
    class_names = () if classes is None else read_class_names(classes)
    if class_names and len(class_names) <= highest:
        raise InputError(f"{classes}: {len(class_names)} names, and the labels go up to {highest}")
    return Dataset(
        name="MNIST" if folder is None else source.resolve().name.removesuffix(".npz"),
        train_images=arrays[TRAIN_IMAGES],
        train_labels=arrays[TRAIN_LABELS],
        test_images=arrays[TEST_IMAGES],
        test_labels=arrays[TEST_LABELS],
        sha256=sha256,
        embedded=folder is None and not class_names,
        class_names=class_names,
    )


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise InputError(f"{folder / name}: no such file, with or without .gz")


def _check_published(sha256: dict[str, str]) -> None:
    lines = (EMBEDDED / "SHA256SUMS").read_text().splitlines()
    published = {name: digest for digest, name in map(str.split, lines)}
    for name, digest in sha256.items():
        if digest != published[name]:
            raise InputError(f"{EMBEDDED / name}.gz: not MNIST as published (SHA-256 {digest}); reinstall mnist_tuner")


def stratified_split(labels: UInt8Array, fraction: float, seed: int) -> tuple[IntArray, IntArray]:
    """Splits examples into a training and a validation part with the classes in the same proportions.

    Each class gives its share, rounded by largest remainder, so that the validation part has exactly
    ``round(fraction * n)`` examples. A pure function of its arguments.

    Args:
        labels: uint8, shape ``(n,)``.
        fraction: the validation part's share, 0 <= fraction < 1.
        seed: of the shuffle within each class.

    Returns:
        The indices of both parts, int64, each in ascending order.
    """
    generator = np.random.default_rng([seed, 0x5EED])
    counts = np.bincount(labels)
    shares = counts * fraction
    take = np.floor(shares).astype(np.int64)
    missing = round(fraction * len(labels)) - int(take.sum())
    take[np.argsort(take - shares, kind="stable")[:missing]] += 1
    members = [generator.permutation(np.flatnonzero(labels == label)) for label in range(len(counts))]
    validation = np.sort(np.concatenate([m[:t] for m, t in zip(members, take, strict=True)]))
    training = np.sort(np.concatenate([m[t:] for m, t in zip(members, take, strict=True)]))
    return training, validation


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
        val_fraction: the share of the training images held out for validation, 0 <= fraction < 1; seeded and stratified.
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
        split = split_seed if split_seed is not None else seed or 0
        self.train_indices, self.val_indices = stratified_split(self.dataset.train_labels, val_fraction, split)
        if val_fraction and not (len(self.train_indices) and len(self.val_indices)):
            raise InputError(f"val_fraction is {val_fraction}: of {n:,} images it leaves one part empty")
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
        """The validation part in order; None when no part was held out."""
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
        return MNISTDataModule(dataset, config.batch_size, config.val_fraction, config.seed)
    except InputError as error:
        raise InputError("--" + str(error).replace("_", "-")) from None


def check_data(config: TrainConfig | SearchConfig) -> None:
    """Refuses data that does not exist, before anything is loaded.

    Raises:
        InputError: there is none.
    """
    if config.data is not None and not config.data.is_dir() and not (config.data.suffix == ".npz" and config.data.is_file()):
        raise InputError(f"--data {config.data}: no such folder, nor an .npz file")
    if config.classes is not None and not config.classes.is_file():
        raise InputError(f"--classes {config.classes}: no such file")


def timed_load(config: TrainConfig | SearchConfig) -> tuple[Dataset, float]:
    """The data, and the seconds that reading it took."""
    began = time.perf_counter()
    return load_dataset(config.data, config.classes), time.perf_counter() - began
