"""From pictures of digits to what the net saw, in twelve ways of drawing them and in every kind of file."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from mnist_tuner.errors import InputError
from mnist_tuner.mnist import build_baseline
from mnist_tuner.mnist.data import Dataset, MNISTDataModule
from mnist_tuner.saved.likeness import Likeness
from mnist_tuner.saved.pictures import LARGEST_PICTURE, LONGEST_SIDE, prepare, read_image
from mnist_tuner.trainer import Trainer
from tests.support.drawings import WAYS, draw, encoded, on_canvas, paint

Images = npt.NDArray[np.uint8]
PHOTO = "photo of 2000 x 3000 with a shadow"


@pytest.fixture(scope="module")
def net(mnist: Dataset) -> keras.Model:
    """The baseline after five epochs."""
    model = build_baseline(seed=1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    Trainer(max_epochs=5, **quiet).fit(model, datamodule=MNISTDataModule(mnist, seed=1))
    return model


def readings(net: keras.Model, images: Images) -> npt.NDArray[np.int64]:
    return np.asarray(net(images.astype(np.float32) / 255)).argmax(1)


@pytest.fixture(scope="module")
def sample(mnist: Dataset, net: keras.Model) -> npt.NDArray[np.int64]:
    """The first 12 of each class that the net reads right, classes by turns: indices into the test images."""
    right = readings(net, mnist.test_images) == mnist.test_labels
    return np.stack([np.flatnonzero(right & (mnist.test_labels == label))[:12] for label in range(10)]).T.ravel()


def refusal(source: Path | bytes, name: str | None = None) -> str:
    """The message with which a source is refused: one line, and no warning beside it."""
    with warnings.catch_warnings(record=True, action="always") as heard, pytest.raises(InputError) as caught:
        read_image(source, name)
    message = str(caught.value)
    assert not heard
    assert len(message.splitlines()) == 1
    return message


def doubt(grey: Images) -> str:
    return prepare(grey).doubt or ""


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_digit_drawn_in_another_way_is_read_as_before(
    mnist: Dataset, net: keras.Model, sample: npt.NDArray[np.int64], way: str
) -> None:
    digits = sample[:20] if way == PHOTO else sample
    seen = [prepare(read_image(draw(mnist.test_images[i], way, int(i)), way)) for i in digits]
    right = readings(net, np.stack([one.image for one in seen])) == mnist.test_labels[digits]
    assert right.mean() >= 0.95
    assert np.mean([one.doubt is not None for one in seen]) <= 0.02
    assert all(one.image.max() == 255 and one.image.shape == (28, 28) for one in seen)


def test_what_is_prepared_already_stays_as_it_is(mnist: Dataset) -> None:
    seen = [prepare(image) for image in mnist.test_images[:1000]]
    np.testing.assert_array_equal(np.stack([one.image for one in seen]), mnist.test_images[:1000])
    assert sum(one.doubt is not None for one in seen) <= 2


@pytest.mark.slow
def test_a_negative_of_a_prepared_digit_is_turned_back(mnist: Dataset, net: keras.Model) -> None:
    originals = mnist.test_images[:500]
    seen = np.stack([prepare(255 - image).image for image in originals])
    assert (readings(net, seen) == readings(net, originals)).mean() >= 0.99
    assert np.abs(seen.astype(float) - originals).mean() < 2


def test_another_shape_gets_a_frame_in_proportion(mnist: Dataset) -> None:
    seen = prepare(255 - mnist.test_images[0], (56, 42))
    rows, columns = np.flatnonzero(seen.image.any(1)), np.flatnonzero(seen.image.any(0))
    assert seen.image.shape == (56, 42)
    assert max(np.ptp(rows) + 1 - 40, np.ptp(columns) + 1 - 30) == 0
    assert abs(np.average(np.arange(56), weights=seen.image.sum(1)) - 28) <= 0.5


@pytest.mark.parametrize("value", [0, 100, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2), (28, 28), (300, 200)])
def test_an_even_picture_is_empty(shape: tuple[int, int], value: int) -> None:
    seen = prepare(np.full(shape, value, np.uint8))
    assert seen.doubt == "empty: no ink found"
    assert not seen.image.any()


def test_grain_is_not_ink() -> None:
    generator = np.random.default_rng(3)
    grain = [np.clip(generator.normal(128, 10, (100, 120)), 0, 255).astype(np.uint8) for _ in range(20)]
    noise = [generator.integers(0, 256, (28, 28), np.uint8) for _ in range(50)]
    assert all(map(doubt, grain))
    assert np.mean([bool(doubt(image)) for image in noise]) > 0.95


def test_digits_side_by_side_are_counted(mnist: Dataset) -> None:
    images = mnist.test_images
    pairs = [doubt(np.hstack([images[i], images[i + 1]])) for i in range(200)]
    triples = [doubt(255 - np.hstack([images[i], images[i + 1], images[i + 2]])) for i in range(200)]
    assert np.mean([text.startswith("several digits: 2") for text in pairs]) > 0.9
    assert np.mean([text.startswith("several digits: 3") for text in triples]) > 0.9
    assert all(triples)


def test_a_filled_page_is_more_than_a_digit(mnist: Dataset) -> None:
    page = 255 - mnist.test_images[:400].reshape(20, 20, 28, 28).swapaxes(1, 2).reshape(560, 560)
    assert doubt(page).startswith("several digits: ")
    disc = Image.new("L", (100, 100), 255)
    ImageDraw.Draw(disc).ellipse((5, 5, 95, 95), fill=0)
    assert doubt(np.asarray(disc)) == "more than a digit: the ink fills the picture"
    assert doubt(np.pad(np.zeros((10, 90), np.uint8), 20, constant_values=255)) == "more than a digit: far wider than high"


@pytest.mark.slow
def test_a_broken_stroke_and_specks_leave_one_digit(mnist: Dataset, net: keras.Model) -> None:
    generator = np.random.default_rng(5)
    pictures = []
    for digit in mnist.test_images[:200]:
        picture = 255 - np.kron(digit, np.ones((4, 4), np.uint8))
        at = generator.integers(40, 70)
        picture[at : at + 4] = 255
        for row, column in generator.integers(0, 108, (3, 2)):
            picture[row : row + 3, column : column + 3] = 0
        pictures.append(picture)
    seen = [prepare(picture) for picture in pictures]
    assert np.mean([one.doubt is not None for one in seen]) <= 0.02
    agreed = readings(net, np.stack([one.image for one in seen])) == readings(net, mnist.test_images[:200])
    assert agreed.mean() >= 0.95


@pytest.mark.slow
def test_what_is_like_no_digit_is_told_from_digits(mnist: Dataset) -> None:
    likeness = Likeness(mnist.train_images)
    assert likeness.unlike(mnist.test_images).mean() <= 0.005
    assert likeness.distance(mnist.test_images[:0]).shape == (0,)
    y, x = np.mgrid[-1:1:100j, -1:1:100j]
    signs = [np.abs(x - y) < 0.15, np.abs(x) < 0.1, x**2 + y**2 < 0.8, np.maximum(np.abs(x), np.abs(y)) < 0.7]
    signs[0] |= np.abs(x + y) < 0.15
    signs[1] |= np.abs(y) < 0.1
    strange = np.stack([prepare(np.where(sign, 0, 255).astype(np.uint8)).image for sign in signs])
    assert likeness.unlike(strange).all()
    assert likeness.unlike(np.random.default_rng(1).integers(0, 256, (100, 28, 28), np.uint8)).all()


PICTURE = paint(on_canvas(np.pad(np.ones((40, 10)), ((0, 0), (0, 20))), (60, 80)))
"""A bar left of the middle, dark on white."""


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "I;16", "I", "F", "LA", "RGBA", "LAB", "YCbCr"])
def test_every_mode_comes_to_the_same_grey(mode: str) -> None:
    grey = PICTURE.convert("L")
    if mode in ("I;16", "I", "F"):
        top = {"I;16": 65535, "I": 4095, "F": 1}[mode]
        image = Image.fromarray((np.asarray(grey) / 255 * top).astype({"I;16": "uint16", "I": "int32", "F": "float32"}[mode]))
    elif mode == "LAB":
        image = Image.merge("LAB", (grey, Image.new("L", grey.size, 128), Image.new("L", grey.size, 128)))
    else:
        image = PICTURE.convert(mode)
    kind = "PNG" if mode in ("1", "L", "P", "RGB", "LA", "RGBA", "I;16") else "JPEG" if mode == "YCbCr" else "TIFF"
    read = read_image(encoded(image, kind)).astype(int)
    assert read.shape == (60, 80)
    assert np.abs(read - np.asarray(grey)).max() <= (40 if kind == "JPEG" else 2)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP", "ICO", "AVIF"])
def test_every_format_is_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encoded(PICTURE, kind))
    assert prepare(read_image(path)).doubt is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation, turns", [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_a_picture_is_turned_as_its_exif_data_says(kind: str, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = read_image(encoded(PICTURE, kind, exif=exif))
    expected = np.rot90(np.asarray(PICTURE.convert("L")), turns)
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("colour, paper", [(0, 255), (255, 0)])
def test_what_is_transparent_is_the_paper_that_the_ink_stands_out_from(colour: int, paper: int) -> None:
    image = Image.new("RGBA", PICTURE.size, (colour, colour, colour, 0))
    image.putalpha(PICTURE.convert("L").point(lambda value: 255 - value))
    read = read_image(encoded(image))
    assert set(np.unique(read)) == {colour, paper}
    assert (read == colour).sum() == (np.asarray(PICTURE)[..., 0] == 0).sum()
    indices = PICTURE.convert("1").convert("L").point(lambda value: value // 255)  # 1 where nothing is
    indices.putpalette([colour] * 3 + [90, 20, 30])
    np.testing.assert_array_equal(read_image(encoded(indices, "GIF", transparency=1)), read)


def test_a_picture_with_transparent_corners_keeps_its_own_paper() -> None:
    image = PICTURE.convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 0))
    assert read_image(encoded(image))[0, 0] == 255


def test_of_an_animation_the_first_frame_is_read() -> None:
    other = Image.new("RGB", PICTURE.size, (0, 0, 0))
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        read = read_image(encoded(PICTURE, kind, save_all=True, append_images=[other]))
        assert np.abs(read.astype(int) - np.asarray(PICTURE.convert("L"))).mean() < 3, kind


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_a_large_picture_is_reduced(mode: str) -> None:
    large = Image.new("L", (2400, 1300), 200)
    ImageDraw.Draw(large).rectangle((1100, 300, 1250, 1000), fill=0)
    image = Image.fromarray(np.asarray(large).astype(np.uint16) * 257) if mode == "I;16" else large.convert(mode)
    read = read_image(encoded(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert read.shape == (LONGEST_SIDE // 2 * 1300 // 1200, LONGEST_SIDE)
    assert prepare(read).doubt is None


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that claims a size, whatever it holds."""
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    body = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize("side", [10_001, 12_000, 50_000, 2**31 - 1])
def test_a_decompression_bomb_is_not_decoded(side: int) -> None:
    assert refusal(png(side, side), "bomb.png") == f"bomb.png: a picture of more than {LARGEST_PICTURE:,} pixels; reduce it first"


def test_a_missing_file_a_folder_and_an_empty_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert refusal(tmp_path / "none.png") == f"{tmp_path / 'none.png'}: no such file"
    assert refusal(tmp_path) == f"{tmp_path}: a folder, expected a picture"
    assert refusal(tmp_path / "empty.png") == f"{tmp_path / 'empty.png'}: an empty file, expected a picture"
    assert refusal(Path("/dev/zero")) == "/dev/zero: not a file, expected a picture"


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    for content in (b"hello", b"\0" * 1000, b"<svg xmlns='http://www.w3.org/2000/svg'/>", bytes(range(256)) * 4):
        assert refusal(content, "notes.txt").startswith("notes.txt: ")
    assert "not a picture" in refusal(b"hello")
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    assert refusal(script, "x.eps") == "x.eps: EPS files are not read; convert it to PNG"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "ICO"])
def test_a_truncated_picture_is_refused_wherever_it_is_cut(kind: str, mnist: Dataset) -> None:
    whole = encoded(Image.fromarray(mnist.test_images[0]).resize((56, 56)), kind)
    cuts = np.linspace(1, len(whole) * 0.8, 60).astype(int)
    for cut in cuts:
        assert refusal(whole[:cut], "cut.img").startswith("cut.img: ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PCX", "TGA", "PPM", "ICO"])
def test_damaged_bytes_give_a_picture_or_one_line(kind: str, mnist: Dataset) -> None:
    whole = encoded(Image.fromarray(mnist.test_images[0]), kind)
    generator = np.random.default_rng(9)
    for _ in range(60):
        damaged = bytearray(whole)
        for at in generator.integers(0, len(whole), 5):
            damaged[at] = generator.integers(256)
        with warnings.catch_warnings(record=True, action="always") as heard:
            try:
                prepare(read_image(bytes(damaged), "damaged"))
            except InputError as error:
                assert str(error).startswith("damaged: ") and len(str(error).splitlines()) == 1
        assert not heard
