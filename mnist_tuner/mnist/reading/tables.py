"""The readers of tables, a row for each image: text, as Kaggle publishes data, and Parquet, as Hugging Face does."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.reading.files import HEAD, MOST_BYTES, MOST_GROWTH, SMALL, File
from mnist_tuner.mnist.reading.names import read_name
from mnist_tuner.mnist.reading.pictures import read_pictures

FEWEST_PIXELS = 16
ROWS = 4096
"""Rows that are read at once."""
LABELS = ("label", "labels", "class", "target", "y", "digit", "letter", "character", "category")
_NUMBERS = re.compile(r"(unnamed.*|index|id|)")
"""Columns that only number the rows."""


@dataclass(frozen=True)
class Table:
    """What a table holds.

    Attributes:
        images: ``(n, pixels)``, or of pictures ``(n, height, width)``.
        labels: ``(n,)``; None where it has none.
        names: of the classes, where the file has them.
        coloured: whether its pictures were in colour.
        lost: how many of its pictures could not be read.
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[Any] | None
    names: tuple[str, ...] = ()
    coloured: bool = False
    lost: int = 0


@dataclass(frozen=True)
class _Layout:
    delimiter: str | None
    header: bool
    width: int
    label: int | None
    pixels: range


def is_table(head: bytes) -> bool:
    """Whether a file begins as a text with a row of pixels in each line."""
    return len(_first_rows(head)[1]) > 0


def is_column(head: bytes) -> bool:
    """Whether a file begins as a text with one value in each line."""
    lines = _text(head).splitlines()[:3]
    return bool(lines) and all(re.fullmatch(r'"?[\w.+-]{1,40}"?,?', line.strip()) for line in lines)


def read_column(file: File) -> npt.NDArray[Any]:
    """The labels of a text with one in each line; of a first line that is none, nothing is left.

    Raises:
        InputError: it cannot be read.
    """
    lines = [line.strip().strip(',"') for line in file.read().decode("utf-8-sig", "replace").splitlines() if line.strip()]
    header = lines[0].lower() in LABELS[:3] or (len(lines) > 1 and not _is_number(lines[0]) and _is_number(lines[1]))
    return np.array(lines[header:])


def read_text(file: File, labelled: bool = True) -> Table:
    """A table in CSV, or with tabs, semicolons or blanks between its columns; with a header or without.

    Args:
        file: the file.
        labelled: False where its name says that it holds images only.

    Raises:
        InputError: it cannot be read, or does not say where the labels are.
    """
    delimiter, rows = _first_rows(file.head())
    if not rows:
        raise InputError(f"{file.at}: no table with a row of pixels in each line")
    layout = _layout(file.at, delimiter, rows, labelled)
    pieces, labels, number = [], [], int(layout.header)
    with file.open() as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="replace")
        if layout.header:
            text.readline()
        while lines := list(islice(text, ROWS)):
            lines = [line.replace('"', "") for line in lines if line.strip()]
            try:
                if lines:
                    values = np.loadtxt(lines, delimiter=delimiter, usecols=layout.pixels, ndmin=2, comments=None)
                    pieces.append(_small(values))
                    labels += _labels(lines, layout)
            except (ValueError, IndexError) as error:
                told = " ".join(str(error).partition(";")[0].split())[:160]
                raise InputError(f"{file.at}: not a table of pixels ({told}, counted from line {number + 1:,})") from None
            number += ROWS
    if not pieces:
        raise InputError(f"{file.at}: a table without a row")
    values = np.concatenate(pieces)
    if layout.label is None and labelled and not _is_size(values.shape[1]):
        return _split(file.at, values)
    return Table(values, np.array(labels) if layout.label is not None else None)


def _small(values: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """The same, as bytes where that loses nothing."""
    small = values.astype(np.uint8) if values.min() >= 0 and values.max() <= 255 else values
    return small if (small == values).all() else values.astype(np.float32)


def _text(head: bytes) -> str:
    text = head.decode("utf-8-sig", "replace")
    return "" if "\0" in text or text.count("\N{REPLACEMENT CHARACTER}") > 1 else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _first_rows(head: bytes) -> tuple[str | None, list[list[str]]]:
    """The delimiter, and the rows that a file begins with, if they are a table of pixels; else none."""
    lines = [line for line in _text(head).splitlines() if line.strip()]
    lines = lines[:-1] if len(head) >= HEAD and len(lines) > 2 else lines
    if not lines:
        return None, []
    delimiter: str | None = max(",;\t", key=lines[0].count)
    delimiter = delimiter if lines[0].count(delimiter or ",") >= FEWEST_PIXELS else None
    rows = [[cell.strip().strip('"') for cell in line.split(delimiter)] for line in lines[:20]]
    width = len(rows[0])
    body = rows[1:] or rows
    regular = width > FEWEST_PIXELS - 1 and all(len(row) == width for row in rows)
    return delimiter, rows if regular and sum(map(_is_number, body[0])) >= width - 3 else []


def _layout(at: str, delimiter: str | None, rows: list[list[str]], labelled: bool) -> _Layout:
    """Where the labels and the pixels are; where no name says so, it is left to `_split`.

    Raises:
        InputError: it cannot be told.
    """
    width, below = len(rows[0]), rows[1] if len(rows) > 1 else rows[0]
    header = any((not _is_number(a) and _is_number(b)) or a.lower() in LABELS[:3] for a, b in zip(rows[0], below, strict=True))
    header = header or any(rows[0] == [str(column + first) for column in range(width)] for first in (0, 1))  # as pandas writes it
    names = [name.lower() for name in rows[0]] if header else [f"{column}" for column in range(width)]
    named = [column for column, name in enumerate(names) if name in LABELS]
    if not named and labelled:  # letters tell, too
        named = [column for column in (0, width - 1) if not any(_is_number(row[column]) for row in rows[header:])]
    label = named[0] if len(named) == 1 else None
    rest = [column for column in range(width) if column != label and not _NUMBERS.fullmatch(names[column])]
    if not rest or rest != list(range(rest[0], rest[-1] + 1)):
        raise InputError(f"{at}: columns lie between those of the pixels: expected a label, and then pixel after pixel")
    if header:
        _check_order(at, [names[column] for column in rest])
    return _Layout(delimiter, header, width, label, range(rest[0], rest[-1] + 1))


def _check_order(at: str, names: list[str]) -> None:
    """Whether the pixels' columns are in order, where their names have numbers: sorted as text, pixel10 comes after pixel1.

    Raises:
        InputError: they are not.
    """
    places = [[int(number) for number in re.findall(r"\d+", name)] for name in names]
    if all(places) and (wrong := next((i for i in range(1, len(names)) if places[i] < places[i - 1]), 0)):
        raise InputError(f"{at}: the column {names[wrong]} comes after {names[wrong - 1]}: expected row by row")


def _is_size(pixels: int) -> bool:
    return pixels >= FEWEST_PIXELS and math.isqrt(pixels) ** 2 == pixels


def _split(at: str, values: npt.NDArray[Any]) -> Table:
    """Labels and pixels of a table without names: the first or the last column is the label, if only one of them can be it.

    Raises:
        InputError: it cannot be told.
    """
    found = []
    for column in (0, -1):
        kinds, counts = np.unique(values[:, column], return_counts=True)
        shares = counts / len(values)
        spread = -(shares * np.log2(shares)).sum()  # of a corner's pixels, which are nearly all alike, it is about none
        if spread > 0.3 and (kinds == kinds.astype(np.int64)).all() and kinds.min() >= 0 and kinds.max() < 256:
            found.append((len(kinds), column))
    few = sorted(found)
    if len(few) == 2 and 2 * few[0][0] <= few[1][0]:  # a corner of a photo takes any value
        few = few[:1]
    if len(few) != 1 or not _is_size(values.shape[1] - 1):
        raise InputError(
            f"{at}: {values.shape[1]:,} columns, of which it cannot be told which one is the label: expected a header with "
            "label,pixel0,pixel1,..., and as many pixels as a square has"
        )
    column = few[0][1]
    return Table(values[:, 1:] if column == 0 else values[:, :-1], values[:, column])


def is_labelled(file: File) -> bool:
    """Whether a table has labels: a column that is called so, or one more than a square has pixels."""
    delimiter, rows = _first_rows(file.head())
    layout = _layout(file.at, delimiter, rows, labelled=True)
    return layout.label is not None or not _is_size(len(layout.pixels))


def _labels(lines: list[str], layout: _Layout) -> list[str]:
    column = layout.label
    if column is None:
        return []
    if column > layout.pixels[-1]:
        return [line.rsplit(layout.delimiter, layout.width - column)[1].strip() for line in lines]
    return [line.split(layout.delimiter, column + 1)[column].strip() for line in lines]


def read_parquet(file: File) -> Table:
    """A Parquet file: a column of pictures, of lists of pixels, or a column for each pixel; and one of labels.

    Raises:
        InputError: it is damaged, or something else; or nothing is installed to read it with.
    """
    if importlib.util.find_spec("pyarrow") is None:
        install = f"{shlex.quote(sys.executable)} -m pip install pyarrow"
        raise InputError(f"{file.at}: a Parquet file, and there is nothing to read it with: {install}")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open() as stream:
            table = pq.ParquetFile(pa.BufferReader(stream.read()) if not stream.seekable() else stream)
            groups = (table.metadata.row_group(group) for group in range(table.num_row_groups))
            if (size := sum(group.total_byte_size for group in groups)) > min(MOST_BYTES, max(SMALL, MOST_GROWTH * file.size)):
                raise InputError(f"{file.at}: unpacks to {size:,} bytes: too much for its size")
            fields = {field.name: field.type for field in table.schema_arrow}
            label = next((name for name in fields if name.lower() in LABELS), None)
            images = [name for name in fields if name != label and not _NUMBERS.fullmatch(name.lower())]
            if label is None and len(images) == 2:
                label = next((name for name in images if pa.types.is_primitive(fields[name])), None)
                images = [name for name in images if name != label]
            named = [name for name in images if read_name(name).kind == "images"]
            images = named if len(named) == 1 else images
            _check_order(file.at, images)
            columns = [*images, *([label] if label else [])]
            labels: list[Any] = []
            pieces = [_pixels(batch, images, file.at) for batch in _batches(table, columns, label, labels)]
            names = _hugging_face_names(table.schema_arrow.metadata, label)
    except InputError:
        raise
    except Exception as error:  # whatever pyarrow makes of a damaged file
        raise InputError(f"{file.at}: no Parquet file that can be read ({' '.join(str(error).split())[:160]})") from None
    if not pieces:
        raise InputError(f"{file.at}: a table without a row")
    if len({piece[0].shape[1:] for piece in pieces}) > 1:
        raise InputError(f"{file.at}: images of different sizes: bring all to one")
    kept = np.concatenate([piece[1] for piece in pieces])
    arrays = np.concatenate([piece[0] for piece in pieces])
    arrays = arrays if kept.all() else arrays[kept]
    found = np.array(labels)[kept] if label else None
    return Table(arrays, found, names, any(piece[2] for piece in pieces), int((~kept).sum()))


def _batches(table: Any, columns: list[str], label: str | None, labels: list[Any]) -> Iterator[Any]:
    for batch in table.iter_batches(ROWS, columns=columns):
        if label:
            labels += batch.column(label).to_pylist()
        yield batch


def _pixels(batch: Any, names: list[str], at: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_], bool]:
    """The images of some rows, which of them are sound, and whether any was in colour."""
    import pyarrow as pa

    whole = np.ones(batch.num_rows, bool)
    if len(names) > 1:
        return _small(np.stack([np.asarray(batch.column(name), np.float64) for name in names], 1)), whole, False
    if names:
        column = batch.column(names[0])
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            column = column.field("bytes")
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            return read_pictures(len(column), lambda i: column[i].as_py() or b"", lambda i: f"{at}, row {i + 1}")
        if pa.types.is_nested(column.type):
            return _small(np.array(column.to_pylist(), np.float64)), whole, False
    raise InputError(f"{at}: its columns are {', '.join(batch.schema.names)}: expected an image, and a label")


def _hugging_face_names(metadata: dict[bytes, bytes] | None, label: str | None) -> tuple[str, ...]:
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    sound = isinstance(names, list) and all(isinstance(name, str) and name.isprintable() for name in names)
    return () if not sound or names == [str(number) for number in range(len(names))] else tuple(names)
