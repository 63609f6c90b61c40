"""Checkpoints: one safetensors file each. Reading one cannot run code."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mnist_tuner.errors import brief, printable
from mnist_tuner.trainer.checked import checked, what_is_wrong
from mnist_tuner.trainer.files import atomic_write, parse_json
from mnist_tuner.trainer.progress import Progress

FORMAT_VERSION = 3
_KEY = "mnist_tuner"


class CheckpointError(ValueError):
    """A file is not a whole checkpoint of ours, or does not fit the model. The message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Saved(Protocol):
    """What a checkpoint is made of: a `Module`."""

    @property
    def metrics(self) -> list[Any]:
        """The metrics that hold state."""

    @property
    def has_been_fitted(self) -> bool:
        """Whether a fit has begun, so that a checkpoint keeps more than the weights."""

    def saved_variables(self) -> dict[str, Any]:
        """Every variable by its name in a checkpoint."""


@dataclass(frozen=True)
class CheckpointHeader:
    """A checkpoint's JSON part.

    Attributes:
        progress: how far the training had come.
        num_training_batches: how many batches an epoch has; None where nobody knows.
        jit_compiled: whether XLA ran the training; None where nothing had been trained.
        validation_jit_compiled: the same of its validation.
        threads: TensorFlow's intra-op threads; 0 where it chose.
        metrics: what was measured last.
        versions: of the packages.
        logs: what `Module.log` had collected in the epoch.
        callbacks, loggers, datamodule: what their ``state_dict`` gave.
        hyper_parameters: the module's.
        build_config: from which Keras builds the model, the shape of its inputs.
        extra: what on_save_checkpoint added.
    """

    progress: Progress
    num_training_batches: int | None
    jit_compiled: bool | None
    threads: int
    metrics: dict[str, float]
    versions: dict[str, str]
    validation_jit_compiled: bool | None = None
    logs: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    loggers: list[Any] = field(default_factory=list)
    datamodule: dict[str, Any] = field(default_factory=dict)
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    build_config: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """The epoch it was written in, from 0."""
        return self.progress.epoch

    @property
    def global_step(self) -> int:
        """Optimizer steps taken since the training began."""
        return self.progress.global_step


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
    def of(cls, module: Saved, header: CheckpointHeader) -> Checkpoint:
        """Takes the module's state as it is now."""
        return cls(header, {name: np.array(variable.numpy()) for name, variable in module.saved_variables().items()})

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

    def restore(self, module: Saved, weights_only: bool = False) -> bool:
        """Puts the saved state into a module whose model (and optimizer, if it has one) is built.

        Args:
            module: what to change.
            weights_only: leave all but the model as it is.

        Returns:
            Whether that was all; see `restore_metrics`.

        Raises:
            CheckpointError: the number of variables or their shapes differ; nothing has been changed.
        """
        weights_only = weights_only or not module.has_been_fitted
        kinds = ["model/"] if weights_only else ["model/", "optimizer/", "module/"]
        variables = {name: variable for name, variable in module.saved_variables().items() if name.startswith(tuple(kinds))}
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

    def restore_metrics(self, module: Saved) -> bool:
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
        raise CheckpointError(f"{path}: not a whole checkpoint ({brief(str(error))})") from None
    if text is None:
        raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint of mnist_tuner")
    try:
        header = parse_json(text, finite=False)
        version = header.pop("format_version")
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: written by a newer mnist_tuner (format {version}, this one reads {FORMAT_VERSION}): upgrade it"
            )
        progress = header.pop("progress") if version > 2 else _old_progress(header)
        checkpoint = Checkpoint(checked(CheckpointHeader, {**header, "progress": progress}), tensors)
        for name in ("callbacks", "extra", "datamodule"):
            checked(dict[str, Any], checkpoint.arrays_in(getattr(checkpoint.header, name)))
        return checkpoint
    except CheckpointError:
        raise
    except (RecursionError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({what_is_wrong(error)})") from None


def _old_progress(header: dict[str, Any]) -> dict[str, Any]:
    """Takes what is a `Progress` now out of the header of a file of format 1 or 2."""
    header["batch"] = header.pop("batches_in_epoch")
    return {name: header.pop(name) for name in asdict(Progress()) if name in header}
