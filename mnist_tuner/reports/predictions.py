"""What a model has read in pictures."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from typing import Any

from mnist_tuner.reports.report import SCHEMA_VERSION


@dataclass(frozen=True)
class Prediction:
    """A picture that was read.

    Attributes:
        file: its name.
        label: the class that it was read as; name: what that is called.
        confidence: the softmax of the logits there.
        second, second_name, second_confidence: the runner-up.
        doubt: why the reading cannot be trusted, if it cannot.
    """

    file: str
    label: int
    name: str
    confidence: float
    second: int
    second_name: str
    second_confidence: float
    doubt: str | None

    @property
    def empty(self) -> bool:
        """Whether there was nothing to read."""
        return (self.doubt or "").startswith("empty")


@dataclass(frozen=True)
class Problem:
    """A picture that could not be read, and why."""

    file: str
    error: str


@dataclass(frozen=True)
class Predictions:
    """What became of all pictures."""

    model: str
    predictions: tuple[Prediction, ...]
    problems: tuple[Problem, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON document; README.md in this folder has its schema."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "predict",
            "model": self.model,
            "predictions": [asdict(prediction) for prediction in self.predictions],
            "problems": [asdict(problem) for problem in self.problems],
        }

    def to_csv(self) -> str:
        """A table: a row for each picture that was read."""
        text = io.StringIO()
        names = list(Prediction.__dataclass_fields__)
        table = csv.DictWriter(text, names, lineterminator="\n")
        table.writeheader()
        table.writerows({**asdict(prediction), "doubt": prediction.doubt or ""} for prediction in self.predictions)
        return text.getvalue()
