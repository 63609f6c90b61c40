"""A search's memory: a file that is only ever added to, a line of JSON for each result."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mnist_tuner.errors import InputError
from mnist_tuner.trainer.files import atomic_write, open_file, parse_json

MOST_BYTES = 4_000_000_000
"""Of a journal: a million trials take one."""


class Journal:
    """Lines of JSON, each on the disk before `append` returns.

    The first line says what the file is the journal of. A process killed while it writes leaves a torn last line, which is cut
    off when the file is opened again.

    Args:
        path: the file; it exists.

    Raises:
        InputError: it cannot be read, or a line of it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cut_torn_end()
        self.identity: dict[str, Any] = next(read_lines(path), {})
        if not self.identity:
            raise InputError(f"{path}: damaged: it has no first line")
        self._file = path.open("ab", buffering=0)

    @classmethod
    def create(cls, path: Path, identity: dict[str, Any]) -> Journal:
        """Begins a new file."""
        atomic_write(path, _line(identity))
        return cls(path)

    def entries(self) -> Iterator[dict[str, Any]]:
        """The lines after the first one."""
        return islice(read_lines(self.path), 1, None)

    def append(self, entry: dict[str, Any]) -> None:
        """Adds a line; it is on the disk when this returns.

        Raises:
            OSError: it could not be written, as on a full disk; the file is as it was.
        """
        size = os.fstat(self._file.fileno()).st_size
        content = _line(entry).encode()
        try:
            written = self._file.write(content)
            if written != len(content):  # the disk had room for a part of it
                self._file.write(content[written:])
            os.fsync(self._file.fileno())
        except OSError as error:
            os.ftruncate(self._file.fileno(), size)
            error.filename = error.filename or str(self.path)
            raise

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()

    def _cut_torn_end(self) -> None:
        open_file(self.path, MOST_BYTES).close()
        with self.path.open("r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
                os.fsync(file.fileno())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """A journal's lines, the first one included; somebody may be writing there.

    Raises:
        InputError: a line is damaged, or it is no file.
        OSError: the file cannot be read.
    """
    with open_file(path, MOST_BYTES) as file:
        for number, text in enumerate(file, 1):
            try:
                entry = parse_json(text)
            except ValueError:
                entry = None
            if not isinstance(entry, dict):
                raise InputError(f"{path}: line {number} is damaged: not a JSON object")
            yield entry


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
