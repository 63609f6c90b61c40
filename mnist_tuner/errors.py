"""The errors that a person sees as one line."""

from __future__ import annotations

import zipfile
import zlib

DAMAGES = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, NotImplementedError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What Python and numpy make of a damaged archive, or of one that is something else."""


class InputError(ValueError):
    """What a person gave cannot be used.

    The message is one line: it names what was given, what was expected, and the remedy. The commands print it and exit
    with code 2.
    """


class RunError(RuntimeError):
    """A run cannot go on, and what was given is not the reason. The commands print the message and exit with code 1."""
