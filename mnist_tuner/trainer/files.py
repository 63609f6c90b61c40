"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".mnist_tuner-"
"""How the names of files begin that are being written."""


@contextmanager
def atomic_path(path: Path, durable: bool = True) -> Iterator[Path]:
    """Gives a temporary path in the same folder; what was written there takes `path`'s place when the block ends.

    The content reaches the disk before the name does, and the folder's entry before this returns. If the block raises,
    `path` is as it was and nothing is left behind.

    Args:
        path: the file.
        durable: whether it must outlive a loss of power; False for what can be made again.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    # The suffix stays last, since some writers judge by it.
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        if durable:
            _sync(temporary)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # a full disk does not say what did not fit
            error.filename = str(path)
        raise
    if durable and os.name == "posix":
        _sync(path.parent)


def atomic_write(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Writes a whole file, text as UTF-8. See `atomic_path`."""
    with atomic_path(path, durable) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
