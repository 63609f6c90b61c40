"""Checking arguments."""

from __future__ import annotations

from numbers import Integral
from typing import Any


def check_choices(**arguments: tuple[Any, tuple[Any, ...]]) -> None:
    """Each argument with the values allowed.

    Raises:
        ValueError: one has another value.
    """
    for name, (value, allowed) in arguments.items():
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}: expected {', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}")


def check_numbers(**arguments: tuple[Any, int]) -> None:
    """Each argument with the lowest number allowed.

    Raises:
        ValueError: one is lower, or no int.
    """
    for name, (value, low) in arguments.items():
        if not isinstance(value, Integral) or value < low:
            raise ValueError(f"{name} is {value!r}: expected an int of {low} or more")
