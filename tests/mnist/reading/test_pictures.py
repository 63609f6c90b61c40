"""Pictures in folders: every mode of them becomes grey levels."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.data import load_dataset
from mnist_tuner.mnist.reading.pictures import grey
from tests.support.digits import check_held_out, digits, write, write_pictures

DIGIT = digits()[0][0]


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    picture.save(content, kind)
    return content.getvalue()


def with_alpha(ink: int) -> Image.Image:
    """A digit that is nothing but its alpha."""
    levels = Image.new("L", (28, 28), ink)
    return Image.merge("RGBA", [levels] * 3 + [Image.fromarray(DIGIT)])


MODES: dict[str, Callable[[], tuple[bytes, np.ndarray]]] = {
    "grey": lambda: (encoded(Image.fromarray(DIGIT)), DIGIT),
    "RGB": lambda: (encoded(Image.fromarray(DIGIT).convert("RGB")), DIGIT),
    "a palette": lambda: (encoded(Image.fromarray(DIGIT).convert("P")), DIGIT),
    "one bit": lambda: (encoded(Image.fromarray(DIGIT > 127)), np.where(DIGIT > 127, 255, 0)),
    "16 bits": lambda: (encoded(Image.fromarray(DIGIT.astype(np.uint16) * 257)), DIGIT),
    "opaque": lambda: (encoded(Image.fromarray(DIGIT).convert("RGBA")), DIGIT),
    "black ink on nothing": lambda: (encoded(with_alpha(0)), 255 - DIGIT),
    "white ink on nothing": lambda: (encoded(with_alpha(255)), DIGIT),
    "PGM": lambda: (encoded(Image.fromarray(DIGIT), "PPM"), DIGIT),
    "GIF": lambda: (encoded(Image.fromarray(DIGIT), "GIF"), DIGIT),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_of_any_mode_is_read_as_it_looks(mode: str) -> None:
    content, wanted = MODES[mode]()
    levels, coloured = grey(content)
    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(levels, wanted)
    assert not coloured


def test_a_picture_of_floats_or_of_too_many_bits_is_scaled_or_refused() -> None:
    floats = (DIGIT / 255).astype(np.float32)
    np.testing.assert_array_equal(grey(encoded(Image.fromarray(floats), "TIFF"))[0], DIGIT)
    for beyond in (DIGIT.astype(np.int32) * 1000, DIGIT.astype(np.int32) - 1, np.full_like(floats, np.nan)):
        with pytest.raises(ValueError, match="pixels from"):
            grey(encoded(Image.fromarray(beyond), "TIFF"))


def test_colours_are_turned_grey_and_said(tmp_path: Path) -> None:
    levels, coloured = grey(encoded(Image.new("RGB", (28, 28), (255, 0, 0))))
    assert (levels[0, 0], coloured) == (76, True)
    for label in range(2):
        for number in range(5):
            write(tmp_path / str(label) / f"{number}.png", encoded(Image.new("RGB", (8, 8), (200 * label, 9 * number, 0))))
    assert "its colours were turned grey, by luminance" in load_dataset(tmp_path).notes


def test_a_few_pictures_that_are_broken_are_left_out(tmp_path: Path) -> None:
    """As the two empty ones of notMNIST."""
    x, y, _, _ = digits()
    write_pictures(tmp_path, x, y)
    write(tmp_path / "3" / "broken.png", b"")
    dataset = check_held_out(load_dataset(tmp_path))
    assert any("1 of 121 pictures could not be read" in note and "3/broken.png" in note for note in dataset.notes)
    write(tmp_path / "4" / "broken.png", b"\x89PNG")
    with pytest.raises(InputError, match="no picture that can be read"):
        load_dataset(tmp_path)


def test_pictures_of_several_sizes_are_refused_by_name(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    write_pictures(tmp_path, x, y)
    write(tmp_path / "9" / "wide.png", encoded(Image.new("L", (30, 28))))
    with pytest.raises(
        InputError, match=r"9/wide.png: a picture of 30 x 28 pixels, and .*0/.*.png has 28 x 28: bring all to one"
    ):
        load_dataset(tmp_path)


def test_folders_named_by_words_name_the_classes(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    words = np.array(["dog", "cat"])
    dataset = load_dataset(write_pictures(tmp_path, x, words[y % 2]))
    assert dataset.class_names == ("cat", "dog")
    x_found = dataset.train_images[dataset.train_labels == 0]
    assert all((x[y % 2 == 1] == image).all(axis=(1, 2)).any() for image in x_found)


def test_the_order_of_given_names_is_that_of_the_classes(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    write_pictures(tmp_path / "data", x, np.array(["dog", "cat"])[y % 2])
    names = write(tmp_path / "names.txt", "dog\ncat\nemu\n")
    dataset = load_dataset(tmp_path / "data", names)
    assert dataset.class_names == ("dog", "cat", "emu")
    assert any("emu" in note for note in dataset.notes)
    other = write(tmp_path / "other.txt", "cow\ncat\n")
    with pytest.raises(InputError, match="'dog' is not among the names given: expected cow, cat"):
        load_dataset(tmp_path / "data", other)
