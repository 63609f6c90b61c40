"""The base class of loggers."""

from __future__ import annotations

from collections.abc import Mapping


class Logger:
    """Takes what is measured."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Takes the metrics measured at a global step."""

    def finalize(self, status: str) -> None:
        """Closes; `status` is "success" or "failed"."""
