"""What an option is, declared once: name, type and default, range, and what it is for.

The command line and its help, the options file, the options in ``run.json``, what may change when a run goes on, and what a
training's result depends on are all read from the declaration.
"""

import inspect
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin, get_type_hints

from mnist_tuner.errors import InputError, brief

FILES, RUN, COMMON = "Data and folders", "How it runs", "Of every command"
"""Parts of the help."""


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
    panel: str | None = None  # its part of the help
    shapes_result: bool = True  # whether a training's result depends on it; the data is told apart by what is in it
    complete: Callable[[str], Sequence[str]] | None = None  # what a shell offers for a beginning; by default the choices
    may_change: bool = False  # whether a run may go on with another value
    name: str = ""  # of what it is declared for; this and the next two are filled in by `options_of`
    hint: Any = None
    default: Any = None

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.replace("_", "-")

    @cached_property
    def kinds(self) -> tuple[Any, ...]:
        """The types that its value may have; of a list, its items'."""
        return tuple(kind for kind in get_args(self.hint) if kind is not ...) or (self.hint,)

    @cached_property
    def _json_kinds(self) -> set[Any]:
        return {{Path: str}.get(kind, kind) for kind in self.kinds} | ({int} if float in self.kinds else set())

    @cached_property
    def is_text(self) -> bool:
        """Whether it is a text on the command line, and something else in Python."""
        return bool(self.separator or self.words)

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
        if value == "" and Path in self.kinds:
            raise InputError(f"{self.flag} is '': expected the name of a file or folder")
        try:
            if self.separator:
                items = value.split(self.separator) if isinstance(value, str) else map(str, value)
                return tuple(self.kinds[0](item.strip()) for item in items)
            if self.words and value is not None:
                return self.words[value] if value in self.words else self.kinds[0](value)
            return self.kinds[0](value) if self.kinds[0] in (float, Path) and value is not None else value
        except (ValueError, OverflowError):
            expected = self.form or self.expected or self.allowed
            raise InputError(f"{self.flag} is {brief(repr(self.text(value)))}: expected {expected}") from None

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
        is_list = isinstance(value, (list, tuple))
        if is_list != bool(self.separator) or not all(type(item) in self._json_kinds for item in (value if is_list else [value])):
            hint = inspect.formatannotation(self.hint).replace("pathlib._local.", "").replace("pathlib.", "")
            raise InputError(f"the configuration's {self.name} is {brief(repr(value))}: expected {hint}")

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
                    raise InputError(f"{brief(repr(str(item)))}: the name is no text in UTF-8") from None
                if "\0" in str(item):
                    raise InputError(f"{self.flag} is {brief(repr(str(item)))}: a name has no such character")
            elif item is not None and item not in (*self.words.values(), *self.choices) and not self._is_within(item):
                raise InputError(f"{self.flag} is {brief(repr(item))}: expected {self.allowed}")

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
            raise InputError(f"the configuration is {brief(repr(values))}: expected an object of options")
        if unknown := sorted(map(str, values.keys() - options.keys())):
            raise InputError(f"the configuration has unknown options: {brief(', '.join(unknown))}")
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

    from mnist_tuner.trainer.files import read_file

    text = ""
    try:
        text = read_file(path).decode()
        values = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"--config {error}") from None
    except (ValueError, RecursionError) as error:  # TOML's own errors and Unicode's are ValueErrors
        place = str(error).replace("at end of document", f"at line {len(text.splitlines())}, the last") if text else str(error)
        raise InputError(f"--config {path}: not TOML: {brief(place)}") from None
    options: dict[str, Any] = {}
    for key, value in values.items():
        option, place = known.get(name := key.replace("-", "_")), f"--config {path}, line {_line(text, key)}"
        if option is None:
            raise InputError(f"{place}: {brief(key)} is no option of this command: expected one of {', '.join(sorted(known))}")
        if name in options:
            raise InputError(f"{place}: {key} is there twice")
        kind = next((kind for kind in (bool, int, float) if kind in option.kinds and not option.is_text), str)
        is_list = isinstance(value, list) and value and option.separator and all(type(item) in (int, str) for item in value)
        if (kind, type(value)) not in ((kind, kind), (float, int), (str, int)) and not (kind is str and is_list):
            raise InputError(f"{place}: {key} is {brief(repr(value))}: expected {_NAMES[kind]}")
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
