"""Data sets as people publish them: each is found, and read right; or it is refused in a line that says what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.data import load_dataset
from tests.support.digits import (
    TRAIN,
    check,
    check_held_out,
    csv,
    digits,
    idx,
    idx_files,
    write,
    write_all,
    write_pictures,
)

Make = Callable[[Path], Any]


def refusal(path: Path, split: str | None = None) -> str:
    """The message with which a data set is refused; it is one line."""
    with pytest.raises(InputError) as caught:
        load_dataset(path, split=split)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


IDX_NAMES: dict[str, dict[str, str]] = {
    "MNIST": {},
    "with dots, as unpackers write it": {"images": "images.idx3-ubyte", "labels": "labels.idx1-ubyte"},
    "EMNIST digits": {"train": "emnist-digits-train-{}", "test": "emnist-digits-test-{}"},
    "torchvision": {"train": "MNIST/raw/train-{}", "test": "MNIST/raw/t10k-{}"},
    "capitals": {"train": "TRAIN-{}", "test": "T10K-{}", "images": "IMAGES-IDX3-UBYTE", "labels": "LABELS-IDX1-UBYTE"},
    "folders of the files' names": {
        "train": "train-{0}/train-{0}",
        "test": "t10k-{0}/t10k-{0}",
    },
    "folders of the parts": {"train": "train/{}", "test": "test/{}"},
    "no kind but what they hold": {"train": "train-{}", "test": "test-{}", "images": "idx3-ubyte", "labels": "idx1-ubyte"},
    "no suffix at all": {"train": "train_{}", "test": "test_{}", "images": "images", "labels": "labels"},
}


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("names", IDX_NAMES)
def test_idx_files_are_found_by_what_they_are(names: str, gz: bool, tmp_path: Path) -> None:
    files = idx_files(**IDX_NAMES[names])
    if gz:
        files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    dataset = check(load_dataset(write_all(tmp_path / "data", files)))
    assert sorted(dataset.files) == sorted(files)
    assert not dataset.held_out


@pytest.mark.parametrize("pack", [bytes, bz2.compress, lzma.compress])
def test_a_files_name_does_not_say_how_it_is_packed(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    check(load_dataset(write_all(tmp_path, {f"{name}.gz": pack(content) for name, content in idx_files().items()})))


def test_the_same_files_packed_and_unpacked_are_one_data_set(tmp_path: Path) -> None:
    files = idx_files(train="MNIST/raw/train-{}", test="MNIST/raw/t10k-{}")
    write_all(tmp_path, files | {f"{name}.gz": gzip.compress(content) for name, content in files.items()})
    assert sorted(check(load_dataset(tmp_path)).files) == sorted(files)


def test_an_archive_that_holds_each_file_twice_is_one_data_set(tmp_path: Path) -> None:
    dots = idx_files(images="images.idx3-ubyte", labels="labels.idx1-ubyte")
    check(load_dataset(write_all(tmp_path, dots | idx_files(**IDX_NAMES["folders of the files' names"]))))


def test_two_files_of_the_same_part_that_differ_are_refused(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    write_all(tmp_path, idx_files() | {"train-images.idx3-ubyte": idx(x[1:]), "train-labels.idx1-ubyte": idx(y[1:])})
    assert "two of the same, which differ" in refusal(tmp_path)


def test_two_of_the_same_size_that_differ_are_refused(tmp_path: Path) -> None:
    """Nothing says which is meant: pixels of black on white, or these."""
    x, y, _, _ = digits()
    files = idx_files(train="raw/train-{}", test="raw/t10k-{}") | {"processed/train-images-idx3-ubyte": idx(255 - x)}
    assert "two of the same, which differ" in refusal(write_all(tmp_path / "idx", files))
    assert "a.npz: images and " in refusal(npz(tmp_path / "a.npz", images=x, pixels=255 - x, labels=y))
    for kind in ("raw", "png"):
        write_pictures(tmp_path / "pictures" / kind, x, y)
    assert "the class 0 lies in png/0 and in raw/0" in refusal(tmp_path / "pictures")


@pytest.mark.parametrize(("code", "dtype"), [(0x09, "i1"), (0x0B, ">i2"), (0x0C, ">i4")])
def test_labels_and_images_may_be_of_any_integer_type(code: int, dtype: str, tmp_path: Path) -> None:
    x, y, xt, yt = digits()
    names = list(idx_files())
    arrays = dict(zip(names, (x, y, xt, yt), strict=True))
    wide = code != 0x09  # a signed byte holds no 255
    files = {name: idx(array, code, dtype) if wide or array.ndim == 1 else idx(array) for name, array in arrays.items()}
    check(load_dataset(write_all(tmp_path, files)))


def test_of_qmnists_eight_columns_the_first_is_the_label(tmp_path: Path) -> None:
    x, y, xt, yt = digits()
    files = {"qmnist-train-images-idx3-ubyte": idx(x), "qmnist-test-images-idx3-ubyte": idx(xt)}
    for part, labels in (("train", y), ("test", yt)):
        columns = np.concatenate([labels[:, None], np.full((len(labels), 7), 1234)], axis=1)
        files[f"qmnist-{part}-labels-idx2-int"] = idx(columns, 0x0C, ">i4")
    check(load_dataset(write_all(tmp_path, files)))


def npz(path: Path, **arrays: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def keys(images: str, labels: str, parts: tuple[str, str] = ("train", "test")) -> Make:
    def make(folder: Path) -> Path:
        x, y, xt, yt = digits()
        arrays = zip((images, labels) * 2, [parts[0]] * 2 + [parts[1]] * 2, (x, y, xt, yt), strict=True)
        return npz(folder / "data.npz", **{name.format(part): array for name, part, array in arrays})

    return make


def kmnist(folder: Path) -> Path:
    for part, images, labels in (("train", *digits()[:2]), ("test", *digits()[2:])):
        npz(folder / f"kmnist-{part}-imgs.npz", arr_0=images)
        npz(folder / f"kmnist-{part}-labels.npz", arr_0=labels)
    return folder


def one_npz_for_each_part(folder: Path) -> Path:
    x, y, xt, yt = digits()
    npz(folder / "train.npz", images=x, labels=y)
    npz(folder / "test.npz", images=xt, labels=yt)
    return folder


def npy(folder: Path) -> Path:
    folder.mkdir()
    for name, array in zip(("x_train", "y_train", "x_test", "y_test"), digits(), strict=True):
        np.save(folder / f"{name}.npy", array)
    return folder


def capitals(folder: Path) -> Path:
    return keys("x_{}", "y_{}")(folder).rename(folder / "DATA.NPZ")


def tables(folder: Path, names: tuple[str, str] = ("mnist_train.csv", "mnist_test.csv"), **how: Any) -> Path:
    x, y, xt, yt = digits()
    write(folder / names[0], csv(x, y, **how))
    write(folder / names[1], csv(xt, yt, **how))
    return folder


def signs(folder: Path) -> Path:
    """Sign Language MNIST: each table twice, and a picture beside them."""
    for name in ("sign_mnist_train", "sign_mnist_test"):
        tables(folder / name, ("sign_mnist_train.csv", "sign_mnist_test.csv"))
        (folder / name / ("sign_mnist_test.csv" if "train" in name else "sign_mnist_train.csv")).unlink()
    tables(folder, ("sign_mnist_train.csv", "sign_mnist_test.csv"))
    write_pictures(folder, *digits()[:2])
    (folder / "5" / "0000.png").rename(folder / "amer_sign2.png")
    for label in range(10):
        shutil.rmtree(folder / str(label))
    return folder


def arabic(folder: Path) -> Path:
    """Images and labels in tables of their own."""
    x, y, xt, yt = digits()
    for part, images, labels in (("Train", x, y), ("Test", xt, yt)):
        write(folder / f"csv{part}Images {len(images)}x784.csv", csv(images, None, header=False))
        write(folder / f"csv{part}Label {len(images)}x1.csv", "".join(f"{label}\n" for label in labels))
    return folder


def pictures(folder: Path, names: tuple[str, str] = ("training", "testing"), suffix: str = ".png") -> Path:
    x, y, xt, yt = digits()
    write_pictures(folder / names[0], x, y, suffix)
    write_pictures(folder / names[1], xt, yt, suffix)
    return folder


def class_before_part(folder: Path) -> Path:
    pictures(folder / "tmp")
    for path in sorted((folder / "tmp").rglob("*.png")):
        label, part = path.parent.name, path.parent.parent.name
        write(folder / label / part / path.name, path.read_bytes())
    shutil.rmtree(folder / "tmp")
    return folder


PUBLISHED: dict[str, Make] = {
    "Keras": keys("x_{}", "y_{}"),
    "capital X": keys("X_{}", "y_{}"),
    "words": keys("{}_images", "{}_labels"),
    "training and testing": keys("{}_data", "{}_labels", ("training", "testing")),
    "in one word": keys("{}X", "{}Y"),
    "shortened": keys("x_{}", "y_{}", ("tr", "te")),
    "capitals": capitals,
    "KMNIST": kmnist,
    "an npz for each part": one_npz_for_each_part,
    "npy": npy,
    "csv": tables,
    "csv without a header": lambda folder: tables(folder, header=False),
    "csv with the label last": lambda folder: tables(folder, first=False, label="class"),
    "csv without a header, the label last": lambda folder: tables(folder, first=False, header=False),
    "tabs": lambda folder: tables(folder, ("train.tsv", "test.tsv"), delimiter="\t"),
    "blanks": lambda folder: tables(folder, ("zip.train", "zip.test"), delimiter=" ", header=False, first=True),
    "semicolons": lambda folder: tables(folder, delimiter=";"),
    "UCI": lambda folder: tables(folder, ("digits.tra", "digits.tes"), header=False, first=False),
    "Sign Language": signs,
    "Arabic digits": arabic,
    "pictures": pictures,
    "pictures by class, then part": class_before_part,
    "bitmaps": lambda folder: pictures(folder, ("train", "test"), ".bmp"),
    "pictures in two folders of a name": lambda folder: pictures(folder, ("trainingSet/trainingSet", "testSet/testSet")),
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_what_people_publish_is_read_image_by_image(kind: str, tmp_path: Path) -> None:
    dataset = check(load_dataset(PUBLISHED[kind](tmp_path / "data")))
    assert not dataset.class_names
    assert not dataset.held_out
    assert not [note for note in dataset.notes if "fewer" not in note and "no test image" not in note]


@pytest.mark.parametrize("kind", ["csv", "KMNIST", "pictures", "npy", "words"])
@pytest.mark.parametrize("archive", ["zip", "tar", "gztar", "bztar", "xztar"])
def test_an_archive_is_read_as_it_is(kind: str, archive: str, tmp_path: Path) -> None:
    made = PUBLISHED[kind](tmp_path / "data")
    folder = made if made.is_dir() else made.parent
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), archive, folder))
    before = sorted(tmp_path.rglob("*"))
    assert check(load_dataset(packed)).name == "packed"
    assert sorted(tmp_path.rglob("*")) == before, "something was unpacked"


def test_a_folder_of_archives_is_read_too(tmp_path: Path) -> None:
    for name, content in idx_files().items():
        (tmp_path / "data").mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / "data" / f"{name}.zip", "w") as file:
            file.writestr(name.replace("-idx", ".idx"), content)
    check(load_dataset(tmp_path / "data"))


def test_what_file_managers_leave_behind_is_not_data(tmp_path: Path) -> None:
    write_all(tmp_path, idx_files() | {"__MACOSX/._train-images-idx3-ubyte": b"x" * 200, ".DS_Store": b"\0\0\x08\x03"})
    write(tmp_path / "README.md", "about")
    check(load_dataset(tmp_path))


def emnist(folder: Path) -> Path:
    files: dict[str, bytes] = {}
    for split in ("letters", "digits", "by-class"):
        files |= idx_files(f"gzip/emnist-{split}-train-{{}}", f"gzip/emnist-{split}-test-{{}}")
    return write_all(folder, files)


def test_of_several_data_sets_one_is_chosen_by_its_name(tmp_path: Path) -> None:
    folder = emnist(tmp_path / "emnist")
    assert "3 data sets: choose one with --split: by-class, digits, letters" in refusal(folder)
    for split in ("letters", "Letters", "byclass", "by_class"):
        assert check(load_dataset(folder, split=split)).name == f"emnist-{split}"
    assert "no data set called 'numbers'" in refusal(folder, "numbers")
    assert "digits or letters" in refusal(folder, "numbers")


def test_a_data_set_that_is_alone_has_its_name_too(tmp_path: Path) -> None:
    write_all(tmp_path, idx_files(train="emnist-letters-train-{}", test="emnist-letters-test-{}"))
    for split in ("letters", "emnist-letters"):
        check(load_dataset(tmp_path, split=split))
    assert "expected --split emnist-letters" in refusal(tmp_path, "digits")


def test_torchvisions_folder_of_several_is_several(tmp_path: Path) -> None:
    for name in ("MNIST", "FashionMNIST"):
        write_all(tmp_path / name / "raw", idx_files())
    assert "--split: fashion, mnist" in refusal(tmp_path)
    check(load_dataset(tmp_path, split="FashionMNIST"))


def test_a_file_that_is_one_of_several_brings_the_others(tmp_path: Path) -> None:
    write_all(tmp_path, idx_files() | {"other.txt": b"hello"})
    check(load_dataset(tmp_path / "train-images-idx3-ubyte"))
    assert kmnist(tmp_path / "k").is_dir()
    check(load_dataset(tmp_path / "k" / "kmnist-train-imgs.npz"))


def test_images_without_a_test_set_are_held_out_in_part(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    files = {name: content for name, content in idx_files().items() if "train" in name}
    found = [
        load_dataset(write_all(tmp_path / "idx", files)),
        load_dataset(npz(tmp_path / "a.npz", X=x, y=y)),
        load_dataset(npz(tmp_path / "b.npz", data=x.reshape(TRAIN, -1), target=y, images=x)),
        load_dataset(write(tmp_path / "data.csv", csv(x, y))),
        load_dataset(write(tmp_path / "sorted.csv", csv(x[np.argsort(y)], np.sort(y), header=False))),
        load_dataset(write_pictures(tmp_path / "pictures", x, y)),
    ]
    for dataset in found:
        check_held_out(dataset)
    assert found[0].sha256 == found[1].sha256 == found[2].sha256 == found[3].sha256, "whatever the format, the same are held out"


def test_a_table_of_images_without_labels_is_left_out_and_said(tmp_path: Path) -> None:
    x, y, xt, _ = digits()
    write(tmp_path / "train.csv", csv(x, y))
    write(tmp_path / "test.csv", csv(xt, None))
    write(tmp_path / "sample_submission.csv", "ImageId,Label\n1,0\n")
    assert "test.csv has no labels, and is not used" in check_held_out(load_dataset(tmp_path)).notes


def test_test_images_of_which_nothing_says_whose_they_are_are_left_out_and_said(tmp_path: Path) -> None:
    x, y, xt, yt = digits()
    npz(tmp_path / "train.npz", x=x, y=y)
    write(tmp_path / "test.csv", csv(xt, yt))
    assert any(note.startswith("test.csv not used") for note in check_held_out(load_dataset(tmp_path)).notes)


def test_labels_without_their_images_are_missed_by_name(tmp_path: Path) -> None:
    folder = arabic(tmp_path / "data")
    (folder / "csvTestImages 40x784.csv").unlink()
    assert refusal(folder).startswith(f"{folder}/csvTest")


def test_columns_that_number_the_rows_are_no_pixels(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    lines = csv(x, y).splitlines()
    for name in ("", "id", "Unnamed: 0", "index"):
        numbered = [f"{name},{lines[0]}", *(f"{row},{line}" for row, line in enumerate(lines[1:]))]
        check_held_out(load_dataset(write(tmp_path / "data.csv", "\r\n".join(numbered))))


def test_a_validation_set_of_its_own_is_used_as_that(tmp_path: Path) -> None:
    x, y, xt, yt = digits()
    parts = {"train": (x[20:], y[20:]), "val": (x[:20], y[:20]), "test": (xt, yt)}
    arrays = {f"{part}_images": images for part, (images, _) in parts.items()}
    arrays |= {f"{part}_labels": labels[:, None] for part, (_, labels) in parts.items()}
    dataset = load_dataset(npz(tmp_path / "medmnist.npz", **arrays))
    assert dataset.val_images is not None
    assert dataset.val_labels is not None
    np.testing.assert_array_equal(dataset.val_images, x[:20])
    np.testing.assert_array_equal(dataset.val_labels, y[:20])
    np.testing.assert_array_equal(dataset.train_images, x[20:])
    assert len(dataset.sha256) == 6


FOREIGN = {
    "mnist.pkl.gz": "a pickle, which could run code",
    "training.pt": "a file of PyTorch's, which could run code",
    "mnist.mat": "scipy.io.loadmat",
    "usps.h5": "h5py",
    "mnist_784.arff": "loadarff",
    "train.tfrecord": "tensorflow_datasets",
    "digits.xlsx": "save it as CSV",
    "digits.7z": "unpack it, and give the folder",
    "mnist.scale.bz2": "load_svmlight_file",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_format_that_is_not_read_is_named_with_a_way_out(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "data" / name, b"\x80\x04K\x01.")
    for source in (path, path.parent):
        message = refusal(source)
        assert message.startswith(f"{path}: ")
        assert FOREIGN[name] in message
        assert "no such" not in message


def without(*names: str) -> dict[str, bytes]:
    return {name: content for name, content in idx_files().items() if name not in names}


MISSING: dict[str, tuple[dict[str, bytes], tuple[str, ...]]] = {
    "nothing": ({}, ("it is empty",)),
    "other files": ({"a.txt": b"hello", "b.md": b"hello"}, ("found a.txt, b.md", "expected IDX files")),
    "test images only": (
        without("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("no training images: found t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte",),
    ),
    "no training labels": (
        without("train-labels-idx1-ubyte"),
        ("train-labels-idx1-ubyte: no such file", "found t10k-images-idx3-ubyte", "train-images-idx3-ubyte"),
    ),
    "a table of something else": ({"iris.csv": b"a,b,species\n1,2,x\n"}, ("found iris.csv",)),
}


@pytest.mark.parametrize("kind", MISSING)
def test_a_message_names_what_is_there(kind: str, tmp_path: Path) -> None:
    files, parts = MISSING[kind]
    (tmp_path / "data").mkdir()
    message = refusal(write_all(tmp_path / "data", files))
    assert all(part in message for part in parts), message


def test_an_npz_of_other_arrays_is_refused_with_their_names(tmp_path: Path) -> None:
    x, y, xt, yt = digits()
    assert "has arr_0, arr_1, arr_2, arr_3: expected x_train" in refusal(
        npz(tmp_path / "a.npz", **dict(zip(("arr_0", "arr_1", "arr_2", "arr_3"), (x, y, xt, yt), strict=True)))
    )
    assert "has no y_train: it has mean, x_test, x_train" in refusal(npz(tmp_path / "b.npz", x_train=x, x_test=xt, mean=y))


def test_of_arrays_that_are_called_alike_the_plainest_name_counts(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    names = np.array([f"digit {number}" for number in range(10)])
    check_held_out(load_dataset(npz(tmp_path / "a.npz", label_names=names, class_names=names, images=x, labels=y)))
    check_held_out(load_dataset(npz(tmp_path / "b.npz", target_names=names, data=x, target=y, feature_names=names)))


def test_pictures_without_folders_of_classes_are_refused(tmp_path: Path) -> None:
    x, _, _, _ = digits()
    write_pictures(tmp_path, x[:3], np.array([1, 1, 1]))
    assert "no data that can be read: found 1/0000.png" in refusal(tmp_path)
    message = refusal(tmp_path / "1")
    assert "images without labels: expected a folder for each class" in message


def test_more_images_than_labels_are_refused_in_every_format(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    assert f"{TRAIN - 1} labels for the {TRAIN} images" in refusal(npz(tmp_path / "a.npz", x=x, y=y[1:]))
    columns = npz(tmp_path / "b.npz", x=x.reshape(TRAIN, -1).T, y=y)
    assert "the number of images comes first" in refusal(columns)


def test_fewer_labels_than_images_are_refused_as_a_row_too(tmp_path: Path) -> None:
    x, y, _, _ = digits()
    check_held_out(load_dataset(npz(tmp_path / "a.npz", images=x, labels=y[None])))
    assert f"5 labels for the {TRAIN} images" in refusal(npz(tmp_path / "b.npz", images=x, labels=y[None, :5]))


def test_nothing_of_a_zip_leads_out_of_it(tmp_path: Path) -> None:
    witness = write(tmp_path / "train-images-idx3-ubyte", idx_files()["train-images-idx3-ubyte"])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        for name, content in without("train-images-idx3-ubyte").items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("train-images-idx3-ubyte")
        link.type, link.linkname = tarfile.SYMTYPE, str(witness)
        file.addfile(link)
    message = refusal(write(tmp_path / "data.tar", packed.getvalue()))
    assert "train-images-idx3-ubyte: no such file" in message
