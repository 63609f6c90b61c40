"""From any picture to what a net trained on MNIST wants to see, and whether it is a digit at all."""

from __future__ import annotations

import io
import math
import stat
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnist_tuner.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

LARGEST_PICTURE = 100_000_000
"""Pixels that a file may promise; decoded, that many take up to 400 MB."""
LONGEST_SIDE = 1200
"""Pixels of a picture's longer side that are kept: a digit of a twentieth of it still has three times MNIST's height."""
PROGRAMS = ("EPS", "IPTC")
"""Formats that are not decoded: Pillow has the first run by Ghostscript, and the second may hold one of any format."""


def read_image(source: Path | bytes, name: str | None = None) -> UInt8Array:
    """Reads any picture that Pillow opens, as grey levels.

    Turned as its EXIF data says; colours by their luminance; transparent parts as white or black paper, whichever the opaque
    ones stand out from; 16-bit, 32-bit and float grey levels scaled to 8 bits; of an animation the first frame. Pictures
    longer than `LONGEST_SIDE` are reduced, before they are decoded where their format allows it.

    Args:
        source: the file, or its bytes.
        name: what an error calls it; None for the path.

    Returns:
        uint8, shape ``(height, width)``.

    Raises:
        InputError: no such file, not a file, not a picture, a damaged one, or one of more than `LARGEST_PICTURE` pixels.
    """
    from PIL import Image, UnidentifiedImageError

    name = name or ("the picture" if isinstance(source, bytes) else str(source))
    try:
        if isinstance(source, Path):
            mode = source.stat().st_mode
            if not stat.S_ISREG(mode):
                raise InputError(f"{name}: {'a folder' if stat.S_ISDIR(mode) else 'not a file'}, expected a picture")
        if not (len(source) if isinstance(source, bytes) else source.stat().st_size):
            raise InputError(f"{name}: an empty file, expected a picture")
        # Pillow warns of metadata that it does not understand, and of large pictures, which have their own check here.
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file,
        ):
            if file.width * file.height > LARGEST_PICTURE:
                raise Image.DecompressionBombError(f"{file.width:,} x {file.height:,}")
            if file.format in PROGRAMS:
                raise InputError(f"{name}: {file.format} files are not read; convert it to PNG")
            return _grey(file)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise InputError(f"{name}: not a picture of a known format") from None
    except Image.DecompressionBombError:
        raise InputError(f"{name}: a picture of more than {LARGEST_PICTURE:,} pixels; reduce it first") from None
    except Exception as error:  # Pillow's decoders raise whatever damaged bytes lead them to
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise InputError(f"{name}: cannot be read as a picture ({' '.join(reason.split())})") from None


def _grey(image: Image.Image) -> UInt8Array:
    from PIL import ImageOps

    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode in ("1", "P", "PA"):  # whose pixels cannot be averaged
        image = image.convert("L")
    scale = LONGEST_SIDE / max(image.size)
    if scale < 1:
        size = (math.ceil(image.width * scale), math.ceil(image.height * scale))
        image.draft("L", size)
        image.thumbnail(size)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _to_8_bits(np.asarray(image, np.float64))
    if image.mode == "LAB":
        return np.asarray(image.getchannel(0))
    if image.mode != "RGBA":
        return np.asarray(image.convert("L"))
    grey = np.asarray(image.convert("L"), np.float64)
    opacity = np.asarray(image.getchannel("A"), np.float64) / 255
    opaque = grey[opacity > 0.5]
    if len(opaque) > grey.size / 2 and np.ptp(np.percentile(opaque, [2, 98])) > 64:
        paper = float(np.median(opaque))  # a whole picture with transparent corners
    else:
        paper = 255.0 if not len(opaque) or opaque.mean() < 128 else 0.0
    return (paper + opacity * (grey - paper) + 0.5).astype(np.uint8)


def _to_8_bits(values: npt.NDArray[np.float64]) -> UInt8Array:
    """Scales by what the largest value tells of the range: 1 for floats up to 1, otherwise the next power of two."""
    values = np.nan_to_num(values, posinf=0, neginf=0)
    values = values - min(0.0, float(values.min()))
    highest = float(values.max())
    top = 1.0 if highest <= 1 else 2.0 ** max(8, math.ceil(math.log2(highest + 1))) - 1
    return (values * (255 / top) + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class Prepared:
    """A picture as MNIST's own are.

    Attributes:
        image: uint8, shape ``(height, width)``: light ink, 255 where it is fullest, on 0.
        doubt: in a few words why its reading cannot be trusted; None where nothing speaks against it.
    """

    image: UInt8Array
    doubt: str | None


WORKING_SIDE = 128
"""Pixels of the longer side at which ink is looked for."""
SMALL = 45
"""Working pixels below which a digit is looked at again from nearby."""
EDGE = 0.05
"""The share of full ink from which a row or column belongs to the digit."""
FAINTEST = 0.06
"""The contrast, as a share of the light that the paper gives, from which something is ink."""


def prepare(grey: UInt8Array, shape: tuple[int, int] = (28, 28)) -> Prepared:
    """Prepares a picture of one digit as MNIST's were prepared.

    LeCun, Cortes and Burges (http://yann.lecun.com/exdb/mnist/): the digit is scaled to fit 20 x 20 pixels, keeping its
    proportions, which gives grey levels by antialiasing, and placed in 28 x 28 with its centre of mass in the middle. Before
    that the ink is found: what stands out from the paper, whose light may change smoothly across the picture.

    Args:
        grey: uint8, shape ``(height, width)``, dark ink on light or light on dark.
        shape: height and width of the result; another than 28 x 28 gets a frame in proportion.

    Returns:
        The image, and the doubt whether it is one digit. A picture that already is prepared stays as it is.
    """
    factor = math.ceil(max(grey.shape) / WORKING_SIDE)
    contrast, noise = _contrast(_reduced(grey, factor))
    ink = _find_ink(contrast, noise)
    if ink is None:
        return Prepared(np.zeros(shape, np.uint8), "empty: no ink found")
    if factor > 1 and max(ink.levels.shape) < SMALL:
        margin = SMALL // 4
        closer = grey[tuple(slice(max(0, side.start - margin) * factor, (side.stop + margin) * factor) for side in ink.box)]
        if closer.size < grey.size / 2:
            seen = prepare(closer, shape)
            return Prepared(seen.image, ink.doubt or seen.doubt)
    if _is_prepared(grey, shape):
        return Prepared(grey, ink.doubt)
    return Prepared(_framed(ink.levels, shape), ink.doubt)


def _reduced(grey: UInt8Array, factor: int) -> FloatArray:
    from PIL import Image

    return np.asarray(Image.fromarray(grey).reduce(factor) if factor > 1 else grey, np.float32)


GRID = 24
"""The paper is looked at in a grid of so many points each way."""
RIDGE = np.diag([0, 0, 1, 0, 1, 1]).astype(np.float32)
"""Keeps the paper's light from bending where little paper is to be seen."""


def _quantile(values: FloatArray, share: float) -> float:
    """A sample's quantile, in a fifth of `np.quantile`'s time."""
    at = int(share * (len(values) - 1))
    return float(np.partition(values, at)[at])


@cache
def _surface() -> tuple[FloatArray, FloatArray]:
    """The terms of second order at the grid's points, shape ``(6, GRID**2)``, and how much each point counts."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, GRID, dtype=np.float32)] * 2, indexing="ij")
    counts = np.full((GRID, GRID), (4 * GRID - 4) / (GRID - 2) ** 2, np.float32)
    counts[[0, -1]] = counts[:, [0, -1]] = 1
    return np.stack([x * 0 + 1, y, y * y, x, x * x, y * x]).reshape(6, -1), counts.ravel()


def _contrast(grey: FloatArray) -> tuple[FloatArray, float]:
    """How far each pixel stands out from the paper, to the side on which the ink is.

    The paper's light is a surface of second order through the picture, fitted with least absolute deviations (iteratively
    reweighted least squares), to which the ink is a minority of outliers. The picture's edge counts as much as all the rest:
    a digit that fills the picture leaves little paper elsewhere.

    Returns:
        float32 of the picture's shape, at most about 1: as a share of what would be full black on this paper, or full white;
        and the paper's own standard deviation in it.
    """
    height, width = grey.shape
    terms, counts = _surface()
    points = [np.linspace(0, n - 1, GRID).round().astype(int) for n in grey.shape]
    values = grey[np.ix_(*points)].ravel()
    weights = counts
    for _ in range(8):
        weighted = terms * weights
        fit = np.linalg.solve(weighted @ terms.T + RIDGE, weighted @ values)
        deviation = np.abs(values - fit @ terms)
        weights = counts / (deviation + 2)
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    paper = ((fit[0] + fit[1] * y + fit[2] * y * y) + (fit[3] + fit[5] * y) * x + fit[4] * x * x).clip(0, 255)
    spread = _quantile(deviation, 0.3) / 0.385  # of a normal distribution, even if more than half is ink
    above = grey - paper
    if spread > 25:  # hardly any paper is to be seen: a digit cut out to its very edge
        ends = np.percentile(grey, [2, 98])
        edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        above = grey - ends[int(edge.mean() > ends.mean())]
        spread = 1.05 * max(float(np.median(np.abs(np.diff(grey, axis=axis)))) for axis in (0, 1) if grey.shape[axis] > 1)
    beyond = 4 * spread + 255 * FAINTEST / 2
    light = np.maximum(above - beyond, 0).sum() > np.maximum(-above - beyond, 0).sum()
    full = np.maximum(255 - paper if light else paper, 32)
    return ((above if light else -above) / full).astype(np.float32), spread / float(full.mean())


@dataclass(frozen=True)
class _Ink:
    levels: FloatArray  # 0 to 1; the digit alone, cut out
    box: tuple[slice, slice]  # where in the picture
    doubt: str | None


def _find_ink(contrast: FloatArray, noise: float) -> _Ink | None:
    from scipy import ndimage

    faintest = max(FAINTEST, 4 * noise)
    standing_out = contrast[contrast > faintest]
    if not len(standing_out):
        return None
    level = float((standing_out**2).sum() / standing_out.sum())
    labels, count = ndimage.label(contrast > max(faintest, 0.4 * level), np.ones((3, 3)))
    if not count:
        return None
    mass = np.bincount(labels.ravel(), contrast.ravel(), count + 1)[1:]
    boxes = ndimage.find_objects(labels)
    tops, bottoms = (np.array([getattr(box[0], end) for box in boxes]) for end in ("start", "stop"))
    lefts, rights = (np.array([getattr(box[1], end) for box in boxes]) for end in ("start", "stop"))
    sizes = np.maximum(bottoms - tops, rights - lefts)
    height, width = contrast.shape
    at_edge = (tops == 0) | (lefts == 0) | (bottoms == height) | (rights == width)
    if (sizes[~at_edge] > 0.15 * max(height, width)).any():
        mass = np.where(at_edge, 0, mass)  # the table beside the paper, a shadow in the corner
    main = int(mass.argmax())
    size = sizes[main]
    if size < max(3, 0.03 * max(height, width)):
        return None
    apart_x = np.maximum(lefts - rights[main], lefts[main] - rights)
    apart_y = np.maximum(tops - bottoms[main], tops[main] - bottoms)
    weighty = mass > 0.02 * mass[main]
    shapes = weighty & (sizes > 0.4 * size) & (mass > 0.1 * mass[main])
    others = shapes & ((apart_x >= 0.1 * size) & (bottoms - tops > 0.5 * size) | (np.maximum(apart_x, apart_y) > 0.3 * size))
    others[main] = False
    kept = weighty & (np.maximum(apart_x, apart_y) < 0.3 * size) & ~others
    kept[main] = True
    box = (
        slice(max(0, int(tops[kept].min()) - 1), int(bottoms[kept].max()) + 1),
        slice(max(0, int(lefts[kept].min()) - 1), int(rights[kept].max()) + 1),
    )
    mask, contrast = np.concatenate([[False], kept])[labels[box]], contrast[box]
    level = _quantile(contrast[mask], 0.8)
    floor = min(faintest, level / 4)
    levels = ((contrast - floor) / (level - floor)).clip(0, 1)
    levels[~mask & (labels[box] > 0)] = 0
    rows, columns = np.flatnonzero(levels.max(1) > EDGE), np.flatnonzero(levels.max(0) > EDGE)
    levels = levels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    doubt = None
    tall, wide = levels.shape
    density = float((levels > 0.5).mean())
    if others.any():
        doubt = f"several digits: {others.sum() + 1} separate shapes"
    elif wide > 1.8 * tall:
        doubt = "more than a digit: far wider than high"
    elif level < 1.5 * FAINTEST:
        doubt = "too little contrast"
    elif density > 0.75 and min(tall, wide) > 0.5 * max(tall, wide):
        doubt = "more than a digit: the ink fills the picture"
    return _Ink(levels, box, doubt)


def _is_prepared(grey: UInt8Array, shape: tuple[int, int]) -> bool:
    """Whether a picture has the shape, the dark margin, the size and the place that `prepare` gives."""
    if grey.shape != shape:
        return False
    rows, columns = np.flatnonzero(grey.any(1)), np.flatnonzero(grey.any(0))
    extent = max((rows[-1] + 1 - rows[0]) / shape[0], (columns[-1] + 1 - columns[0]) / shape[1])
    off = [abs(c - n // 2) for c, n in zip(_centre_of_mass(grey), shape, strict=True)]
    return 18.5 / 28 < extent < 20.5 / 28 and max(off) < 0.6


def _centre_of_mass(image: npt.NDArray[Any]) -> tuple[float, float]:
    """As row and column, those of the first pixel being 0, so that MNIST's own is 14, 14 to the nearest pixel."""
    total = float(image.sum()) or 1.0
    return float(image.sum(1) @ np.arange(image.shape[0])) / total, float(image.sum(0) @ np.arange(image.shape[1])) / total


def _framed(levels: FloatArray, shape: tuple[int, int]) -> UInt8Array:
    from PIL import Image

    scale = min(side * 20 / 28 / n for side, n in zip(shape, levels.shape, strict=True))
    height, width = (max(1, round(n * scale)) for n in levels.shape)
    small = np.asarray(Image.fromarray(levels).resize((width, height), Image.Resampling.BILINEAR))
    small = np.clip(small * (255 / max(float(small.max()), 1e-3)) + 0.5, 0, 255).astype(np.uint8)
    frame = np.zeros(shape, np.uint8)
    corner = [round(n // 2 - c) for n, c in zip(shape, _centre_of_mass(small), strict=True)]
    top, left = (min(max(at, 0), n - m) for at, n, m in zip(corner, shape, small.shape, strict=True))
    frame[top : top + height, left : left + width] = small
    return frame


def fit(grey: UInt8Array, shape: tuple[int, int]) -> Prepared:
    """For data that is not framed as MNIST's: the whole picture, on dark ground, scaled into the frame with its ratio kept.

    Args:
        grey: uint8, shape ``(height, width)``.
        shape: of the frame.

    Returns:
        The image, whose ground is 0 where that of the picture is even; no doubt is raised but that it is empty.
    """
    from PIL import Image

    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if edge.mean() > 127:
        grey, edge = ~grey, ~edge
    factor = min(shape[0] / grey.shape[0], shape[1] / grey.shape[1])
    size = max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor))
    small = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS))
    image = np.full(shape, np.median(edge), np.uint8)
    top, left = (shape[0] - size[1]) // 2, (shape[1] - size[0]) // 2
    image[top : top + size[1], left : left + size[0]] = small
    return Prepared(image, "empty: one grey level everywhere" if np.ptp(grey) == 0 else None)
