"""One seed for every source of random numbers."""

from __future__ import annotations

import random
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

_last: int | None = None


def seed_everything(seed: int | None = None) -> int:
    """Seeds Python's ``random``, numpy and Keras, and the order in which loaders made from now on take their rows.

    Args:
        seed: 0 to 2**32 - 1; None draws one from the operating system.

    Returns:
        The seed.

    Raises:
        ValueError: the seed is out of range.
    """
    global _last
    if seed is None:
        seed = secrets.randbits(32)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}: expected 0 to {2**32 - 1}")
    import keras
    from keras.src.backend.common import global_state

    keras.utils.set_random_seed(seed)
    global_state.set_global_attribute("global_seed_generator", None)  # before Keras 3.13 the one of before would go on
    _last = seed
    return seed


def global_generator() -> keras.random.SeedGenerator:
    """The generator that `keras.random` draws from where it is given no seed; Keras 3.15 has no public way to it."""
    from keras.src.random.seed_generator import global_seed_generator

    before = random.getstate()
    try:
        return global_seed_generator()
    finally:
        random.setstate(before)  # it may be made only now, with a seed drawn from these


def current_seed() -> int:
    """The seed last given to `seed_everything`; drawn from the operating system if there was none."""
    return secrets.randbits(32) if _last is None else _last
