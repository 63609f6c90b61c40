"""What is reported of a saved model that was tested again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mnist_tuner.reports.report import SCHEMA_VERSION, ClassificationReport
from mnist_tuner.reports.statistics import Estimate


@dataclass(frozen=True)
class Evaluation:
    """A test of a saved model.

    Attributes:
        model: its file.
        data: the name of the data.
        class_names: one for each class, or none at all.
        test: the result.
    """

    model: str
    data: str
    class_names: tuple[str, ...]
    test: ClassificationReport

    @property
    def accuracy(self) -> Estimate:
        """On the test images, with Wilson's 95 % interval."""
        assert self.test.wilson95 is not None
        return Estimate(self.test.accuracy, *self.test.wilson95)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document; the README has its schema."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "evaluate",
            "model": self.model,
            "data": self.data,
            "class_names": list(self.class_names),
            "test": self.test.to_dict(),
        }
