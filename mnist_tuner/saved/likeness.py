"""Whether an image is like any that a net was trained on."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mnist_tuner.saved.pictures import FloatArray, UInt8Array

REFERENCES = 5000
"""With how many an image is compared."""
DIRECTIONS, PARTS = 8, 7


class Likeness:
    """How far images are from a collection of them: what no digit resembles lies far from every digit.

    Images are compared by the directions of their strokes' edges in overlapping parts of the picture, as histograms of
    oriented gradients do (Dalal and Triggs, CVPR 2005), projected on the references' principal components, with half of each
    one's weight taken off. The distance is Euclidean, to the nearest reference.

    Args:
        references: uint8, shape ``(m, height, width)``, as `prepare` gives them; evenly chosen ones of them are used, at most
            `REFERENCES`.

    Attributes:
        threshold: of 2,500 references, 0.2 % are further than this from all others.
    """

    def __init__(self, references: UInt8Array) -> None:
        chosen = references[np.linspace(0, len(references) - 1, min(len(references), REFERENCES)).round().astype(int)]
        features = _edge_directions(chosen)
        self._middle = features.mean(0)
        variances, components = np.linalg.eigh(np.cov(features, rowvar=False).astype(np.float32))
        kept = slice(-min(60, len(variances)), None)
        self._projection = components[:, kept] * np.maximum(variances[kept], 1e-9) ** -0.25
        self._references = (features - self._middle) @ self._projection

    def distance(self, images: UInt8Array) -> npt.NDArray[np.float64]:
        """The distance of each image, uint8 ``(n, height, width)``, to the nearest reference: float64, shape ``(n,)``."""
        return self._nearest((_edge_directions(images) - self._middle) @ self._projection, 0)

    @cached_property
    def threshold(self) -> float:
        """The distance from which an image is like no reference; computed when it is first asked for."""
        return float(np.quantile(self._nearest(self._references[:: math.ceil(len(self._references) / 2500)], 1), 0.998))

    def unlike(self, images: UInt8Array) -> npt.NDArray[np.bool_]:
        """Whether each image, uint8 ``(n, height, width)``, is like no reference: bool, shape ``(n,)``."""
        return np.greater(self.distance(images), self.threshold)

    def _nearest(self, features: FloatArray, skip: int) -> npt.NDArray[np.float64]:
        lengths = (self._references**2).sum(1)
        found = [np.zeros(0)]
        for part in np.array_split(features, math.ceil(len(features) / 500) or 1):
            squares = (part**2).sum(1)[:, None] + lengths - 2 * part @ self._references.T
            found.append(np.sqrt(np.maximum(np.partition(squares, skip, axis=1)[:, skip], 0).astype(np.float64)))
        return np.concatenate(found)


def _bumps(count: int, length: int, width: float) -> FloatArray:
    """Normal curves, shape ``(count, length)``: as a matrix it averages `length` pixels around `count` places."""
    places = (np.arange(count) + 0.5) * length / count - 0.5
    curves = np.exp(-((np.arange(length) - places[:, None]) ** 2) / (2 * width**2))
    return np.asarray(curves / curves.sum(1, keepdims=True), np.float32)


def _edge_directions(images: UInt8Array) -> FloatArray:
    """How much edge there is in each direction in each of 7 x 7 parts: float32, shape ``(n, 8 * 7 * 7)``, of length 1."""
    _, height, width = images.shape
    smooth = [_bumps(n, n, 0.7) for n in (height, width)]
    change = [np.gradient(matrix, axis=0).astype(np.float32) for matrix in smooth]
    parts = [_bumps(PARTS, n, n / 7) for n in (height, width)]
    features = np.empty((len(images), DIRECTIONS, PARTS, PARTS), np.float32)
    for start in range(0, len(images), 500):  # what fits the processor's cache
        grey = images[start : start + 500].astype(np.float32) / 255
        down, across = change[0] @ grey @ smooth[1].T, smooth[0] @ grey @ change[1].T
        steepness = 1 / np.maximum(np.hypot(down, across), 1e-3)
        for i, angle in enumerate(np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)):
            edge = np.maximum(across * np.float32(np.cos(angle)) + down * np.float32(np.sin(angle)), 0)
            edge *= np.square(edge * steepness)
            features[start : start + 500, i] = parts[0] @ edge @ parts[1].T
    roots = np.sqrt(features.reshape(len(images), DIRECTIONS * PARTS**2))
    return np.asarray(roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-6), np.float32)
