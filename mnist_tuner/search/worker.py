"""What happens in a worker process. Importing this is cheap: TensorFlow is loaded by a thread while the worker starts."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
from distributed import Worker, WorkerPlugin, get_worker
from distributed.protocol.pickle import loads

from mnist_tuner.search.engine import last_line
from mnist_tuner.search.loading import begin_loading, finish_loading

if TYPE_CHECKING:
    from mnist_tuner.search.engine import Spec

_one_at_a_time = threading.Lock()


def dask_setup(worker: Worker) -> None:
    """Called by Dask when one of our own workers has started."""
    worker.http_server.stop()  # which serves nothing, to everybody on this machine
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's business
    if os.environ.get("MNIST_TUNER_WORKER_OUTPUT") != "show":  # a progress bar of somebody's fit would tear the table
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    begin_loading()


def set_generators_apart() -> None:
    """Gives Dask random numbers of its own.

    Dask 2026.8 and tornado draw from Python's global generator in threads of their own, for each message that comes or goes. A
    trial seeds that one, and Keras takes the seeds of a model's first weights from it: a message at the wrong moment would change
    them.
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("dask", "distributed", "tornado") and getattr(module, "random", None) is random:
            module.random = random.Random()  # type: ignore[attr-defined]


class LackingModuleError(Exception):
    """A worker cannot load the experiment: it lacks a module that the experiment needs, or has another one of that name.

    Attributes:
        worker: its address.
        module: the module's name, where that is known.
        reason: what was raised there.
    """

    def __init__(self, worker: str, module: str | None, reason: str) -> None:
        super().__init__(worker, module, reason)
        self.worker, self.module, self.reason = worker, module, reason


class UnknownExperimentError(Exception):
    """A worker has not been given the experiment: it has been started again at its address, and nobody has noticed yet.

    Attributes:
        worker: its address.
    """

    def __init__(self, worker: str) -> None:
        super().__init__(worker)
        self.worker = worker


class ExperimentPlugin(WorkerPlugin):  # type: ignore[misc]  # Dask has no types
    """Brings an experiment to each worker, those that come later included.

    Args:
        name: of the search.
        experiment: pickled, since some of what it consists of needs TensorFlow to be unpickled.
        most_growth: a worker whose memory has grown by so many bytes asks to be replaced.
    """

    def __init__(self, name: str, experiment: bytes, most_growth: float) -> None:
        self.name = name
        self.pickled = experiment
        self.experiment: Any = None
        self.most_growth = most_growth
        self.memory = 0
        self.address = ""

    def setup(self, worker: Worker) -> None:
        """Called by Dask."""
        self.address = worker.address
        begin_loading()
        set_generators_apart()

    def get(self) -> Any:
        """The experiment, unpickled at its first use.

        Raises:
            LackingModuleError: it cannot be.
        """
        finish_loading()
        if self.experiment is None:
            set_generators_apart()
            try:
                self.experiment = loads(self.pickled)
            except (ImportError, AttributeError) as error:  # a module is missing, or something in it
                named = re.search(r"module '([^']+)'", str(error))
                module = error.name if isinstance(error, ImportError) else named and named[1]
                raise LackingModuleError(self.address, module, last_line(error)) from error
            self.pickled = b""
            self.memory = _memory()
        return self.experiment

    @property
    def has_grown(self) -> bool:
        """Whether the process has grown too much: TensorFlow 2.21 keeps what it has traced and compiled, some 14 MB a trial."""
        return _memory() - self.memory > self.most_growth


async def give(plugin: ExperimentPlugin, dask_worker: Worker) -> None:
    """Gives a worker of somebody's cluster an experiment; Dask says which."""
    await dask_worker.plugin_add(plugin, name=plugin.name, catch_errors=False)


async def take_away(name: str, dask_worker: Worker) -> None:
    """Takes an experiment away from it again."""
    await dask_worker.plugin_remove(name)


def _memory() -> int:
    return int(psutil.Process().memory_info().rss)


class Call:
    """What, unpickled, is a function's result: its name and arguments are read in a worker only, not in the scheduler, which
    needs neither this package nor anything else of the search."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def work(name: str, key: str, pickled: bytes) -> tuple[Any, str, bool]:
    """Does a piece of work in a worker; returns its result, the worker's address, and whether it asks to be replaced.

    It comes pickled, since what it consists of may import TensorFlow, which another thread may be loading.
    """
    worker = get_worker()
    topic = partial(worker.log_event, name)
    plugin = worker.plugins.get(name)
    if not isinstance(plugin, ExperimentPlugin):
        raise UnknownExperimentError(worker.address)
    with _one_at_a_time:  # they seed the whole process
        topic({"key": key, "worker": worker.address})
        experiment = plugin.get()
        spec: Spec = loads(pickled)
        topic({"key": key, "loaded": True})
        try:
            result = spec.run(experiment, lambda content: topic({"key": key, "reported": content}))
        finally:
            if spec.leaves_models:
                from mnist_tuner.search.experiment import forget_models

                forget_models()
    return result, worker.address, plugin.has_grown
