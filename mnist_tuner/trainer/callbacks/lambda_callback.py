"""A callback of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mnist_tuner.trainer.hooks import Callback as Base


class LambdaCallback(Base):
    """Calls a function at each hook that is named.

    Args:
        hooks: by the hook's name, a function of the hook's arguments (trainer, module, ...).

    Raises:
        TypeError: there is no such hook.

    Example::

        LambdaCallback(on_train_epoch_end=lambda trainer, module: print(trainer.callback_metrics))
    """

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        for name, function in hooks.items():
            if not (name.startswith("on_") or name in ("setup", "teardown")) or not hasattr(Base, name):
                raise TypeError(f"LambdaCallback: there is no hook {name!r}")
            setattr(self, name, function)
