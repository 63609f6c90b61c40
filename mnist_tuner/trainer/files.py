"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed. And how files are read
that anybody may have put there."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mnist_tuner.errors import InputError

TEMPORARY = ".mnist_tuner-"
"""How the names of files begin that are being written."""

MOST_TEXT = 256_000_000
"""Bytes of a document that is read at once."""
MOST_JSON, MOST_BYTES = 16_000_000, 4_000_000_000
"""Bytes of a document in an archive, unpacked, and of anything else there, as weights."""


@contextmanager
def atomic_path(path: Path, durable: bool = True) -> Iterator[Path]:
    """Gives a temporary path in the same folder; what was written there takes `path`'s place when the block ends.

    The content reaches the disk before the name does, and the folder's entry before this returns. If the block raises,
    `path` is as it was and nothing is left behind.

    Args:
        path: the file; a link to one is followed.
        durable: whether it must outlive a loss of power; False for what can be made again.

    Raises:
        OSError: the folder cannot be written, the disk is full, or `path` is a pipe, a device or a folder.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        kind = errno.EISDIR if path.is_dir() else errno.EINVAL
        raise OSError(kind, os.strerror(kind) if path.is_dir() else "is there, and is not a file", str(path))
    # The suffix stays last, since some writers judge by it.
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        if durable:
            _sync(temporary)
        temporary.replace(path)
        if durable and os.name == "posix":
            _sync(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # a full disk does not say what did not fit
            error.filename = str(path)
        raise


def atomic_write(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Writes a whole file, text as UTF-8 with "?" for what is no text. See `atomic_path`."""
    with atomic_path(path, durable) as temporary:
        temporary.write_bytes(content.encode(errors="replace") if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_file(path: Path, most: float = math.inf) -> BinaryIO:
    """Opens a file to be read, and nothing that could be waited for, or read from, for ever.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        InputError: it is a pipe or a device, or has more bytes.
        OSError: it is a folder, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > most:
        os.close(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        expected = "a file" if not stat.S_ISREG(status.st_mode) else f"a file of {most:,} bytes at most"
        found = {stat.S_IFIFO: "a pipe", stat.S_IFREG: f"one of {status.st_size:,}"}
        raise InputError(f"{path}: expected {expected}, and it is {found.get(stat.S_IFMT(status.st_mode), 'a device')}")
    return os.fdopen(descriptor, "rb")


def read_file(path: Path, most: int = MOST_TEXT) -> bytes:
    """The whole content of a file; see `open_file`."""
    with open_file(path, most) as file:
        return file.read(most)


def check_sizes(file: zipfile.ZipFile) -> None:
    """Refuses an archive that would be too much when it is unpacked.

    Raises:
        BadZipFile: it would.
    """
    for each in file.infolist():
        most = MOST_JSON if each.filename.endswith(".json") else MOST_BYTES
        if each.file_size > most:
            raise zipfile.BadZipFile(f"{each.filename[:100]} unpacks to {each.file_size:,} bytes, more than {most:,}")


def parse_json(content: str | bytes, *, finite: bool = True) -> Any:
    """The values of a JSON document.

    Args:
        content: UTF-8.
        finite: whether it may have no number that is not finite.

    Raises:
        ValueError: it is none: torn, too deep, not text in Unicode, or with such a number.
    """
    text = content.decode() if isinstance(content, bytes) else content
    try:
        values = json.loads(text, parse_constant=_refuse, parse_float=_finite) if finite else json.loads(text)
        if "\\ud" in text or "\\uD" in text:  # half of a pair alone is no text
            json.dumps(values, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("too deep") from None
    return values


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _refuse(text[:20])
