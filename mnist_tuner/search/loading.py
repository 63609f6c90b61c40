"""Loading TensorFlow in worker processes: once for all of them where they can be forked, else in each while it starts."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from multiprocessing import forkserver

FORKED = sys.platform == "linux"
"""Where a process that has imported TensorFlow (and done nothing with it) may be forked."""

_loading: threading.Thread | None = None
_failure: list[BaseException] = []


def prepare_forking() -> None:
    """Starts the process that workers are forked from. It loads TensorFlow meanwhile: the sooner this is called, the better."""
    if FORKED:
        multiprocessing.get_context("forkserver").set_forkserver_preload(["mnist_tuner.search.forkserver"])
        forkserver.ensure_running()


def begin_loading() -> None:
    """Loads TensorFlow in a thread, once. A process that ends meanwhile waits for it, as for what draws a page."""
    global _loading
    if _loading is None:
        _loading = threading.Thread(target=load_now)
        _loading.start()


def finish_loading() -> None:
    """Waits until it is loaded.

    Raises:
        RuntimeError: it cannot be.
    """
    begin_loading()
    assert _loading is not None
    _loading.join()
    if _failure:
        raise RuntimeError(f"TensorFlow could not be loaded: {_failure[0]}") from _failure[0]


def load_now(woken: bool = True) -> None:
    from mnist_tuner.startup import load_keras_tuner, load_tensorflow
    from mnist_tuner.trainer.backend import choose_backend

    try:
        choose_backend()
        # Each trial is a program of its own, so that a cache of them would fill and never be read.
        load_tensorflow(threads=1, cached=False, woken=woken)
        load_keras_tuner(bayesian=False)
    except BaseException as error:  # told by the first trial
        _failure.append(error)
