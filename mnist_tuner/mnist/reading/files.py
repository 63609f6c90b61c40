"""The files of a data set, in a folder or in an archive. An archive is read where it lies: nothing is unpacked onto the disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from mnist_tuner.errors import InputError

MOST_BYTES, MOST_FILES, MOST_LEVELS = 8 * 2**30, 2_000_000, 8
MOST_GROWTH, SMALL = 250, 64 * 2**20
"""Packed data may grow so many times, or to so many bytes. Pixels that are text grow twentyfold, black ones a thousandfold."""
PIECE = HEAD = 1 << 20
ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz")
_PACKERS: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ\0": lzma.LZMAFile}


@dataclass(frozen=True)
class File:
    """A regular file.

    Attributes:
        name: where it lies below the folder, or in the archive, with slashes.
        at: its path, as messages name it.
        size: in bytes, as it lies there.
        raw: opens it.
    """

    name: str
    at: str
    size: int
    raw: Callable[[], BinaryIO]

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its bytes; unpacked where they are packed with gzip, bzip2 or xz, whatever it is called.

        Raises:
            InputError: it cannot be read, is damaged, or grows beyond all measure.
        """
        try:
            with ExitStack() as stack:
                file = stack.enter_context(self.raw())
                buffered = stack.enter_context(io.BufferedReader(cast("io.RawIOBase", file), PIECE))
                yield cast("BinaryIO", stack.enter_context(_unpacked(buffered, self.at, self.size)))
        except FileNotFoundError:
            raise InputError(f"{self.at}: no such file") from None
        except gzip.BadGzipFile as error:
            raise InputError(f"{self.at}: not a sound gzip file ({error})") from None
        except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise InputError(f"{self.at}: the packed data is truncated or damaged ({error})") from None
        except OSError as error:
            raise InputError(f"{self.at}: cannot be read ({error.strerror or error})") from None

    def read(self) -> bytes:
        """All of its bytes, unpacked.

        Raises:
            InputError: see `open`.
        """
        with self.open() as file:
            return b"".join(iter(lambda: file.read(PIECE), b""))

    def head(self) -> bytes:
        """Its first bytes, unpacked; none where it cannot be read."""
        try:
            with self.open() as file:
                return file.read(HEAD)
        except InputError:
            return b""


class _Limited(io.RawIOBase):
    """What is unpacked, until it is more than packed data may grow to."""

    def __init__(self, file: Any, at: str, most: int) -> None:
        self.file, self.at, self.most = file, at, most

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.file.read(len(buffer))
        self._check()
        buffer[: len(content)] = content
        return len(content)

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        position = self.file.seek(position, whence)
        self._check()
        return position

    def tell(self) -> int:
        return int(self.file.tell())

    def _check(self) -> None:
        if self.file.tell() > self.most:
            raise InputError(f"{self.at}: unpacks to more than {self.most:,} bytes: too much for its size")


class _Frugal(io.BufferedReader):
    """Refuses to read much at once: an archive's headers may ask for all the memory there is."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > SMALL:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return super().read(size)


def _unpacked(file: Any, at: str, size: int) -> Any:
    start = file.peek(6)
    packer = next((packer for magic, packer in _PACKERS.items() if start.startswith(magic)), None)
    if packer is None:
        return file
    unpacked = gzip.GzipFile(fileobj=file) if packer is gzip.GzipFile else packer(file)
    return _Frugal(_Limited(unpacked, at, min(MOST_BYTES, max(SMALL, MOST_GROWTH * size))), PIECE)


def file_at(path: Path) -> File:
    """A file on the disk.

    Raises:
        InputError: it is a pipe or a device, which may never end.
    """
    try:
        status = path.stat()
    except OSError:
        return File(path.name, str(path), 0, lambda: path.open("rb", buffering=0))  # what is wrong is told where it is opened
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: not a regular file")
    return File(path.name, str(path), status.st_size, lambda: path.open("rb", buffering=0))


def is_archive(path: Path) -> bool:
    """Whether it is a .zip or a tar, packed or not: by its content, since much else is a zip, too, such as .npz and .xlsx."""
    if path.suffix.lower() not in ("", ".gz", ".bz2", ".xz", *ARCHIVES) or not path.is_file():
        return False
    return _is_zip(path) or file_at(path).head()[257:262] == b"ustar"


def _is_zip(path: Path) -> bool:
    return file_at(path).head()[:2] == b"PK"  # zipfile.is_zipfile also takes a tar for one, at whose end an .npz lies


def is_hidden(name: str) -> bool:
    """Whether it is of no interest: what file managers and version control leave behind."""
    return name.startswith((".", "__MACOSX"))


def files_in_folder(folder: Path, levels: int = MOST_LEVELS) -> list[File]:
    """The regular files in a folder and below, in the order of their names.

    Raises:
        InputError: the folder cannot be read, or there are too many.
    """

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})")

    found: list[File] = []
    for at, folders, names in os.walk(folder, onerror=fail):
        below = Path(at).relative_to(folder)
        folders[:] = sorted(name for name in folders if not is_hidden(name)) if len(below.parts) < levels else []
        for name in sorted(names):
            path = Path(at, name)
            if not is_hidden(name) and path.is_file():
                file = file_at(path)
                found.append(File((below / name).as_posix(), file.at, file.size, file.raw))
        if len(found) > MOST_FILES:
            raise InputError(f"{folder}: more than {MOST_FILES:,} files")
    return found


def files_in_archive(path: Path, stack: ExitStack) -> list[File]:
    """The regular files in a .zip or a tar, in its order.

    Args:
        path: the archive.
        stack: closes it.

    Raises:
        InputError: it is damaged, encrypted, or unpacks to too much.
    """
    try:
        listed = list(_zipped(path, stack) if _is_zip(path) else _tarred(path, stack))
    except InputError:
        raise
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        raise InputError(f"{path}: a damaged archive ({error})") from None
    return [file for file in listed if not any(map(is_hidden, file.name.split("/")))]


class _Sum:
    """Counts what an archive unpacks to."""

    def __init__(self, path: Path) -> None:
        self.path, self.bytes, self.files = path, 0, 0
        self.most = min(MOST_BYTES, max(SMALL, MOST_GROWTH * path.stat().st_size))

    def add(self, size: int) -> None:
        self.bytes, self.files = self.bytes + size, self.files + 1
        if self.bytes > self.most:
            raise InputError(f"{self.path}: unpacks to more than {self.most:,} bytes: too much for its size")
        if self.files > MOST_FILES:
            raise InputError(f"{self.path}: more than {MOST_FILES:,} files")


def _zipped(path: Path, stack: ExitStack) -> Iterator[File]:
    archive, total = stack.enter_context(zipfile.ZipFile(path)), _Sum(path)
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.is_dir() or kind not in (0, stat.S_IFREG):
            continue
        if info.flag_bits & 1:
            raise InputError(f"{path}: encrypted: unpack it, and give the folder")
        total.add(info.file_size)
        raw: Any = lambda info=info: archive.open(info)  # noqa: E731
        yield File(info.filename, f"{path}/{info.filename}", info.file_size, raw)


def _tarred(path: Path, stack: ExitStack) -> Iterator[File]:
    file = stack.enter_context(file_at(path).open())
    archive, total = tarfile.TarFile(fileobj=file), _Sum(path)
    for member in archive:
        if member.isreg() and not member.issparse():
            total.add(member.size)
            raw: Any = lambda member=member: archive.extractfile(member)  # noqa: E731
            yield File(member.name.removeprefix("./"), f"{path}/{member.name}", member.size, raw)
