"""Ctrl-C between two calls of the compiled loop, never within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Remembers a Ctrl-C until somebody asks."""

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raises KeyboardInterrupt if there was a Ctrl-C."""
        if self.requested:
            self.requested = False
            raise KeyboardInterrupt


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Within the block, a first Ctrl-C is remembered and a second one raises at once.

    A KeyboardInterrupt raised just after the compiled loop has come back would lose the count of the steps that it made:
    the counters in Python would lag behind the weights. Outside the main thread signals cannot be handled, and a Ctrl-C
    reaches the main thread as ever.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def remember(number: int, frame: FrameType | None) -> None:
        if interrupt.requested:
            raise KeyboardInterrupt
        interrupt.requested = True

    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.default_int_handler:  # somebody else's arrangement, or signals ignored: leave it
        yield interrupt
        return
    signal.signal(signal.SIGINT, remember)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)
