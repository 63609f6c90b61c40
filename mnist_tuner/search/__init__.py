"""The search: KerasTuner's strategies over parallel workers. Names are imported when they are first used."""

from typing import TYPE_CHECKING

from mnist_tuner.lazy import attach

if TYPE_CHECKING:
    from mnist_tuner.search.trial import Observer as Observer
    from mnist_tuner.search.trial import TrialSummary as TrialSummary
    from mnist_tuner.search.tuner import Tuner as Tuner
else:
    __getattr__, __dir__, __all__ = attach(__name__, __file__)
