"""Where the embedded MNIST lies, and how its files are called."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_tuner.mnist.reading.idx import read_idx

EMBEDDED = Path(__file__).parents[1] / "dataset"
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
IDX_NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
VALIDATION_IMAGES, VALIDATION_LABELS = "validation-images-idx3-ubyte", "validation-labels-idx1-ubyte"
"""What checksums call the arrays of a validation set, which MNIST has none of."""


@cache
def digit_means() -> npt.NDArray[np.float64]:
    """The mean test image of each digit, float64 ``(10, 28, 28)``."""
    images, labels = read_idx(EMBEDDED / f"{TEST_IMAGES}.gz", 3)[0], read_idx(EMBEDDED / f"{TEST_LABELS}.gz", 1)[0]
    return np.array([images[labels == digit].mean(axis=0) for digit in range(10)])
