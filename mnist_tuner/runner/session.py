"""What a run stands on: versions, data, memory; and its report as plain text."""

from __future__ import annotations

import io
import math
import os
import platform
import shlex
import time
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType

from mnist_tuner._version import __version__
from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.errors import InputError
from mnist_tuner.reports.report import DataSummary
from mnist_tuner.runs import RunDirectory
from mnist_tuner.trainer.files import atomic_write

if TYPE_CHECKING:
    import numpy.typing as npt

    from mnist_tuner.mnist.data import Dataset, MNISTDataModule


def versions_of(*packages: str) -> dict[str, str]:
    """The project's version, the packages' and Python's."""
    versions = {name.replace("-", "_"): version(name) for name in packages}
    return {"mnist_tuner": __version__, **versions, "python": platform.python_version()}


def command(name: str) -> str:
    """How a person calls a command: the script that was started, where it was one."""
    script = os.environ.get("MNIST_TUNER_SCRIPT")
    return shlex.quote(script) if script else f"mnist-tuner {name}"


def available_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_data(config: TrainConfig | SearchConfig) -> None:
    """Refuses data that does not exist, before anything is loaded.

    Raises:
        InputError: there is none.
    """
    if config.data is not None and not config.data.is_dir() and not (config.data.suffix == ".npz" and config.data.is_file()):
        raise InputError(f"--data {config.data}: no such folder, nor an .npz file")
    if config.classes is not None and not config.classes.is_file():
        raise InputError(f"--classes {config.classes}: no such file")


def timed_load(config: TrainConfig | SearchConfig) -> tuple[Dataset, float]:
    """The data, and the seconds that reading it took."""
    began = time.perf_counter()
    from mnist_tuner.mnist.data import load_dataset

    return load_dataset(config.data, config.classes), time.perf_counter() - began


def summarize(data: MNISTDataModule) -> DataSummary:
    """What the report says of the data."""
    dataset = data.dataset
    return DataSummary(
        name=dataset.name,
        train=len(data.train_indices),
        validation=len(data.val_indices),
        test=len(dataset.test_labels),
        image_shape=dataset.image_shape,
        classes=dataset.classes,
        sha256=dataset.sha256,
        class_names=dataset.class_names,
    )


def save_predictions(folder: RunDirectory, **arrays: npt.ArrayLike) -> None:
    """Writes ``test_predictions.npz``.

    Args:
        folder: the run's.
        arrays: by name.

    Raises:
        OSError: it could not be written.
    """
    import numpy as np

    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # its only other argument has a name that nobody gives
    atomic_write(folder / "test_predictions.npz", content.getvalue())


def check_memory(option: str, hidden: Sequence[int], batch_size: int, dataset: Dataset, processes: int = 1) -> None:
    """Refuses a model that cannot fit, before the machine begins to swap.

    Args:
        option: by which the widths were given.
        hidden: the hidden layers' widths.
        batch_size: images per optimizer step.
        dataset: what it is trained on.
        processes: that train such a model at the same time.

    Raises:
        InputError: it needs more than the machine has.
    """
    widths = [math.prod(dataset.image_shape), *hidden, dataset.classes]
    parameters = sum((a + 1) * b for a, b in pairwise(widths))
    # float32: weights, gradients, Adam's two moments and a copy to save; for each image its activations and their gradients
    needed = processes * (20 * parameters + 12 * batch_size * sum(widths))
    if hasattr(os, "sysconf") and needed > (there := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        raise InputError(
            f"{option} makes {parameters:,} parameters, which with a batch size of {batch_size} need {needed / 2**30:,.0f} GiB "
            f"to train{f' in {processes} processes' if processes > 1 else ''}; this machine has {there / 2**30:,.0f} GiB"
        )


def as_text(parts: Sequence[RenderableType], width: int = 80) -> str:
    """What these look like as plain text.

    Args:
        parts: one below the other.
        width: columns.
    """
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=False, color_system=None, force_jupyter=False)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
