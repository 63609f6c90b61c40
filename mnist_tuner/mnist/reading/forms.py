"""Arrays brought into one form: grey levels 0 to 255, and classes from 0 on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_tuner.errors import InputError

UInt8Array = npt.NDArray[np.uint8]
CHUNK = 4096
"""Images that are converted at a time: in float64 all of them would take eight times their bytes."""
_TOPS = (1, 15, 16, 31, 63, 100, 127, 255, 1023, 4095, 65535)
"""What white is, where pixels are integers of so many bits, a percentage, or scikit-learn's digits (16)."""
LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Raw:
    """Images or labels as they were read.

    Attributes:
        array: of any dtype and shape.
        at: where they are, as messages name it.
        coloured: whether they were pictures in colour, which are grey already.
    """

    array: npt.NDArray[Any]
    at: str
    coloured: bool = False


def grey_levels(parts: Mapping[str, Raw], notes: list[str], *, transpose: bool = False) -> dict[str, UInt8Array]:
    """Images as uint8 ``(n, height, width)``, on one scale for all parts.

    Args:
        parts: images, by part, those for training first: bool, integers or floats, ``(n, height, width)``, with a channel
            before or after these, in colour ``(n, height, width, 3)`` or ``(n, 3, height, width)``, or flat,
            ``(n, height * width)`` of a square.
        notes: what is done to them is added.
        transpose: whether rows and columns change places.

    Raises:
        InputError: they are something else.
    """
    shaped = {part: _shaped(raw) for part, raw in parts.items()}
    first = next(iter(shaped.values())).shape[1:3]
    for part, array in shaped.items():
        if array.shape[1:3] != first:
            sizes = ["x".join(map(str, shape)) for shape in (array.shape[1:3], first)]
            raise InputError(f"{parts[part].at}: images of {sizes[0]} pixels, the training images have {sizes[1]}")
    ranges = {part: (array.min().item(), array.max().item()) for part, array in shaped.items()}
    low, high = min(low for low, _ in ranges.values()), max(high for _, high in ranges.values())
    if not (math.isfinite(low) and math.isfinite(high)):
        worst = next(raw.at for raw in parts.values() if not np.isfinite(raw.array.max() + raw.array.min()))
        raise InputError(f"{worst} has pixels that are not finite")
    kinds = {(least < -0.1 * most, most <= 1) for least, most in ranges.values()}
    if len(kinds) > 1:
        told = ", ".join(f"{parts[part].at} {least:g} to {most:g}" for part, (least, most) in ranges.items())
        raise InputError(
            f"the pixels of its parts are on different scales ({told}): bring them to one, as by dividing all by 255"
        )
    if low < -1 and any(array.dtype == np.int8 for array in shaped.values()):
        shaped, low, high = _signed_bytes(shaped, parts)
    black, white = _range(shaped.values(), low, high)
    if (black, white) != (0, 255):
        notes.append(f"its pixels, {low:g} to {high:g}, were scaled: {black:g} to {white:g} is 0 to 255")
    found = {part: _converted(array, black, white) for part, array in shaped.items()}
    if any(raw.coloured for raw in parts.values()) or any(_is_coloured(array) for array in shaped.values()):
        notes.append("its colours were turned grey, by luminance")
    if transpose:
        notes.append("rows and columns of its images have changed places (--transpose)")
        found = {part: np.ascontiguousarray(array.swapaxes(1, 2)) for part, array in found.items()}
    return found


def _shaped(raw: Raw) -> npt.NDArray[Any]:
    """Images as ``(n, height, width)``, or of colours ``(n, height, width, 3)``."""
    array, shape = raw.array, raw.array.shape
    if array.ndim == 3 and 1 in shape[1:] and shape[1] != shape[2]:  # flat, as PyTorch's flatten leaves it
        array = array.reshape(len(array), -1) if array.size else array
    side = math.isqrt(array.shape[1]) if array.ndim == 2 else 0
    if array.ndim == 2 and side >= 4 and side * side == array.shape[1]:
        array = array.reshape(len(array), side, side)
    elif array.ndim == 4 and 1 in (shape[1], shape[3]):
        array = array[..., 0] if shape[3] == 1 else array[:, 0]
    elif array.ndim == 4 and (shape[1] in (3, 4)) != (shape[3] in (3, 4)):
        array = np.moveaxis(array, 1, 3) if shape[1] in (3, 4) else array
        if array.shape[3] == 4 and array.size:
            if array[..., 3].min() != array[..., 3].max():
                raise InputError(f"{raw.at} has pictures that show through: expected grey or three colours")
            array = array[..., :3]
    doubtful = array.ndim == 4 and (array.shape[3] != 3 or array.shape[1] == 3)
    if array.ndim not in (3, 4) or doubtful or array.dtype.kind not in "buif" or not array.size:
        raise InputError(
            f"{raw.at} is {array.dtype} of the shape {shape}: expected images as numbers (n, height, width), in colour "
            "(n, height, width, 3), or flat, of a square"
        )
    return array


def _signed_bytes(
    shaped: Mapping[str, npt.NDArray[Any]], parts: Mapping[str, Raw]
) -> tuple[dict[str, npt.NDArray[Any]], int, int]:
    """Bytes that were taken for signed ones, or moved down by 128: the ground, which is most of the pixels, tells which."""
    counts = sum(np.bincount(array.view(np.uint8).ravel(), minlength=256) for array in shaped.values())
    ground = int(np.argmax(counts))  # as an unsigned byte
    if ground not in (0, 255, 128, 127) or any(array.dtype != np.int8 for array in shaped.values()):
        at = next(iter(parts.values())).at
        raise InputError(f"{at} is int8 with pixels below 0: expected 0 to 255, such as images.astype('uint8') or images + 128")
    flip = np.uint8(0 if ground in (0, 255) else 128)
    found = {part: array.view(np.uint8) ^ flip for part, array in shaped.items()}
    return found, min(int(array.min()) for array in found.values()), max(int(array.max()) for array in found.values())


def _range(arrays: Any, low: float, high: float) -> tuple[float, float]:
    """Which values are black and white."""
    arrays = list(arrays)
    whole = all(array.dtype.kind in "bui" for array in arrays) or all(_is_whole(array) for array in arrays)
    if low >= 0 and 0.5 < high <= 1:
        return 0, 1
    if low >= 0 and whole:
        return 0, next((top for top in _TOPS if high <= top), high)
    if low >= 0 and 127 < high <= 255:
        return 0, 255
    if -1 <= low < -0.9 and 0.9 < high <= 1:
        return -1, 1
    return low, high  # standardized, for one


def _is_whole(array: npt.NDArray[Any]) -> bool:
    return all(bool((piece == np.floor(piece)).all()) for piece in (array[i : i + CHUNK] for i in range(0, len(array), CHUNK)))


def _converted(array: npt.NDArray[Any], black: float, white: float) -> UInt8Array:
    if array.ndim == 3 and array.dtype == np.uint8 and (black, white) == (0, 255):
        return np.ascontiguousarray(array)
    found = np.empty(array.shape[:3], np.uint8)
    for start in range(0, len(array), CHUNK):
        piece = array[start : start + CHUNK].astype(np.float64)
        piece = piece @ np.array(LUMINANCE) if piece.ndim == 4 else piece
        found[start : start + CHUNK] = np.clip(np.rint((piece - black) * (255 / ((white - black) or 1))), 0, 255)
    return found


def _is_coloured(array: npt.NDArray[Any]) -> bool:
    return array.ndim == 4 and any(
        not (piece == piece[..., :1]).all() for piece in (array[i : i + CHUNK] for i in range(0, len(array), CHUNK))
    )


def class_numbers(parts: Mapping[str, Raw], names: Sequence[str] = ()) -> tuple[dict[str, UInt8Array], tuple[str, ...]]:
    """Labels as uint8 ``(n,)``, and the classes' names where the labels are words.

    Args:
        parts: labels, by part: integers, floats that are integers, one-hot, or words; ``(n,)``, or as a column.
        names: the order of the words; without any that of the alphabet.

    Raises:
        InputError: they are something else.
    """
    found = {part: _flat(raw) for part, raw in parts.items()}
    numbered = {part: _numbers(array) if array.dtype.kind == "U" else array for part, array in found.items()}
    if not any(array.dtype.kind == "U" for array in numbered.values()):  # else "01" is a word in each part
        found = numbered
    if any(array.dtype.kind == "U" for array in found.values()):
        words = {part: array.astype(str) for part, array in found.items()}
        known = sorted(set().union(*(np.unique(array).tolist() for array in words.values())))
        at = next(raw.at for raw in parts.values())
        if unknown := [word for word in known if names and word not in names]:
            raise InputError(f"{at}: the class {unknown[0]!r} is not among the names given: expected {', '.join(names)[:200]}")
        names = tuple(names or known)
        if len(names) > 256 or any(not name.isprintable() or not name for name in names):
            raise InputError(f"{at} has {len(names):,} classes: expected up to 256, with names that can be printed")
        order = np.argsort(np.array(names))
        found = {part: order[np.searchsorted(np.array(names)[order], array)] for part, array in words.items()}
    else:
        names = ()
    for part, array in found.items():
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 255:
            raise InputError(f"{parts[part].at} has labels from {low} to {high}: expected 0 to 255")
    return {part: np.ascontiguousarray(array, np.uint8) for part, array in found.items()}, tuple(names)


def _flat(raw: Raw) -> npt.NDArray[Any]:
    """Labels as integers or as words, ``(n,)``."""
    array = raw.array
    if array.ndim == 2 and 1 in array.shape:
        array = array.ravel()
    if array.ndim == 2 and array.dtype.kind in "buif" and array.size:
        ones = array == 1
        if not ((array == 0) | ones).all() or not (ones.sum(axis=1) == 1).all():
            raise InputError(f"{raw.at} is {array.dtype} of the shape {array.shape}: expected labels (n,), or one-hot")
        array = ones.argmax(axis=1)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind in "UT":
        array = np.char.strip(array.astype(str))
    if array.dtype.kind == "f" and array.size and (np.isfinite(array) & (array == np.floor(array))).all():
        array = np.clip(array, -(2**62), 2**62).astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "buiU" or not array.size:
        raise InputError(
            f"{raw.at} is {raw.array.dtype} of the shape {raw.array.shape}: expected labels (n,), as integers or words"
        )
    return array


def _numbers(words: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Words as integers, if each is one, such as "3" or "3.0"."""
    kinds, places = np.unique(words, return_inverse=True)
    try:
        values = [float(kind) for kind in kinds]
    except ValueError:
        return words
    whole = all(value == math.floor(value) and abs(value) < 2**62 for value in values if math.isfinite(value))
    return np.array(values, np.int64)[places] if whole and all(map(math.isfinite, values)) else words
