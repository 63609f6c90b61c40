"""A tiny module with tiny data, a journal of the hooks that are called, and a logger that keeps what it gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from mnist_tuner.trainer import ArrayLoader, Callback, DataModule, Logger, Module
from tests.support.nets import Quiet, quiet_trainer

_STAGES = [
    f"on_{noun}_{moment}"
    for noun in ("train", "validation", "test", "predict")
    for moment in ("start", "epoch_start", "batch_start", "batch_end", "epoch_end", "end")
]
_COMMON = ["setup", "teardown", "on_fit_start", "on_fit_end", "on_save_checkpoint", "on_load_checkpoint", *_STAGES]
MODULE_HOOKS = ["configure_callbacks", "prepare_data", "configure_model", "configure_optimizers", *_COMMON]
CALLBACK_HOOKS = ["on_sanity_check_start", "on_sanity_check_end", "on_exception", "state_dict", "load_state_dict", *_COMMON]
LOADERS = ["train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"]
DATA_HOOKS = ["prepare_data", "setup", "teardown", "on_exception", "state_dict", *LOADERS]


def batches(number: int, *, shuffle: bool = False, missing: int = 0) -> ArrayLoader:
    """Random rows of four features in so many batches of two; the last batch may miss a row."""
    generator = np.random.default_rng(number)
    rows = 2 * number - missing
    x, y = generator.random((rows, 4), np.float32), generator.random((rows, 1), np.float32)
    return ArrayLoader(x, y, batch_size=2, shuffle=shuffle, seed=0)


class Tiny(Module):
    """One unit on four features."""

    def configure_model(self) -> keras.Model:
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])

    def loss(self, batch: Any) -> tf.Tensor:
        x, y = batch
        assert self.model is not None
        return keras.ops.mean(keras.ops.square(self.model(x) - y))

    def training_step(self, batch: Any, batch_idx: tf.Tensor) -> tf.Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> Any:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> Any:
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(0.01)

    @property
    def kernel(self) -> npt.NDArray[np.float32]:
        """A copy of the unit's weights."""
        assert self.model is not None
        return np.array(self.model.trainable_variables[0].numpy())


class Scripted(Tiny):
    """Logs as "x", at the end of each epoch, the next value of a list."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def on_train_epoch_end(self) -> None:
        self.log("x", self.values[self.current_epoch])


class ScriptedValidation(Tiny):
    """Logs as "x", at the end of each validation, the next value of a list."""

    def __init__(self, values: list[float]) -> None:
        self.values = values
        self.done = 0

    def on_validation_epoch_end(self) -> None:
        assert self.trainer is not None
        if not self.trainer.sanity_checking:
            self.log("x", self.values[self.done])
            self.done += 1


class TinyData(DataModule):
    """So many batches for each stage; 0 for no such data, and perhaps several validation loaders."""

    def __init__(self, train: int = 2, val: int = 1, val_loaders: int = 1) -> None:
        self.train, self.val, self.val_loaders = train, val, val_loaders

    def train_dataloader(self) -> Any:
        return batches(self.train)

    def val_dataloader(self) -> Any:
        if not self.val:
            return None
        return batches(self.val) if self.val_loaders == 1 else [batches(self.val) for _ in range(self.val_loaders)]

    def test_dataloader(self) -> Any:
        return batches(self.val)

    def predict_dataloader(self) -> Any:
        return batches(self.val)


class TinyWithData(Tiny):
    """The module and its data in one."""

    def __init__(self, **sizes: int) -> None:
        self._data = TinyData(**sizes)

    def train_dataloader(self) -> Any:
        return self._data.train_dataloader()

    def val_dataloader(self) -> Any:
        return self._data.val_dataloader()

    def test_dataloader(self) -> Any:
        return self._data.test_dataloader()

    def predict_dataloader(self) -> Any:
        return self._data.predict_dataloader()


class Remembering(Callback):
    """Has something that a checkpoint keeps."""

    def state_dict(self) -> dict[str, Any]:
        return {"kept": 1}


class Journal:
    """Writes down each hook that is called: "C." marks a callback's, "M." the module's, "D." the data module's.

    Attributes:
        entries: the hooks in order, such as "C.setup(fit)" and "M.on_validation_batch_end[2]".
        fail_at: a hook, such as "C.on_train_start", that raises a LookupError.
    """

    def __init__(self, batch_hooks: bool = True) -> None:
        self.entries: list[str] = []
        self.fail_at = ""
        self._batch_hooks = batch_hooks

    def callback(self, mark: str = "C") -> Callback:
        """A callback whose hooks are written down."""
        return self._watched(Remembering(), mark, CALLBACK_HOOKS)  # type: ignore[no-any-return]

    def module(self) -> Tiny:
        """A module whose hooks are written down."""
        return self._watched(Tiny(), "M", MODULE_HOOKS)  # type: ignore[no-any-return]

    def module_with_data(self, **sizes: int) -> TinyWithData:
        """The same of a module that brings its data."""
        return self._watched(TinyWithData(**sizes), "M", [*MODULE_HOOKS, *LOADERS])  # type: ignore[no-any-return]

    def data(self, **sizes: int) -> TinyData:
        """A data module whose hooks are written down."""
        return self._watched(TinyData(**sizes), "D", DATA_HOOKS)  # type: ignore[no-any-return]

    def _watched(self, owner: Any, mark: str, hooks: list[str]) -> Any:
        for hook in hooks:
            if self._batch_hooks or "_batch_" not in hook:
                setattr(owner, hook, self._noting(f"{mark}.{hook}", getattr(owner, hook)))
        return owner

    def _noting(self, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            detail = ""
            if name.endswith(("setup", "teardown")):
                detail = f"({arguments[-1]})"
            elif "_batch_" in name:
                detail = f"[{','.join(str(argument) for argument in arguments if isinstance(argument, int))}]"
            self.entries.append(name + detail)
            if name == self.fail_at:
                raise LookupError(f"lost in {name}")
            return hook(*arguments)

        return noted


class Rows(Logger):
    """Keeps the metrics, and how it was closed."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.closed: list[str] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.rows.append((step, dict(metrics)))

    def finalize(self, status: str) -> None:
        self.closed.append(status)

    def of(self, name: str) -> list[tuple[int, float]]:
        """The steps and values of one metric."""
        return [(step, metrics[name]) for step, metrics in self.rows if name in metrics]


def expanded(*parts: str) -> list[str]:
    """Hooks, separated by blanks, as a journal has them; "X." stands for the callback's and then the module's."""
    names = " ".join(parts).split()
    return [name.replace("X.", mark, 1) for name in names for mark in (["C.", "M."] if name.startswith("X.") else ["X."])]


@pytest.fixture(scope="module")
def traced() -> Scripted:
    """A module that the cases of a table share, so that its loops are traced once; set its values."""
    return Scripted([0.0] * 1000)


@pytest.fixture
def quiet(tmp_path: Path) -> Quiet:
    """Makes a trainer without XLA, display, and logs and checkpoints that were not asked for."""
    return partial(quiet_trainer, jit_compile=False, default_root_dir=tmp_path)
