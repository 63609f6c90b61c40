"""Tables: what a column is, and what cannot be told."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.data import load_dataset
from tests.support.digits import TRAIN, check, check_held_out, csv, digits, write


def refusal(path: Path) -> str:
    """The message with which a data set is refused; it is one line."""
    with pytest.raises(InputError) as caught:
        load_dataset(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_a_header_of_numbers_is_a_header(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    lines = csv(x, y).splitlines()
    lines[0] = ",".join(["label", *map(str, range(784))])
    check_held_out(load_dataset(write(tmp_path / "data.csv", "\n".join(lines))))


@pytest.mark.parametrize("first", [0, 1])
def test_a_header_that_only_counts_is_no_image(first: int, tmp_path: Path) -> None:
    """As pandas writes it: a row of pixels up to 784 would make all others dark."""
    x, y, _, _ = digits()
    header = ",".join(str(column + first) for column in range(785))
    check_held_out(load_dataset(write(tmp_path / "data.csv", f"{header}\n{csv(x, y, header=False)}")))


def test_a_label_that_is_neither_first_nor_last_is_found_by_its_name(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    lines = csv(x, y, first=False).splitlines()
    numbered = [f"{line},{number}" for number, line in enumerate(lines)]
    numbered[0] = f"{lines[0]},id"
    check_held_out(load_dataset(write(tmp_path / "data.csv", "\n".join(numbered))))


def test_pixels_whose_columns_were_sorted_as_text_are_refused(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    names = [f"pixel{number}" for number in range(784)]
    order = np.argsort(names)
    lines = csv(x.reshape(TRAIN, -1)[:, order], y).splitlines()
    lines[0] = ",".join(["label", *np.array(names)[order]])
    assert "the column pixel11 comes after pixel109" in refusal(write(tmp_path / "data.csv", "\n".join(lines)))


def test_large_images_are_a_table_too(tmp_path: Path) -> None:
    """A row has more bytes than the beginning of a file that others are told by."""
    images = np.random.default_rng(0).integers(0, 256, (40, 100, 100), np.uint8)
    dataset = load_dataset(write(tmp_path / "data.csv", csv(images, np.arange(40) % 2)))
    assert sorted(map(bytes, [*dataset.train_images, *dataset.test_images])) == sorted(map(bytes, images))


def test_labels_in_a_file_of_their_own_may_be_words_below_a_header(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    words = [f"digit {label}" if row > 3 else str(label) for row, label in enumerate(y)]
    for name, lines in (("header", ["label", *map(str, y)]), ("words", ["label", *("d" + word for word in words)])):
        write(tmp_path / name / "train_images.csv", csv(x, None, header=False))
        write(tmp_path / name / "train_labels.csv", "\n".join(lines))
    check_held_out(load_dataset(tmp_path / "header"))
    assert "ddigit 7" in load_dataset(tmp_path / "words").class_names


def test_quotes_a_byte_order_mark_and_packing_do_not_matter(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    quoted = "\ufeff" + "\r\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in csv(x, y).splitlines())
    check_held_out(load_dataset(write(tmp_path / "data.csv.gz", gzip.compress(quoted.encode()))))


@pytest.mark.parametrize("header", [False, True])
def test_letters_as_labels_become_names(header: bool, tmp_path: Path) -> None:
    x, y, _, _ = digits()
    dataset = load_dataset(write(tmp_path / "data.csv", csv(x, np.array(list("ABCDEFGHIJ"))[y], header=header)))
    assert dataset.class_names == tuple("ABCDEFGHIJ")
    check_held_out(dataset)


def test_fractions_are_scaled_as_in_an_npz(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    dataset = load_dataset(write(tmp_path / "data.csv", csv(x / 255, y)))
    check_held_out(dataset)
    assert any("0 to 1 is 0 to 255" in note for note in dataset.notes)


def test_a_table_of_which_nobody_can_tell_the_label_is_refused(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    both = generator.integers(0, 10, (50, 17))  # the first column and the last look alike
    both[:, 1:-1] *= 20
    path = write(tmp_path / "data.csv", "\n".join(",".join(map(str, row)) for row in both))
    assert "17 columns, of which it cannot be told which one is the label" in refusal(path)


def test_a_photos_corner_is_not_taken_for_a_label(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels, pixels = np.arange(300) % 5, generator.integers(0, 256, (300, 16))
    dataset = load_dataset(write(tmp_path / "data.csv", csv(pixels, labels, header=False, first=False)))
    assert dataset.classes == 5
    assert dataset.image_shape == (4, 4)


def test_pixels_that_make_no_square_are_refused_with_their_number(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    path = write(tmp_path / "data.csv", csv(x[:, 1:], y))
    assert "uint8 of the shape (120, 756): expected images" in refusal(path)


@pytest.mark.parametrize(("cell", "reason"), [("abc", "could not convert string 'abc'"), ("", "could not convert string ''")])
def test_a_cell_that_is_no_number_is_named(cell: str, reason: str, tmp_path: Path) -> None:
    x, y, _, _ = digits()
    lines = csv(x, y).splitlines()
    lines[90] = lines[90].replace(",0,", f",{cell},", 1)
    message = refusal(write(tmp_path / "data.csv", "\n".join(lines)))
    assert reason in message
    assert "counted from line 2" in message


def test_a_row_that_is_too_short_is_refused(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    lines = csv(x, y).splitlines()
    lines[100] = lines[100].rsplit(",", 5)[0]
    assert "not a table of pixels" in refusal(write(tmp_path / "data.csv", "\n".join(lines)))


def test_without_a_reader_of_parquet_it_is_said_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = refusal(write(tmp_path / "train.parquet", b"PAR1"))
    assert message.startswith(f"{tmp_path / 'train.parquet'}: a Parquet file, and there is nothing to read it with: ")
    assert message.endswith(f"{shlex.quote(sys.executable)} -m pip install pyarrow")


def png(image: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def test_a_parquet_file_of_any_of_the_usual_columns_is_read(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "structs": {"image": pa.array([{"bytes": png(image), "path": None} for image in x], struct), "label": y},
        "bytes": {"img": [png(image) for image in x], "label": y.astype(np.int64)},
        "lists of lists": {"image": [image.tolist() for image in x], "label": y},
        "lists": {"pixel_values": [image.ravel().tolist() for image in x], "labels": y},
        "pixels": {**{f"pixel{i + 1}": x.reshape(len(x), -1)[:, i] for i in range(784)}, "class": [str(label) for label in y]},
    }
    for kind, table in columns.items():
        path = tmp_path / f"{kind}.parquet"
        pq.write_table(pa.table(table), path)
        check_held_out(load_dataset(path))


def test_hugging_faces_shards_parts_and_names_are_understood(tmp_path: Path) -> None:
    x, y, xt, yt = digits()
    names = [f"digit {number}" for number in range(10)]
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})}
    shards = {"train-00000-of-00002": (x[:50], y[:50]), "train-00001-of-00002": (x[50:], y[50:]), "test-00000-of-00001": (xt, yt)}
    (tmp_path / "data").mkdir()
    for name, (images, labels) in shards.items():
        table = pa.table({"image": [{"bytes": png(image)} for image in images], "label": labels.astype(np.int64)})
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "data" / f"{name}.parquet")
    assert check(load_dataset(tmp_path)).class_names == tuple(names)
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": {"names": names[::-1]}}}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "data" / "test-00000-of-00001.parquet")
    assert "name the classes differently" in refusal(tmp_path)


def test_a_parquet_file_without_images_or_labels_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "number": [1, 2]}), tmp_path / "a.parquet")
    assert "its columns are text, number: expected an image, and a label" in refusal(tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [png(digits()[0][0])] * 3}), tmp_path / "b.parquet")
    assert "images without labels" in refusal(tmp_path / "b.parquet")
    write(tmp_path / "c.parquet", (tmp_path / "b.parquet").read_bytes()[:-50])
    assert "no Parquet file that can be read" in refusal(tmp_path / "c.parquet")


def test_of_parquet_a_shard_that_is_missing_and_a_broken_picture_are_not_passed_over(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    table = pa.table({"image": [b"broken", *map(png, x)], "label": [0, *y.tolist()]})
    pq.write_table(table, tmp_path / "all.parquet")
    dataset = check_held_out(load_dataset(tmp_path / "all.parquet"))
    assert "1 of the pictures in all.parquet could not be read" in dataset.notes
    pq.write_table(table, tmp_path / "train-00000-of-00002.parquet")
    assert "one of 2 files, and 1 are there" in refusal(tmp_path / "train-00000-of-00002.parquet")
