"""The reader of pictures in folders, one for each class."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.reading.files import SMALL, File

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm")
MOST_PIXELS = 4_000_000
"""Of one picture: what is trained on is small."""


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def read_pictures(
    number: int, read: Callable[[int], bytes], name: Callable[[int], str]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], bool]:
    """Pictures of one size as grey levels.

    Args:
        number: how many.
        read: the content of each.
        name: of each, as messages have it.

    Returns:
        The images, uint8 ``(number, height, width)``; which of them could be read; and whether any was in colour.

    Raises:
        InputError: they differ in size, or more than one in a hundred cannot be read.
    """
    images: npt.NDArray[np.uint8] | None = None
    sound, coloured, wrong, first = np.ones(number, bool), False, "", 0
    for index in range(number):
        try:
            image, colour = grey(read(index))
        except InputError:
            raise
        except Exception as error:  # whatever Pillow makes of a damaged picture
            sound[index], wrong = False, f"{name(index)}: no picture that can be read ({' '.join(str(error).split())[:100]})"
            continue
        if images is None:
            images, first = np.empty((number, *image.shape), np.uint8), index
        if image.shape != images.shape[1:]:
            sizes = [" x ".join(map(str, reversed(shape))) for shape in (image.shape, images.shape[1:])]
            raise InputError(
                f"{name(index)}: a picture of {sizes[0]} pixels, and {name(first)} has {sizes[1]}: bring all to one "
                "size, as with Pillow's resize"
            )
        images[index], coloured = image, coloured or colour
    if images is None or 100 * np.count_nonzero(~sound) > number:
        raise InputError(wrong)
    return images, sound, coloured


def read_files(files: Sequence[File]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], bool]:
    """See `read_pictures`."""

    def content(index: int) -> bytes:
        with files[index].open() as stream:
            return stream.read(SMALL)

    return read_pictures(len(files), content, lambda index: files[index].at)


def grey(content: bytes) -> tuple[npt.NDArray[np.uint8], bool]:
    """A picture as grey levels by luminance, uint8 ``(height, width)``, and whether it had colours.

    What shows through lies on white, or where the ink is light on black. Animations give their first picture.
    """
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(f"{picture.width} x {picture.height} pixels, more than {MOST_PIXELS:,}")
        if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):  # 16 bits, which Pillow would cut off at 255
            deep: npt.NDArray[Any] = np.asarray(picture, np.float64)
            low, high = deep.min(), deep.max()
            if not 0 <= low <= high <= 65535:
                raise ValueError(f"pixels from {low:g} to {high:g}")
            top = next(top for top in ((1, 255, 65535) if picture.mode == "F" else (255, 65535)) if high <= top)
            return np.rint(deep * (255 / top)).astype(np.uint8), False
        if picture.has_transparency_data:
            values: npt.NDArray[Any] = np.asarray(picture.convert("RGBA"), np.float64)
            colours, alpha = values[..., :3], values[..., 3] / 255
            levels = colours @ (0.299, 0.587, 0.114)
            ink = (levels * alpha).sum() / max(alpha.sum(), 1e-9)
            levels = levels * alpha + (0 if ink > 127 and alpha.min() < 1 else 255) * (1 - alpha)
            return np.rint(levels).astype(np.uint8), bool((np.ptp(colours, axis=2) * alpha).max() > 2)
        colour = picture.mode not in ("L", "1") and bool(np.ptp(np.asarray(picture.convert("RGB")), axis=2).max() > 2)
        return np.asarray(picture.convert("L")), colour
