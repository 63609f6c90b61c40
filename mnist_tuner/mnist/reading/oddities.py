"""What is odd about data, in sentences: a report that is silent about it would mislead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
FEW = 10
_SAMPLE = 10_000


def oddities(
    train: tuple[UInt8Array, UInt8Array], test: tuple[UInt8Array, UInt8Array], names: Sequence[str], *, emnist: bool = False
) -> list[str]:
    """What is odd about images, uint8 ``(n, height, width)``, and labels, uint8 ``(n,)``.

    Args:
        train, test: images and labels.
        names: the classes', or none.
        emnist: whether it says that it is EMNIST, which is published with rows and columns exchanged.
    """
    classes = len(names) or int(train[1].max()) + 1
    counts = np.bincount(train[1], minlength=classes)
    tested = np.bincount(test[1], minlength=classes)

    def listed(which: npt.NDArray[np.bool_]) -> str:
        found = [names[label] if names else str(label) for label in np.flatnonzero(which).tolist()]
        word = "class" if len(found) == 1 else "classes"
        return f"{word} {', '.join(found[:8])}" + (f" and {len(found) - 8} more" if len(found) > 8 else "")

    said = []
    empty, unseen = (counts == 0) & (tested == 0), (counts == 0) & (tested > 0)
    if empty[0] and not names and counts[1:].all():
        said.append(f"its labels start at 1: class 0 has no image (labels {train[1].min()} to {train[1].max()})")
    elif empty.any():
        said.append(f"no image of {listed(empty)}")
    if unseen.any():
        said.append(f"no training image of {listed(unseen)}, of which there are test images")
    if (untested := (counts > 0) & (tested == 0)).any():
        said.append(f"no test image of {listed(untested)}")
    if ((counts > 0) & (counts < FEW)).any():
        said.append(f"fewer than {FEW} training images of {listed((counts > 0) & (counts < FEW))}")
    if np.mean(train[0][_spread(len(train[0]))] > 170) > 0.5:
        said.append("dark on light: most of its pixels are light")
    if looks_transposed(*train, emnist=emnist):
        said.append("its images look transposed, as EMNIST's are: --transpose turns them upright")
    if common := int(np.isin(_hashes(test[0]), _hashes(train[0])).sum()):
        said.append(f"{common:,} of the {len(test[0]):,} test images are among the training images, too")
    return said


def _spread(number: int) -> slice:
    return slice(None, None, -(-number // _SAMPLE))


def looks_transposed(images: UInt8Array, labels: UInt8Array, *, emnist: bool) -> bool:
    """Whether rows and columns seem to be exchanged.

    Ten classes of 28 x 28 pixels are compared with MNIST's digits. Of others it is said only where the data calls itself EMNIST:
    handwriting is higher than wide, but clothes and signs need not be.
    """
    some = _spread(len(images))
    images, labels = images[some], labels[some]
    if images.shape[1:] == (28, 28) and np.array_equal(np.unique(labels), np.arange(10)):
        means = np.array([images[labels == label].mean(axis=0) for label in range(10)])
        upright, across = _likeness(means), _likeness(means.swapaxes(1, 2))
        return across > 0.5 and across > upright + 0.1
    ink = images > 127
    heights, widths = (np.count_nonzero(ink.any(axis=axis), axis=1) for axis in (2, 1))
    return emnist and bool(np.mean(widths > heights) > np.mean(heights > widths))


def _likeness(means: npt.NDArray[np.float64]) -> float:
    """How much the mean images of ten classes are like those of MNIST's digits: the mean correlation."""
    from mnist_tuner.mnist.reading.embedded import digit_means

    pairs = zip(means.reshape(10, -1), digit_means().reshape(10, -1), strict=True)
    return float(np.mean([np.corrcoef(a, b)[0, 1] if a.std() else 0 for a, b in pairs]))


def _hashes(images: UInt8Array) -> npt.NDArray[np.uint64]:
    """A number of 64 bits for each image: two that differ have the same one with a chance below 2 ** -40."""
    n, size = len(images), images.shape[1] * images.shape[2]
    generator = np.random.default_rng(0)
    words = -(-size // 8)
    keys = generator.integers(0, 2**64, (2, words), np.uint64, endpoint=False) | np.uint64(1)
    found = np.empty(n, np.uint64)
    padded = np.zeros((min(n, 4096), 8 * words), np.uint8)
    for start in range(0, n, 4096):
        piece = padded[: min(4096, n - start)]
        piece[:, :size] = images[start : start + 4096].reshape(len(piece), -1)
        mixed = piece.view(np.uint64) * keys[0]
        mixed ^= mixed >> np.uint64(32)  # the product's upper half knows all of the word, its lower half does not
        found[start : start + 4096] = (mixed * keys[1]).sum(axis=1, dtype=np.uint64)
    return found
