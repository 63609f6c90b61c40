"""The options of the commands, each declared once: name, type and default, range, and what it is for.

The command line and its help, the options file, the options in ``run.json``, what may change when a run goes on, and what a
training's result depends on are all read from the declarations. To add an option is to add a field to `TrainConfig` or
`SearchConfig`, and to use it where it acts.
"""

import inspect
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin, get_type_hints

from mnist_tuner.errors import InputError

FILES, RUN, COMMON = "Data and folders", "How it runs", "Of every command"
"""Parts of the help. What stands in none of them shapes the result."""


@dataclass(frozen=True, eq=False)
class Option:
    """What there is to know of an option besides its name, type and default: ``Annotated[int, Option("...")] = 5``."""

    help: str = ""  # what it is for; by default what is allowed
    within: tuple[float, float] | None = None  # the least and the greatest number; of a list, each one's
    choices: Sequence[str] = ()  # the texts that are allowed; of a list, each one's
    words: Mapping[str, Any] = field(default_factory=dict)  # texts that stand for a value, such as "auto"
    expected: str = ""  # is said of a value that is not allowed; by default what is
    form: str = ""  # is said of a text that cannot be read
    separator: str = ""  # of a list's items on the command line
    unset: str = ""  # what the help says of the default; by default its value
    variable: str | None = None  # of the environment, in which it may stand
    short: str | None = None  # another name on the command line
    panel: str | None = None  # its part of the help; None where a training's result depends on it
    complete: Callable[[str], Sequence[str]] | None = None  # what a shell offers for a beginning; by default the choices
    may_change: bool = False  # whether a run may go on with another value
    name: str = ""  # of what it is declared for; this and the next two are filled in by `options_of`
    hint: Any = None
    default: Any = None

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types that its value may have; of a list, its items'."""
        return tuple(kind for kind in get_args(self.hint) if kind is not ...) or (self.hint,)

    @property
    def is_text(self) -> bool:
        """Whether it is a text on the command line, and something else in Python."""
        return bool(self.separator or self.words)

    @property
    def shapes_result(self) -> bool:
        """Whether a training's result depends on it; the data is told apart by what is in it."""
        return self.panel is None

    @property
    def allowed(self) -> str:
        """What a value may be."""
        if self.within is None:
            return f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"
        return self.expected or " to ".join(f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in self.within)

    def read(self, value: Any) -> Any:
        """The value of a text on the command line, or of what stands in a file.

        Raises:
            InputError: the text cannot be read.
        """
        try:
            if self.separator:
                items = value.split(self.separator) if isinstance(value, str) else map(str, value)
                return tuple(self.kinds[0](item.strip()) for item in items)
            if self.words and value is not None:
                return self.words[value] if value in self.words else self.kinds[0](value)
        except ValueError:
            raise InputError(f"{self.flag} is {self.text(value)!r}: expected {self.form or self.expected}") from None
        return self.kinds[0](value) if self.kinds[0] in (float, Path) and value is not None else value

    def text(self, value: Any) -> str:
        """A value as it would stand on the command line."""
        if isinstance(value, (list, tuple)):
            return self.separator.join(map(str, value))
        return next((word for word, meant in self.words.items() if meant == value), str(value))

    def check_type(self, value: Any) -> None:
        """Refuses a JSON value of the wrong type.

        Raises:
            InputError: it has.
        """
        kinds: Any = tuple({Path: str, float: (float, int)}.get(kind, kind) for kind in self.kinds)
        is_list = isinstance(value, (list, tuple))
        fits = [isinstance(item, kinds) and (type(item) is not bool or bool in kinds) for item in (value if is_list else [value])]
        if is_list != bool(self.separator) or not all(fits):
            hint = inspect.formatannotation(self.hint).replace("pathlib.", "")
            raise InputError(f"the configuration's {self.name} is {value!r}: expected {hint}")

    def check(self, value: Any) -> None:
        """Refuses a value that is not allowed; of a list, each item.

        Raises:
            InputError: it is not.
        """
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, Path):
                try:
                    str(item).encode()
                except UnicodeEncodeError:
                    raise InputError(f"{str(item)!r}: the name is no text in UTF-8") from None
            elif item is not None and item not in (*self.words.values(), *self.choices) and not self._is_within(item):
                raise InputError(f"{self.flag} is {repr(item) if isinstance(item, str) else item}: expected {self.allowed}")

    def _is_within(self, item: Any) -> bool:
        if self.within is None or isinstance(item, str):
            return not (self.within or self.choices)
        low, high = self.within
        return low <= item <= high and (float in self.kinds or not isinstance(item, float))  # which NaN is not


def _options_of(declaring: Callable[..., Any]) -> Mapping[str, Option]:
    defaults = inspect.signature(declaring).parameters
    return {
        name: replace(hint.__metadata__[0], name=name, hint=hint.__origin__, default=defaults[name].default)
        for name, hint in get_type_hints(declaring, include_extras=True).items()
        if get_origin(hint) is Annotated and isinstance(hint.__metadata__[0], Option)
    }


options_of: Callable[[Callable[..., Any]], Mapping[str, Option]] = cache(_options_of)
"""The options that a class of them, or a function's parameters, declare: by name, in their order."""


class Options:
    """A command's options, checked; a subclass declares them, and checks how they go together."""

    _command: ClassVar[str]

    def __init_subclass__(cls) -> None:
        hints = get_type_hints(cls, include_extras=True)
        told = [(name, hint.__metadata__[0]) for name, hint in hints.items() if get_origin(hint) is Annotated]
        lines = [f"    {name}: {option.help or option.allowed}" for name, option in told]
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Attributes:", *lines])

    def __post_init__(self) -> None:
        for name, option in options_of(type(self)).items():
            option.check(getattr(self, name))

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """The options from JSON values.

        Raises:
            InputError: one is unknown, of the wrong type or out of its range.
        """
        options = options_of(cls)
        if not isinstance(values, dict):
            raise InputError(f"the configuration is {values!r}: expected an object of options")
        if values.keys() - options.keys():
            raise InputError(f"the configuration has unknown options: {', '.join(sorted(map(str, values)))}")
        for name, value in values.items():
            options[name].check_type(value)
        return cls(**{name: options[name].read(value) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON values."""
        values = {name: getattr(self, name) for name in options_of(type(self))}
        files = {name: str(value.resolve()) for name, value in values.items() if isinstance(value, Path)}
        return values | files | {"output": str(values["output"])}

    @property
    def command(self) -> str:
        """The command line that does the same again."""
        parts = ["mnist-tuner", self._command]
        for name, option in options_of(type(self)).items():
            if (value := getattr(self, name)) != option.default:
                parts += [option.flag] if value is True else [option.flag, option.text(value)]
        return shlex.join(parts)


DATA = Option(
    "Folder of four IDX files (.gz or not), or an .npz file.",
    unset="the embedded MNIST",
    variable="MNIST_TUNER_DATA",
    panel=FILES,
)
CLASSES = Option("File of the classes' names, one a line.", unset="classes.txt in the folder, if any", panel=FILES)
OUTPUT = Option("Folder in which the runs' folders are.", variable="MNIST_TUNER_OUTPUT", panel=FILES)
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
    seeds: Annotated[int, Option("Trainings, with seeds from --seed on; on all cores.", _SOME, panel=RUN, may_change=True)] = 1
    val_fraction: Annotated[
        float,
        Option("Share of the training images held out for validation.", _SHARE, expected="0 or more and less than 1"),
    ] = 0.0
    data: Annotated[Path | None, DATA] = None
    classes: Annotated[Path | None, CLASSES] = None
    output: Annotated[Path, OUTPUT] = Path("runs")
    threads: Annotated[
        int | str,
        Option(
            "TensorFlow's threads; auto: 2 from 5 million multiply-adds a step (256-256, batch 32) on, else 1.",
            (1, 256),
            words={"auto": "auto"},
            expected="auto, or 1 to 256",
            panel=RUN,
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
        if self.early_stopping is not None and not self.val_fraction:
            raise InputError("--early-stopping needs validation images: give --val-fraction as well, such as 0.1")


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
    trials: Annotated[int | None, Option("At most so many trials.", (1, 1_000_000), unset="16; grid and hyperband: all")] = None
    epochs: Annotated[int, Option("Passes over the training images; Hyperband's most.", _MANY)] = 5
    replicates: Annotated[int, Option("Trainings of each trial, each with a seed of its own.", _SOME)] = 3
    widths: Annotated[
        tuple[int, ...], Option("Widths of the hidden layers, least:greatest:step.", form=_WIDTHS, separator=":")
    ] = (32, 512, 32)
    seed: Annotated[int, Option("Seed of all that is random.", _SEED)] = 0
    final_seeds: Annotated[int, Option("Trainings of winner and baseline in the comparison.", _SOME)] = 5
    data: Annotated[Path | None, DATA] = None
    classes: Annotated[Path | None, CLASSES] = None
    output: Annotated[Path, OUTPUT] = Path("runs")
    workers: Annotated[
        int | None,
        Option(
            "Processes; auto: one per core; 0: none, for debugging.",
            (0, 1_024),
            words={"auto": None},
            form="auto, or a number of processes such as 2, or 0",
            panel=RUN,
            may_change=True,
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        Option("Address of a Dask cluster, such as tcp://host:8786.", unset="this machine", panel=RUN, may_change=True),
    ] = None
    _command: ClassVar[str] = "search"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scheduler is not None and not re.fullmatch(r"(tcp|tls|ws|wss|ucx)://[^/\s]+:\d+/?", self.scheduler):
            raise InputError(f"--scheduler is {self.scheduler!r}: expected an address such as tcp://host:8786")
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


def read_options(path: Path, known: Mapping[str, Option]) -> dict[str, Any]:
    """A command's options from a file.

    Args:
        path: the file; names with hyphens or underscores, lists for what the command line separates by commas or colons.
        known: the command's options.

    Returns:
        The values, as they would stand on the command line, by names with underscores.

    Raises:
        InputError: the file cannot be read, is no TOML, or has an unknown name or a value of the wrong type: the line is named.
    """
    import tomllib

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
        option, place = known.get(name := key.replace("-", "_")), f"--config {path}, line {_line(text, key)}"
        if option is None:
            raise InputError(f"{place}: {key} is no option of this command: expected one of {', '.join(sorted(known))}")
        if name in options:
            raise InputError(f"{place}: {key} is there twice")
        kind = next((kind for kind in (bool, int, float) if kind in option.kinds and not option.is_text), str)
        is_list = isinstance(value, list) and value and all(type(item) in (int, str) for item in value)
        if (kind, type(value)) not in ((kind, kind), (float, int), (str, int)) and not (kind is str and is_list):
            raise InputError(f"{place}: {key} is {value!r}: expected {_NAMES[kind]}")
        options[name] = option.text(value) if kind is str else value
    return options


_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "a text, or a list"}


def _line(text: str, key: str) -> int:
    pattern = re.compile(rf"""\s*\[?\s*["']?{re.escape(key)}["']?\s*[\].=]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def write_options(command: str, values: Mapping[str, Any]) -> str:
    """A file with these options: JSON's numbers, texts, truth values and lists are TOML, too."""
    import json

    lines = [f"# mnist-tuner {command} --config THIS_FILE does the same again"]
    for name, value in values.items():
        if value is not None:
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # which only TOML does not allow
            lines.append(f"{name} = {text}")
    return "\n".join(lines) + "\n"
