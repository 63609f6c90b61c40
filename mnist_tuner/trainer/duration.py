"""Durations as people write them."""

from __future__ import annotations

import re
from datetime import timedelta


def parse_duration(duration: str | timedelta | dict[str, float]) -> timedelta:
    """A duration, however it was written.

    Raises:
        ValueError: it cannot be read.
    """
    if isinstance(duration, timedelta):
        return duration
    if isinstance(duration, dict):
        return timedelta(**duration)
    if match := re.fullmatch(r"(\d+):(\d+):(\d+):(\d+)", duration.strip()):
        days, hours, minutes, seconds = map(int, match.groups())
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)", duration.strip()):
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
        return timedelta(**{unit: float(match[1])})
    raise ValueError(f"{duration!r} is not a duration: expected DD:HH:MM:SS, or a number with s, m, h or d, such as 10m")


def duration_text(seconds: float) -> str:
    """A duration for people, such as 1:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
