"""The options of a run, checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mnist_tuner.errors import InputError


@dataclass(frozen=True)
class TrainConfig:
    """The options of ``train``.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per optimizer step.
        hidden: the hidden layers' widths.
        learning_rate: Adam's.
        seed: of the initial weights, the order of the images and the validation split.
        val_fraction: the share of the training images held out for validation.
        data: a folder of IDX files; None for the embedded MNIST.
        output: the folder in which the run's folder is made.
        threads: TensorFlow's threads within an operation. One is the fastest for a net as small as the baseline.
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
    val_fraction: float = 0.0
    data: Path | None = None
    output: Path = Path("runs")
    threads: int = 1
    fast_dev_run: bool = False
    early_stopping: int | None = None
    precision: str = "32-true"
    logger: tuple[str, ...] = ("csv",)

    def __post_init__(self) -> None:
        _check_range("--epochs", self.epochs, 1, 100_000)
        _check_range("--batch-size", self.batch_size, 1, 1_000_000)
        _check_range("--seed", self.seed, 0, 2**32 - 1)
        _check_range("--threads", self.threads, 1, 256)
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
        known = {field.name: field for field in fields(cls)}
        if not isinstance(values, dict) or values.keys() - known.keys():
            raise InputError(f"the configuration has unknown options: {', '.join(sorted(map(str, values)))}")
        kinds: dict[str, Any] = {
            "int": int,
            "float": (int, float),
            "bool": bool,
            "str": str,
            "Path": str,
            "tuple[int, ...]": list,
        }
        kinds |= {"tuple[str, ...]": list, "int | None": (int, type(None)), "Path | None": (str, type(None))}
        for name, value in values.items():
            if not isinstance(value, kinds[str(known[name].type)]):
                raise InputError(f"the configuration's {name} is {value!r}: expected {known[name].type}")
        paths = {name: None if values[name] is None else Path(values[name]) for name in ("data", "output") if name in values}
        lists = {name: tuple(values[name]) for name in ("hidden", "logger") if name in values}
        return cls(**{**values, **paths, **lists})

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON values."""
        values = asdict(self)
        return values | {"data": None if self.data is None else str(self.data.resolve()), "output": str(self.output)}


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


def _check_choices(option: str, values: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    for value in values:
        if value not in allowed:
            raise InputError(f"{option} is {value!r}: expected {', '.join(allowed[:-1])} or {allowed[-1]}")
