"""Data that several test files use."""

from __future__ import annotations

import gc
import gzip
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mnist_tuner import load_dataset
from mnist_tuner.mnist.data import Dataset


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Ctrl-C is heard, also where the tests were started in a shell's background, which has it ignored."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def frozen_imports() -> None:
    """What TensorFlow's import has made stays: not to look through it again and again halves the time of tracing."""
    import keras  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """The graphs of one file's tests are not kept for those of the next; what stays is not looked through again."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def write_idx() -> Callable[..., Path]:
    """Gives ``write_idx(folder, name, array, gz=False)``: it writes an IDX file of unsigned bytes and returns its path."""

    def write(folder: Path, name: str, array: npt.ArrayLike, gz: bool = False) -> Path:
        values = np.asarray(array, np.uint8)
        content = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
        path = folder / (f"{name}.gz" if gz else name)
        path.write_bytes(gzip.compress(content) if gz else content)
        return path

    return write


@pytest.fixture
def small_dataset_folder(tmp_path: Path, write_idx: Callable[..., Path]) -> Path:
    """A folder of four IDX files: 90 training and 30 test images of 7 x 5 pixels in 3 classes, told apart by brightness."""
    folder = tmp_path / "shades"
    folder.mkdir()
    generator = np.random.default_rng(7)
    for part, count in (("train", 90), ("t10k", 30)):
        labels = generator.permutation(np.arange(count) % 3)
        noise = generator.integers(-20, 21, (count, 7, 5))
        write_idx(folder, f"{part}-images-idx3-ubyte", 40 + 80 * labels[:, None, None] + noise)
        write_idx(folder, f"{part}-labels-idx1-ubyte", labels)
    return folder


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    """The embedded MNIST."""
    return load_dataset()
