"""What names say."""

from __future__ import annotations

import pytest

from mnist_tuner.mnist.reading.names import TEST, TRAINING, VALIDATION, Said, counterpart, read_name

NAMES = {
    "train-images-idx3-ubyte.gz": Said(TRAINING, "images", ()),
    "t10k-labels.idx1-ubyte": Said(TEST, "labels", ()),
    "emnist-letters-train-images-idx3-ubyte.gz": Said(TRAINING, "images", ("emnist", "letters")),
    "qmnist-test-labels-idx2-int": Said(TEST, "labels", ("qmnist",)),
    "TRAIN-LABELS-IDX1-UBYTE": Said(TRAINING, "labels", ()),
    "X_train": Said(TRAINING, "images", ()),
    "y_test": Said(TEST, "labels", ()),
    "trainX": Said(TRAINING, "images", ()),
    "xtrain": Said(TRAINING, "images", ()),
    "testlabels": Said(TEST, "labels", ()),
    "val_images": Said(VALIDATION, "images", ()),
    "kmnist-train-imgs.npz": Said(TRAINING, "images", ("kmnist",)),
    "csvTestLabel 10k x 1.csv": Said(TEST, "labels", ()),
    "trainingSample": Said(TRAINING, None, ("sample",)),
    "notMNIST_small": Said(None, None, ("not", "mnist", "small")),
    "train-00000-of-00001-b9a2d3e4f5a6b7c8.parquet": Said(TRAINING, None, ()),
    "FashionMNIST": Said(None, None, ("fashion", "mnist")),
    "target": Said(None, "labels", ()),
    "data": Said(None, "images", ()),
    "emnist-by-class-train-images": Said(TRAINING, "images", ("emnist", "by", "class")),
    "mapping": Said(None, None, ("mapping",)),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_part_kind_and_the_rest(name: str) -> None:
    assert read_name(name) == NAMES[name]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("t10k-labels.idx1-ubyte", "t10k-images.idx3-ubyte"),
        ("x_train", "y_train"),
        ("X_test", "y_test"),
        ("y_train", "x_train"),
        ("val_images", "val_labels"),
        ("train_labels", "train_images"),
    ],
)
def test_the_other_file_of_a_pair_is_known_by_name(name: str, other: str) -> None:
    assert counterpart(name) == other
