"""The folder of a run."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from mnist_tuner.errors import InputError
from mnist_tuner.trainer.files import TEMPORARY, atomic_write, read_file


class RunDirectory:
    """A run's folder, ``<parent>/<time>-<command>-<name>``, and its manifest, ``run.json``.

    Args:
        path: the folder; it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parents: list[Path] = []
        self._descriptor: int | None = None

    @classmethod
    def create(cls, parent: Path, command: str, name: str) -> RunDirectory:
        """Makes a new folder, never one that exists.

        Raises:
            InputError: it cannot be made.
        """
        missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
        stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{command}-{name}"
        number = 1
        while True:
            path = parent / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                number += 1
            except OSError as error:
                raise InputError(f"--output {parent}: a run's folder cannot be made there ({error.strerror})") from None
            else:
                run = cls(path)
                run._parents = missing
                return run

    @classmethod
    def open(cls, path: Path) -> tuple[RunDirectory, dict[str, Any]]:
        """A folder that exists, and its manifest.

        Raises:
            InputError: it is no run's folder, or its manifest is damaged.
        """
        from pydantic_core import from_json

        try:
            manifest = from_json(read_file(path / "run.json"), allow_inf_nan=False)
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{path}: no folder of a run (it has no run.json)") from None
        except InputError:
            raise
        except ValueError:
            raise InputError(f"{path / 'run.json'}: damaged: not a JSON document") from None
        if not isinstance(manifest, dict):
            raise InputError(f"{path / 'run.json'}: damaged: not a JSON object")
        return cls(path), manifest

    def lock(self) -> None:
        """Keeps other processes out of the folder while this one lives. See `lock_folder`."""
        self._descriptor = lock_folder(self.path)
        remove_torn_files(self.path)

    def unlock(self) -> None:
        """Lets others work in the folder again, this process among them."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def discard(self) -> None:
        """Removes the folder, and those above it that were made for it and are empty."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            for folder in self._parents:
                folder.rmdir()

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Writes ``run.json``, whole or not at all.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        atomic_write(self / "run.json", to_json(manifest))


def lock_folder(path: Path, *, shared: bool = False) -> int:
    """Keeps other processes out of a folder while this one lives, or until the file descriptor that is returned is closed.

    Args:
        path: the folder.
        shared: whether others that ask for the same may have it at the same time.

    Raises:
        InputError: another one is working in it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    if sys.platform == "win32":
        return descriptor
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(f"{path}: another process is working on this run") from None
    except OSError:  # a file system that knows no locks
        pass
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether a process is working in a folder."""
    try:
        os.close(lock_folder(path, shared=True))
    except InputError:
        return True
    return False


def remove_torn_files(folder: Path) -> None:
    """Removes what `atomic_path` was writing, here or a few folders below, when its process was killed. Nobody else may be
    writing there."""
    for depth in range(4):
        for path in folder.glob("*/" * depth + f"{TEMPORARY}*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def to_json(document: dict[str, Any], *, ascii: bool = False) -> str:
    """JSON as the standard has it; see `finite`. With `ascii` all other characters are escaped."""
    return json.dumps(finite(document), indent=2, allow_nan=False, ensure_ascii=ascii) + "\n"


def finite(value: Any) -> Any:
    """The same JSON values, with null in the place of a number that is not finite."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: finite(item) for key, item in value.items()}
        case list() | tuple():
            return [finite(item) for item in value]
    return value
