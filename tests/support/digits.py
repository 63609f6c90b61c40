"""A small data set in the ways in which people publish data."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mnist_tuner.mnist.data import Dataset, load_dataset

Array = npt.NDArray[Any]
TRAIN, TEST = 120, 40


@cache
def digits() -> tuple[Array, Array, Array, Array]:
    """MNIST's first images of each part, with their labels; each digit is in both."""
    mnist = load_dataset()
    return mnist.train_images[:TRAIN], mnist.train_labels[:TRAIN], mnist.test_images[:200:5], mnist.test_labels[:200:5]


def idx(array: Array, code: int = 8, dtype: str = "u1") -> bytes:
    """An IDX file."""
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(dtype).tobytes()


def write(path: Path, content: bytes | str) -> Path:
    """A file, in folders that are made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def idx_files(
    train: str = "train-{}", test: str = "t10k-{}", images: str = "images-idx3-ubyte", labels: str = "labels-idx1-ubyte"
) -> dict[str, bytes]:
    """Four IDX files, by their names."""
    x, y, xt, yt = digits()
    return {
        train.format(images): idx(x),
        train.format(labels): idx(y),
        test.format(images): idx(xt),
        test.format(labels): idx(yt),
    }


def write_all(folder: Path, files: dict[str, bytes]) -> Path:
    """Files in a folder."""
    for name, content in files.items():
        write(folder / name, content)
    return folder


def csv(
    images: Array, labels: Array | None, *, header: bool = True, label: str = "label", first: bool = True, delimiter: str = ","
) -> str:
    """A table with a row for each image."""
    pixels = images.reshape(len(images), -1)
    names = [f"pixel{number}" for number in range(pixels.shape[1])]
    rows = [[f"{value:g}" for value in row] for row in pixels]
    if labels is not None:
        names = [label, *names] if first else [*names, label]
        rows = [[str(each), *row] if first else [*row, str(each)] for each, row in zip(labels, rows, strict=True)]
    return "".join(delimiter.join(row) + "\n" for row in ([names] if header else []) + rows)


def write_pictures(folder: Path, images: Array, labels: Array, suffix: str = ".png") -> Path:
    """A folder of pictures for each class."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{number:04d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def check(dataset: Dataset, *, exact: bool = True) -> Dataset:
    """The data set is `digits`, image by image.

    Args:
        dataset: in any order.
        exact: False where a format loses a little.
    """
    x, y, xt, yt = digits()
    for images, labels, wanted, numbers in (
        (dataset.train_images, dataset.train_labels, x, y),
        (dataset.test_images, dataset.test_labels, xt, yt),
    ):
        assert images.dtype == labels.dtype == np.uint8
        assert images.shape == wanted.shape
        apart = np.abs(images[:, None].astype(int) - wanted[None]).mean(axis=(2, 3))
        order = apart.argmin(axis=1)
        assert sorted(order) == list(range(len(wanted)))
        assert apart.min(axis=1).max() <= (0 if exact else 3)
        np.testing.assert_array_equal(labels, numbers[order])
    return dataset


def check_held_out(dataset: Dataset) -> Dataset:
    """The data set is the training part of `digits`, of which a fifth was held out."""
    x, y, _, _ = digits()
    assert dataset.held_out
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (96, 24)
    together = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    order = np.array([np.flatnonzero((x == image).all(axis=(1, 2)))[0] for image in together])
    assert sorted(order) == list(range(len(x)))
    np.testing.assert_array_equal(labels, y[order])
    return dataset
