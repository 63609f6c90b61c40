"""The reader of IDX files, MNIST's own format (http://yann.lecun.com/exdb/mnist/).

Two zero bytes, a type code (8: unsigned byte), the number of dimensions, each dimension as a big-endian uint32, then the values
in row-major order, big-endian.
"""

from __future__ import annotations

import hashlib
import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.reading.files import MOST_BYTES, File, file_at

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4"}
"""Those of integers. EMNIST, KMNIST and Fashion-MNIST are unsigned bytes, QMNIST's labels are ``i4``."""


def read_idx(path: Path, dimensions: int) -> tuple[npt.NDArray[np.uint8], str]:
    """Reads one IDX file of unsigned bytes, packed or not.

    Args:
        path: the file.
        dimensions: how many dimensions it must have: 3 for images, 1 for labels.

    Returns:
        The array (uint8, read-only) and the SHA-256 of the file's uncompressed bytes, in hexadecimal.

    Raises:
        InputError: the file is missing, unreadable, not IDX, too short or too long.
    """
    array = read_idx_file(file_at(path), (dimensions,), {0x08: "u1"})
    return array, checksum(array)


def checksum(array: npt.NDArray[np.uint8]) -> str:
    """The SHA-256 of the IDX file that holds an array, in hexadecimal."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    digest = hashlib.sha256(header)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def is_idx(head: bytes) -> bool:
    """Whether a file begins as IDX does."""
    return len(head) >= 4 and head[:2] == b"\0\0" and 0x08 <= head[2] <= 0x0E and 1 <= head[3] <= 4


def read_idx_file(file: File, dimensions: tuple[int, ...], types: dict[int, str] = TYPES) -> npt.NDArray[Any]:
    """Reads one IDX file.

    Args:
        file: the file.
        dimensions: how many it may have.
        types: those that its values may have, by their code.

    Returns:
        The array, read-only.

    Raises:
        InputError: it is missing, unreadable, not such a file, too short or too long.
    """
    with file.open() as stream:
        return _read(stream, file.at, dimensions, types)


def _read(stream: BinaryIO, at: str, dimensions: tuple[int, ...], types: dict[int, str]) -> npt.NDArray[Any]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in types or magic[3] not in dimensions:
        kind = "unsigned bytes" if len(types) == 1 else "integers"
        expected = " or ".join(map(str, dimensions))
        raise InputError(
            f"{at}: not an IDX file of {kind} in {expected} dimension(s): its magic number is {magic.hex() or 'missing'}, "
            f"expected such as {bytes([0, 0, 8, dimensions[0]]).hex()}"
        )
    dtype, number = np.dtype(types[magic[2]]), magic[3]
    sizes = stream.read(4 * number)
    if len(sizes) < 4 * number:
        raise InputError(f"{at}: truncated within its header")
    shape = struct.unpack(f">{number}I", sizes)
    expected = math.prod(shape) * dtype.itemsize
    if expected == 0:
        raise InputError(f"{at}: holds no data (its dimensions are {'x'.join(map(str, shape))})")
    content = bytearray()  # it grows: a header that promises more than there is must not reserve that much memory
    while len(content) <= expected and (piece := stream.read(min(1 << 24, expected + 1 - len(content)))):
        content += piece
        if len(content) > MOST_BYTES:
            raise InputError(f"{at}: more than {MOST_BYTES:,} bytes")
    if len(content) < expected:
        raise InputError(f"{at}: truncated: {len(content):,} bytes of data, its header promises {expected:,}")
    if len(content) > expected:
        raise InputError(f"{at}: trailing bytes after the {expected:,} that its header promises")
    array = np.frombuffer(content, dtype).reshape(shape)
    array.setflags(write=False)
    return array
