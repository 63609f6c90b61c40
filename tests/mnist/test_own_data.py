"""Data of one's own: .npz files, names of classes, images of any shape; Fashion-MNIST."""

from __future__ import annotations

import html
import io
import json
import os
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.data import Dataset, load_dataset, read_class_names
from tests.support.called import SHADES, Made, called, refused, write_shades

Arrays = dict[str, npt.NDArray[Any]]
FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Finished runs."""
    return Made(tmp_path_factory)


@pytest.fixture
def arrays(made: Made) -> Arrays:
    """The four arrays of a data set of 7 x 5 pixels in 3 classes."""
    with np.load(made.shades() / "data.npz") as file:
        return dict(file)


def write_idx_folder(folder: Path, arrays: Arrays) -> Path:
    """The same arrays as IDX files."""
    folder.mkdir()
    names = {
        "x_train": "train-images-idx3",
        "y_train": "train-labels-idx1",
        "x_test": "t10k-images-idx3",
        "y_test": "t10k-labels-idx1",
    }
    for key, name in names.items():
        header = bytes([0, 0, 8, arrays[key].ndim]) + struct.pack(f">{arrays[key].ndim}I", *arrays[key].shape)
        (folder / f"{name}-ubyte").write_bytes(header + arrays[key].tobytes())
    return folder


def check_equal(dataset: Dataset, arrays: Arrays) -> None:
    for key, name in (("x", "images"), ("y", "labels")):
        for part in ("train", "test"):
            found = getattr(dataset, f"{part}_{name}")
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, arrays[f"{key}_{part}"])


def save(path: Path, arrays: Arrays, compressed: bool = False) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_file_is_the_same_data_as_idx_files_of_the_same_arrays(compressed: bool, arrays: Arrays, tmp_path: Path) -> None:
    folder = load_dataset(write_idx_folder(tmp_path / "idx", arrays))
    packed = load_dataset(save(tmp_path / "packed.npz", arrays, compressed))
    check_equal(folder, arrays)
    check_equal(packed, arrays)
    assert packed.sha256 == folder.sha256
    assert len(set(packed.sha256.values())) == 4
    assert (packed.name, packed.classes, packed.image_shape, packed.embedded) == ("packed", 3, (7, 5), False)


@pytest.mark.slow
def test_keras_own_file_is_mnist(mnist: Dataset, tmp_path: Path) -> None:
    """Keras distributes MNIST as ``mnist.npz``, compressed and in this order."""
    arrays = {
        "x_test": mnist.test_images,
        "x_train": mnist.train_images,
        "y_train": mnist.train_labels,
        "y_test": mnist.test_labels,
    }
    dataset = load_dataset(save(tmp_path / "mnist.npz", arrays))
    assert dataset.sha256 == mnist.sha256
    check_equal(dataset, arrays)


@pytest.mark.slow
def test_a_training_on_either_has_the_same_results(arrays: Arrays, tmp_path: Path) -> None:
    paths = [write_idx_folder(tmp_path / "idx", arrays), save(tmp_path / "packed.npz", arrays)]
    found = []
    for path in paths:
        done = called("train", "--data", path, "--epochs", 2, "--hidden", 8, "--output", tmp_path / "runs", "--json")
        found.append(json.loads(done.out))
    first, second = found
    assert first["test"] == second["test"]
    assert first["test"]["total"] == 30
    assert first["data"]["sha256"] == second["data"]["sha256"]


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint16, np.int8])
def test_labels_may_be_any_integers_and_a_column(kind: type[np.integer[Any]], arrays: Arrays, tmp_path: Path) -> None:
    changed = {name: array.astype(kind)[:, None] if name[0] == "y" else array for name, array in arrays.items()}
    check_equal(load_dataset(save(tmp_path / "data.npz", changed)), arrays)


def test_images_may_have_a_channel_and_lie_in_memory_as_they_like(arrays: Arrays, tmp_path: Path) -> None:
    changed = {name: np.asfortranarray(array[..., None]) if name[0] == "x" else array for name, array in arrays.items()}
    check_equal(load_dataset(save(tmp_path / "data.npz", changed)), arrays)


@pytest.mark.slow
def test_a_folder_may_hold_the_file_and_the_names(made: Made, arrays: Arrays) -> None:
    dataset = load_dataset(made.shades())
    check_equal(dataset, arrays)
    assert dataset.class_names == SHADES
    assert dataset.name == "shades"


def refusal(read: Callable[[Path], object], path: Path) -> str:
    """With what a file is refused: one line that names it."""
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert str(path) in message
    return message


CHANGES: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "images that are not finite": (lambda a: a | {"x_train": np.where(a["x_train"] > 9, np.nan, 0.5)}, "not finite"),
    "images as words": (lambda a: a | {"x_test": a["x_test"].astype(str)}, "x_test is <U"),
    "two channels": (lambda a: a | {"x_train": np.stack([a["x_train"]] * 2, -1)}, "x_train is uint8 of the shape (90, 7, 5, 2)"),
    "flat images": (lambda a: a | {"x_train": a["x_train"].reshape(90, 35)}, "x_train is uint8 of the shape (90, 35)"),
    "no images": (lambda a: a | {"x_test": a["x_test"][:0], "y_test": a["y_test"][:0]}, "x_test"),
    "broken labels": (lambda a: a | {"y_train": a["y_train"] + 0.5}, "y_train is float64"),
    "several labels for each image": (
        lambda a: a | {"y_train": np.ones((90, 3), np.uint8)},
        "y_train is uint8 of the shape (90, 3)",
    ),
    "truth values": (lambda a: a | {"y_train": a["y_train"] > 0}, "label 2 is out of range: training knows 0 to 1"),
    "negative labels": (lambda a: a | {"y_test": a["y_test"].astype(np.int64) - 1}, "y_test has labels from -1 to 1"),
    "large labels": (lambda a: a | {"y_train": a["y_train"].astype(np.int64) + 255}, "y_train has labels from 255 to 257"),
    "dates": (lambda a: a | {"y_train": a["y_train"].astype("M8[D]")}, "y_train is datetime64[D]"),
    "no y_test": (lambda a: {name: a[name] for name in a if name != "y_test"}, "has no y_test"),
    "fewer labels": (lambda a: a | {"y_train": a["y_train"][1:]}, "89 labels for the 90 images"),
    "other sizes": (lambda a: a | {"x_test": a["x_test"][:, 1:]}, "images of 6x5 pixels, the training images have 7x5"),
    "unknown label": (lambda a: a | {"y_test": a["y_test"] + 1}, "label 3 is out of range"),
    "one class": (lambda a: {n: array * 0 if n[0] == "y" else array for n, array in a.items()}, "at least two classes"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_no_data_set_is_refused_in_one_line(change: str, arrays: Arrays, tmp_path: Path) -> None:
    changed, message = CHANGES[change]
    assert message in refusal(load_dataset, save(tmp_path / "data.npz", changed(arrays)))


class Bomb:
    """Runs something where it is unpickled."""

    def __init__(self, witness: str) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.witness),)


@pytest.mark.parametrize("key", ["x_train", "y_train", "x_test", "y_test", "arr_0"])
def test_pickled_objects_are_never_read(key: str, arrays: Arrays, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    content = np.array([Bomb(str(witness))], dtype=object)
    path = save(tmp_path / "data.npz", arrays | {key: content})
    if key == "arr_0":  # nobody asked for that one
        check_equal(load_dataset(path), arrays)
    else:
        refusal(load_dataset, path)
    assert not witness.exists()
    np.load(path, allow_pickle=True)[key]  # the bomb is sound
    assert witness.exists()


def test_a_damaged_file_is_refused_in_one_line(arrays: Arrays, tmp_path: Path) -> None:
    path = save(tmp_path / "data.npz", arrays, compressed=True)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for content in (
        b"",
        b"PK\x03\x04",
        whole[:middle],
        whole[:-10],
        whole[:middle] + bytes(200) + whole[middle + 200 :],
        b"\x93NUMPY" + bytes(100),
        b"\x80\x04K\x01.",
        b"not a zip file",
    ):
        path.write_bytes(content)
        refusal(load_dataset, path)
    np.save(tmp_path / "one.npy", arrays["x_train"])
    (tmp_path / "one.npy").rename(path)
    assert "not an .npz file" in refusal(load_dataset, path)
    assert "no such" in refusal(load_dataset, tmp_path / "none.npz")


def npy(header: str) -> bytes:
    """An array in numpy's format, of which there is nothing but the header."""
    padded = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode()


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000, 4000, 4000)}"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000000000, 28, 28)}"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 28, 28)}"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (3, 28, 28)}"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': " + "(" * 60 + "}"),
        npy("__import__('os').abort()"),
        b"\x93NUMPY\x09\x00" + bytes(100),
        b"",
    ],
)
def test_a_header_that_promises_too_much_is_refused_in_one_line(content: bytes, arrays: Arrays, tmp_path: Path) -> None:
    path = save(tmp_path / "data.npz", {name: array for name, array in arrays.items() if name != "x_train"})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("x_train.npy", content)
    refusal(load_dataset, path)


def test_a_header_that_promises_gigabytes_more_than_there_is_is_refused(arrays: Arrays, tmp_path: Path) -> None:
    path = save(tmp_path / "data.npz", {name: array for name, array in arrays.items() if name != "x_train"})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        header = npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**31 // 35}, 7, 5)}}")
        file.writestr("x_train.npy", header + bytes(1 << 20))
    refusal(load_dataset, path)


def test_names_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "names"
    path.write_bytes("\ufeffzero\r\n  one and more \r\n二\r\n\r\n\n".encode())
    assert read_class_names(path)[1:] == ("one and more", "二")
    assert read_class_names(path)[0] == "zero"  # without the mark that Windows' editor begins a file with


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the names of 2 to 256 classes"),
        (b"alone\n", "expected the names of 2 to 256 classes"),
        (b"one\n\nthree\n", "none empty"),
        (b"one\ntwo\none\n", "no two alike"),
        (b"one \none\n", "no two alike"),
        (b"one\nt\xffwo\n", "not a text in UTF-8"),
        (b"one\ntwo\x1b[31m\n", "expected the names"),
        (b"one\ntwo\x00\n", "expected the names"),
        ("one\ntwo\u202ereversed\n".encode(), "expected the names"),
        ("\n".join(map(str, range(257))).encode(), "2 to 256"),
    ],
)
def test_a_file_that_holds_no_names_is_refused_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    assert message in refusal(read_class_names, path)


@pytest.mark.slow
def test_too_few_names_and_files_that_are_none_are_refused(made: Made, tmp_path: Path) -> None:
    names = tmp_path / "two.txt"
    names.write_text("one\ntwo\n")
    data = made.shades()
    options = ["--data", data, "--output", tmp_path / "runs"]
    assert f"{names}: 2 names, and the labels go up to 2" in refused("train", *options, "--classes", names)
    assert "--classes" in refused("train", *options, "--classes", tmp_path / "none.txt")
    assert "--classes" in refused("search", *options, "--classes", tmp_path)
    assert str(tmp_path) in refused("evaluate", made.named(), "--classes", tmp_path)
    assert f"--data {tmp_path / 'none'}" in refused("train", "--data", tmp_path / "none")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_more_names_than_labels_make_more_classes(made: Made, tmp_path: Path) -> None:
    names = tmp_path / "four.txt"
    names.write_text("one\ntwo\nthree\nnever seen\n")
    options = ["--epochs", 1, "--hidden", 8, "--output", tmp_path / "runs", "--json"]
    document = json.loads(called("train", "--data", made.shades(), "--classes", names, *options).out)
    assert document["data"]["class_names"] == ["one", "two", "three", "never seen"]
    assert len(document["test"]["matrix"]) == 4
    assert document["test"]["classes"][3]["support"] == 0


def page_text(page: str) -> str:
    """What a page's reader sees: its text without tags."""
    body = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", " ", body))


@pytest.mark.slow
def test_names_stand_in_the_report_the_document_and_the_page_as_they_are(made: Made, tmp_path: Path) -> None:
    """Also where rich or HTML would take them for markup."""
    folder = made.named()
    page = tmp_path / "page.html"
    printed = called("report", folder, "--html", page, COLUMNS="120").out
    document = json.loads(called("report", folder, "--json").out)
    assert document["data"]["class_names"] == list(SHADES)
    for source in (page.read_text(encoding="utf-8"), (folder / "report.html").read_text(encoding="utf-8")):
        assert "<b>two</b>" not in source
    text, kept = page_text(page.read_text(encoding="utf-8")), (folder / "report.txt").read_text(encoding="utf-8")
    for name in SHADES:
        assert name in printed
        assert name in kept
        assert name in text
    evaluated = called("evaluate", folder, COLUMNS="120").out
    assert all(name in evaluated for name in SHADES)


@pytest.mark.slow
def test_the_command_lines_names_go_before_the_folders(made: Made, tmp_path: Path) -> None:
    names = tmp_path / "mine.txt"
    names.write_text("left\nmiddle\nright\n")
    options = ["--epochs", 1, "--hidden", 8, "--output", tmp_path / "runs", "--json"]
    done = called("train", "--data", made.shades(), "--classes", names, *options)
    document = json.loads(done.out)
    assert document["data"]["class_names"] == ["left", "middle", "right"]
    assert all(name in done.err for name in ("left", "middle", "right"))
    assert json.loads(called("evaluate", document["run_dir"], "--json").out)["class_names"] == ["left", "middle", "right"]
    evaluated = called("evaluate", made.named(), "--classes", names, "--json")
    assert json.loads(evaluated.out)["class_names"] == ["left", "middle", "right"]


@pytest.mark.slow
def test_the_embedded_digits_can_have_names(tmp_path: Path) -> None:
    names = tmp_path / "words.txt"
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    names.write_text("\n".join(words))
    done = called("train", "--fast-dev-run", "--classes", names, "--output", tmp_path / "runs", "--json")
    assert json.loads(done.out)["data"]["class_names"] == words
    assert load_dataset(None, names).embedded is False  # a worker must not leave the names out


@pytest.mark.slow
def test_images_that_are_not_square_go_all_the_way(made: Made, tmp_path: Path) -> None:
    """7 x 5 pixels and 3 classes: train (elsewhere made), search, report, predict, export."""
    data, trained = made.shades(), made.named()
    accuracy = json.loads((trained / "run.json").read_text())["test"]["accuracy"]
    assert accuracy > 0.8
    small = ["--trials", 2, "--epochs", 2, "--replicates", 1, "--final-seeds", 1, "--workers", 0, "--widths", "8:16:8"]
    found = json.loads(called("search", "--data", data, *small, "--output", tmp_path / "runs", "--json").out)
    assert found["data"]["class_names"] == list(SHADES)
    assert found["data"]["image_shape"] == [7, 5]
    assert len(found["test"]["matrix"]) == 3
    folder = Path(found["run_dir"])
    page = tmp_path / "search.html"
    called("report", folder, "--html", page)
    assert "<b>two</b>" not in page.read_text(encoding="utf-8")
    assert all(name in page_text(page.read_text(encoding="utf-8")) for name in SHADES)
    dataset = load_dataset(data)
    with np.load(trained / "test_predictions.npz") as kept:
        predicted = kept["predicted"]
    pictures = []
    for index in range(6):
        Image.fromarray(dataset.test_images[index]).save(picture := tmp_path / f"{index}.png")
        pictures.append(picture)
    read = json.loads(called("predict", trained, *pictures, "--json").out)["predictions"]
    assert [prediction["label"] for prediction in read] == predicted[:6].tolist()
    assert [prediction["name"] for prediction in read] == [SHADES[label] for label in predicted[:6]]
    called("export", folder, "--output", tmp_path / "search.keras")
    probabilities = np.asarray(keras.models.load_model(tmp_path / "search.keras")(dataset.test_images))
    with np.load(folder / "test_predictions.npz") as kept:
        np.testing.assert_array_equal(probabilities.argmax(1), kept["predicted"][0, 0])


@pytest.mark.slow
def test_other_commands_read_an_npz_file_as_train_does(tmp_path: Path) -> None:
    data = write_shades(tmp_path / "wide.npz", height=4, width=9)
    options = ["--epochs", 3, "--hidden", 8, "--output", tmp_path / "runs", "--json"]
    trained = json.loads(called("train", "--data", data, *options).out)
    assert trained["data"]["name"] == "wide"
    assert trained["data"]["image_shape"] == [4, 9]
    assert json.loads(called("evaluate", trained["run_dir"], "--json").out)["test"]["matrix"] == trained["test"]["matrix"]
    rows = called("runs", "--output", tmp_path / "runs").out
    assert "finished" in rows


@pytest.fixture
def untested(arrays: Arrays, tmp_path: Path) -> Path:
    """The data set without its test images."""
    return save(tmp_path / "untested.npz", {name: array for name, array in arrays.items() if "test" not in name})


@pytest.mark.slow
def test_a_report_says_where_it_says_test_that_the_images_were_held_out(untested: Path, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    options = ["--data", untested, "--hidden", 8, "--epochs", 2, "--output", output]
    done = called("train", *options, "--json", COLUMNS="200")
    document = json.loads(done.out)
    assert (document["data"]["held_out"], document["data"]["train"], document["data"]["test"]) == (True, 72, 18)
    assert "72 training, 18 test images held out of the training images" in done.err
    assert done.err.count("on images held out of the training images") == 1
    folder = document["run_dir"]
    page = page_text(Path(folder, "report.html").read_text(encoding="utf-8"))
    assert "test accuracy, on images held out of the training images" in page
    assert "18, held out of the training images" in page
    assert "on images held out of the training images" in called("report", folder, "--quiet").out
    evaluated = called("evaluate", folder)
    assert "on images held out of the training images" in evaluated.out
    twice = np.concatenate([np.load(untested)["x_train"], 255 - np.load(untested)["x_train"]])
    foreign = save(tmp_path / "foreign.npz", {"x": twice, "y": np.tile(np.load(untested)["y_train"], 2)})
    tested = json.loads(called("evaluate", folder, "--data", foreign, "--json").out)
    assert (tested["test"]["total"], tested["held_out"]) == (180, False)
    assert any("all of its images are tested on" in note for note in tested["notes"])
    same = json.loads(called("evaluate", folder, "--data", untested, "--json").out)
    assert (same["test"], same["held_out"]) == (json.loads(called("evaluate", folder, "--json").out)["test"], True)
    listed = called("runs", "--output", output).out
    assert "*: on images held out of the training images" in listed
    other = json.loads(called("train", *options, "--seed", 3, "--json").out)
    assert other["data"]["sha256"] == document["data"]["sha256"], "the same images, whatever the seed"
    assert "untested (held out of the training images)" in called("report", folder, other["run_dir"], COLUMNS="200").out


@pytest.mark.slow
def test_several_seeds_and_searches_say_it_too(untested: Path, tmp_path: Path) -> None:
    options = ["--data", untested, "--epochs", 1, "--output", tmp_path / "runs"]
    seeds = called("train", *options, "--hidden", 8, "--seeds", 2, COLUMNS="200").out
    assert "on 18 test images held out of the training images" in seeds
    small = ["--trials", 1, "--replicates", 1, "--final-seeds", 1, "--workers", 0, "--widths", "8:16:8"]
    searched = called("search", *options, *small, COLUMNS="200").out
    assert "measured on 18 test images held out of the training images" in searched
    folder = next((tmp_path / "runs").glob("*-search-*"))
    assert "18 test images held out of the training images" in page_text((folder / "report.html").read_text(encoding="utf-8"))
    assert "test: 18 test images held out of the training images" in called("report", folder, "--quiet").out


@pytest.mark.slow
def test_data_with_a_validation_set_needs_no_share_of_the_training_images(arrays: Arrays, tmp_path: Path) -> None:
    path = save(tmp_path / "data.npz", arrays | {"x_val": arrays["x_test"][:12], "y_val": arrays["y_test"][:12]})
    options = ["--data", path, "--hidden", 8, "--epochs", 2, "--output", tmp_path / "runs"]
    done = called("train", *options, "--early-stopping", 1, "--json", COLUMNS="200")
    document = json.loads(done.out)
    assert (document["data"]["train"], document["data"]["validation"], document["data"]["own_validation"]) == (90, 12, True)
    assert "val_loss" in document["epochs"][0]
    assert "90 training, 12 validation (its own), 30 test images" in done.err
    assert "12 of the 30 test images" not in done.err
    small = ["--trials", 1, "--replicates", 1, "--final-seeds", 1, "--workers", 0, "--widths", "8:16:8"]
    searched = json.loads(called("search", *options[:2], *options[4:], *small, "--json").out)
    assert (searched["data"]["train"], searched["data"]["validation"]) == (90, 12)
    assert "--early-stopping needs validation images" in refused(
        "train", "--data", save(tmp_path / "none.npz", arrays), "--early-stopping", 1, "--output", tmp_path / "runs"
    )


@pytest.mark.slow
def test_a_run_keeps_which_data_set_it_had_and_how_it_was_turned(arrays: Arrays, tmp_path: Path) -> None:
    folder = tmp_path / "several"
    write_idx_folder(folder, arrays)
    for path in list(folder.iterdir()):
        (folder / f"letters-{path.name}").write_bytes(path.read_bytes())
        path.rename(folder / f"digits-{path.name}")
    options = ["--hidden", 8, "--epochs", 1, "--output", tmp_path / "runs", "--json"]
    assert "choose one with --split: digits, letters" in refused("train", "--data", folder, "--output", tmp_path / "runs")
    document = json.loads(called("train", "--data", folder, "--split", "letters", "--transpose", *options).out)
    assert document["data"]["name"] == "several-letters"
    assert document["data"]["image_shape"] == [5, 7]
    assert document["data"]["files"][0] == "letters-train-images-idx3-ubyte"
    evaluated = json.loads(called("evaluate", document["run_dir"], "--json").out)
    assert evaluated["test"]["matrix"] == document["test"]["matrix"]
    assert any("--transpose" in note for note in evaluated["notes"])
    other = called("evaluate", document["run_dir"], "--data", folder, "--split", "digits", "--transpose", "--json").out
    assert json.loads(other)["test"]["matrix"] == document["test"]["matrix"]


@pytest.mark.slow
def test_what_is_odd_is_said_once_at_the_head_of_the_report(arrays: Arrays, tmp_path: Path) -> None:
    changed = arrays | {"x_train": arrays["x_train"] // 16, "x_test": arrays["x_test"] // 16, "y_train": arrays["y_train"] + 1}
    path = save(tmp_path / "odd.npz", changed | {"y_test": arrays["y_test"] + 1})
    options = ["--hidden", 8, "--epochs", 1, "--output", tmp_path / "runs", "--json"]
    done = called("train", "--data", path, *options, COLUMNS="200")
    document = json.loads(done.out)
    assert len(document["data"]["notes"]) == 2
    text = Path(document["run_dir"], "report.txt").read_text(encoding="utf-8")
    page = page_text(Path(document["run_dir"], "report.html").read_text(encoding="utf-8"))
    for said in ("0 to 15 is 0 to 255", "its labels start at 1: class 0 has no image"):
        assert done.err.count(said) == text.count(said.partition(":")[0]) == page.count(said) == 1
    manifest = Path(document["run_dir"], "run.json")
    old = {
        name: value for name, value in document["data"].items() if name not in ("notes", "files", "held_out", "own_validation")
    }
    manifest.write_text(json.dumps(document | {"data": old}))  # as runs were written before
    assert "its labels start" not in called("report", document["run_dir"]).out


@pytest.fixture
def fashion() -> Path:
    """Fashion-MNIST as Debian's dataset-fashion-mnist installs it."""
    if not FASHION.is_dir():
        message = f"{FASHION} is missing: apt-get install dataset-fashion-mnist"
        if os.environ.get("MNIST_TUNER_FASHION") == "required":
            pytest.fail(message)
        pytest.skip(message)
    return FASHION


@pytest.mark.slow
def test_fashion_mnist_is_learned_and_reported_with_its_names(fashion: Path, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(FASHION_NAMES))
    done = called("train", "--epochs", 1, "--data", fashion, "--classes", names, "--output", tmp_path / "runs", "--json")
    document = json.loads(done.out)
    assert document["test"]["total"] == 10_000
    assert document["test"]["accuracy"] > 0.8
    assert document["data"]["class_names"] == list(FASHION_NAMES)
    assert document["data"]["name"] == "fashion-mnist"
    assert all(name in done.err for name in FASHION_NAMES)
    page = page_text((Path(document["run_dir"]) / "report.html").read_text())
    assert all(name in page for name in FASHION_NAMES)
    pictures = [tmp_path / f"{index}.png" for index in range(20)]
    dataset = load_dataset(fashion)
    for index, picture in enumerate(pictures):
        Image.fromarray(dataset.test_images[index]).save(picture)
    read = json.loads(called("predict", document["run_dir"], *pictures, "--json").out)["predictions"]
    with np.load(Path(document["run_dir"]) / "test_predictions.npz") as kept:
        same = [p["name"] == FASHION_NAMES[label] for p, label in zip(read, kept["predicted"][:20], strict=True)]
    assert sum(same) >= 18  # what is framed as the data is, is seen as the data was


@pytest.mark.slow
def test_a_picture_in_memory_is_not_needed_to_be_a_file(made: Made) -> None:
    content = io.BytesIO()
    dataset = load_dataset(made.shades())
    Image.fromarray(dataset.test_images[0]).save(content, "PNG")
    done = called("predict", made.named(), "-", "--json", stdin=content.getvalue())
    (prediction,) = json.loads(done.out)["predictions"]
    assert prediction["name"] in SHADES
