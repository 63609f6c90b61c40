"""A model that somebody has saved, and what is known of it: from a run's folder, a .keras file, or a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.errors import InputError
from mnist_tuner.reports.report import DataSummary, RunReport
from mnist_tuner.reports.search import SearchReport
from mnist_tuner.reports.statistics import Estimate
from mnist_tuner.reports.stored import load_report

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Saved:
    """Where a model is, and what is known of it.

    Attributes:
        path: the file of the model.
        report: of the run that has trained it; None of a file from elsewhere.
    """

    path: Path
    report: RunReport | SearchReport | None = None

    @property
    def config(self) -> TrainConfig | SearchConfig | None:
        """The run's options."""
        match self.report:
            case RunReport():
                return TrainConfig.from_dict(self.report.config)
            case SearchReport():
                return SearchConfig.from_dict(self.report.config)
        return None

    @property
    def data(self) -> DataSummary | None:
        """What it was trained on."""
        return None if self.report is None else self.report.data

    @property
    def seed(self) -> int | None:
        """Of its training: of several, the first."""
        match self.report:
            case RunReport():
                return self.report.seed
            case SearchReport():
                net = self.report.winner or self.report.baseline
                return None if net is None else net.seeds[0]
        return None

    @property
    def accuracy(self) -> Estimate | None:
        """On the test images: the model's own, or, where there were several trainings, that of all."""
        match self.report:
            case RunReport():
                return self.report.accuracy
            case SearchReport():
                net = self.report.winner or self.report.baseline
                return None if net is None else net.accuracy
        return None

    def load(self) -> keras.Model:
        """The model.

        Raises:
            InputError: it cannot be loaded.
        """
        from mnist_tuner.models.saved import load_checkpoint_model, load_keras_model

        if self.path.suffix != ".safetensors":
            return load_keras_model(self.path)
        config, data = self.config, self.data
        if not isinstance(config, TrainConfig) or data is None:
            raise InputError(
                f"{self.path}: a checkpoint outside of a run's folder does not say what net it is of: give its model.keras"
            )
        return load_checkpoint_model(self.path, config.hidden, data.image_shape, data.classes, config.precision)


def find_saved(path: Path) -> Saved:
    """A run's folder, a ``.keras`` file, or a checkpoint.

    Raises:
        InputError: there is no such thing there.
    """
    if path.is_dir():
        report = load_report(path)
        if not (path / "model.keras").exists():
            raise InputError(f"{path / 'model.keras'}: there is none: the run has not come to its end")
        return Saved(path / "model.keras", report)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix not in (".keras", ".safetensors"):
        raise InputError(f"{path}: expected a run's folder, a .keras file, or a .safetensors checkpoint")
    folder = path.parent.parent if path.suffix == ".safetensors" else path.parent
    return Saved(path, load_report(folder) if (folder / "run.json").exists() else None)
