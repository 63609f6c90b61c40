"""What is odd about data is said, and what is not odd is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mnist_tuner.mnist.data import Dataset
from mnist_tuner.mnist.reading.oddities import _hashes, oddities

Array = npt.NDArray[Any]


def said(mnist: Dataset, train: Array | None = None, labels: Array | None = None, **changes: Any) -> list[str]:
    """What is said of 2,000 digits and 500 other ones, with changes."""
    x, y = mnist.train_images[:2000], mnist.train_labels[:2000]
    test = changes.pop("test", (mnist.test_images[:500], mnist.test_labels[:500]))
    return oddities((x if train is None else train, y if labels is None else labels), test, changes.pop("names", ()), **changes)


def test_of_mnist_there_is_nothing_to_say(mnist: Dataset) -> None:
    train, test = (mnist.train_images, mnist.train_labels), (mnist.test_images, mnist.test_labels)
    assert oddities(train, test, ()) == []


def test_classes_without_images_are_named(mnist: Dataset) -> None:
    y, yt = mnist.train_labels[:2000], mnist.test_labels[:500]
    one_up = said(mnist, labels=y + 1, test=(mnist.test_images[:500], yt + 1))
    assert one_up == ["its labels start at 1: class 0 has no image (labels 1 to 10)"]
    gap = said(mnist, labels=np.where(y == 9, 12, y), test=(mnist.test_images[:500], np.where(yt == 9, 12, yt)))
    assert gap == ["no image of classes 9, 10, 11"]
    named = said(mnist, names=[f"digit {number}" for number in range(11)])
    assert named == ["no image of class digit 10"]


def test_a_class_that_only_one_part_has_is_named(mnist: Dataset) -> None:
    x, y, xt, yt = mnist.train_images[:2000], mnist.train_labels[:2000], mnist.test_images[:500], mnist.test_labels[:500]
    assert said(mnist, x[y != 4], y[y != 4]) == ["no training image of class 4, of which there are test images"]
    assert said(mnist, test=(xt[yt != 4], yt[yt != 4])) == ["no test image of class 4"]
    few = np.flatnonzero((y != 7) | (np.cumsum(y == 7) <= 9))
    assert said(mnist, x[few], y[few]) == ["fewer than 10 training images of class 7"]
    ten = np.flatnonzero((y != 7) | (np.cumsum(y == 7) <= 10))
    assert said(mnist, x[ten], y[ten]) == []


def test_dark_ink_on_light_is_noticed(mnist: Dataset) -> None:
    assert said(mnist, 255 - mnist.train_images[:2000]) == ["dark on light: most of its pixels are light"]


def test_digits_that_are_transposed_are_noticed_whatever_they_are_called(mnist: Dataset) -> None:
    x = mnist.train_images[:2000].swapaxes(1, 2)
    (note,) = said(mnist, x)
    assert "--transpose" in note


def test_letters_are_said_to_be_transposed_where_they_are_called_emnist_and_are_wide(mnist: Dataset) -> None:
    x, y = mnist.train_images[:2000], mnist.train_labels[:2000] + 1
    test = mnist.test_images[:500], mnist.test_labels[:500] + 1
    assert any("--transpose" in note for note in said(mnist, x.swapaxes(1, 2), y, test=test, emnist=True))
    assert not any("--transpose" in note for note in said(mnist, x.swapaxes(1, 2), y, test=test))
    assert not any("--transpose" in note for note in said(mnist, x, y, test=test, emnist=True))


def test_images_that_both_parts_have_are_counted(mnist: Dataset) -> None:
    xt = mnist.test_images[:500].copy()
    xt[:3] = mnist.train_images[[5, 9, 5]]
    (note,) = said(mnist, test=(xt, mnist.test_labels[:500]))
    assert note == "3 of the 500 test images are among the training images, too"
    near = mnist.train_images[:2000].copy()
    near[:, 14, 14] ^= 1
    assert said(mnist, test=(near[:500], mnist.train_labels[:500])) == []


@pytest.mark.parametrize("shape", [(28, 28), (7, 5), (1, 3)])
def test_images_that_differ_in_a_single_bit_have_different_hashes(shape: tuple[int, int]) -> None:
    size = shape[0] * shape[1]
    images = np.zeros((8 * size + 1, size), np.uint8)
    for bit in range(8 * size):
        images[bit + 1, bit // 8] = 1 << bit % 8
    assert len(np.unique(_hashes(images.reshape(-1, *shape)))) == len(images)
