"""The data, the baseline network, and the search space around it; imported when they are first used."""

from typing import TYPE_CHECKING

from mnist_tuner.lazy import attach

if TYPE_CHECKING:
    from mnist_tuner.mnist.baseline import build_baseline as build_baseline
    from mnist_tuner.mnist.baseline import class_probabilities as class_probabilities
    from mnist_tuner.mnist.hypermodel import WidthHyperModel as WidthHyperModel
else:
    __getattr__, __dir__, __all__ = attach(__name__, __file__)
