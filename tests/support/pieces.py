"""A piece of work that needs no TensorFlow: a worker that is just loading it would trip over a second import."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Piece:
    """Takes its time, and then is done, or kills its worker, or never ends."""

    leaves_models: ClassVar[bool] = False
    seconds: float = 0.0
    kills: bool = False
    hangs: bool = False

    def run(self, experiment: str, report: Callable[[dict[str, Any]], None]) -> str:
        time.sleep(self.seconds)
        if self.hangs:
            threading.Event().wait()
        if self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"
