"""Somebody's cluster: how it is given, and which of its workers are given work."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from distributed import Client, LocalCluster

import mnist_tuner
from mnist_tuner.errors import InputError
from mnist_tuner.search import Tuner
from mnist_tuner.search.cluster import address_of
from mnist_tuner.search.dask_engine import DaskEngine
from mnist_tuner.search.engine import Done, Event, Failed
from tests.support.clusters import Cluster, cluster_of
from tests.support.commands import DEADLINE
from tests.support.hypermodels import Wandering, blobs
from tests.support.searches import wait_until

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Pid:
    """Says which process it is done in."""

    seconds: float = 0.0
    leaves_models: ClassVar[bool] = False

    def run(self, experiment: Any, report: Callable[[dict[str, Any]], None]) -> int:
        time.sleep(self.seconds)
        return os.getpid()


def done(engine: DaskEngine, **pieces: Any) -> dict[str, Any]:
    """What pieces of work come to, given out as far as there are slots."""
    ended: dict[str, Any] = {}
    waiting = list(pieces)

    def handle(event: Event) -> None:
        if isinstance(event, Done | Failed) and event.key in pieces:
            ended[event.key] = event.result if isinstance(event, Done) else event.reason

    deadline = time.monotonic() + DEADLINE
    running = 0
    while len(ended) < len(pieces):
        assert time.monotonic() < deadline
        while waiting and running - len(ended) < engine.slots:
            key = waiting.pop(0)
            engine.submit(key, pieces[key])
            running += 1
        engine.wait(handle, 0.2)
    return ended


@pytest.fixture(scope="module", name="others")
def places_of_other_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that hide what is installed: from "bare" the package cannot be imported, "old" has another TensorFlow."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "bare" / "mnist_tuner").mkdir(parents=True)
    (folder / "bare" / "mnist_tuner" / "__init__.py").write_text("raise ModuleNotFoundError('not here')\n")
    (folder / "old" / "tensorflow-2.20.0.dist-info").mkdir(parents=True)
    (folder / "old" / "tensorflow-2.20.0.dist-info" / "METADATA").write_text("Name: tensorflow\nVersion: 2.20.0\n")
    return folder


@pytest.fixture(scope="module", name="mixed")
def a_cluster_with_a_worker_that_can_be_used_and_two_that_cannot(
    tmp_path_factory: pytest.TempPathFactory, others: Path
) -> Iterator[Cluster]:
    """The good one has two threads, and the scheduler's Python has not this package."""
    with cluster_of(0, tmp_path_factory.mktemp("mixed") / "cluster", path=others / "bare") as cluster:
        cluster.add_worker("--no-nanny", threads=2)
        cluster.add_worker("--no-nanny", path=others / "bare")
        cluster.add_worker("--no-nanny", path=others / "old")
        with Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(3, timeout=DEADLINE)
        yield cluster


def test_only_workers_with_the_search_s_versions_are_given_work_whenever_they_come(mixed: Cluster, others: Path) -> None:
    said: list[str] = []
    good = mixed.nannies[0].pid
    with closing(DaskEngine(scheduler=mixed.address, say=said.append)) as engine:
        wait_until(lambda: engine.slots == 1 and len(said) == 2)
        engine.begin("what they have in common")
        assert done(engine, a=Pid(), b=Pid(), c=Pid(), d=Pid()) == dict.fromkeys("abcd", good)
        workers = {worker.address: worker for worker in engine.workers}
        assert len(workers) == 3
        (bare,) = (worker for worker in workers.values() if worker.versions["mnist_tuner"] is None)
        (old,) = (worker for worker in workers.values() if worker.versions["tensorflow"] == "2.20.0")
        needs = f"install tensorflow {version('tensorflow')} there"
        assert f"The worker {old.address} is refused: it has tensorflow 2.20.0: {needs}" in said
        needs = f"it has no mnist_tuner: install mnist_tuner {mnist_tuner.__version__} there"
        assert f"The worker {bare.address} is refused: {needs}" in said
        assert [worker.refused is None for worker in (bare, old)] == [False, False]
        assert old.versions["keras"] == version("keras")
        assert all(worker.processor for worker in workers.values())

        late = mixed.add_worker("--no-nanny", path=others / "old")
        second = mixed.add_worker("--no-nanny")
        wait_until(lambda: engine.slots == 2 and len(said) == 3)
        assert set(done(engine, **{f"late-{number}": Pid(0.3) for number in range(6)}).values()) == {good, second.pid}
        second.kill()  # with what it has
        late.kill()
        assert set(done(engine, **{f"later-{number}": Pid() for number in range(4)}).values()) == {good}
        wait_until(lambda: engine.slots == 1)


def test_two_searches_share_a_cluster_and_its_clients_stay_as_they_are(mixed: Cluster) -> None:
    good = mixed.nannies[0].pid
    with Client(mixed.address, set_as_default=False) as client:
        before = dict(client.nthreads()), client.security
        with closing(DaskEngine(scheduler=client)) as first, closing(DaskEngine(scheduler=client)) as second:
            for engine, experiment in ((first, "one"), (second, "another")):
                engine.begin(experiment)
                engine.submit("waits", Pid(0.5))
            assert done(second, a=Pid(), b=Pid()) == {"a": good, "b": good}
            assert done(first, c=Pid()) == {"c": good}
        assert client.status == "running"
        assert (dict(client.nthreads()), client.security) == before
        plugins = client.run(lambda dask_worker: list(dask_worker.plugins), workers=list(before[0])[:1])
        assert not any("mnist_tuner" in name for names in plugins.values() for name in names)


def test_a_cluster_without_a_worker_that_can_be_used_is_refused_in_one_line(tmp_path: Path, others: Path) -> None:
    with cluster_of(0, tmp_path / "cluster") as cluster:
        cluster.add_worker("--no-nanny", path=others / "bare")
        with pytest.raises(InputError, match=r"none of the Dask cluster's workers can be used: tcp.*: it has no mnist_tuner"):
            DaskEngine(scheduler=cluster.address)


OWN = """
import os

class Experiment:
    def answer(self):
        return helper()

def helper():
    return "ours"

class Within:
    def answer(self):
        import OWN
        return OWN.helper()
""".replace("OWN", "pieces_of_my_own")


@dataclass(frozen=True)
class Answer:
    leaves_models: ClassVar[bool] = False

    def run(self, experiment: Any, report: Callable[[dict[str, Any]], None]) -> Any:
        return experiment.answer()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module that this process can import, and a cluster's workers cannot."""
    (tmp_path / "pieces_of_my_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("pieces_of_my_own")
    del sys.modules["pieces_of_my_own"]


def test_a_module_that_workers_lack_is_named_with_the_worker_and_is_sent_if_asked(mixed: Cluster, own: ModuleType) -> None:
    with Client(mixed.address, set_as_default=False) as client:
        addresses = list(client.nthreads())
    for experiment in (own.Experiment(), own.Within()):
        with closing(DaskEngine(scheduler=mixed.address)) as engine:
            engine.begin(experiment)
            with pytest.raises(InputError) as caught:
                done(engine, a=Answer())
        message = str(caught.value)
        assert "none of the Dask cluster's workers can be used" in message
        assert any(f"{address}: it lacks the module pieces_of_my_own (ModuleNotFoundError: " in message for address in addresses)
        assert "have it sent: Tuner(..., modules=[pieces_of_my_own])" in message
        assert len(message.splitlines()) == 1
    with closing(DaskEngine(scheduler=mixed.address, modules=[own])) as engine:
        engine.begin(own.Experiment())
        assert done(engine, a=Answer()) == {"a": "ours"}
        engine.begin(own.Within())
        with pytest.raises(InputError, match="import it at the top of the file"):
            done(engine, b=Answer())


def test_a_search_on_a_cluster_of_one_s_own_within_a_running_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(
        "import keras\nfrom tests.support.hypermodels import Wandering\n\n\nclass Mine(Wandering): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("my_nets")
    x, y, validation_data = blobs()
    options: dict[str, Any] = {"epochs": 2, "replicates": 1, "max_trials": 3}

    async def cell() -> list[tuple[Any, ...]]:
        with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster:
            with Client(cluster, set_as_default=False) as client:
                tuner = Tuner(mine.Mine(), scheduler=cluster, directory=tmp_path / "there", modules=[mine], **options)
                tuner.search(x, y, validation_data=validation_data, verbose=False)
                assert client.submit(sum, [1, 2]).result() == 3
            assert cluster.status.name == "running"
            return [(trial.values, trial.scores) for trial in tuner.ranked()]

    found = asyncio.run(cell())
    here = Tuner(mine.Mine(), workers=0, directory=tmp_path / "here", **options)
    assert found == [(each.values, each.scores) for each in here.search(x, y, validation_data=validation_data, verbose=False)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"modules": ["my_nets"]}, r"modules has 'my_nets': expected imported modules: import my_layers; modules=\[my_layers\]"),
        ({"workers_wait": "never"}, "workers_wait is 'never': expected a duration"),
        ({"workers_wait": 600}, "workers_wait is 600: expected a duration"),
    ],
    ids=str,
)
def test_arguments_that_make_no_sense_are_refused_when_the_tuner_is_made(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Tuner(Wandering(), **wrong)


def refusal(scheduler: Any) -> str:
    with pytest.raises(InputError) as caught:
        DaskEngine(scheduler=scheduler)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_cluster_that_cannot_be_used_is_refused_in_one_line(mixed: Cluster, tmp_path: Path) -> None:
    assert "scheduler is a int: expected a scheduler's address such as tcp://host:8786" in refusal(8786)
    with Client(mixed.address, set_as_default=False) as client:
        assert address_of(client) == mixed.address
    assert "scheduler is a Client that is closed" in refusal(client)
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster:
        assert address_of(cluster).startswith("inproc://")
    assert "scheduler is a LocalCluster that is closed: make another one" in refusal(cluster)

    async def inside() -> str:
        async with Client(mixed.address, set_as_default=False, asynchronous=True) as client:
            return refusal(client)

    assert "scheduler is an asynchronous Client" in asyncio.run(inside())


def test_a_client_whose_scheduler_has_gone_is_refused_in_one_line(tmp_path: Path) -> None:
    with cluster_of(0, tmp_path / "cluster") as cluster, Client(cluster.address, set_as_default=False, timeout="1s") as client:
        cluster.close()
        assert any(part in refusal(client) for part in ("no Dask scheduler answers there", "one whose scheduler has gone"))
