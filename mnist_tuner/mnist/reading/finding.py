"""Which of the files that lie there are a data set: by what they are, and by what their names say."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.reading import tables
from mnist_tuner.mnist.reading.arrays import npz_keys, read_npy, read_npz_array
from mnist_tuner.mnist.reading.files import ARCHIVES, File, file_at, files_in_archive, files_in_folder, is_archive
from mnist_tuner.mnist.reading.forms import Raw
from mnist_tuner.mnist.reading.idx import is_idx, read_idx_file
from mnist_tuner.mnist.reading.names import PARTS, SHARD, TEST, TRAINING, Said, counterpart, read_name
from mnist_tuner.mnist.reading.pictures import is_picture, read_files

FORMATS = ("idx", "npz", "npy", "parquet", "table", "pictures")
"""The first of which there is a whole data set is taken: the same data often lies there in several."""
_PACKED = (".gz", ".bz2", ".xz")
_SAVE = "save it with numpy.savez('data.npz', x_train=..., y_train=..., x_test=..., y_test=...)"
_FOREIGN = {
    (".mat",): f"a file of MATLAB's: read it with scipy.io.loadmat, and {_SAVE}",
    (".h5", ".hdf5"): f"an HDF5 file: read it with h5py, and {_SAVE}",
    (".pkl", ".pickle", ".joblib"): f"a pickle, which could run code when it is read: if you trust it, load it and {_SAVE}",
    (".pt", ".pth"): f"a file of PyTorch's, which could run code when it is read: if you trust it, load it and {_SAVE}",
    (".arff",): f"an ARFF file: read it with scipy.io.arff.loadarff, and {_SAVE}",
    (".tfrecord",): f"a file of TensorFlow's records: read it with tensorflow_datasets, and {_SAVE}",
    (".arrow", ".feather"): "an Arrow file: read it with datasets.Dataset.from_file, and save it with to_parquet",
    (".json", ".jsonl"): f"a JSON file: read it with Python's json, and {_SAVE}",
    (".xlsx", ".xls", ".ods"): "a spreadsheet: save it as CSV",
    (".7z", ".rar", ".zst", ".z"): "packed in a way that is not read here: unpack it, and give the folder",
    (".t", ".scale", ".libsvm", ".svm"): f"a file of libsvm's: read it with sklearn.datasets.load_svmlight_file, and {_SAVE}",
}


@dataclass(frozen=True)
class Loaded:
    """What came of a piece. `names` are the classes', where the file has them; `note` is what could not be read."""

    images: Raw | None = None
    labels: Raw | None = None
    names: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Piece:
    """Images, labels, or both, of a part of a data set.

    Attributes:
        part: training, validation or test; None where nothing says so.
        kind: "images", "labels" or "both".
        file: in which it lies, as reports call it.
        at: where it is, as messages name it.
        wanted: as these would name what belongs to it.
        read: reads it.
    """

    part: str | None
    kind: str
    file: str
    at: str
    wanted: str
    read: Callable[[], Loaded]


@dataclass
class Found:
    """A data set that was found; it is read by `finding.read`.

    Attributes:
        words: of its name, those of each folder and of the files.
        form: one of `FORMATS`.
        pieces: all that belongs to it.
        aside: files of test images that may belong to it: nothing says so.
    """

    words: tuple[tuple[str, ...], ...]
    form: str
    pieces: list[Piece] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)

    def of(self, part: str | None) -> dict[str, list[Piece]]:
        """A part's pieces, by kind."""
        found: dict[str, list[Piece]] = {}
        for piece in self.pieces:
            if piece.part == part:
                found.setdefault(piece.kind, []).append(piece)
        return found

    @property
    def training(self) -> dict[str, list[Piece]]:
        """What is trained on: where nothing says so, all that says nothing else."""
        return self.of(TRAINING) or self.of(None)

    @property
    def whole(self) -> bool:
        """Whether there are training images with labels."""
        return "both" in self.training or {"images", "labels"} <= self.training.keys()


def open_source(source: Path, stack: ExitStack) -> tuple[list[File], bool]:
    """The files of a folder or an archive, or the file itself; and whether it is that.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    if source.is_dir():
        return files_in_folder(source), False
    if not source.exists():
        raise InputError(f"{source}: no such folder of data, nor an .npz file")
    if is_archive(source):
        return files_in_archive(source, stack), False
    return [file_at(source)], True


def find(source: Path, split: str | None, stack: ExitStack) -> Found:
    """The data set in a folder, an archive or a file.

    Args:
        source: where it is.
        split: which of several; None where there is one.
        stack: closes archives.

    Raises:
        InputError: there is none, there are several, or what is there cannot be read.
    """
    files, single = open_source(source, stack)
    found, wrong = _candidates(files)
    if single and not any(each.whole for each in found):  # one of several files: the others lie beside it
        mine = {each.words for each in found}
        beside = files_in_folder(source.parent, levels=0) if found else []
        found = [each for each in _candidates(beside)[0] if each.words in mine] or found
    if not any(each.whole for each in found) and not single:
        packed = [file for file in files if file.name.lower().endswith((*ARCHIVES, ".tar.gz", ".tar.bz2", ".tar.xz"))]
        for file in packed if source.is_dir() else []:
            if is_archive(Path(file.at)):
                folder = file.name.removesuffix(".gz").rsplit(".", 1)[0]
                inner = files_in_archive(Path(file.at), stack)
                files += [File(f"{folder}/{each.name}", each.at, each.size, each.raw) for each in inner]
        found, wrong = _candidates(files) if packed else (found, wrong)
    if wrong and not any(each.whole for each in found):
        raise wrong[0]
    chosen = _choose(source, files, found, split)
    if not chosen.of(TEST):
        chosen.aside += [piece.file for each in found if not each.whole for piece in each.pieces if piece.part == TEST]
    return chosen


def _choose(source: Path, files: Sequence[File], found: list[Found], split: str | None) -> Found:
    forms = [form for form in FORMATS if any(each.whole for each in found if each.form == form)]
    whole = [each for each in found if each.whole and each.form == forms[0]] if forms else []
    if not whole:
        raise InputError(_nothing(source, files, found))
    names = _names(source, whole)
    if split is not None:
        said = [{_bare(name), _bare("".join(map("".join, each.words)))} for each, name in zip(whole, names, strict=True)]
        if len(whole) == 1:  # "letters" is right also where nothing else of EMNIST lies
            said[0].update(word for part in whole[0].words for word in part)
        chosen = [each for each, known in zip(whole, said, strict=True) if _bare(split) in known]
        if not chosen:
            raise InputError(f"{source}: no data set called {split!r} in it: expected --split {' or '.join(sorted(names))}")
        return chosen[0]
    if len(whole) > 1:
        raise InputError(f"{source}: {len(whole)} data sets: choose one with --split: {', '.join(sorted(names))}")
    return whole[0]


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _names(source: Path, found: Sequence[Found]) -> list[str]:
    """What each is called: the words that the others have not."""
    words = [[word for part in each.words for word in part] for each in found]
    shared = set.intersection(*map(set, words)) if len(found) > 1 else set()
    short = ["-".join(dict.fromkeys(word for word in each if word not in shared)) for each in words]
    own = source.resolve().name
    names = [name or "-".join(dict.fromkeys(each)) or own for name, each in zip(short, words, strict=True)]
    return names if len(set(names)) == len(names) else ["-".join(each) or own for each in words]


def _nothing(source: Path, files: Sequence[File], found: Sequence[Found]) -> str:
    """Why there is no data set: what is missing of one, or what is there instead."""
    for each in sorted(found, key=lambda each: FORMATS.index(each.form)):
        for kind, pieces in each.training.items():
            if each.form in ("idx", "npz", "npy", "table") and kind != "both":
                return f"{_missing(pieces[0], each)}: found {_listed([piece.file for piece in each.pieces])}"
        if each.form in ("pictures", "table", "parquet") and each.training:
            return (
                f"{source}: {each.training['images'][0].file}: images without labels: expected a folder for each class, "
                "named after it"
                if each.form == "pictures"
                else f"{each.training['images'][0].at}: images without labels: expected a column called label"
            )
        if each.pieces:
            return f"{source}: no training images: found {_listed([piece.file for piece in each.pieces])}"
    for file in files:
        suffixes = [suffix.lower() for suffix in PurePosixPath(file.name).suffixes]
        if suffixes and suffixes[-1] in _PACKED:
            suffixes.pop()
        if how := next((how for known, how in _FOREIGN.items() if suffixes and suffixes[-1] in known), ""):
            return f"{file.at}: {how}"
    there = f"found {_listed([file.name for file in files])}" if files else "it is empty"
    return (
        f"{source}: no data that can be read: {there}; expected IDX files, .npz or .npy, CSV with a column for each pixel, "
        "Parquet, or a folder of pictures for each class"
    )


def _listed(names: Sequence[str]) -> str:
    known = list(dict.fromkeys(names))
    return ", ".join(known[:6]) + (f" and {len(known) - 6:,} more" if len(known) > 6 else "")


def _missing(piece: Piece, found: Found) -> str:
    if piece.wanted == piece.at:
        return f"{piece.at}: {piece.kind} alone: expected such as x_train and y_train, each in a file of its name"
    return piece.wanted if found.form == "npz" else f"{piece.wanted}: no such file, with or without .gz"


def read(found: Found) -> tuple[dict[str, Raw], dict[str, Raw], tuple[str, ...], list[str], list[str]]:
    """Reads what was found.

    Returns:
        Images and labels by part, the names of the classes where the files have them, the files that were read, and notes.

    Raises:
        InputError: a file is missing or damaged, or the files contradict each other.
    """
    images: dict[str, Raw] = {}
    labels: dict[str, Raw] = {}
    files: list[str] = []
    notes: list[str] = []
    names: tuple[str, ...] = ()
    for part in PARTS:
        pieces = found.training if part == TRAINING else found.of(part)
        alone = next(iter(pieces), "") if len(pieces) == 1 else ""
        if alone in ("images", "labels"):
            if alone == "images" and found.form in ("table", "pictures", "parquet"):
                notes.append(f"{pieces[alone][0].file} has no labels, and is not used")
                continue
            raise InputError(_missing(pieces[alone][0], found))
        chosen = [pieces[kind] for kind in (("both",) if "both" in pieces else ("images", "labels")) if kind in pieces]
        for each, loaded in map(_read_once, chosen):
            if got := [one.images for one in loaded if one.images]:
                images[part] = _joined(got)
            if got := [one.labels for one in loaded if one.labels]:
                labels[part] = _joined(got)
            files += [piece.file for piece in each]
            names = names or loaded[0].names
            if other := [one.names for one in loaded if one.names not in ((), names)]:
                told = f"{', '.join(names)[:100]}; {', '.join(other[0])[:100]}"
                raise InputError(f"{each[0].at}: its files name the classes differently: {told}")
            notes += [one.note for one in loaded if one.note]
    for part in [part for part in images if part not in labels]:  # of a table that turned out to have none
        notes.append(f"the {part} images have no labels, and are not used")
        at = images.pop(part).at
        if part == TRAINING:
            raise InputError(f"{at}: images without labels: expected a column called label")
    for part, raw in images.items():
        shape = labels[part].array.shape
        count = shape[1] if len(shape) == 2 and shape[0] == 1 else shape[0]  # also as one row
        if len(raw.array) != count:
            turned = f", of the shape {raw.array.shape}: the number of images comes first" if count in raw.array.shape else ""
            name = raw.at.rsplit("/", 1)[-1]
            raise InputError(f"{labels[part].at}: {count:,} labels for the {len(raw.array):,} images of {name}{turned}")
    if found.aside:
        notes.append(f"{_listed(found.aside)} not used: nothing says that it belongs to the training images")
    files = [file.encode(errors="replace").decode() for file in dict.fromkeys(files)]  # a file's name may be no text
    return images, labels, names, files, notes


def _read_once(pieces: list[Piece]) -> tuple[list[Piece], list[Loaded]]:
    """Reads pieces: all that a part was cut into; of what lies there twice, also packed and unpacked, one.

    Raises:
        InputError: some are missing; or two differ, and nothing says which one is meant.
    """
    if shard := SHARD.search(pieces[0].file):
        if len(pieces) != int(shard[1]):
            raise InputError(f"{pieces[0].at}: one of {int(shard[1])} files, and {len(pieces)} are there: expected all")
        return pieces, [piece.read() for piece in pieces]
    first, *others = sorted(pieces, key=lambda piece: piece.file.lower().endswith(_PACKED))
    loaded = first.read()
    for other in others:
        again = other.read()
        for one, two in ((loaded.images, again.images), (loaded.labels, again.labels)):
            if one and two and not np.array_equal(one.array.ravel(), two.array.ravel()):
                raise InputError(f"{first.at} and {other.at}: two of the same, which differ: leave one of them there")
    return [first], [loaded]


def _joined(raws: list[Raw]) -> Raw:
    for raw in raws:
        if not raw.array.ndim:
            raise InputError(f"{raw.at}: holds one number: expected an array of images, or of labels")
    if len(raws) == 1:
        return raws[0]
    try:
        return Raw(np.concatenate([raw.array for raw in raws]), raws[0].at, any(raw.coloured for raw in raws))
    except ValueError:
        raise InputError(f"{raws[0].at}: its images have another size than those of {raws[1].at}") from None


# What each file holds.


def _candidates(files: Sequence[File]) -> tuple[list[Found], list[InputError]]:
    """The data sets that files belong to, whole or not; and what is wrong with files that are damaged."""
    wrong: list[InputError] = []
    found: dict[tuple[Any, ...], Found] = {}
    pictures: dict[tuple[Any, ...], list[tuple[File, str | None]]] = {}
    for file in files:
        if is_picture(file.name):
            part, label, words = _class_of(file.name)
            pictures.setdefault((words, part, label is None), []).append((file, label))
            continue
        said, words = _said(file.name)
        form = _form(file, said)
        try:
            for piece in _pieces(file, form, said) if form else ():
                found.setdefault((form, words), Found(words, form or "")).pieces.append(piece)
        except InputError as error:
            wrong.append(error)
    for (words, part, unknown), each in pictures.items():
        if unknown or part not in (TRAINING, None) or len({label for _, label in each}) > 1:
            piece = _picture_piece([file for file, _ in each], part, None if unknown else [label or "" for _, label in each])
            found.setdefault(("pictures", words), Found(words, "pictures")).pieces.append(piece)
    return list(found.values()), wrong


def _said(name: str) -> tuple[Said, tuple[tuple[str, ...], ...]]:
    """What a file's name and those of its folders say, and whose they are: its name goes before, then the nearest."""
    said = [read_name(part) for part in PurePosixPath(name).parts]
    part = next((each.part for each in reversed(said) if each.part), None)
    words = tuple(dict.fromkeys(each.rest for each in said if each.rest))  # a folder may be called as the file in it
    return Said(part, said[-1].kind, said[-1].rest), words


def _class_of(name: str) -> tuple[str | None, str | None, tuple[tuple[str, ...], ...]]:
    """A picture's part, class (the nearest folder that is no part), and the words of the folders above."""
    folders = list(PurePosixPath(name).parts[:-1])
    said = [read_name(folder) for folder in folders]
    part = next((each.part for each in reversed(said) if each.part), None)
    empty = [bool(each.part or (not each.rest and re.search(r"\w\w", name))) for each, name in zip(said, folders, strict=True)]
    place = next((i for i in reversed(range(len(folders))) if not empty[i]), None)  # not "train", nor "images"
    rest = tuple(dict.fromkeys(each.rest for i, each in enumerate(said) if each.rest and i != place))
    return part, None if place is None else folders[place], rest


def _form(file: File, said: Said) -> str | None:
    """A file's format, by its name and by what it begins with; None for what is no data."""
    path = PurePosixPath(file.name.lower())
    suffix = PurePosixPath(path.stem).suffix if path.suffix in _PACKED else path.suffix
    if suffix in (".npz", ".npy", ".parquet"):
        return suffix[1:]
    if suffix in (*ARCHIVES, ".md", ".py", ".ipynb", ".html", ".pdf") or any(suffix in known for known in _FOREIGN):
        return "idx" if is_idx(file.head()) else None
    head = file.head()
    if is_idx(head) or "idx" in path.name:
        return "idx"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PAR1"):
        return "parquet"
    if tables.is_table(head) or (said.kind == "labels" and said.part and tables.is_column(head)):
        return "table"
    return None


def _pieces(file: File, form: str, said: Said) -> Iterator[Piece]:
    wanted = file.at[: len(file.at) - len(PurePosixPath(file.name).name)] + counterpart(PurePosixPath(file.name).name)
    wanted = wanted.removesuffix(".gz")
    if form == "idx":
        head = file.head()
        kind = said.kind or ("images" if head[3:4] >= b"\x03" else "labels")
        yield Piece(said.part, kind, file.name, file.at, wanted, lambda: _idx(file, kind))
    elif form == "npy":
        kind = said.kind or "images"
        yield Piece(said.part, kind, file.name, file.at, wanted, lambda: _array(kind, read_npy(file), file.at))
    elif form == "npz":
        yield from _npz_pieces(file, said)
    else:
        yield _table_piece(file, form, said, wanted)


def _idx(file: File, kind: str) -> Loaded:
    array = read_idx_file(file, (3, 4, 2) if kind == "images" else (1, 2))
    if kind == "labels" and array.ndim == 2:  # QMNIST's: the class, and then who wrote it where
        array = array[:, 0]
    return _array(kind, array, file.at)


def _array(kind: str, array: Any, at: str) -> Loaded:
    return Loaded(Raw(array, at)) if kind == "images" else Loaded(labels=Raw(array, at))


def _npz_pieces(file: File, said: Said) -> Iterator[Piece]:
    keys = npz_keys(file)
    told = {key: read_name(key) for key in keys}
    for key in keys:
        kind = told[key].kind or (said.kind if len(keys) == 1 else None)
        alike = [len(told[other].rest) for other in keys if (told[other].part, told[other].kind) == (told[key].part, kind)]
        if kind is None or len(told[key].rest) > min(alike, default=math.inf):  # "labels", not "label_names"
            continue
        at = f"{file.at}: {key}"
        there = f"it has {', '.join(sorted(keys)[:12])}"
        wanted = f"{file.at}: has no {counterpart(key)}: {there}"

        def read_array(key: str = key, kind: str = kind, at: str = at) -> Loaded:
            return _array(kind, read_npz_array(file, key), at)

        yield Piece(told[key].part or said.part, kind, file.name, at, wanted, read_array)
    if not any(told[key].kind for key in keys) and not said.kind:
        raise InputError(
            f"{file.at}: has {', '.join(sorted(keys)[:12]) or 'nothing'}: expected x_train, y_train, x_test and y_test"
        )


def _table_piece(file: File, form: str, said: Said, wanted: str) -> Piece:
    """A table: of images with labels, or without, which is found out by what it begins with; or of labels."""

    def read_table() -> Loaded:
        table = tables.read_parquet(file) if form == "parquet" else tables.read_text(file, kind != "images")
        labels = None if table.labels is None else Raw(table.labels, file.at)
        note = f"{table.lost:,} of the pictures in {file.name} could not be read" if table.lost else ""
        return Loaded(Raw(table.images, file.at, table.coloured), labels, table.names, note)

    def read_labels() -> Loaded:
        return Loaded(labels=Raw(tables.read_column(file), file.at))

    if form == "table" and said.kind == "labels":
        return Piece(said.part, "labels", file.name, file.at, wanted, read_labels)
    kind = "both" if form == "parquet" or tables.is_labelled(file) else "images"
    return Piece(said.part, kind, file.name, file.at, wanted, read_table)


def _picture_piece(files: list[File], part: str | None, labels: list[str] | None) -> Piece:
    def read_all() -> Loaded:
        places: dict[str, PurePosixPath] = {}
        for file, label in zip(files, labels or (), strict=True):
            place = PurePosixPath(file.name).parent
            if (other := places.setdefault(label, place)) != place:
                raise InputError(f"{folder}: the class {label} lies in {other} and in {place}: leave one of them there")
        images, sound, coloured = read_files(files)
        kept = images if sound.all() else images[sound]
        wrong = np.flatnonzero(~sound)
        note = f"{len(wrong)} of {len(files):,} pictures could not be read, such as {files[wrong[0]].name}" if len(wrong) else ""
        return Loaded(Raw(kept, folder, coloured), Raw(np.array(labels)[sound], folder), note=note)

    folder = str(PurePosixPath(files[0].at).parent.parent)
    told = f"{len(files):,} pictures" + (f" in {len(set(labels))} folders" if labels else f", such as {files[0].name}")
    return Piece(part, "both" if labels else "images", told, folder, folder, read_all)
