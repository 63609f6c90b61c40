"""The options of a run, checked."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from mnist_tuner.errors import InputError

Config = TypeVar("Config", "TrainConfig", "SearchConfig")


@dataclass(frozen=True)
class TrainConfig:
    """The options of ``train``.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per optimizer step.
        hidden: the hidden layers' widths.
        learning_rate: Adam's.
        seed: of the initial weights, the order of the images and the validation split.
        seeds: how many trainings, with seeds from `seed` on.
        val_fraction: the share of the training images held out for validation.
        data: a folder of IDX files, or an .npz file; None for the embedded MNIST.
        classes: a file of the classes' names.
        output: the folder in which the run's folder is made.
        threads: TensorFlow's threads within an operation; "auto" for what is fastest, see `threads_for`.
        fast_dev_run: one batch of everything.
        early_stopping: end the training after so many epochs without a better validation loss; None never.
        precision: what the hidden layers compute in, "32-true", "16-mixed" or "bf16-mixed".
        logger: what is written besides the report, of "csv" and "tensorboard".

    Raises:
        InputError: a value is out of its range.
    """

    epochs: int = 5
    batch_size: int = 32
    hidden: tuple[int, ...] = (100, 100)
    learning_rate: float = 0.001
    seed: int = 0
    seeds: int = 1
    val_fraction: float = 0.0
    data: Path | None = None
    classes: Path | None = None
    output: Path = Path("runs")
    threads: int | str = "auto"
    fast_dev_run: bool = False
    early_stopping: int | None = None
    precision: str = "32-true"
    logger: tuple[str, ...] = ("csv",)

    def __post_init__(self) -> None:
        _check_paths(self.data, self.classes, self.output)
        _check_range("--epochs", self.epochs, 1, 100_000)
        _check_range("--batch-size", self.batch_size, 1, 1_000_000)
        _check_range("--seed", self.seed, 0, 2**32 - 1)
        if self.threads != "auto" and not (isinstance(self.threads, int) and 1 <= self.threads <= 256):
            raise InputError(f"--threads is {self.threads!r}: expected auto, or 1 to 256")
        _check_range("--seeds", self.seeds, 1, 1_000)
        _check_range("--seed + --seeds", self.seed + self.seeds, 1, 2**32)
        if self.seeds > 1 and self.threads not in ("auto", 1):
            raise InputError(
                "--threads is for one training: with --seeds there is one process for each core, with one thread each"
            )
        if self.seeds > 1 and "tensorboard" in self.logger:
            raise InputError("--logger tensorboard is for one training: leave it or --seeds out")
        if not 1 <= len(self.hidden) <= 20:
            raise InputError(f"--hidden has {len(self.hidden)} widths: expected 1 to 20, such as 100,100")
        for width in self.hidden:
            _check_range("--hidden", width, 1, 100_000)
        if not 1e-12 <= self.learning_rate <= 1000:  # this refuses NaN, too
            raise InputError(f"--learning-rate is {self.learning_rate}: expected 1e-12 to 1000")
        if not 0 <= self.val_fraction < 1:
            raise InputError(f"--val-fraction is {self.val_fraction}: expected 0 or more and less than 1")
        if self.early_stopping is not None:
            _check_range("--early-stopping", self.early_stopping, 1, 100_000)
            if not self.val_fraction:
                raise InputError("--early-stopping needs validation images: give --val-fraction as well, such as 0.1")
        _check_choices("--precision", (self.precision,), ("32-true", "16-mixed", "bf16-mixed"))
        _check_choices("--logger", self.logger, ("csv", "tensorboard"))

    @classmethod
    def from_dict(cls, values: Any) -> TrainConfig:
        """The options from JSON values.

        Raises:
            InputError: one is missing, unknown or of the wrong type.
        """
        return _from_dict(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON values."""
        return _to_dict(self)

    @property
    def command(self) -> str:
        """The command line that does the same again."""
        return _command("train", self)


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


@dataclass(frozen=True)
class SearchConfig:
    """The options of ``search``.

    Attributes:
        strategy: "random", "grid", "bayesian" or "hyperband".
        trials: a cap on the trials; None for 16, or for what grid and Hyperband come to by themselves.
        epochs: passes over the training images; Hyperband's most.
        replicates: trainings of each trial, with seeds of their own.
        widths: the least width, the greatest, and the step between.
        seed: of all that is random.
        final_seeds: trainings of the winner and of the baseline in the comparison at the end.
        data: a folder of IDX files, or an .npz file; None for the embedded MNIST.
        classes: a file of the classes' names.
        output: the folder in which the run's folder is made.
        workers: processes on this machine; None for one per core, 0 to search in the command's own.
        scheduler: the address of a running Dask cluster instead.

    Raises:
        InputError: a value is out of its range.
    """

    strategy: str = "random"
    trials: int | None = None
    epochs: int = 5
    replicates: int = 3
    widths: tuple[int, ...] = (32, 512, 32)
    seed: int = 0
    final_seeds: int = 5
    data: Path | None = None
    classes: Path | None = None
    output: Path = Path("runs")
    workers: int | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        _check_paths(self.data, self.classes, self.output)
        _check_choices("--strategy", (self.strategy,), ("random", "grid", "bayesian", "hyperband"))
        _check_range("--trials", 1 if self.trials is None else self.trials, 1, 1_000_000)
        _check_range("--epochs", self.epochs, 1, 100_000)
        _check_range("--replicates", self.replicates, 1, 1_000)
        _check_range("--seed", self.seed, 0, 2**32 - 1)
        _check_range("--final-seeds", self.final_seeds, 1, 1_000)
        _check_range("--workers", 1 if self.workers is None else self.workers, 0, 1_024)
        if self.scheduler is not None and not re.fullmatch(r"(tcp|tls|ws|wss|ucx)://[^/\s]+:\d+/?", self.scheduler):
            raise InputError(f"--scheduler is {self.scheduler!r}: expected an address such as tcp://host:8786")
        if self.scheduler is not None and self.workers is not None:
            raise InputError(f"--workers is {self.workers} and --scheduler {self.scheduler}: give one of them")
        if len(self.widths) != 3:
            raise InputError(f"--widths has {len(self.widths)} parts: expected least:greatest:step, such as 32:512:32")
        low, high, step = self.widths
        _check_range("--widths", low, 1, 100_000)
        _check_range("--widths", high, 1, 100_000)
        if high < low:
            raise InputError(f"--widths is {low}:{high}:{step}: the greatest width is below the least")
        _check_range("--widths' step", step, 1, 100_000)

    @classmethod
    def from_dict(cls, values: Any) -> SearchConfig:
        """The options from JSON values.

        Raises:
            InputError: one is missing, unknown or of the wrong type.
        """
        return _from_dict(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON values."""
        return _to_dict(self)

    @property
    def command(self) -> str:
        """The command line that does the same again."""
        return _command("search", self)


_KINDS: dict[str, Any] = {
    "int": int,
    "float": (int, float),
    "bool": bool,
    "str": str,
    "Path": str,
    "tuple[int, ...]": (list, tuple),
    "tuple[str, ...]": (list, tuple),
    "int | str": (int, str),
    "int | None": (int, type(None)),
    "str | None": (str, type(None)),
    "Path | None": (str, type(None)),
}


def _from_dict(kind: type[Config], values: Any) -> Config:
    known = {field.name: str(field.type) for field in fields(kind)}
    if not isinstance(values, dict) or values.keys() - known.keys():
        raise InputError(f"the configuration has unknown options: {', '.join(sorted(map(str, values)))}")
    options: dict[str, Any] = {}
    for name, value in values.items():
        wrong = not isinstance(value, _KINDS[known[name]]) or (isinstance(value, bool) and known[name] != "bool")
        if isinstance(value, (list, tuple)):
            element = int if "int" in known[name] else str
            wrong = wrong or any(type(item) is not element for item in value)
        if wrong:
            raise InputError(f"the configuration's {name} is {value!r}: expected {known[name]}")
        options[name] = Path(value) if value and "Path" in known[name] else tuple(value) if "tuple" in known[name] else value
    return kind(**options)


def _to_dict(config: TrainConfig | SearchConfig) -> dict[str, Any]:
    values = asdict(config)
    files = {name: None if (path := getattr(config, name)) is None else str(path.resolve()) for name in ("data", "classes")}
    return values | files | {"output": str(config.output)}


def _command(name: str, config: TrainConfig | SearchConfig) -> str:
    parts = ["mnist-tuner", name]
    for field in fields(config):
        value = getattr(config, field.name)
        if value == field.default:
            continue
        parts.append("--" + field.name.replace("_", "-"))
        if value is not True:
            separator = ":" if field.name == "widths" else ","
            parts.append(separator.join(map(str, value)) if isinstance(value, tuple) else str(value))
    return shlex.join(parts)


def check_duration(text: str) -> None:
    """Refuses a duration that cannot be read.

    Raises:
        InputError: it cannot be read.
    """
    from mnist_tuner.trainer.duration import parse_duration

    try:
        parse_duration(text)
    except ValueError as error:
        raise InputError(f"--max-time: {error}") from None


def _check_range(option: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InputError(f"{option} is {value}: expected {low:,} to {high:,}")


def _check_paths(*paths: Path | None) -> None:
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise InputError(f"{str(path)!r}: the name is no text in UTF-8") from None


def _check_choices(option: str, values: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    for value in values:
        if value not in allowed:
            raise InputError(f"{option} is {value!r}: expected {', '.join(allowed[:-1])} or {allowed[-1]}")


def read_options(path: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    """A command's options from a file.

    Args:
        path: the file; names with hyphens or underscores, lists for what the command line separates by commas or colons.
        kinds: each option's type: int, float, bool or str.

    Returns:
        The values, as they would stand on the command line, by names with underscores.

    Raises:
        InputError: the file cannot be read, is no TOML, or has an unknown name or a value of the wrong type: the line is named.
    """
    text = ""
    try:
        text = path.read_bytes().decode()
        values = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # TOML's own errors and Unicode's are ValueErrors
        place = str(error).replace("at end of document", f"at line {len(text.splitlines())}, the last") if text else str(error)
        raise InputError(f"--config {path}: not TOML: {place}") from None
    options: dict[str, Any] = {}
    for key, value in values.items():
        name, place = key.replace("-", "_"), f"--config {path}, line {_line(text, key)}"
        if name not in kinds:
            raise InputError(f"{place}: {key} is no option of this command: expected one of {', '.join(sorted(kinds))}")
        if name in options:
            raise InputError(f"{place}: {key} is there twice")
        kind = kinds[name]
        if kind is str and isinstance(value, list) and value and all(type(item) in (int, str) for item in value):
            separator = ":" if name == "widths" else ","
            options[name] = separator.join(map(str, value))
        elif type(value) is kind or (kind is float and type(value) is int) or (kind is str and type(value) is int):
            options[name] = str(value) if kind is str else value
        else:
            raise InputError(f"{place}: {key} is {value!r}: expected {_NAMES[kind]}")
    return options


_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "a text, or a list"}


def _line(text: str, key: str) -> int:
    pattern = re.compile(rf"""\s*\[?\s*["']?{re.escape(key)}["']?\s*[\].=]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def write_options(command: str, values: Mapping[str, Any]) -> str:
    """A file with these options: JSON's numbers, texts, truth values and lists are TOML, too."""
    lines = [f"# mnist-tuner {command} --config THIS_FILE does the same again"]
    for name, value in values.items():
        if value is not None:
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # which only TOML does not allow
            lines.append(f"{name} = {text}")
    return "\n".join(lines) + "\n"
