"""The options of the commands. To add one is to add a field to `TrainConfig` or `SearchConfig`, and to use it where it acts."""

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar

from mnist_tuner.errors import InputError, brief
from mnist_tuner.options import FILES, RUN, Option, Options
from mnist_tuner.trainer.duration import parse_duration

DATA = Option(
    "Folder, archive or file: IDX, .npz, CSV, Parquet, pictures.",
    unset="the embedded MNIST",
    variable="MNIST_TUNER_DATA",
    panel=FILES,
    shapes_result=False,
)
CLASSES = Option(
    "File of the classes' names, one a line.", unset="classes.txt in the folder, if any", panel=FILES, shapes_result=False
)
SPLIT = Option("Which of several data sets in it, such as letters.", unset="the only one", panel=FILES, shapes_result=False)
TRANSPOSE = Option("Exchange the images' rows and columns, as EMNIST needs.", panel=FILES, shapes_result=False)
OUTPUT = Option("Folder in which the runs' folders are.", variable="MNIST_TUNER_OUTPUT", panel=FILES, shapes_result=False)
_SEED, _MANY, _SOME, _SHARE = (0, 2**32 - 1), (1, 100_000), (1, 1_000), (0.0, math.nextafter(1, 0))


@dataclass(frozen=True)
class TrainConfig(Options):
    """The options of ``train``.

    Raises:
        InputError: a value is out of its range.
    """

    epochs: Annotated[int, Option("Passes over the training images.", _MANY, may_change=True)] = 5
    batch_size: Annotated[int, Option("Images per optimizer step.", (1, 1_000_000))] = 32
    hidden: Annotated[
        tuple[int, ...],
        Option(
            "The hidden layers' widths, separated by commas.",
            _MANY,
            separator=",",
            form="widths separated by commas, such as 100,100",
        ),
    ] = (100, 100)
    learning_rate: Annotated[float, Option("Adam's learning rate.", (1e-12, 1000.0))] = 0.001
    seed: Annotated[int, Option("Seed of weights, order and split.", _SEED)] = 0
    seeds: Annotated[
        int,
        Option("Trainings, with seeds from --seed on; on all cores.", _SOME, panel=RUN, shapes_result=False, may_change=True),
    ] = 1
    val_fraction: Annotated[
        float,
        Option("Share of the training images held out for validation.", _SHARE, expected="0 or more and less than 1"),
    ] = 0.0
    data: Annotated[Path | None, DATA] = None
    classes: Annotated[Path | None, CLASSES] = None
    split: Annotated[str | None, SPLIT] = None
    transpose: Annotated[bool, TRANSPOSE] = False
    output: Annotated[Path, OUTPUT] = Path("runs")
    threads: Annotated[
        int | str,
        Option(
            "TensorFlow's threads; auto: 2 from 5 million multiply-adds a step (256-256, batch 32) on, else 1.",
            (1, 256),
            words={"auto": "auto"},
            expected="auto, or 1 to 256",
            panel=RUN,
            shapes_result=False,
        ),
    ] = "auto"
    fast_dev_run: Annotated[bool, Option("One batch of everything, to try it out.")] = False
    early_stopping: Annotated[
        int | None, Option("Stop after so many epochs without a better validation loss.", _MANY, unset="never")
    ] = None
    precision: Annotated[str, Option(choices=("32-true", "16-mixed", "bf16-mixed"))] = "32-true"
    logger: Annotated[
        tuple[str, ...],
        Option(
            "What to write: csv, tensorboard or both, separated by commas.",
            choices=("csv", "tensorboard"),
            separator=",",
            panel=FILES,
            shapes_result=False,
        ),
    ] = ("csv",)
    _command: ClassVar[str] = "train"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed + self.seeds > 2**32:
            raise InputError(f"--seed + --seeds is {self.seed + self.seeds}: expected 1 to {2**32:,}")
        if self.seeds > 1 and self.threads not in ("auto", 1):
            raise InputError(
                "--threads is for one training: with --seeds there is one process for each core, with one thread each"
            )
        if self.seeds > 1 and "tensorboard" in self.logger:
            raise InputError("--logger tensorboard is for one training: leave it or --seeds out")
        if not 1 <= len(self.hidden) <= 20:
            raise InputError(f"--hidden has {len(self.hidden)} widths: expected 1 to 20, such as 100,100")
        if self.early_stopping is not None and not self.val_fraction and self.data is None:  # other data may bring some
            raise InputError(NEEDS_VALIDATION)


NEEDS_VALIDATION = "--early-stopping needs validation images: give --val-fraction as well, such as 0.1"
TWO_THREADS_FROM = 5_000_000
"""Multiply-adds of one step, forward, from which two threads are faster than one."""


def threads_for(config: TrainConfig, pixels: int, classes: int, cores: int) -> int:
    """TensorFlow's threads for a training: those that were asked for or, with "auto", what is fastest.

    That is by one step's multiply-adds, batch size times the weights of all layers: one thread below 5 million, and from there
    on two, where there are two cores. Measured with batches of 32 on two cores: 512-512 takes 2.8 s an epoch with two instead
    of 4.2, 256-256 (8.6 million) 1.03 instead of 1.22, and 100-100 (2.9 million) more than with one. More than two were not
    tried. The number moves the last bits of what is computed.

    Args:
        config: the options.
        pixels: of an image.
        classes: there are.
        cores: that the process may use.
    """
    if isinstance(config.threads, int):
        return config.threads
    multiply_adds = config.batch_size * sum(a * b for a, b in pairwise((pixels, *config.hidden, classes)))
    return min(2, cores) if multiply_adds >= TWO_THREADS_FROM else 1


_WIDTHS = "least:greatest:step, such as 32:512:32"


@dataclass(frozen=True)
class SearchConfig(Options):
    """The options of ``search``.

    Raises:
        InputError: a value is out of its range.
    """

    strategy: Annotated[str, Option(choices=("random", "grid", "bayesian", "hyperband"))] = "random"
    trials: Annotated[
        int | None, Option("At most so many trials.", (1, 1_000_000), unset="16; grid and hyperband: all", may_change=True)
    ] = None
    epochs: Annotated[int, Option("Passes over the training images; Hyperband's most.", _MANY)] = 5
    replicates: Annotated[int, Option("Trainings of each trial, each with a seed of its own.", _SOME)] = 3
    widths: Annotated[
        tuple[int, ...], Option("Widths of the hidden layers, least:greatest:step.", form=_WIDTHS, separator=":")
    ] = (32, 512, 32)
    seed: Annotated[int, Option("Seed of all that is random.", _SEED)] = 0
    final_seeds: Annotated[int, Option("Trainings of winner and baseline in the comparison.", _SOME)] = 5
    trial_time: Annotated[
        str | None,
        Option(
            "A trial that takes longer has failed: 90s, 10m, DD:HH:MM:SS.",
            unset="no limit",
            panel=RUN,
            shapes_result=False,
            may_change=True,
        ),
    ] = None
    data: Annotated[Path | None, DATA] = None
    classes: Annotated[Path | None, CLASSES] = None
    split: Annotated[str | None, SPLIT] = None
    transpose: Annotated[bool, TRANSPOSE] = False
    output: Annotated[Path, OUTPUT] = Path("runs")
    workers: Annotated[
        int | None,
        Option(
            "Processes; auto: one per core; 0: none, for debugging.",
            (0, 1_024),
            words={"auto": None},
            form="auto, or a number of processes such as 2, or 0",
            panel=RUN,
            shapes_result=False,
            may_change=True,
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        Option(
            "Address of a Dask cluster, such as tcp://host:8786.",
            unset="this machine",
            panel=RUN,
            shapes_result=False,
            may_change=True,
        ),
    ] = None
    _command: ClassVar[str] = "search"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trial_time is not None:
            try:
                parse_duration(self.trial_time)
            except ValueError as error:
                raise InputError(f"--trial-time: {error}") from None
        address = r"(tcp|tls|ws|wss|ucxx?)://[^/\s]+:\d+/?|(inproc|gateway)://\S+"
        if self.scheduler is not None and not re.fullmatch(address, self.scheduler):
            raise InputError(f"--scheduler is {brief(repr(self.scheduler))}: expected an address such as tcp://host:8786")
        if self.scheduler is not None and self.workers is not None:
            raise InputError(f"--workers is {self.workers} and --scheduler {self.scheduler}: give one of them")
        if len(self.widths) != 3:
            raise InputError(f"--widths has {len(self.widths)} parts: expected {_WIDTHS}")
        low, high, step = self.widths
        for what, value in (("--widths", low), ("--widths", high), ("--widths' step", step)):
            if not 1 <= value <= 100_000:
                raise InputError(f"{what} is {value}: expected 1 to 100,000")
        if high < low:
            raise InputError(f"--widths is {low}:{high}:{step}: the greatest width is below the least")
