"""The engine on Dask: workers on this machine, or a cluster that is running somewhere."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import pickle
import queue
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, ClassVar

import dask
from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, LocalCluster, Security
from distributed.client import ClosedClientError
from distributed.deploy import Cluster
from distributed.protocol.pickle import dumps
from distributed.utils import get_mp_context

from mnist_tuner.errors import InputError
from mnist_tuner.search.cluster import Crew, connect
from mnist_tuner.search.engine import (
    Done,
    EngineLostError,
    Event,
    Failed,
    Limit,
    Reported,
    Spec,
    Started,
    is_full_disk,
    last_line,
)
from mnist_tuner.search.loading import FORKED, prepare_forking
from mnist_tuner.search.modules import lack_of, pickled
from mnist_tuner.search.versions import WorkerInfo, of_this_machine
from mnist_tuner.search.worker import Call, ExperimentPlugin, UnknownExperimentError, work

LOST = "its worker died (killed, or out of memory)"
MOST_STARTS = 2
"""A cluster with settings of its own runs the work of a worker that died again on another: this often it may."""
MOST_WAITS = 5
"""Work that was still waiting for its turn when the worker died is given out again, this often: it could also have killed the
worker before word of its beginning had left."""

WORKERS_SECONDS = 30.0
"""So long a cluster may be without workers, where nothing else is said."""
GONE = "the Dask scheduler has gone"
RESTART_SECONDS = 30

_OURS: dict[str, Any] = {
    "distributed.worker.multiprocessing-method": "forkserver" if FORKED else "spawn",
    "distributed.nanny.pre-spawn-environ": {},
    # A task of a worker that dies is ours to give out again, not Dask's: so that one that kills its workers takes two.
    "distributed.scheduler.allowed-failures": 0,
    # So long after a worker's death Dask looks whether there is another in its place, and gives the place up if that one, too,
    # is just being started again.
    "distributed.deploy.lost-worker-timeout": "10000h",
    "distributed.scheduler.work-stealing": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.admin.large-graph-warning-threshold": "1GB",
    "distributed.diagnostics.nvml": False,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


@dataclass
class _Given:
    """A piece of work that Dask has.

    Attributes:
        future: Dask's; None while there is no worker for it.
        workers: of somebody's cluster, those that may do it.
        places: how often it was given to Dask.
        starts: the workers that began with it.
        waits: how often it waited for a worker that died.
        limit: how long it may take.
        deadline: until when, by ``time.monotonic()``, once it has begun; what a worker's start takes does not count.
    """

    spec: Spec
    future: Future | None = None
    workers: frozenset[str] = frozenset()
    places: int = 0
    starts: list[str] = field(default_factory=list)
    waits: int = 0
    limit: Limit | None = None
    deadline: float = math.inf

    def begin(self) -> None:
        """Its time begins."""
        if self.limit is not None:
            self.deadline = time.monotonic() + self.limit.seconds


class DaskEngine:
    """Runs pieces of work in Dask's workers.

    Args:
        workers: so many processes on this machine (None: one per core), each with one thread; they end with this process,
            however it ends, and talk over TLS with a certificate made for this search.
        scheduler: a running cluster instead: an address such as "tcp://host:8786", a `distributed.Client`, or a cluster object.
            It is left as it is.
        security: the certificates for it; by default the client's or the cluster's.
        workers_wait: for so many seconds it may be without workers: before the first one comes, and later.
        modules: those of the person's own that workers lack: what the experiment needs of them is sent with it.
        say: tells the person something, in a line, such as that a worker cannot be used.

    Raises:
        InputError: there is no scheduler, or no worker that can be used.
    """

    most_growth: ClassVar[float] = 1e9
    """A worker whose memory has grown by so many bytes is replaced."""

    def __init__(
        self,
        workers: int | None = None,
        scheduler: str | Client | Cluster | None = None,
        security: Security | None = None,
        *,
        workers_wait: float = WORKERS_SECONDS,
        modules: Sequence[ModuleType] = (),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._topic = f"mnist_tuner-{secrets.token_hex(8)}"
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._given: dict[str, _Given] = {}
        self._modules = modules
        self._cluster: LocalCluster | None = None
        self._crew: Crew | None = None
        self._stack = ExitStack()
        for name in ("distributed", *(name for name in logging.root.manager.loggerDict if name.startswith("distributed."))):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # for good: some of what it has to say comes after the end
        self._own_workers = (workers or CPU_COUNT) if scheduler is None else 0
        try:
            if scheduler is None:
                self._start_workers(self._own_workers)
                self._client = Client(self._cluster, set_as_default=False)
            else:
                self._client = connect(scheduler, security)
                self._crew = Crew(self._client, workers_wait, say)
                with _while_it_lives():
                    self._crew.until(self._crew.has_heard_from_all)
        except BaseException:
            self.close()
            raise
        self._client.subscribe_topic(self._topic, lambda event: self._events.put(event[1]))

    def _start_workers(self, workers: int) -> None:
        self._stack.enter_context(_light_main())
        self._stack.enter_context(dask.config.set(_OURS))  # until the end: a worker that dies is started again
        get_mp_context()  # Dask has a list of its own of what to load before forking, which it gives now
        prepare_forking()
        self._cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",  # with nothing to see there
            worker_dashboard_address=None,
            host="127.0.0.1",
            security=Security.temporary(),
            silence_logs=logging.CRITICAL,
            preload=["mnist_tuner.search.worker"],
        )
        self._cluster.loop.add_callback(self._cluster.scheduler.http_server.stop)  # as each worker does

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        """All workers that there have been."""
        return tuple(self._crew.known.values()) if self._crew else (of_this_machine(),)

    def begin(self, experiment: Any) -> None:
        """Sends the experiment to the workers, those to come included.

        Raises:
            InputError: the cluster has no workers that can be used.
            EngineLostError: the scheduler has gone.
        """
        plugin = ExperimentPlugin(self._topic, pickled(experiment, self._modules), self.most_growth)
        with _while_it_lives():
            if self._crew is None:
                self._client.register_plugin(plugin, name=self._topic)
            else:
                crew = self._crew
                crew.begin(plugin)
                crew.until(lambda: crew.size > 0)

    @property
    def slots(self) -> int:
        """One for each worker: trials in one process would share its seeds, so that a second thread would wait.

        Raises:
            EngineLostError: the cluster's workers have gone, or its scheduler.
        """
        self._tend()
        return max(1, self._crew.size) if self._crew else self._own_workers

    def _tend(self) -> None:
        """Sees which of somebody's workers there are, and gives them the work of those that have gone.

        Raises:
            EngineLostError: they have all gone, or the scheduler.
        """
        if self._crew is None:
            return
        self._check_scheduler()
        with _while_it_lives():
            self._crew.look()
        if (problem := self._crew.problem) is not None:
            raise EngineLostError(problem)
        for key, given in self._given.items():
            if given.workers.isdisjoint(self._crew.ready) and not (given.future and given.future.done()):
                self._place(key)

    def submit(self, key: str, spec: Spec, limit: Limit | None = None) -> None:
        """Gives it to the scheduler.

        Raises:
            EngineLostError: that has gone.
        """
        self._given[key] = _Given(spec, limit=limit)
        self._place(key)

    def _place(self, key: str) -> None:
        """Gives a piece of work to the workers that there are now, whoever had it before."""
        given, workers = self._given[key], self._crew.ready if self._crew else None
        given.workers, given.deadline = frozenset(workers or ()), math.inf
        given.places = place = given.places + 1  # the end of what it was before is not this one's
        with _while_it_lives():
            self._cancel(given)
            given.future = None
            if workers == []:  # to Dask that would mean all
                return
            call = dumps(Call(work, self._topic, key, dumps(given.spec)))
            name = f"{self._topic}-{key}-{place}"
            given.future = self._client.submit(pickle.loads, call, key=name, pure=False, retries=0, workers=workers)
        given.future.add_done_callback(lambda _: self._events.put({"key": key, "ended": place}))

    def wait(self, handle: Callable[[Event], None], timeout: float) -> None:
        """Hands on what comes from the workers.

        Raises:
            EngineLostError: the scheduler has gone, or all workers.
        """
        self._tend()
        deadline = time.monotonic() + timeout
        for key, given in self._given.items():
            if deadline - timeout > given.deadline and given.future and not given.future.done():
                handle(self._end(key))
                return
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self._check_scheduler()
                return
            key = event["key"]
            if key not in self._given:
                continue
            if "ended" in event:
                if event["ended"] != self._given[key].places:  # it has been placed anew since
                    continue
                outcome = self._outcome(key)
                if outcome is None:
                    continue
                handle(outcome)
                return
            if "reported" in event:
                handle(Reported(key, event["reported"]))
                continue
            self._given[key].begin()
            if "loaded" in event:
                continue
            self._given[key].starts.append(event["worker"])
            if len(self._given[key].starts) > MOST_STARTS:
                self._cancel(self._given.pop(key))
                handle(Failed(key, LOST, event["worker"]))
                return
            handle(Started(key, event["worker"]))

    def _outcome(self, key: str) -> Event | None:
        """What became of a piece of work; None: it had been waiting for a worker that died, or came to one that cannot do it, or
        not yet, and is given out again."""
        given = self._given[key]
        future, worker = given.future, (given.starts or [""])[-1]
        assert future is not None
        try:
            result, worker, has_grown = future.result()
        except KilledWorker as error:
            if error.last_worker.address not in given.starts and given.waits < MOST_WAITS:
                given.waits += 1
                self._place(key)
                return None
            event: Event = Failed(key, LOST, worker)
        except Exception as error:
            if isinstance(error, InputError) or is_full_disk(error):
                raise
            if future.status != "error":
                raise EngineLostError(f"{GONE}, and with it what was running") from error
            if isinstance(error, UnknownExperimentError) and self._crew is not None:
                self._crew.forget(error.worker)
                self._place(key)
                return None
            if (lack := lack_of(error, self._modules)) is not None:
                self._refuse(getattr(error, "worker", worker), lack)
                given.starts = given.starts[:-1]
                self._place(key)
                return None
            event = Failed(key, last_line(error), worker, "".join(traceback.format_exception(error)))
        else:
            event = Done(key, result, worker)
            if has_grown and self._own_workers:
                with suppress(Exception):  # one without a nanny cannot be
                    self._client.restart_workers([worker], timeout=RESTART_SECONDS, raise_for_error=False)
        del self._given[key]
        future.release()
        return event

    def _refuse(self, worker: str, reason: str) -> None:
        """Does without a worker.

        Raises:
            InputError: there is no other.
        """
        if self._crew is None:
            raise InputError(f"the workers cannot be used: {reason}")
        self._crew.refuse(worker, reason)
        if not self._crew.is_worth_waiting:
            raise InputError(self._crew.complaint)

    def _cancel(self, *given: _Given) -> None:
        if futures := [each.future for each in given if each.future is not None]:
            self._client.cancel(futures, force=True)

    def _end(self, key: str) -> Event:
        """Ends a piece of work that takes too long: its worker is killed, and its nanny starts another.

        A worker of somebody's cluster that has no nanny leaves the cluster: whoever started it may start it again.
        """
        given = self._given.pop(key)
        worker = given.starts[-1]
        self._cancel(given)
        if self._cluster is not None:
            for nanny in self._cluster.workers.values():
                if nanny.worker_address == worker and nanny.pid:
                    os.kill(nanny.pid, signal.SIGKILL)
        else:
            with _while_it_lives():
                try:
                    self._client.restart_workers([worker], timeout=RESTART_SECONDS, raise_for_error=False)
                except (ValueError, KeyError):  # no nanny, or gone already
                    self._client.retire_workers([worker])
        assert given.limit is not None
        return Failed(key, given.limit.reason, worker, final=True)

    def _check_scheduler(self) -> None:
        if self._client.status != "running":
            raise EngineLostError(GONE)

    def close(self) -> None:
        """Ends our own workers; on somebody's cluster, cancels what is running and takes the experiment away."""
        with suppress(Exception):
            if self._cluster is not None:
                for nanny in self._cluster.workers.values():  # a worker in the middle of a trial would be waited for
                    nanny.auto_restart = False
                    if nanny.pid:
                        os.kill(nanny.pid, signal.SIGKILL)
            elif hasattr(self, "_client") and self._client.status == "running":
                self._cancel(*self._given.values())
                if self._crew is not None:
                    self._crew.close()
        with suppress(Exception):
            if hasattr(self, "_client"):
                self._client.close(timeout=2)
        with suppress(Exception):
            if self._cluster is not None:
                self._cluster.close(timeout=2)
        self._stack.close()


@contextmanager
def _while_it_lives() -> Iterator[None]:
    """A request that the scheduler does not answer means that it has gone."""
    try:
        yield
    except (OSError, RuntimeError, ClosedClientError) as error:
        raise EngineLostError(GONE) from error


@contextmanager
def _light_main() -> Iterator[None]:
    """Keeps the workers from importing the program's main module again, as Python's multiprocessing does.

    It would cost what that module imports, and would run a script that does not ask for ``__name__``. What they need of it comes
    to them by value. A package's main module is one that Python leaves alone.
    """
    main = sys.modules["__main__"]
    before = getattr(main, "__spec__", None)
    main.__spec__ = importlib.util.find_spec("mnist_tuner.__main__")
    try:
        yield
    finally:
        main.__spec__ = before
