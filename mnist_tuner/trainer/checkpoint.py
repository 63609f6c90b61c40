"""Checkpoints: one safetensors file each. Reading one cannot run code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnist_tuner.trainer.atomic import atomic_write

if TYPE_CHECKING:
    from mnist_tuner.trainer.module import Module

FORMAT_VERSION = 1
_KEY = "mnist_tuner"


class CheckpointError(ValueError):
    """A file is not a whole checkpoint of ours, or does not fit the model."""


@dataclass(frozen=True)
class CheckpointHeader:
    """A checkpoint's JSON part.

    Attributes:
        epoch: the epoch it was written in, from 0.
        global_step: optimizer steps taken since the training began.
        batches_in_epoch: how many batches of that epoch had been trained on.
        num_training_batches: how many it has.
        jit_compiled: whether XLA ran the loop.
        threads: TensorFlow's intra-op threads; 0 where it chose.
        metrics: what was measured last.
        versions: of the packages.
    """

    epoch: int
    global_step: int
    batches_in_epoch: int
    num_training_batches: int
    jit_compiled: bool
    threads: int
    metrics: dict[str, float]
    versions: dict[str, str]

    @property
    def epoch_complete(self) -> bool:
        """Whether every batch of the epoch had been trained on."""
        return self.batches_in_epoch == self.num_training_batches


@dataclass(frozen=True)
class Checkpoint:
    """A model's weights and random state, its optimizer's state, and where the training stood.

    Attributes:
        header: the JSON part.
        tensors: every variable by its position: ``model/<index>`` and ``optimizer/<index>``.
    """

    header: CheckpointHeader
    tensors: dict[str, npt.NDArray[Any]]

    @classmethod
    def of(cls, module: Module, header: CheckpointHeader) -> Checkpoint:
        """Takes the module's state as it is now."""
        return cls(header, {name: np.array(variable.numpy()) for name, variable in _variables(module).items()})

    def restore(self, module: Module) -> None:
        """Puts the saved state into a module whose model (and optimizer, if it has one) is built.

        Raises:
            CheckpointError: the number of variables or their shapes differ; nothing has been changed.
        """
        variables = _variables(module)
        wanted = {name: tuple(variable.shape) for name, variable in variables.items()}
        kinds = ("model/", "optimizer/") if module.optimizer is not None else ("model/",)
        saved = {name: tensor.shape for name, tensor in self.tensors.items() if name.startswith(kinds)}
        if wanted != saved:
            differing = sorted(name for name in wanted.keys() | saved.keys() if wanted.get(name) != saved.get(name))
            name = differing[0]
            raise CheckpointError(
                f"the checkpoint does not fit the model: {name} has shape {saved.get(name, 'none')} in the checkpoint "
                f"and {wanted.get(name, 'none')} in the model ({len(differing)} such differences)"
            )
        for name, variable in variables.items():
            variable.assign(self.tensors[name])

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        from safetensors.numpy import save

        text = json.dumps({"format_version": FORMAT_VERSION, **asdict(self.header)})
        contiguous = {name: np.ascontiguousarray(tensor).reshape(tensor.shape) for name, tensor in self.tensors.items()}
        atomic_write(path, save(contiguous, metadata={_KEY: text}))


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is torn, not a checkpoint of ours, or written by a newer version.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole checkpoint ({error})") from None
    if text is None:
        raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint of mnist_tuner")
    try:
        header = json.loads(text)
        version = header.pop("format_version")
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: written by a newer mnist_tuner (format {version}, this one reads {FORMAT_VERSION}): upgrade it"
            )
        return Checkpoint(CheckpointHeader(**header), tensors)
    except (json.JSONDecodeError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({error})") from None


def _variables(module: Module) -> dict[str, Any]:
    assert module.model is not None
    named: dict[str, Any] = _numbered("model", module.model.variables)
    if module.optimizer is not None:
        named |= _numbered("optimizer", module.optimizer.variables)
    return named


def _numbered(kind: str, variables: Iterable[Any]) -> dict[str, Any]:
    # By position: Keras numbers layers that have no name by process (dense_3), so names differ between equal models.
    return {f"{kind}/{index}": variable for index, variable in enumerate(variables)}
