"""The errors that a person sees as one line."""

from __future__ import annotations

import unicodedata
import zipfile
import zlib

DAMAGES = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, NotImplementedError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What Python and numpy make of a damaged archive, or of one that is something else."""


def printable(text: str, kept: str = "") -> str:
    """A text with its control characters, and what is no text in Unicode, written out.

    Args:
        text: from anywhere, such as a file's name.
        kept: the control characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each in kept or not unicodedata.category(each).startswith(("C", "Zl", "Zp")) else f"\\x{ord(each):02x}"
        for each in text
    )


def brief(value: object, most: int = 200) -> str:
    """What came, as an error repeats it: a text as it is, anything else as Python writes it; not more than its beginning."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


class InputError(ValueError):
    """What a person gave cannot be used.

    The message is one line: it names what was given, what was expected, and the remedy. The commands print it and exit
    with code 2.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


class RunError(RuntimeError):
    """A run cannot go on, and what was given is not the reason. The commands print the message and exit with code 1."""
