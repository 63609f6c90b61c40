"""Pieces of work on Dask's workers."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import psutil
import pytest
from distributed import LocalCluster

from mnist_tuner.search.dask_engine import LOST, DaskEngine
from mnist_tuner.search.engine import Done, EngineLostError, Event, Failed, InlineEngine, Limit, Pump
from tests.support.commands import DEADLINE, environment
from tests.support.hypermodels import Heard
from tests.support.pieces import Piece

pytestmark = pytest.mark.slow


def outcomes(engine: DaskEngine, count: int) -> dict[str, Event]:
    events: list[Event] = []

    def ended() -> list[Event]:
        return [event for event in events if isinstance(event, Done | Failed)]

    deadline = time.monotonic() + DEADLINE
    while len(ended()) < count and time.monotonic() < deadline:
        engine.wait(events.append, 1.0)
    return {event.key: event for event in ended()}


def test_work_that_waits_for_a_worker_is_not_blamed_for_its_death() -> None:
    with closing(DaskEngine(1)) as engine:
        engine.begin("what they have in common")
        engine.submit("kills", Piece(seconds=1.0, kills=True))
        for waiting in ("first", "second"):
            engine.submit(waiting, Piece())
        ended = outcomes(engine, 3)
    killer = ended.pop("kills")
    assert isinstance(killer, Failed)
    assert killer.reason == LOST
    assert {key: event.result for key, event in ended.items() if isinstance(event, Done)} == {"first": "done", "second": "done"}


def test_work_that_kills_its_worker_before_it_can_tell_is_blamed_in_the_end() -> None:
    with closing(DaskEngine(1)) as engine:
        engine.begin("what they have in common")
        engine.submit("kills", Piece(kills=True))
        killer = outcomes(engine, 1)["kills"]
    assert isinstance(killer, Failed)
    assert killer.reason == LOST


def check_ended(engine: DaskEngine) -> None:
    """What hangs is ended, and what waits for its worker is done by another one."""
    engine.begin("what they have in common")
    engine.submit("hangs", Piece(hangs=True), Limit("0.5s", 0.5))
    engine.submit("next", Piece())
    ended = outcomes(engine, 2)
    hung, done = ended["hangs"], ended["next"]
    assert isinstance(hung, Failed)
    assert (hung.reason, hung.final) == ("it took longer than 0.5s", True)
    assert isinstance(done, Done)
    assert hung.worker != done.worker


def test_work_that_takes_too_long_is_ended_with_its_worker() -> None:
    with closing(DaskEngine(1)) as engine:
        check_ended(engine)


@contextmanager
def dask_worker(address: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of somebody's cluster, or the nanny of one."""
    command = [sys.executable, "-m", "dask", "worker", address, "--nthreads", "1", "--no-dashboard", *options]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment(), **quiet) as process:
        try:
            yield process
        finally:
            process.kill()


def test_on_somebodys_cluster_the_nanny_starts_another_worker() -> None:
    with LocalCluster(n_workers=0, protocol="tcp", dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        with dask_worker(address), closing(DaskEngine(scheduler=address)) as engine:
            check_ended(engine)


def test_a_worker_that_is_started_again_at_the_same_address_is_given_the_experiment_again() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    with LocalCluster(n_workers=0, protocol="tcp", dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        with dask_worker(address, "--worker-port", str(port)), closing(DaskEngine(scheduler=address)) as engine:
            engine.begin("what they have in common")
            engine.submit("hangs", Piece(hangs=True), Limit("0.5s", 0.5))
            engine.submit("next", Piece())
            done = outcomes(engine, 2)["next"]
    assert isinstance(done, Done), done
    assert done.worker.endswith(f":{port}")


def test_a_worker_without_a_nanny_leaves_somebodys_cluster() -> None:
    with LocalCluster(n_workers=0, protocol="tcp", dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        with dask_worker(address, "--no-nanny") as first, closing(DaskEngine(scheduler=address)) as engine:
            engine.begin("what they have in common")
            engine.submit("hangs", Piece(hangs=True), Limit("0.5s", 0.5))
            assert list(outcomes(engine, 1)) == ["hangs"]
            engine.submit("next", Piece())
            with dask_worker(address, "--no-nanny"):
                assert isinstance(outcomes(engine, 1)["next"], Done)
            first.wait(DEADLINE)


def test_on_this_machine_nothing_listens_but_what_asks_for_a_certificate() -> None:
    def listening() -> set[int]:
        family = {psutil.Process().pid, *(child.pid for child in psutil.Process().children(recursive=True))}
        found = [each for each in psutil.net_connections(kind="inet") if each.pid in family]
        return {connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN}

    before = listening()
    with closing(DaskEngine(1)) as engine:
        engine.begin("what they have in common")
        ports = listening() - before
        assert len(ports) == 3  # the scheduler's, the worker's and its nanny's
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                with suppress(ConnectionResetError):
                    assert not connection.recv(100).startswith(b"HTTP")


def test_a_scheduler_that_has_gone_is_said_whatever_is_asked_of_it() -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=":0") as cluster:
        engine = DaskEngine(scheduler=cluster.scheduler_address)
        engine.begin("what they have in common")
    with closing(engine):
        with pytest.raises(EngineLostError, match="the Dask scheduler has gone"):
            assert engine.slots
        with pytest.raises(EngineLostError, match="the Dask scheduler has gone"):
            engine.submit("late", Piece())
            engine.wait(lambda event: None, 1.0)
        with pytest.raises(EngineLostError, match="the Dask scheduler has gone"):
            engine.begin("what they have in common")


@dataclass(frozen=True)
class Flaky(Piece):
    """Fails so often, and then no more."""

    failures: int = 0
    tries: ClassVar[list[str]] = []

    def run(self, experiment: str, report: Callable[[dict[str, Any]], None]) -> str:
        report({"replicate": 0, "epoch": 1, "value": 0.5})
        self.tries.append("tried")
        if len(self.tries) <= self.failures:
            raise LookupError(f"failure {len(self.tries)}")
        return "done"


@pytest.mark.parametrize(("failures", "again"), [(0, []), (1, ["failure 1"]), (2, ["failure 1"])])
def test_what_fails_is_tried_once_more_and_heard_of(failures: int, again: list[str]) -> None:
    heard = Heard()
    ended: dict[str, Done | Failed] = {}
    Flaky.tries.clear()
    engine = InlineEngine()
    engine.begin("what they have in common")
    pump = Pump(engine, heard, lambda name, event: ended.update({name: event}))
    pump.start("a-piece", Flaky(failures=failures))
    assert (pump.free, list(pump.running)) == (0, ["a-piece"])
    while pump.running:
        pump.wait()
    assert heard.again == [("a-piece", f"LookupError: {reason}") for reason in again]
    assert heard.started == ["a-piece"] * (1 + len(again))
    (event,) = ended.values()
    assert (event.result if isinstance(event, Done) else event.reason) == ("done" if failures < 2 else "LookupError: failure 2")


def test_work_in_this_process_that_takes_too_long_is_ended_when_it_reports_and_not_tried_again() -> None:
    heard = Heard()
    ended: dict[str, Done | Failed] = {}
    Flaky.tries.clear()
    engine = InlineEngine()
    pump = Pump(engine, heard, lambda name, event: ended.update({name: event}), Limit("0s", 0.0))
    pump.start("a-piece", Flaky())
    pump.wait()
    assert ended == {"a-piece": Failed("a-piece-1", "it took longer than 0s", "here", final=True)}
    assert (Flaky.tries, heard.again, pump.running) == ([], [], {})
