"""Parts of a data set with the classes in the same proportions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]


def stratified_split(labels: UInt8Array, fraction: float, seed: int) -> tuple[IntArray, IntArray]:
    """Splits examples into a training and a validation part with the classes in the same proportions.

    Each class gives its share, rounded by largest remainder, so that the validation part has exactly
    ``round(fraction * n)`` examples. A pure function of its arguments.

    Args:
        labels: uint8, shape ``(n,)``.
        fraction: the validation part's share, 0 <= fraction < 1.
        seed: of the shuffle within each class.

    Returns:
        The indices of both parts, int64, each in ascending order.
    """
    generator = np.random.default_rng([seed, 0x5EED])
    counts = np.bincount(labels)
    shares = counts * fraction
    take = np.floor(shares).astype(np.int64)
    missing = round(fraction * len(labels)) - int(take.sum())
    take[np.argsort(take - shares, kind="stable")[:missing]] += 1
    members = [generator.permutation(np.flatnonzero(labels == label)) for label in range(len(counts))]
    validation = np.sort(np.concatenate([m[:t] for m, t in zip(members, take, strict=True)]))
    training = np.sort(np.concatenate([m[t:] for m, t in zip(members, take, strict=True)]))
    return training, validation
