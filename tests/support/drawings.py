"""MNIST's own strokes, drawn again in twelve ways as people's files hold them."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from scipy import ndimage

Coverage = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
INKS_AND_PAPERS: tuple[tuple[Colour, Colour], ...] = (
    ((30, 40, 150), (250, 230, 120)),
    ((150, 20, 30), (190, 225, 190)),
    ((20, 20, 20), (120, 170, 230)),
    ((250, 240, 120), (20, 70, 40)),
)


def stroke(digit: npt.NDArray[np.uint8], height: int, width: float = 1.0) -> Coverage:
    """A digit's stroke, cut out and as tall or wide as asked, with crisp edges.

    Args:
        digit: uint8, shape ``(28, 28)``, light on dark.
        height: of the longer side of what is returned, in pixels.
        width: of the line: below 1 its middle part is kept (0.5: half of the line), above 1 it is thickened, by the same
            amount on both sides (1.6: 0.6 of MNIST's pixels on each).

    Returns:
        float64 from 0 (paper) to 1 (ink), of the digit's proportions.
    """
    ink = _crisp(digit.tobytes(), width)
    scale = height / max(ink.shape)
    size = [max(1, round(side * scale)) for side in ink.shape[::-1]]
    resized = Image.fromarray(ink.astype(np.uint8) * 255).resize((size[0], size[1]), Image.Resampling.BICUBIC, reducing_gap=3)
    return np.asarray(resized, np.float64) / 255


@cache
def _crisp(pixels: bytes, width: float) -> npt.NDArray[np.bool_]:
    digit, factor = np.frombuffer(pixels, np.uint8).reshape(28, 28), 8
    smooth = ndimage.zoom(np.pad(digit, 2).astype(np.float64), factor, order=3, mode="grid-constant", grid_mode=True)
    ink = ndimage.gaussian_filter(smooth, factor / 4) > 110
    if width < 1:
        inside = ndimage.distance_transform_edt(ink)
        ink = inside > (1 - width) * ndimage.maximum_filter(inside, 3 * factor)
        ink = ndimage.binary_dilation(ink, iterations=1)
    elif width > 1:
        ink = ndimage.distance_transform_edt(~ink) < (width - 1) * factor
    rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def on_canvas(ink: Coverage, shape: tuple[int, int], across: float = 0.5, down: float = 0.5) -> Coverage:
    """Puts a stroke on an empty canvas; `across` and `down` from 0 (left, top) to 1 say where."""
    canvas = np.zeros(shape)
    top, left = round((shape[0] - ink.shape[0]) * down), round((shape[1] - ink.shape[1]) * across)
    canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return canvas


def paint(ink: Coverage, colour: Colour = BLACK, paper: Colour = WHITE) -> Image.Image:
    """The stroke in a colour on paper."""
    mixed = np.asarray(paper) + ink[..., None] * (np.asarray(colour) - np.asarray(paper, np.float64))
    return Image.fromarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The file's bytes."""
    file = io.BytesIO()
    if kind == "PNG":
        options = {"compress_level": 1, **options}
    image.save(file, kind, **options)
    return file.getvalue()


def _thick(digit: npt.NDArray[np.uint8], _: np.random.Generator) -> bytes:
    return encoded(paint(on_canvas(stroke(digit, 150, 1.6), (200, 200))))


def _thin(digit: npt.NDArray[np.uint8], _: np.random.Generator) -> bytes:
    return encoded(paint(on_canvas(stroke(digit, 150, 0.5), (200, 200))))


def _big(digit: npt.NDArray[np.uint8], _: np.random.Generator) -> bytes:
    return encoded(paint(np.pad(stroke(digit, 600), 12)))


def _small(digit: npt.NDArray[np.uint8], _: np.random.Generator) -> bytes:
    return encoded(paint(on_canvas(stroke(digit, 24), (240, 240))))


def _off_centre(digit: npt.NDArray[np.uint8], generator: np.random.Generator) -> bytes:
    across, down = generator.choice([0.03, 0.97], 2)
    return encoded(paint(on_canvas(stroke(digit, 70), (200, 300), across, down)))


def _inverted(digit: npt.NDArray[np.uint8], _: np.random.Generator) -> bytes:
    return encoded(paint(on_canvas(stroke(digit, 110), (160, 160)), (240, 240, 235), (25, 30, 28)))


def _coloured_paper(digit: npt.NDArray[np.uint8], generator: np.random.Generator) -> bytes:
    ink, paper = INKS_AND_PAPERS[generator.integers(len(INKS_AND_PAPERS))]
    return encoded(paint(on_canvas(stroke(digit, 110), (180, 160)), ink, paper))


def _rotated(digit: npt.NDArray[np.uint8], generator: np.random.Generator) -> bytes:
    image = paint(on_canvas(stroke(digit, 110), (180, 180)))
    return encoded(image.rotate(float(generator.choice([-10, 10])), Image.Resampling.BICUBIC, fillcolor=WHITE))


def _jpeg_noise(digit: npt.NDArray[np.uint8], generator: np.random.Generator) -> bytes:
    pixels = np.asarray(paint(on_canvas(stroke(digit, 100), (160, 160)), (50, 45, 60), (215, 210, 205)), np.float64)
    noisy = np.clip(pixels + generator.normal(0, 18, pixels.shape), 0, 255).astype(np.uint8)
    return encoded(Image.fromarray(noisy), "JPEG", quality=15)


def _photo(digit: npt.NDArray[np.uint8], generator: np.random.Generator) -> bytes:
    """2000 x 3000: soft focus, a shadow that falls across from one side to 35 % of the light, a vignette, and grain."""
    across, down = generator.uniform(0.2, 0.8, 2)
    ink = Image.fromarray((on_canvas(stroke(digit, 330), (1000, 667), across, down) * 255).astype(np.uint8))
    ink = ink.filter(ImageFilter.GaussianBlur(1.5)).resize((2000, 3000), Image.Resampling.BICUBIC)
    y, x = np.mgrid[-1:1:150j, -1:1:100j]
    angle = generator.uniform(0, 2 * np.pi)
    shadow = 0.675 + 0.325 * np.tanh(1.5 * (x * np.cos(angle) + y * np.sin(angle)))
    light = np.clip(shadow * (1 - 0.12 * (x**2 + y**2)), 0, 1) * 255
    lit = Image.fromarray(light.astype(np.uint8)).resize((2000, 3000), Image.Resampling.BICUBIC)
    grain = np.tile(generator.integers(0, 17, (300, 200), np.uint8), (10, 10))
    tone = np.asarray(lit).astype(np.uint16) * (220 - (np.asarray(ink) * np.uint16(155) >> 8)) >> 8
    grey = Image.fromarray((tone + grain).astype(np.uint8))
    warm = [grey.point([round(value * share) for value in range(256)]) for share in (1, 0.95, 0.85)]
    return encoded(Image.merge("RGB", warm), "JPEG", quality=85)


def _transparent(digit: npt.NDArray[np.uint8], generator: np.random.Generator) -> bytes:
    ink = on_canvas(stroke(digit, 110), (160, 180))
    colour = (20, 20, 60) if generator.integers(2) else (255, 250, 220)
    image = Image.new("RGBA", (180, 160), (*colour, 0))
    image.putalpha(Image.fromarray((ink * 255).astype(np.uint8)))
    return encoded(image)


def _grey_on_grey(digit: npt.NDArray[np.uint8], generator: np.random.Generator) -> bytes:
    ink, paper = ((118,) * 3, (150,) * 3) if generator.integers(2) else ((140,) * 3, (105,) * 3)
    return encoded(paint(on_canvas(stroke(digit, 110), (160, 160)), ink, paper))


WAYS: dict[str, Callable[[npt.NDArray[np.uint8], np.random.Generator], bytes]] = {
    "thick": _thick,
    "thin": _thin,
    "big": _big,
    "small": _small,
    "off-centre": _off_centre,
    "inverted": _inverted,
    "coloured paper": _coloured_paper,
    "rotated 10 degrees": _rotated,
    "JPEG noise": _jpeg_noise,
    "photo of 2000 x 3000 with a shadow": _photo,
    "transparent": _transparent,
    "grey on grey": _grey_on_grey,
}


def draw(digit: npt.NDArray[np.uint8], way: str, seed: int) -> bytes:
    """A digit as an image file.

    Args:
        digit: uint8, shape ``(28, 28)``, light on dark, as MNIST has it.
        way: one of `WAYS`.
        seed: of what is drawn by lot: noise, colours, places. The same arguments give the same bytes.

    Returns:
        The bytes of a PNG or JPEG file.
    """
    return WAYS[way](digit, np.random.default_rng(seed))
