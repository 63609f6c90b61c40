"""Checkpoints: one safetensors file each. Reading one cannot run code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnist_tuner.trainer.files import atomic_write

if TYPE_CHECKING:
    from mnist_tuner.trainer.module import Module

FORMAT_VERSION = 2
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
        num_training_batches: how many it has; None where nobody knows.
        jit_compiled: whether XLA ran the training; None where nothing had been trained.
        validation_jit_compiled: the same of its validation.
        threads: TensorFlow's intra-op threads; 0 where it chose.
        metrics: what was measured last.
        versions: of the packages.
        total_batches: batches trained on since the training began.
        validated: whether the validation due after these batches had been made.
        ended: whether the epoch's end had come, its hooks and its row in the logs included.
        validation: metrics of a validation at the epoch's end that wait for its row in the logs.
        logs: what `Module.log` had collected in the epoch.
        callbacks, loggers, datamodule: what their ``state_dict`` gave.
        data_seed: of the order of the training's rows, where an `ArrayLoader` shuffles them.
        hyper_parameters: the module's.
        build_config: from which Keras builds the model, the shape of its inputs.
        extra: what on_save_checkpoint added.
    """

    epoch: int
    global_step: int
    batches_in_epoch: int
    num_training_batches: int | None
    jit_compiled: bool | None
    threads: int
    metrics: dict[str, float]
    versions: dict[str, str]
    validation_jit_compiled: bool | None = None
    total_batches: int = 0
    validated: bool = False
    ended: bool = False
    validation: dict[str, float] = field(default_factory=dict)
    logs: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    loggers: list[Any] = field(default_factory=list)
    data_seed: int | None = None
    datamodule: dict[str, Any] = field(default_factory=dict)
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    build_config: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def epoch_complete(self) -> bool:
        """Whether every batch of the epoch had been trained on."""
        return self.batches_in_epoch == self.num_training_batches


@dataclass(frozen=True)
class Checkpoint:
    """A model's weights and random state, its optimizer's state, and where the training stood.

    Attributes:
        header: the JSON part.
        tensors: every variable by its position: ``model/<index>``, ``optimizer/<index>``, ``metrics/<metric>/<index>`` and, of
            what module and model have besides, ``module/<index>``; ``random/global`` is Keras's global generator where it was
            used, and ``state/<index>`` are arrays that stand in the header.
    """

    header: CheckpointHeader
    tensors: dict[str, npt.NDArray[Any]]

    @classmethod
    def of(cls, module: Module, header: CheckpointHeader) -> Checkpoint:
        """Takes the module's state as it is now."""
        return cls(header, {name: np.array(variable.numpy()) for name, variable in _variables(module).items()})

    def entries(self) -> dict[str, Any]:
        """What on_load_checkpoint gets: where the training stood, and what on_save_checkpoint added."""
        header = self.header
        return {
            "epoch": header.epoch,
            "global_step": header.global_step,
            "hyper_parameters": dict(header.hyper_parameters),
            "callbacks": self.arrays_in(header.callbacks),
            **self.arrays_in(header.extra),
        }

    def restore(self, module: Module, weights_only: bool = False) -> bool:
        """Puts the saved state into a module whose model (and optimizer, if it has one) is built.

        Args:
            module: what to change.
            weights_only: leave all but the model as it is.

        Returns:
            Whether that was all; see `restore_metrics`.

        Raises:
            CheckpointError: the number of variables or their shapes differ; nothing has been changed.
        """
        weights_only = weights_only or not module._fits
        kinds = ["model/"] if weights_only else ["model/", "optimizer/", "module/"]
        variables = {name: variable for name, variable in _variables(module).items() if name.startswith(tuple(kinds))}
        wanted = {name: tuple(variable.shape) for name, variable in variables.items()}
        saved = {name: tensor.shape for name, tensor in self.tensors.items() if name.startswith(tuple(kinds))}
        if wanted != saved:
            differing = sorted(name for name in wanted.keys() | saved.keys() if wanted.get(name) != saved.get(name))
            name = differing[0]
            raise CheckpointError(
                f"the checkpoint does not fit the model: {name} has shape {saved.get(name, 'none')} in the checkpoint "
                f"and {wanted.get(name, 'none')} in the model ({len(differing)} such differences)"
            )
        for name, variable in variables.items():
            variable.assign(self.tensors[name])
        return weights_only or self.restore_metrics(module)

    def restore_metrics(self, module: Module) -> bool:
        """Puts the saved state into the module's metrics; False where one has not yet made its variables, or is another."""
        complete = True
        for number, metric in enumerate(module.metrics):
            prefix = f"metrics/{number}/"
            saved = [tensor for name, tensor in self.tensors.items() if name.startswith(prefix)]
            if [tuple(variable.shape) for variable in metric.variables] == [tensor.shape for tensor in saved]:
                for variable, tensor in zip(metric.variables, saved, strict=True):
                    variable.assign(tensor)
            else:
                complete = False
        return complete

    def arrays_in(self, value: Any) -> Any:
        """A part of the header with its arrays."""
        match value:
            case {"__array__": str(name)}:
                return self.tensors[name]
            case dict():
                return {key: self.arrays_in(item) for key, item in value.items()}
            case list():
                return [self.arrays_in(item) for item in value]
        return value

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        from safetensors.numpy import save

        tensors = dict(self.tensors)
        text = json.dumps({"format_version": FORMAT_VERSION, **asdict(self.header)}, default=partial(_set_aside, tensors))
        contiguous = {name: np.ascontiguousarray(tensor).reshape(tensor.shape) for name, tensor in tensors.items()}
        atomic_write(path, save(contiguous, metadata={_KEY: text}))


def _set_aside(tensors: dict[str, npt.NDArray[Any]], value: Any) -> Any:
    """Makes an array in the header a tensor of the file, with its name in its place."""
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray) or value.dtype.hasobject:
        raise TypeError(f"a checkpoint can keep JSON values and numpy arrays, but no {type(value).__name__}: {value!r}")
    name = f"state/{len(tensors)}"
    tensors[name] = value
    return {"__array__": name}


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
    if module._fits:
        named |= _numbered("optimizer", [] if module.optimizer is None else module.optimizer.variables)
        for number, metric in enumerate(module.metrics):
            named |= _numbered(f"metrics/{number}", metric.variables)
        named |= _numbered("module", module.own_variables())
    return named


def _numbered(kind: str, variables: Iterable[Any]) -> dict[str, Any]:
    # By position: Keras numbers layers that have no name by process (dense_3), so names differ between equal models.
    return {f"{kind}/{index}": variable for index, variable in enumerate(variables)}
