"""What the commands do, to be called from Python, as in a notebook; imported when it is first used."""

from typing import TYPE_CHECKING

from mnist_tuner.lazy import attach

if TYPE_CHECKING:
    from mnist_tuner.runner.reporting import report as report
    from mnist_tuner.runner.reporting import runs as runs
    from mnist_tuner.runner.searching import search as search
    from mnist_tuner.runner.training import train as train
    from mnist_tuner.saved.evaluate import evaluate as evaluate
    from mnist_tuner.saved.export import export as export
    from mnist_tuner.saved.predict import predict as predict
else:
    __getattr__, __dir__, __all__ = attach(__name__, __file__)
