"""Where trials run: what an engine is, and the one that runs them here."""

from __future__ import annotations

import errno
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from mnist_tuner.errors import InputError, RunError
from mnist_tuner.search.experiment import last_line

ATTEMPTS = 2
"""So often a piece of work that fails is tried."""
TICK = 0.1
"""Seconds between two looks at the clock."""


class Subject(Protocol):
    """What pieces of work have in common, such as a search's experiment; sent to each worker once."""

    makes_models: ClassVar[bool]
    """Whether a worker has models to forget after each piece of work."""


class Spec(Protocol):
    """A piece of work."""

    leaves_models: ClassVar[bool]
    """Whether it makes models that nobody needs afterwards."""

    def run(self, experiment: Any, report: Callable[[dict[str, Any]], None]) -> Any:
        """Does it, in a worker."""


@dataclass(frozen=True)
class Started:
    """A piece of work is being done."""

    key: str
    worker: str


@dataclass(frozen=True)
class News:
    """What a piece of work reported meanwhile."""

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
    """

    key: str
    reason: str
    worker: str = ""
    traceback: str = ""


Event = Started | News | Done | Failed


def is_full_disk(error: BaseException) -> bool:
    """Whether a trial has failed since there was no room to write: then the search stops, since the next one would, too."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class EngineLostError(RunError):
    """There is nothing left to run trials on."""


class Engine(Protocol):
    """Runs pieces of work; all its methods are called from one thread."""

    @property
    def slots(self) -> int:
        """How many pieces of work it is worth giving at a time."""

    def begin(self, experiment: Subject) -> None:
        """Takes what the work will be about."""

    def submit(self, key: str, spec: Spec) -> None:
        """Takes a piece of work; keys are never used twice."""

    def wait(self, handle: Callable[[Event], None], timeout: float) -> None:
        """Calls `handle` with each event until there has been one of `Done` and `Failed`, or the time is over (in seconds).

        Raises:
            EngineLostError: there will be none.
        """

    def close(self) -> None:
        """Ends it, with whatever is running."""


class InlineEngine:
    """Runs everything in this process, one after the other: for debugging."""

    slots = 1

    def __init__(self) -> None:
        self.experiment: Subject | None = None
        self._queue: deque[tuple[str, Spec]] = deque()

    def begin(self, experiment: Subject) -> None:
        """Takes it."""
        self.experiment = experiment

    def submit(self, key: str, spec: Spec) -> None:
        """Puts it in line."""
        self._queue.append((key, spec))

    def wait(self, handle: Callable[[Event], None], timeout: float) -> None:
        """Does the next piece of work, however long it takes."""
        if not self._queue:
            return
        key, spec = self._queue.popleft()
        assert self.experiment is not None
        handle(Started(key, "here"))
        ours: list[Exception] = []

        def report(content: dict[str, Any]) -> None:
            try:
                handle(News(key, content))
            except Exception as error:  # the listener's, not the trial's
                ours.append(error)
                raise

        event: Event
        try:
            event = Done(key, spec.run(self.experiment, report), "here")
        except Exception as error:
            if error in ours or isinstance(error, InputError) or is_full_disk(error):
                raise
            event = Failed(key, last_line(error), "here", traceback.format_exc())
        handle(event)

    def close(self) -> None:
        """Forgets what is in line."""
        self._queue.clear()
