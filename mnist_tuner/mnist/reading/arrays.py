"""The readers of numpy's files: .npz and .npy. Arrays of Python objects are never read, since they may run code."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.reading.files import MOST_BYTES, MOST_GROWTH, SMALL, File


def read_npy(file: File) -> npt.NDArray[Any]:
    """The array of an ``.npy`` file.

    Raises:
        InputError: it is damaged, or holds something else.
    """
    with file.open() as stream:
        return _read_array(stream, file.at, MOST_BYTES)


def npz_keys(file: File) -> list[str]:
    """The names of an ``.npz`` file's arrays.

    Raises:
        InputError: it is missing, or none.
    """
    with file.open() as stream, _zip(file, stream) as archive:
        return [info.filename.removesuffix(".npy") for info in archive.infolist() if info.filename.endswith(".npy")]


def read_npz_array(file: File, key: str) -> npt.NDArray[Any]:
    """One of an ``.npz`` file's arrays.

    Raises:
        InputError: it is damaged, or holds something else.
    """
    with file.open() as stream, _zip(file, stream) as archive:
        info = archive.getinfo(f"{key}.npy")
        if info.file_size > min(MOST_BYTES, max(SMALL, MOST_GROWTH * file.size)):
            raise InputError(f"{file.at}: {key} unpacks to {info.file_size:,} bytes: too much for the size of the file")
        try:
            with archive.open(info) as member:
                return _read_array(member, f"{file.at}: {key}", info.file_size)  # type: ignore[arg-type]
        except (NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:  # packed in an unknown way, encrypted
            raise _damaged(file.at, error) from None


def _zip(file: File, stream: BinaryIO) -> zipfile.ZipFile:
    try:
        # The end of a zip is read first; within an archive that would unpack all of it again and again.
        return zipfile.ZipFile(stream if Path(file.at).is_file() else io.BytesIO(stream.read(MOST_BYTES)))
    except zipfile.BadZipFile:
        raise InputError(f"{file.at}: not an .npz file") from None
    except Exception as error:  # whatever zipfile makes of a damaged archive
        raise _damaged(file.at, error) from None


def _damaged(at: str, error: Exception) -> InputError:
    return InputError(f"{at}: not an .npz file of arrays, or a damaged one ({' '.join(str(error).split())[:200]})")


def _read_array(stream: BinaryIO, at: str, most: int) -> npt.NDArray[Any]:
    """An array in numpy's format, for which its header may not promise more bytes than there are."""
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, dtype = read_header(stream)
        if dtype.hasobject:
            raise InputError(f"{at}: an array of Python objects, which could run code: save it with another dtype")
        size = math.prod(shape) * dtype.itemsize
        if size < 0 or size > most:
            raise InputError(f"{at}: its header promises {size:,} bytes, more than there are")
        array = np.empty(math.prod(shape), dtype)
        content, got = memoryview(array.view(np.uint8) if size else b""), 0  # type: ignore[arg-type]
        while got < size and (piece := stream.read(min(1 << 24, size - got))):
            content[got : got + len(piece)] = piece
            got += len(piece)
        if got < size:
            raise InputError(f"{at}: truncated: {got:,} bytes of data, its header promises {size:,}")
    except InputError:
        raise
    except Exception as error:  # whatever numpy and zipfile make of a damaged file, tokenize's errors among them
        raise _damaged(at, error) from None
    return array.reshape(shape, order="F" if in_columns else "C")
