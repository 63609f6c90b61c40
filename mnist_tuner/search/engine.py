"""Where trials run: what an engine is, the one that runs them here, and the pump that tries again what failed."""

from __future__ import annotations

import errno
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from mnist_tuner.errors import InputError, RunError
from mnist_tuner.search.trial import Observer, Reporter
from mnist_tuner.search.versions import WorkerInfo, of_this_machine

ATTEMPTS = 2
"""So often a piece of work that fails is tried."""
TICK = 0.1
"""Seconds between two looks at the clock."""


class Spec(Protocol):
    """A piece of work, such as a trial."""

    leaves_models: ClassVar[bool]
    """Whether it makes models that nobody needs afterwards: then its worker forgets them."""

    def run(self, experiment: Any, report: Reporter) -> Any:
        """Does it, in a worker."""


@dataclass(frozen=True)
class Started:
    """A piece of work is being done."""

    key: str
    worker: str


@dataclass(frozen=True)
class Reported:
    """What a piece of work reported meanwhile; see `Reporter`."""

    key: str
    content: dict[str, Any]


@dataclass(frozen=True)
class Done:
    """It was done."""

    key: str
    result: Any
    worker: str


@dataclass(frozen=True)
class Failed:
    """It raised, or its worker died.

    Attributes:
        reason: the last line of the traceback, or what became of the worker.
        traceback: the whole of it.
        final: whether it is not tried once more.
    """

    key: str
    reason: str
    worker: str = ""
    traceback: str = ""
    final: bool = False


Event = Started | Reported | Done | Failed


def is_full_disk(error: BaseException) -> bool:
    """Whether a trial has failed since there was no room to write: then the search stops, since the next one would, too."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def last_line(error: BaseException) -> str:
    """The last line of the error's traceback."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text[:300]}" if text else name


@dataclass(frozen=True)
class Limit:
    """How long a piece of work may take, from its beginning in a worker.

    Attributes:
        text: as it was given, such as "10m".
        seconds: the same.
    """

    text: str
    seconds: float

    @property
    def reason(self) -> str:
        """Why a piece of work that took longer has failed."""
        return f"it took longer than {self.text}"


class OvertimeError(Exception):
    """A piece of work has taken longer than it may."""


class EngineLostError(RunError):
    """There is nothing left to run trials on."""


class Engine(Protocol):
    """Runs pieces of work; all its methods are called from one thread."""

    @property
    def slots(self) -> int:
        """How many pieces of work it is worth giving at a time."""

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        """All workers that there have been, as far as they have told of themselves."""

    def begin(self, experiment: Any) -> None:
        """Takes what all pieces of work have in common, such as a search's experiment: each worker is sent it once."""

    def submit(self, key: str, spec: Spec, limit: Limit | None = None) -> None:
        """Takes a piece of work; keys are never used twice. What takes longer than the limit is ended, with its worker."""

    def wait(self, handle: Callable[[Event], None], timeout: float) -> None:
        """Calls `handle` with each event until there has been one of `Done` and `Failed`, or the time is over (in seconds).

        Raises:
            EngineLostError: there will be none.
        """

    def close(self) -> None:
        """Ends it, with whatever is running."""


class InlineEngine:
    """Runs everything in this process, one after the other: for debugging.

    What takes longer than its limit is ended when it next reports, at an epoch's end: it cannot be killed.
    """

    slots = 1

    def __init__(self) -> None:
        self.experiment: Any = None
        self._queue: deque[tuple[str, Spec, Limit | None]] = deque()

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        """This process."""
        return (of_this_machine(),)

    def begin(self, experiment: Any) -> None:
        """Takes it."""
        self.experiment = experiment

    def submit(self, key: str, spec: Spec, limit: Limit | None = None) -> None:
        """Puts it in line."""
        self._queue.append((key, spec, limit))

    def wait(self, handle: Callable[[Event], None], timeout: float) -> None:
        """Does the next piece of work, however long it takes."""
        if not self._queue:
            return
        key, spec, limit = self._queue.popleft()
        handle(Started(key, "here"))
        began = time.monotonic()
        ours: list[Exception] = []

        def report(content: dict[str, Any]) -> None:
            try:
                handle(Reported(key, content))
            except Exception as error:  # the listener's, not the trial's
                ours.append(error)
                raise
            if limit is not None and time.monotonic() - began > limit.seconds:
                raise OvertimeError(limit.reason)

        event: Event
        try:
            event = Done(key, spec.run(self.experiment, report), "here")
        except OvertimeError as error:
            event = Failed(key, str(error), "here", final=True)
        except Exception as error:
            if error in ours or isinstance(error, InputError) or is_full_disk(error):
                raise
            event = Failed(key, last_line(error), "here", traceback.format_exc())
        handle(event)

    def close(self) -> None:
        """Forgets what is in line."""
        self._queue.clear()


class Pump:
    """Has an engine do pieces of work; what fails is tried once more.

    Args:
        engine: does them.
        observer: hears of their beginnings, of what they report, and of failures that are not the last.
        ended: is given the name of each piece of work that has been done or has failed for good.
        limit: how long each may take; None for as long as it likes.

    Attributes:
        running: what the engine has been given and has not ended: by its name, what it is and which attempt.
    """

    def __init__(
        self, engine: Engine, observer: Observer, ended: Callable[[str, Done | Failed], None], limit: Limit | None = None
    ) -> None:
        self.engine, self.observer, self.ended, self.limit = engine, observer, ended, limit
        self.running: dict[str, tuple[Spec, int]] = {}

    @property
    def free(self) -> int:
        """How many more it is worth starting now."""
        return self.engine.slots - len(self.running)

    def start(self, name: str, spec: Spec, attempt: int = 1) -> None:
        """Gives the engine a piece of work; names are never used twice."""
        self.running[name] = spec, attempt
        self.engine.submit(f"{name}-{attempt}", spec, self.limit)

    def wait(self) -> None:
        """Until one has ended, or some time has passed.

        Raises:
            EngineLostError: there is nothing left to run them on.
        """
        self.engine.wait(self._handle, TICK)
        self.observer.on_tick()

    def _handle(self, event: Event) -> None:
        name = event.key.rpartition("-")[0]
        spec, attempt = self.running[name]
        match event:
            case Started():
                self.observer.on_trial_started(name, attempt, event.worker)
            case Reported():
                self.observer.on_epoch(name, event.content["replicate"], event.content["epoch"], event.content["value"])
            case Failed(final=False) if attempt < ATTEMPTS:
                del self.running[name]
                self.observer.on_trial_again(name, event.reason)
                self.start(name, spec, attempt + 1)
            case Done() | Failed():
                del self.running[name]
                self.ended(name, event)
