"""The base class of loggers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Logger:
    """Takes what is measured."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Takes the metrics measured at a global step, "epoch" (from 0) among them."""

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Takes the hyperparameters, once per fit."""

    def finalize(self, status: str) -> None:
        """Closes; `status` is "success" or "failed"."""

    def state_dict(self) -> dict[str, Any]:
        """How much has been logged, as JSON values; kept in checkpoints."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Forgets what was logged after that state, when a training is resumed."""
