"""Options in a TOML file: read for a command, and written by each run."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_tuner.errors import InputError


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
