"""Somebody's Dask cluster: the way to its scheduler, and which of its workers may be given work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Literal

from distributed import Client, Security
from distributed.core import Status

from mnist_tuner.errors import InputError
from mnist_tuner.search.engine import last_line
from mnist_tuner.search.versions import WorkerInfo, describe, difference, question
from mnist_tuner.search.worker import ExperimentPlugin, give, take_away

CONNECT_SECONDS = 5
LOOK_SECONDS = 2
"""So often is looked who has come and gone."""
ANSWER_SECONDS = 0.05
"""So often, where an answer is waited for."""
OTHERS_SECONDS = 5
"""Where all workers of a cluster have been refused, so long it is waited for others."""
_EXPECTED = "expected a scheduler's address such as tcp://host:8786, a distributed.Client, or a cluster such as LocalCluster"


def address_of(scheduler: Any) -> str:
    """A scheduler's address.

    Args:
        scheduler: the address itself, a `distributed.Client`, or a cluster: what has a ``scheduler_address``, as Dask's have.

    Raises:
        InputError: it is none of these, it is closed, or it lives in the event loop that this call would hold up.
    """
    if isinstance(scheduler, str):
        return scheduler
    is_client, name = isinstance(scheduler, Client), type(scheduler).__name__
    address = getattr(scheduler.scheduler, "address", "") if is_client else getattr(scheduler, "scheduler_address", None)
    if not isinstance(address, str):
        raise InputError(f"scheduler is a {name}: {_EXPECTED}")
    if scheduler.asynchronous:
        raise InputError(
            f"scheduler is an asynchronous {name}, and a search would hold up its event loop: make it without asynchronous=True, "
            "or search in another thread (await asyncio.to_thread(tuner.search, ...))"
        )
    if scheduler.status in ("closed", "closing", Status.closed, Status.closing, Status.failed) or not address:
        why = " (so is one whose scheduler has gone)" if is_client else ""
        raise InputError(f"scheduler is a {name} that is closed{why}: make another one")
    return address


def connect(scheduler: Any, security: Security | None) -> Client:
    """A client of our own: what was given is left as it is.

    Args:
        scheduler: see `address_of`.
        security: the certificates; by default those that the client or the cluster has.

    Raises:
        InputError: there is no scheduler, or what was given cannot be used.
    """
    address = address_of(scheduler)
    is_client = isinstance(scheduler, Client)
    if is_client:
        security = security or scheduler.security
    try:
        # A cluster finds more by itself than an address says, such as a loop and certificates.
        return Client(address if is_client else scheduler, security=security, set_as_default=False, timeout=CONNECT_SECONDS)
    except (OSError, TypeError, ValueError) as error:
        given = (
            f"--scheduler {address}" if isinstance(scheduler, str) else f"scheduler is a {type(scheduler).__name__} of {address}"
        )
        raise InputError(f"{given}: no Dask scheduler answers there ({error})") from None


@dataclass
class _Member:
    """A worker that is there.

    Attributes:
        state: what it was last asked, or what came of that.
        answer: what it says to that, once it does.
    """

    state: Literal["asked", "good", "given", "ready", "refused"]
    answer: Future[Any] | None = None


class Crew:
    """A cluster's workers: each is asked for its versions when it comes, and given the experiment if they are the search's.

    Args:
        client: of the cluster's scheduler.
        wait: for so many seconds there may be none that can be used: before the first one, and later.
        say: tells a person something, in a line.

    Attributes:
        known: all workers that there have been and that have told their versions or have been refused, by address.
    """

    def __init__(self, client: Client, wait: float, say: Callable[[str], None]) -> None:
        self._client, self._wait, self._say = client, wait, say
        self.known: dict[str, WorkerInfo] = {}
        self._members: dict[str, _Member] = {}
        self._here = describe()["versions"]
        self._plugin: ExperimentPlugin | None = None
        self._looked = -float("inf")
        self._came = self._had = time.monotonic()

    @property
    def ready(self) -> list[str]:
        """The addresses of those that may be given work."""
        return sorted(address for address, member in self._members.items() if member.state == "ready")

    @property
    def problem(self) -> str | None:
        """What is to be said if nobody can be given work any more, or has been able to for too long."""
        states = {member.state for member in self._members.values()}
        now = time.monotonic()
        if states & {"good", "given", "ready"}:
            self._had = now
            return None
        hopeless = states == {"refused"} and not self._has_had_any and now - self._came > OTHERS_SECONDS
        if not hopeless and now - self._had < self._wait:
            return None
        return self.complaint

    @property
    def complaint(self) -> str:
        """What is to be said where nobody can be given work."""
        reasons: dict[str, list[str]] = {}
        for address, member in self._members.items():
            if member.state == "refused":
                reasons.setdefault(self.known[address].refused or "", []).append(address)
        if reasons:
            told = "; ".join(f"{_several(addresses)}: {reason}" for reason, addresses in reasons.items())
            return f"none of the Dask cluster's workers can be used: {told}"
        return (
            f"the Dask cluster has had no workers for {self._wait:g} seconds: start some with: dask worker ADDRESS --nthreads 1, "
            'or wait longer for them (--workers-wait 10m, workers_wait="10m")'
        )

    @property
    def is_worth_waiting(self) -> bool:
        """Whether there is a worker that can be used, or may turn out to."""
        return any(member.state != "refused" for member in self._members.values())

    @property
    def size(self) -> int:
        """How many may be given work: that have the experiment, once there is one."""
        return sum(member.state == ("ready" if self._plugin else "good") for member in self._members.values())

    @property
    def _has_had_any(self) -> bool:
        return any(info.refused is None for info in self.known.values())

    def begin(self, plugin: ExperimentPlugin) -> None:
        """Gives all good workers the experiment, and those to come."""
        self._plugin = plugin
        for member in self._members.values():
            if member.state in ("given", "ready"):
                member.state = "good"
        self._looked = -float("inf")

    def until(self, enough: Callable[[], bool]) -> None:
        """Looks again and again until there is enough of what is wanted.

        Raises:
            InputError: nobody can be given work.
        """
        self.look()
        while not enough():
            if (problem := self.problem) is not None:
                raise InputError(problem)
            time.sleep(ANSWER_SECONDS)
            self.look()

    def has_heard_from_all(self) -> bool:
        """Whether there is a good worker, and none that has yet to answer (but for long)."""
        states = [member.state for member in self._members.values()]
        return "good" in states and ("asked" not in states or time.monotonic() - self._came > OTHERS_SECONDS)

    def look(self) -> None:
        """Sees who has come and gone and what was answered, if it is time to."""
        now = time.monotonic()
        waits = any(member.answer is not None for member in self._members.values())
        if now - self._looked < (ANSWER_SECONDS if waits else LOOK_SECONDS):
            return
        self._looked = now
        present = self._client.nthreads()
        for address in self._members.keys() - present.keys():
            del self._members[address]
        for address in present.keys() - self._members.keys():
            self._came = now
            self._members[address] = _Member("asked", self._run(eval, question(), workers=[address]))
        for address, member in list(self._members.items()):
            if member.answer is not None and member.answer.done():
                self._hear(address, member)
        good = [member for member in self._members.values() if member.state == "good"]
        if good and self._plugin is not None:
            addresses = [address for address, member in self._members.items() if member.state == "good"]
            answer = self._run(give, self._plugin, workers=addresses)  # once for all: it may be large
            for member in good:
                member.state, member.answer = "given", answer

    def _run(self, function: Callable[..., Any], *arguments: Any, workers: Collection[str]) -> Future[Any]:
        """Has workers call a function, beside what they are working on; a worker that does not answer holds nobody up."""
        calls = self._client.run(function, *arguments, workers=list(workers), on_error="return", asynchronous=True)
        return asyncio.run_coroutine_threadsafe(calls, self._client.loop.asyncio_loop)

    def _hear(self, address: str, member: _Member) -> None:
        assert member.answer is not None
        try:
            said: Any = member.answer.result()[address]
        except Exception as error:
            said = error
        member.answer = None
        if isinstance(said, (OSError, KeyError)):  # it has gone, or is about to; else it is asked again
            del self._members[address]
        elif isinstance(said, Exception):
            self.refuse(address, f"it could not be asked: {last_line(said)}")
        elif member.state == "given":
            member.state = "ready"
        else:
            info = self.known[address] = WorkerInfo(address, said["processor"], said["versions"])
            if (reason := difference(info.versions, self._here)) is not None:
                self.refuse(address, reason)
                return
            member.state = "good"
            kinds = {each.processor for each in self.known.values() if each.refused is None and each is not info}
            if kinds and info.processor not in kinds:
                also = " and ".join(sorted(kinds))
                self._say(f"The worker {address} has another processor ({info.processor}, others {also}): last bits may differ")

    def refuse(self, address: str, reason: str) -> None:
        """Gives a worker no work any more."""
        self.known[address] = replace(self.known.get(address) or WorkerInfo(address, "", {}), refused=reason)
        if address in self._members:
            self._members[address] = _Member("refused")
        self._say(f"The worker {address} is refused: {reason}")

    def forget(self, address: str) -> None:
        """Asks a worker anew, as one that has just come."""
        self._members.pop(address, None)

    def close(self) -> None:
        """Takes the experiment away from those that have it."""
        having = [address for address, member in self._members.items() if member.state in ("given", "ready")]
        if self._plugin is not None and having:
            self._run(take_away, self._plugin.name, workers=having).result(timeout=2)


def _several(addresses: list[str]) -> str:
    return addresses[0] + (f" (and {len(addresses) - 1} more)" if len(addresses) > 1 else "")
