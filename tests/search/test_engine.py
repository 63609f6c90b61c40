"""Pieces of work on Dask's workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from distributed import LocalCluster

from mnist_tuner.search.dask_engine import LOST, DaskEngine
from mnist_tuner.search.engine import Done, EngineLostError, Event, Failed, InlineEngine, Pump
from tests.support.commands import DEADLINE
from tests.support.hypermodels import Heard

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Piece:
    leaves_models: ClassVar[bool] = False
    seconds: float = 0.0
    kills: bool = False

    def run(self, experiment: str, report: Callable[[dict[str, Any]], None]) -> str:
        time.sleep(self.seconds)
        if self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"


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


def test_a_scheduler_that_has_gone_is_said_whatever_is_asked_of_it() -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None) as cluster:
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
