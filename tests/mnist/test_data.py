"""The IDX reader, the data sets, the split and the data module."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from mnist_tuner.config import TrainConfig
from mnist_tuner.errors import InputError
from mnist_tuner.mnist.data import (
    EMBEDDED,
    EVALUATION_BATCH_SIZE,
    IDX_NAMES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Dataset,
    MNISTDataModule,
    _check_published,
    data_module,
    load_dataset,
    read_idx,
    scale_pixels,
    stratified_split,
)
from tests.support.digits import idx

HEADER = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 3, 4)
ENDLESS_HEADER = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 28)


def refusal(function: Callable[..., object], *arguments: Any) -> str:
    """The message with which an `InputError` refuses a call; it is one line."""
    with pytest.raises(InputError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def write_bytes(folder: Path, content: bytes, gz: bool) -> Path:
    path = folder / ("images.gz" if gz else "images")
    path.write_bytes(gzip.compress(content) if gz else content)
    return path


def test_the_embedded_mnist_has_its_well_known_shapes_and_counts(mnist: Dataset) -> None:
    assert (mnist.train_images.shape, mnist.test_images.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    assert mnist.train_images.dtype == mnist.test_images.dtype == mnist.train_labels.dtype == np.uint8
    assert (mnist.name, mnist.classes, mnist.image_shape) == ("MNIST", 10, (28, 28))
    assert mnist.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(mnist.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_the_embedded_files_have_the_listed_checksums_packed_and_unpacked(mnist: Dataset) -> None:
    lines = [line.split() for line in (EMBEDDED / "SHA256SUMS").read_text().splitlines()]
    listed = {name: digest for digest, name in lines}
    for name in IDX_NAMES:
        packed = (EMBEDDED / f"{name}.gz").read_bytes()
        assert hashlib.sha256(packed).hexdigest() == listed[f"{name}.gz"]
        assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == listed[name] == mnist.sha256[name]


def test_a_changed_checksum_of_the_embedded_data_is_refused_by_the_files_name(mnist: Dataset) -> None:
    _check_published(mnist.sha256)
    message = refusal(_check_published, mnist.sha256 | {TEST_LABELS: "0" * 64})
    assert f"{TEST_LABELS}.gz" in message


@pytest.mark.parametrize("gz", [False, True])
def test_read_idx_gives_the_array_and_the_checksum_of_the_unpacked_bytes(
    tmp_path: Path, write_idx: Callable[..., Path], gz: bool
) -> None:
    images = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    plain = write_idx(tmp_path, "plain", images).read_bytes()
    array, digest = read_idx(write_idx(tmp_path, "images", images, gz=gz), 3)
    np.testing.assert_array_equal(array, images)
    assert array.dtype == np.uint8
    assert not array.flags.writeable
    assert digest == hashlib.sha256(plain).hexdigest()


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "magic number is missing"),
        (HEADER[:3], "magic number is 000008"),
        (b"\x00\x00\x08\x01" + HEADER[4:] + bytes(24), "magic number is 00000801"),
        (b"\x00\x00\x0d\x03" + HEADER[4:] + bytes(96), "magic number is 00000d03"),
        (HEADER[:10], "truncated within its header"),
        (HEADER, "truncated: 0 bytes of data, its header promises 24"),
        (HEADER + bytes(23), "truncated: 23 bytes of data, its header promises 24"),
        (HEADER + bytes(25), "trailing bytes after the 24"),
        (HEADER[:4] + struct.pack(">3I", 0, 28, 28), "holds no data (its dimensions are 0x28x28)"),
        (HEADER[:4] + struct.pack(">3I", 5, 28, 0), "holds no data (its dimensions are 5x28x0)"),
    ],
)
def test_read_idx_refuses_what_is_not_a_whole_idx_file(tmp_path: Path, content: bytes, reason: str, gz: bool) -> None:
    path = write_bytes(tmp_path, content, gz)
    message = refusal(read_idx, path, 3)
    assert message.startswith(f"{path}: ")
    assert reason in message


@pytest.mark.parametrize("gz", [False, True])
def test_a_trailing_byte_is_noticed_behind_data_as_long_as_one_read(tmp_path: Path, gz: bool) -> None:
    content = HEADER[:4] + struct.pack(">3I", 1, 4096, 4096) + bytes(2**24)
    assert read_idx(write_bytes(tmp_path, content, gz), 3)[0].shape == (1, 4096, 4096)
    assert "trailing bytes" in refusal(read_idx, write_bytes(tmp_path, content + b"x", gz), 3)


@pytest.mark.parametrize("gz", [False, True])
def test_a_header_that_promises_too_much_is_refused_without_reserving_the_memory(tmp_path: Path, gz: bool) -> None:
    path = write_bytes(tmp_path, ENDLESS_HEADER + bytes(100), gz)
    tracemalloc.start()
    try:
        message = refusal(read_idx, path, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "truncated: 100 bytes" in message
    assert peak < 64 * 2**20


def test_a_gzip_file_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    path = write_bytes(tmp_path, HEADER + bytes(range(24)), gz=True)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert refusal(read_idx, path, 3).startswith(f"{path}: ")


@pytest.mark.parametrize(("position", "flipped"), [(0, 0xFF), (10, 0x06), (-5, 0xFF)])
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, position: int, flipped: int) -> None:
    path = write_bytes(tmp_path, HEADER + bytes(range(24)), gz=True)
    content = bytearray(path.read_bytes())
    content[position] ^= flipped
    path.write_bytes(content)
    assert refusal(read_idx, path, 3).startswith(f"{path}: ")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_whether_a_file_is_packed_is_told_by_what_it_holds(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / name
    path.write_bytes(pack(HEADER + bytes(range(24))))
    np.testing.assert_array_equal(read_idx(path, 3)[0].ravel(), np.arange(24))


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_a_missing_file_and_a_folder_in_its_place_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert refusal(read_idx, path, 3) == f"{path}: no such file"
    path.mkdir()
    assert refusal(read_idx, path, 3).startswith(f"{path}: cannot be read")


def test_a_folder_of_plain_files_is_loaded_under_its_name(small_dataset_folder: Path) -> None:
    dataset = load_dataset(small_dataset_folder)
    assert (dataset.name, dataset.classes, dataset.image_shape) == ("shades", 3, (7, 5))
    assert (dataset.train_images.shape, dataset.train_labels.shape) == ((90, 7, 5), (90,))
    assert (dataset.test_images.shape, dataset.test_labels.shape) == ((30, 7, 5), (30,))
    assert sorted(dataset.sha256) == sorted(IDX_NAMES)


def test_a_folder_of_gzipped_files_is_the_same_data(small_dataset_folder: Path) -> None:
    plain = load_dataset(small_dataset_folder)
    for name in IDX_NAMES:
        path = small_dataset_folder / name
        (small_dataset_folder / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = load_dataset(small_dataset_folder)
    np.testing.assert_array_equal(packed.train_images, plain.train_images)
    np.testing.assert_array_equal(packed.test_labels, plain.test_labels)
    assert packed.sha256 == plain.sha256


def test_labels_up_to_255_make_256_classes(small_dataset_folder: Path, write_idx: Callable[..., Path]) -> None:
    write_idx(small_dataset_folder, TRAIN_LABELS, np.arange(90) + 166)
    assert load_dataset(small_dataset_folder).classes == 256


@pytest.mark.parametrize(
    ("changed", "offender", "reason"),
    [
        ({TEST_IMAGES: None}, TEST_IMAGES, "no such file"),
        ({TRAIN_LABELS: None}, TRAIN_LABELS, "no such file"),
        ({TRAIN_IMAGES: np.ones(90)}, TRAIN_IMAGES, "magic number"),
        ({TRAIN_LABELS: np.ones((90, 7, 5))}, TRAIN_LABELS, "magic number"),
        ({TRAIN_LABELS: np.arange(89) % 3}, TRAIN_LABELS, "89 labels for the 90 images of train-images"),
        ({TEST_IMAGES: np.ones((31, 7, 5))}, TEST_LABELS, "30 labels for the 31 images of t10k-images"),
        ({TEST_LABELS: np.arange(30) % 4}, TEST_LABELS, "label 3 is out of range: training knows 0 to 2"),
        ({TEST_IMAGES: np.ones((30, 5, 7))}, TEST_IMAGES, "images of 5x7 pixels, the training images have 7x5"),
        ({TRAIN_LABELS: np.zeros(90), TEST_LABELS: np.zeros(30)}, TRAIN_LABELS, "at least two classes"),
    ],
)
def test_files_that_are_missing_or_contradict_each_other_are_refused_by_name(
    small_dataset_folder: Path,
    write_idx: Callable[..., Path],
    changed: dict[str, npt.NDArray[Any] | None],
    offender: str,
    reason: str,
) -> None:
    for name, array in changed.items():
        if array is None:
            (small_dataset_folder / name).unlink()
        else:
            write_idx(small_dataset_folder, name, array)
    message = refusal(load_dataset, small_dataset_folder)
    assert message.startswith(f"{small_dataset_folder / offender}: ")
    assert reason in message


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(load_dataset, tmp_path / "nowhere") == f"{tmp_path / 'nowhere'}: no such folder of data, nor an .npz file"


def uneven_labels() -> npt.NDArray[np.uint8]:
    """1,003 labels of classes 0 to 7 without 3, of very different frequency."""
    return np.random.default_rng(3).choice(
        np.array([0, 1, 2, 4, 5, 6, 7], np.uint8), 1003, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.04, 0.01]
    )


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.25, 1 / 3, 0.5, 0.9, 0.999])
def test_a_split_covers_all_once_with_each_class_in_proportion(fraction: float) -> None:
    labels = uneven_labels()
    training, validation = stratified_split(labels, fraction, seed=1)
    assert len(validation) == round(fraction * len(labels))
    np.testing.assert_array_equal(np.sort(np.concatenate([training, validation])), np.arange(len(labels)))
    assert np.all(np.diff(training) > 0)
    assert np.all(np.diff(validation) > 0)
    assert training.dtype == validation.dtype == np.int64
    shares = np.bincount(labels) * fraction
    assert np.all(np.abs(np.bincount(labels[validation], minlength=8) - shares) < 1)


def test_a_split_is_a_function_of_its_seed() -> None:
    first, again, other = (stratified_split(uneven_labels(), 0.2, seed)[1] for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_fraction_of_zero_leaves_the_validation_part_empty() -> None:
    training, validation = stratified_split(uneven_labels(), 0.0, seed=1)
    assert len(validation) == 0
    np.testing.assert_array_equal(training, np.arange(1003))


@pytest.mark.parametrize("compiled", [False, True])
def test_scale_pixels_multiplies_every_grey_value_by_one_255th_and_leaves_labels(compiled: bool) -> None:
    values, labels = np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8)
    function = tf.function(scale_pixels) if compiled else scale_pixels
    scaled, same = function(tf.constant(values), tf.constant(labels))
    assert (scaled.dtype, same.dtype) == (tf.float32, tf.uint8)
    np.testing.assert_array_equal(scaled.numpy(), values * np.float32(1 / 255))
    np.testing.assert_array_equal(same.numpy(), labels)


def test_the_data_module_makes_loaders_of_every_part(small_dataset_folder: Path) -> None:
    data = MNISTDataModule(load_dataset(small_dataset_folder), batch_size=16, val_fraction=0.2, seed=0)
    train, val, test, predict = (
        data.train_dataloader(),
        data.val_dataloader(),
        data.test_dataloader(),
        data.predict_dataloader(),
    )
    assert val is not None
    assert (len(train.order(0)), train.batch_size, len(train), train.shuffle) == (72, 16, 5, True)
    assert (len(val.order(0)), val.batch_size, len(val), val.shuffle) == (18, EVALUATION_BATCH_SIZE, 1, False)
    assert (len(test.order(0)), test.batch_size, len(test), test.shuffle) == (30, EVALUATION_BATCH_SIZE, 1, False)
    assert (len(predict.order(0)), predict.shuffle) == (30, False)


def test_the_training_and_the_validation_loader_share_no_image(small_dataset_folder: Path) -> None:
    data = MNISTDataModule(load_dataset(small_dataset_folder), val_fraction=0.3, seed=0)
    val = data.val_dataloader()
    assert val is not None
    together = np.concatenate([data.train_dataloader().order(0), val.order(0)])
    np.testing.assert_array_equal(np.sort(together), np.arange(90))


def test_the_validation_loader_gives_its_scaled_images_in_order(small_dataset_folder: Path) -> None:
    dataset = load_dataset(small_dataset_folder)
    data = MNISTDataModule(dataset, val_fraction=0.2, seed=0)
    val = data.val_dataloader()
    assert val is not None
    ((images, labels),) = list(val)
    np.testing.assert_array_equal(images.numpy(), dataset.train_images[data.val_indices] * np.float32(1 / 255))
    np.testing.assert_array_equal(labels.numpy(), dataset.train_labels[data.val_indices])


def test_without_a_fraction_all_images_are_trained_on_and_there_is_no_validation(small_dataset_folder: Path) -> None:
    data = MNISTDataModule(load_dataset(small_dataset_folder), batch_size=90)
    assert data.val_dataloader() is None
    assert (len(data.train_dataloader().order(0)), len(data.train_dataloader())) == (90, 1)


def test_the_data_module_takes_the_embedded_mnist_by_default() -> None:
    data = MNISTDataModule(val_fraction=0.1)
    assert (len(data.train_indices), len(data.val_indices), len(data.test_dataloader().order(0))) == (54_000, 6_000, 10_000)


@pytest.mark.parametrize(
    ("batch_size", "fraction", "reason"),
    [
        (0, 0.0, "batch_size is 0: expected 1 to 90"),
        (-1, 0.0, "batch_size is -1: expected 1 to 90"),
        (91, 0.0, "batch_size is 91: expected 1 to 90"),
        (73, 0.2, "batch_size is 73: expected 1 to 72"),
        (32, -0.1, "val_fraction is -0.1: expected 0 <= fraction < 1"),
        (32, 1.0, "val_fraction is 1.0: expected 0 <= fraction < 1"),
        (32, float("nan"), "val_fraction is nan: expected 0 <= fraction < 1"),
        (32, 0.001, "leaves one part empty"),
        (32, 0.999, "leaves one part empty"),
    ],
)
def test_the_data_module_refuses_what_does_not_fit_the_data(
    small_dataset_folder: Path, batch_size: int, fraction: float, reason: str
) -> None:
    assert reason in refusal(MNISTDataModule, load_dataset(small_dataset_folder), batch_size, fraction)


def with_validation(folder: Path) -> Dataset:
    """The small data set with a validation set of its own."""
    dataset = load_dataset(folder)
    return replace(dataset, val_images=dataset.test_images[:10], val_labels=dataset.test_labels[:10])


def test_a_validation_set_that_came_with_the_data_is_the_validation_part(small_dataset_folder: Path) -> None:
    dataset = with_validation(small_dataset_folder)
    data = MNISTDataModule(dataset, batch_size=90, val_fraction=0.5)
    assert (len(data.train_indices), len(data.val_indices)) == (90, 10)
    val = data.val_dataloader()
    assert val is not None
    ((images, labels),) = list(val)
    np.testing.assert_array_equal(images.numpy(), dataset.test_images[:10] * np.float32(1 / 255))
    np.testing.assert_array_equal(labels.numpy(), dataset.test_labels[:10])


def test_to_stop_early_needs_validation_images_wherever_they_are_from(small_dataset_folder: Path) -> None:
    config = TrainConfig(data=small_dataset_folder, early_stopping=3)
    assert data_module(config, with_validation(small_dataset_folder)).val_dataloader() is not None
    assert "--early-stopping needs validation images" in refusal(data_module, config, load_dataset(small_dataset_folder))


def test_what_is_held_out_is_a_fifth_of_each_class_and_the_same_in_every_process(
    tmp_path: Path, write_idx: Callable[..., Path]
) -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 100, 1, 2])
    images = np.random.default_rng(0).integers(0, 256, (153, 5, 5))
    write_idx(tmp_path, TRAIN_IMAGES, images)
    write_idx(tmp_path, TRAIN_LABELS, labels)
    dataset = load_dataset(tmp_path)
    assert dataset.held_out
    assert np.bincount(dataset.test_labels, minlength=4)[:2].tolist() == [10, 20]
    assert (np.bincount(dataset.train_labels, minlength=4) > 0).all(), "no class is left without a training image"
    again = load_dataset(tmp_path)
    assert again.sha256 == dataset.sha256
    assert hashlib.sha256(dataset.test_images.tobytes()).hexdigest()[:12] == "d8b94c900f0d"


def test_too_few_images_to_hold_some_out_are_refused(tmp_path: Path, write_idx: Callable[..., Path]) -> None:
    write_idx(tmp_path, TRAIN_IMAGES, np.arange(50).reshape(2, 5, 5))
    write_idx(tmp_path, TRAIN_LABELS, [0, 1])
    assert "2 images, and no test images: too few to hold some out" in refusal(load_dataset, tmp_path)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("parts", [("train", "t10k"), ("train",)])
def test_reading_takes_less_than_three_times_the_images_memory(parts: tuple[str, ...], transpose: bool, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10_000, 28, 28), np.uint8)
    for part in parts:
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images), 1))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(10_000) % 10)))
    tracemalloc.start()
    try:
        load_dataset(tmp_path, transpose=transpose)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(parts) * images.nbytes


def test_the_embedded_mnist_has_neither_splits_nor_an_other_side() -> None:
    assert "--split letters: the embedded MNIST is one data set" in refusal(load_dataset, None, None, "letters")
    assert "--transpose: the embedded MNIST is upright" in refusal(load_dataset, None, None, None, True)


def test_one_number_in_an_arrays_place_is_refused(tmp_path: Path) -> None:
    images, labels = np.zeros((6, 4, 3), np.uint8), np.arange(6) % 3
    for name in ("x_train", "y_train", "x_test"):
        arrays: dict[str, Any] = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels, name: np.array(7)}
        np.savez(tmp_path / "data.npz", **arrays)
        with pytest.raises(InputError, match="holds one number: expected an array of images, or of labels"):
            load_dataset(tmp_path / "data.npz")
