"""Arrays of any kind are brought into one form; what is lost or doubtful is said or refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.data import load_dataset
from mnist_tuner.mnist.reading.forms import Raw, class_numbers, grey_levels
from mnist_tuner.mnist.reading.names import TEST, TRAINING
from tests.support.digits import check, digits

Array = npt.NDArray[Any]
GENERATOR = np.random.default_rng(1)
IMAGES = GENERATOR.integers(0, 256, (6, 5, 7), dtype=np.uint8)
IMAGES[0, 0, :2] = 0, 255
SQUARES = GENERATOR.integers(0, 256, (6, 5, 5), dtype=np.uint8)
SQUARES[0, 0, :2] = 0, 255


def grey(array: Array, notes: list[str] | None = None, **parts: Array) -> Array:
    raws = {TRAINING: Raw(array, "x")} | {part: Raw(other, part) for part, other in parts.items()}
    return grey_levels(raws, [] if notes is None else notes)[TRAINING]


EXACT: dict[str, Callable[[Array], Array]] = {
    "uint8": lambda a: a,
    "float64 of 0 to 1": lambda a: a / 255,
    "float32 of 0 to 1": lambda a: (a / 255).astype(np.float32),
    "float16 of 0 to 1": lambda a: (a / 255).astype(np.float16),
    "floats of 0 to 255": lambda a: a.astype(np.float32),
    "floats of -1 to 1": lambda a: a / 127.5 - 1,
    "floats around 0": lambda a: a / 255 - 0.5,
    "standardized": lambda a: ((a / 255 - 0.1307) / 0.3081).astype(np.float32),
    "int64": lambda a: a.astype(np.int64),
    "big-endian": lambda a: a.astype(">i4"),
    "uint16 of all bits": lambda a: a.astype(np.uint16) * 257,
    "10 bits": lambda a: np.rint(a / 255 * 1023).astype(np.int16),
    "a channel behind": lambda a: a[..., None],
    "a channel before": lambda a: a[:, None],
    "three equal colours": lambda a: np.stack([a] * 3, -1),
    "three equal colours before": lambda a: np.stack([a] * 3, 1),
    "colours with a full alpha": lambda a: np.stack([a, a, a, np.full_like(a, 255)], -1),
    "in columns": np.asfortranarray,
    "backwards": lambda a: a[::-1, ::-1, ::-1][::-1, ::-1, ::-1],
}


@pytest.mark.parametrize("kind", EXACT)
def test_images_of_any_dtype_and_order_become_the_same_bytes(kind: str) -> None:
    found = grey(EXACT[kind](IMAGES))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, IMAGES)


@pytest.mark.parametrize("shape", [(6, 25), (6, 1, 25), (6, 25, 1), (6, 5, 5, 1), (6, 1, 5, 5)])
def test_flat_images_are_taken_for_squares(shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(grey(SQUARES.reshape(shape)), SQUARES)


@pytest.mark.parametrize(
    ("top", "said"),
    [(1, "0 to 1"), (15, "0 to 15"), (16, "0 to 16"), (100, "0 to 100"), (127, "0 to 127"), (65535, "0 to 65535")],
)
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_pixels_of_a_small_range_are_scaled_and_that_is_said(top: int, said: str, dtype: Any) -> None:
    images = GENERATOR.integers(0, top + 1, (20, 5, 5))
    images[0, 0, 0] = top
    notes: list[str] = []
    found = grey(images.astype(dtype), notes)
    np.testing.assert_array_equal(found, np.rint(images * (255 / top)))
    (note,) = notes
    assert said in note
    assert "is 0 to 255" in note


def test_truth_values_are_black_and_white(tmp_path: Path) -> None:
    notes: list[str] = []
    np.testing.assert_array_equal(grey(IMAGES > 127, notes), np.where(IMAGES > 127, 255, 0))
    assert len(notes) == 1


def test_all_parts_are_scaled_alike() -> None:
    """A test image that is dim stays dim."""
    dim = np.full((2, 5, 7), 0.25)
    found = grey_levels({TRAINING: Raw(IMAGES / 255, "x"), TEST: Raw(dim, "t")}, [])
    assert found[TEST].max() == 64
    counted = grey_levels({TRAINING: Raw(np.full((2, 5, 5), 200), "x"), TEST: Raw(np.full((2, 5, 5), 9), "t")}, [])
    assert (counted[TRAINING].max(), counted[TEST].max()) == (200, 9)


@pytest.mark.parametrize("other", [IMAGES, (IMAGES / 255 - 0.1307) / 0.3081])
def test_parts_on_different_scales_are_refused(other: Array) -> None:
    """A test set that somebody forgot to divide by 255 would make the training images black."""
    with pytest.raises(InputError, match=r"different scales \(x 0 to 1, t .* to .*\)"):
        grey_levels({TRAINING: Raw(IMAGES / 255, "x"), TEST: Raw(other, "t")}, [])


@pytest.mark.parametrize("shift", [0, 128])
def test_signed_bytes_are_told_by_their_ground(shift: int) -> None:
    x = digits()[0]
    signed = x.view(np.int8) if shift == 0 else (x.astype(int) - 128).astype(np.int8)
    np.testing.assert_array_equal(grey(signed), x)


def test_signed_bytes_of_minus_one_and_one_are_black_and_white() -> None:
    """Most are -1, which would be 255 as an unsigned byte."""
    light = digits()[0] > 127
    np.testing.assert_array_equal(grey(np.where(light, 1, -1).astype(np.int8)), np.where(light, 255, 0))


def test_pixels_that_were_divided_twice_are_scaled_by_their_own_range() -> None:
    np.testing.assert_array_equal(grey(IMAGES / 255**2), IMAGES)


def test_signed_bytes_without_a_ground_are_refused() -> None:
    images = GENERATOR.integers(-100, -50, (6, 5, 5)).astype(np.int8)
    with pytest.raises(InputError, match="int8 with pixels below 0: expected 0 to 255"):
        grey(images)


@pytest.mark.parametrize("first", [False, True])
def test_colours_are_turned_grey_by_luminance_and_that_is_said(first: bool) -> None:
    images = np.zeros((3, 5, 7, 3), np.uint8)
    images[0, ..., 0] = images[1, ..., 1] = images[2, ..., 2] = 255
    notes: list[str] = []
    found = grey(np.moveaxis(images, 3, 1) if first else images, notes)
    assert found[:, 0, 0].tolist() == [76, 150, 29]
    assert notes == ["its colours were turned grey, by luminance"]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.ones((6, 35)), "expected images as numbers"),
        (np.ones((6, 3, 7, 3)), "expected images as numbers"),
        (np.ones((6, 2, 7, 5)), "expected images as numbers"),
        (np.ones((6, 7, 5, 5, 1)), "expected images as numbers"),
        (np.ones(6), "expected images as numbers"),
        (np.ones((0, 5, 5)), "expected images as numbers"),
        (np.array([["a"] * 25] * 6), "expected images as numbers"),
        (np.ones((6, 5, 5), complex), "expected images as numbers"),
        (np.full((6, 5, 5), np.nan), "not finite"),
        (np.full((6, 5, 5), np.inf), "not finite"),
        (np.stack([IMAGES, IMAGES, IMAGES, IMAGES], -1), "show through"),
    ],
)
def test_what_is_no_image_is_refused_with_its_shape(array: Array, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        grey(array)


def test_floats_take_little_more_memory_than_they_have() -> None:
    images = np.random.default_rng(0).random((20_000, 28, 28), np.float32)
    tracemalloc.start()
    try:
        found = grey(images)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < found.nbytes + 2**27


def numbers(labels: Any, names: tuple[str, ...] = ()) -> tuple[list[int], tuple[str, ...]]:
    found, known = class_numbers({TRAINING: Raw(np.asarray(labels), "y")}, names)
    assert found[TRAINING].dtype == np.uint8
    return found[TRAINING].tolist(), known


ONE_HOT = np.eye(4)[[3, 0, 2, 1, 3]]


@pytest.mark.parametrize(
    "labels",
    [
        [3, 0, 2, 1, 3],
        [3.0, 0.0, 2.0, 1.0, 3.0],
        [[3], [0], [2], [1], [3]],
        [[3, 0, 2, 1, 3]],
        ["3", "0", "2", "1", "3"],
        ["3.0", " 0", "2", "1 ", "03"],
        [b"3", b"0", b"2", b"1", b"3"],
        ONE_HOT,
        ONE_HOT.astype(bool),
        ONE_HOT.astype(np.int64),
        np.array([3, 0, 2, 1, 3], ">i8"),
    ],
)
def test_labels_of_any_kind_become_the_same_numbers(labels: Any) -> None:
    assert numbers(labels) == ([3, 0, 2, 1, 3], ())


def test_words_become_the_names_of_classes() -> None:
    assert numbers(["cat", "dog", "ant", "cat"]) == ([1, 2, 0, 1], ("ant", "cat", "dog"))
    assert numbers(["A", "b", "é"]) == ([0, 1, 2], ("A", "b", "é"))
    assert numbers(["cat", "dog", "cat"], ("dog", "cat", "emu")) == ([1, 0, 1], ("dog", "cat", "emu"))
    with pytest.raises(InputError, match="'dog' is not among the names given"):
        numbers(["cat", "dog"], ("cat", "emu"))


def test_words_that_look_like_numbers_in_one_part_are_the_same_words_there() -> None:
    numbers, names = class_numbers({TRAINING: Raw(np.array(["01", "a", "02"]), "x"), TEST: Raw(np.array(["02", "01"]), "t")})
    assert names == ("01", "02", "a")
    np.testing.assert_array_equal(numbers[TEST], [1, 0])


def test_words_of_all_parts_are_numbered_together() -> None:
    parts = {TRAINING: Raw(np.array(["b", "c"]), "y"), TEST: Raw(np.array(["a", "c"]), "t")}
    found, names = class_numbers(parts)
    assert (found[TRAINING].tolist(), found[TEST].tolist(), names) == ([1, 2], [0, 2], ("a", "b", "c"))


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([0, 256], "labels from 0 to 256: expected 0 to 255"),
        ([-1, 1], "labels from -1 to 1: expected 0 to 255"),
        (["-1", "1"], "labels from -1 to 1"),
        ([1e300, 1.0], "expected 0 to 255"),
        ([0.5, 1.0], r"float64 of the shape \(2,\): expected labels"),
        ([np.nan, 1.0], "expected labels"),
        ([[1, 1, 0], [0, 0, 1]], "or one-hot"),
        ([[0.9, 0.1], [0.1, 0.9]], "or one-hot"),
        ([], "expected labels"),
        ([f"class {number}" for number in range(257)], "257 classes: expected up to 256"),
        (["a\x1b[31m", "b"], "names that can be printed"),
    ],
)
def test_labels_that_are_none_are_refused(labels: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        numbers(labels)


def test_images_in_black_and_white_train_as_those_of_all_greys_do(tmp_path: Path) -> None:
    """They were once taken as they are, nearly black."""
    x, y, xt, yt = digits()
    np.savez(tmp_path / "binary.npz", x_train=x > 127, y_train=y, x_test=(xt > 127).astype(np.uint8), y_test=yt)
    dataset = load_dataset(tmp_path / "binary.npz")
    np.testing.assert_array_equal(np.unique(dataset.train_images), [0, 255])
    np.testing.assert_array_equal(dataset.test_images, np.where(xt > 127, 255, 0))
    assert any("scaled" in note for note in dataset.notes)


def test_images_can_be_transposed(tmp_path: Path) -> None:
    x, y, xt, yt = digits()
    across = {"x_train": x.swapaxes(1, 2), "y_train": y, "x_test": xt.swapaxes(1, 2), "y_test": yt}
    np.savez(tmp_path / "data.npz", **across)  # type: ignore[arg-type]
    dataset = check(load_dataset(tmp_path / "data.npz", transpose=True))
    assert any("--transpose" in note for note in dataset.notes)
    assert dataset.sha256 != load_dataset(tmp_path / "data.npz").sha256
