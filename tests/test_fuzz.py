"""Every reader, given what is nearly right: the right answer, or one line that says what is wrong; never another error.

``MNIST_TUNER_FUZZ=10000`` tries so many inputs of each kind, other ones each time.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.errors import InputError
from mnist_tuner.mnist.data import load_dataset, read_class_names
from mnist_tuner.mnist.reading.idx import read_idx
from mnist_tuner.options import options_of, read_options, write_options
from mnist_tuner.render import run as run_console
from mnist_tuner.render import search as search_console
from mnist_tuner.render.html import page
from mnist_tuner.reports.comparison import contestant
from mnist_tuner.reports.report import RunReport
from mnist_tuner.reports.runs import ListedRun, list_runs
from mnist_tuner.reports.search import read_curves
from mnist_tuner.reports.stored import load_predictions, load_report
from mnist_tuner.runner.trainings import TrainingResult, read_trainings, training_key
from mnist_tuner.runs import to_json
from mnist_tuner.saved.network import load_keras_file, read_images, with_preprocessing
from mnist_tuner.saved.pictures import fit, prepare, read_image
from mnist_tuner.search.journal import Journal
from mnist_tuner.search.study import Study
from mnist_tuner.search.trial import Replicate, TrialResult
from mnist_tuner.trainer import (
    ArrayLoader,
    CheckpointError,
    CSVLogger,
    EarlyStopping,
    KerasModule,
    ModelCheckpoint,
    Timer,
    Trainer,
    read_checkpoint,
)
from mnist_tuner.trainer.resume import resume_callbacks
from tests.support import samples
from tests.support.samples import written

pytestmark = pytest.mark.slow

WISHED = int(os.environ.get("MNIST_TUNER_FUZZ", "0"))


def tried(usual: int) -> Any:
    """Settings: how many inputs of a kind, and the same each time unless there are to be many."""
    return settings(
        max_examples=WISHED // (100 // min(usual, 100)) if WISHED else usual,
        derandomize=not WISHED,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def answer(read: Callable[[], Any]) -> Any:
    """What a reader answers, which is None where it refuses."""
    try:
        return read()
    except (InputError, CheckpointError, FileNotFoundError) as error:
        message = str(error)
        assert message.isprintable(), message  # so it is one line
        assert len(message) < 900, message
        return None


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "\ud800", "\x1b[31m", "a\nb", "0001", "x" * 3000, "../../x", "../x.safetensors", "finished", "search"]),
    st.sampled_from([-1, 2**31, 2**63, 10**400, 1e308, -1e308, 5e-324]),
    st.sampled_from([[], {}, [[]], [None], [1e308, 1e308], {"a": {}}, {"__array__": "x"}, {"__array__": {}}]),
)


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every place within JSON values: what it is in, and where."""
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [(node, key) for key, _ in items] + [place for _, item in items for place in places(item)]


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """JSON values with something else in a place or two, or without it."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        found = places(document)
        if not found:
            break
        node, key = found[draw(st.integers(0, len(found) - 1))]
        match draw(st.sampled_from(["value", "value", "other", "remove", "repeat"])):
            case "value":
                node[key] = copy.deepcopy(draw(ODD))
            case "other":
                other, place = found[draw(st.integers(0, len(found) - 1))]
                node[key] = (
                    copy.deepcopy(other[place]) if place in (other if isinstance(other, dict) else range(len(other))) else 0
                )
            case "remove":
                del node[key]
            case "repeat":
                node[key] = [copy.deepcopy(node[key])] * draw(st.integers(0, 3))
    return document


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file's bytes, torn, or some of them others."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(changed)))
        match draw(st.sampled_from(["cut", "other", "other", "more", "twice"])):
            case "cut":
                del changed[start : start + draw(st.sampled_from([1, 4, 100, len(changed)]))]
            case "other":
                changed[start : start + 1] = draw(st.binary(min_size=1, max_size=4))
            case "more":
                changed[start:start] = draw(
                    st.one_of(st.binary(max_size=20), st.sampled_from([b"\0" * 4, b"\n", b"\xff" * 8, b'"']))
                )
            case "twice":
                changed[start:start] = changed[start : start + 50]
    return bytes(changed)


def files(document: Any) -> st.SearchStrategy[bytes]:
    """Files of JSON that are nearly this one."""
    whole = json.dumps(document).encode()
    return st.one_of(changed(document).map(lambda values: json.dumps(values).encode()), damaged(whole))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where files are written."""
    return tmp_path_factory.mktemp("read")


SMALL = {"loss": 0.25, "accuracy": 0.5}
MANIFESTS = [
    json.loads(to_json(report.to_dict()))
    for report in (samples.run(3), samples.seeds(2, 2), samples.search(5, 2), samples.unjudged_search(4))
]


@tried(200)
@given(content=st.sampled_from(MANIFESTS).flatmap(files))
def test_a_manifest(content: bytes, folder: Path) -> None:
    run = folder / "runs" / "20260102-101500-train"
    run.mkdir(parents=True, exist_ok=True)
    (run / "run.json").write_bytes(content)
    (listed,) = list_runs(run.parent)
    report = answer(lambda: load_report(run))
    assert isinstance(listed, ListedRun) == (report is not None)
    if report is None:
        return
    if isinstance(report, RunReport):
        text = run_console.as_text([*run_console.heading(report), *run_console.result(report, epochs=True)])
    else:
        text = run_console.as_text([*search_console.heading(report), *search_console.result(report)])
    assert text.replace("\n", "").isprintable()
    to_json(report.to_dict())
    page(report, mistakes=None, drawings=(), command=report.options.command)


HISTORY = {"val_accuracy": (0.5, 0.75), "loss": (0.5, float("nan"))}
RESULT = TrialResult("0001", "completed", (Replicate(7, HISTORY),), seconds=1.5)
ENTRIES = [{**RESULT.to_json(), "values": {"units_1": 32, "units_2": 64}}]
ENTRIES.append({**TrialResult("0002", "failed", reason="no").to_json(), "values": {"units_1": 32}})


@tried(200)
@given(content=files(ENTRIES[0]), other=files(ENTRIES[1]))
def test_a_journal(content: bytes, other: bytes, folder: Path) -> None:
    identity = {"objective": "val_accuracy (max)", "format_version": 1}
    (folder / "study").mkdir(exist_ok=True)
    lines = (json.dumps(identity).encode(), content.replace(b"\n", b" "), other.replace(b"\n", b" "))
    (folder / "study" / "journal.jsonl").write_bytes(b"\n".join(lines) + b"\n")

    def read() -> list[Any]:
        with closing(Study(folder / "study", identity)) as study:
            found = [result.summary(values, "val_accuracy") for values, result in study.results()]
            study.write_table(folder / "trials.csv", "val_accuracy")
            read_curves(folder / "trials.csv", [summary.trial_id for summary in found])
            return found

    found, kept = answer(read), Study.summaries(folder / "study", "val_accuracy")
    assert all(summary.trial_id.isdecimal() and len(summary.scores) == len(summary.seeds) for summary in kept)
    assert found is None or len({each.trial_id for each in found}) == len({each.trial_id for each in kept})


@tried(100)
@given(content=st.one_of(damaged(json.dumps({"objective": "x", "format_version": 1}).encode() + b"\n"), st.binary()))
def test_a_journals_first_line(content: bytes, folder: Path) -> None:
    path = folder / "first" / "journal.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    answer(lambda: Study(path.parent, {"objective": "x"}).close())


TRAINING = TrainingResult(3, 0.5, 0.25, 7, ({"epoch": 1, "loss": 0.5},), 1.5, b"\0\1", b"\0\0\0?\0\0\0?")


@tried(100)
@given(content=files({"of": training_key(TrainConfig()), "model": True, **TRAINING.to_json()}))
def test_a_journal_of_trainings(content: bytes, folder: Path) -> None:
    path = folder / "trainings.jsonl"
    path.write_bytes(b'{"kept": "trainings"}\n' + content.replace(b"\n", b" ") + b"\n")

    def read() -> Any:
        with closing(Journal(path)) as journal:
            return read_trainings(journal)

    for result in (answer(read) or [{}])[0].values():
        assert (type(result.seed), 0 <= result.accuracy <= 1) == (int, True)


@tried(100)
@given(content=damaged(b"trial,status,units_1,replicate,epoch,val_accuracy\n0,completed,8,0,1,0.5\n0,completed,8,0,2,0.75\n"))
def test_a_table_of_trials(content: bytes, folder: Path) -> None:
    (folder / "trials.csv").write_bytes(content)
    answer(lambda: read_curves(folder / "trials.csv", ["0"]))


@pytest.fixture(scope="module")
def module() -> KerasModule:
    """A model that a checkpoint is of."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    return KerasModule(model)


def callbacks(folder: Path) -> dict[str, Any]:
    """What has a state in a checkpoint."""
    known = [ModelCheckpoint(folder), ModelCheckpoint(folder, monitor="loss", save_top_k=2), EarlyStopping("loss"), Timer("1h")]
    return {
        "callbacks": known,
        "logger": CSVLogger(folder / "metrics.csv"),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "jit_compile": False,
        "default_root_dir": folder,
    }


@pytest.fixture(scope="module")
def checkpoint(folder: Path, module: KerasModule) -> Path:
    """One of a training of an epoch."""
    data = ArrayLoader(np.ones((4, 2), np.float32), np.ones((4, 1), np.float32), batch_size=2)
    trainer = Trainer(max_epochs=1, **callbacks(folder / "checkpoints"))
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / "whole.safetensors")
    return folder / "whole.safetensors"


@pytest.mark.filterwarnings("ignore:.* holds 0 rows of")
@tried(200)
@given(data=st.data())
def test_a_checkpoint(data: st.DataObject, checkpoint: Path, module: KerasModule) -> None:
    whole = read_checkpoint(checkpoint)
    from safetensors import safe_open

    with safe_open(checkpoint, framework="numpy") as file:
        text = file.metadata()["mnist_tuner"]
    path = checkpoint.with_name("changed.safetensors")
    if data.draw(st.booleans()):
        header = data.draw(changed(json.loads(text)))
        path.write_bytes(save(whole.tensors, metadata={"mnist_tuner": json.dumps(header)}))
    else:
        path.write_bytes(data.draw(damaged(checkpoint.read_bytes())))

    def resume() -> None:
        trainer = Trainer(max_epochs=1, **callbacks(checkpoint.parent / "checkpoints"))
        resume_callbacks(trainer, module, read_checkpoint(path))
        for callback in trainer.callbacks:
            callback.on_fit_start(trainer, module)

    answer(resume)


@tried(20)
@given(data=st.data())
def test_a_keras_file(data: st.DataObject, folder: Path) -> None:
    path = folder / "whole.keras"
    if not path.exists():
        layers = [keras.layers.Flatten(), keras.layers.Dense(4, "relu"), keras.layers.Dense(3, "softmax")]
        model = keras.Sequential([keras.Input((3, 2)), *layers])
        model.compile("adam", "sparse_categorical_crossentropy")
        model.save(path)
    changed_path = folder / "changed.keras"
    if data.draw(st.sampled_from([True, True, False])):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed_path, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "config.json":
                    content = json.dumps(data.draw(changed(json.loads(content)))).encode()
                new.writestr(name, content)
    else:
        changed_path.write_bytes(data.draw(damaged(path.read_bytes())))

    def read() -> Any:
        try:
            return read_images(with_preprocessing(load_keras_file(changed_path), (3, 2)), np.zeros((1, 3, 2), np.uint8))
        except ArithmeticError:
            return None

    found = answer(read)
    assert found is None or abs(float(found.sum()) - 1) < 1e-3


OPTIONS = TrainConfig(data=Path("x"), early_stopping=3, val_fraction=0.1).to_dict()


@tried(200)
@given(
    content=st.one_of(
        damaged(write_options("train", OPTIONS).encode()),
        changed(OPTIONS).map(lambda values: write_options("train", values).encode(errors="replace")),
    )
)
def test_a_file_of_options(content: bytes, folder: Path) -> None:
    path = folder / "options.toml"
    path.write_bytes(content)
    for config in (TrainConfig, SearchConfig):
        known = options_of(config)

        def read(config: Any = config, known: Any = known) -> Any:
            values = {name: known[name].read(value) for name, value in read_options(path, known).items()}
            return config(**values)

        answer(read)


def idx(array: Any) -> bytes:
    """An IDX file."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


LABELS = np.arange(6, dtype=np.uint8) % 3
IMAGES = np.arange(6 * 12, dtype=np.uint8).reshape(6, 4, 3)


@tried(200)
@given(content=st.one_of(damaged(idx(IMAGES)), damaged(idx(LABELS)), st.binary()))
def test_a_file_of_idx(content: bytes, folder: Path) -> None:
    for name in ("images", "images.gz"):
        (folder / name).write_bytes(content)
        for dimensions in (1, 3):
            found = answer(lambda name=name, dimensions=dimensions: read_idx(folder / name, dimensions))
            assert found is None or (idx(found[0]) == content or name == "images.gz")


@st.composite
def archives(draw: st.DrawFn, arrays: dict[str, Any]) -> bytes:
    """Files of arrays that are nearly these."""
    kinds = st.sampled_from(["u1", "i8", "f4", "f8", "?", "U3", "S2", "c8", "M8[s]", "O", ">i2"])
    shapes = st.sampled_from([(), (0,), (1,), (6,), (6, 1), (2, 3), (6, 4, 3), (1, 4, 3), (6, 4, 3, 1), (0, 4, 3), (6, 0, 3)])
    arrays = dict(arrays)
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(arrays)))
        kept = draw(st.sampled_from(["other", "shifted", "gone"]))
        if kept == "other":
            arrays[name] = np.ones(draw(shapes)).astype(draw(kinds))
        elif kept == "shifted" and arrays[name].dtype.kind in "iu":
            arrays[name] = arrays[name].astype(np.int64)
            arrays[name] = arrays[name] + draw(st.sampled_from([-1, 200, 2**40, -(2**40)]))
        elif len(arrays) > 1:
            del arrays[name]
    content = io.BytesIO()
    (np.savez if draw(st.booleans()) else np.savez_compressed)(content, **arrays)
    return draw(st.one_of(st.just(content.getvalue()), damaged(content.getvalue())))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # numpy leaves what is no archive open
@tried(200)
@given(content=archives({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS}))
def test_a_file_of_arrays(content: bytes, folder: Path) -> None:
    (folder / "data.npz").write_bytes(content)
    data = answer(lambda: load_dataset(folder / "data.npz"))
    if data is not None:
        assert len(data.train_images) == len(data.train_labels)
        assert data.test_labels.max() < data.classes


def check_data(path: Path) -> None:
    """Data is read whole, or refused."""
    data = answer(lambda: load_dataset(path))
    if data is not None:
        assert (len(data.train_images), len(data.test_images)) == (len(data.train_labels), len(data.test_labels))
        assert max(int(data.train_labels.max()), int(data.test_labels.max())) < data.classes


ROWS = [["label", *(f"pixel{number}" for number in range(4))], *([f"{row % 3}", *"0139"] for row in range(12))]
CELLS = st.sampled_from(["", "a", "-1", "256", "1e400", "nan", "0.5", "7" * 400, '"', '"a\nb"', "\x00", "é", "1,2", ";", "=1+1"])


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """CSV that is nearly right."""
    rows = [list(row) for row in ROWS]
    for _ in range(draw(st.integers(0, 3))):
        row = rows[draw(st.integers(0, len(rows) - 1))]
        row[draw(st.integers(0, len(row) - 1))] = draw(CELLS)
    whole = "\n".join(map(draw(st.sampled_from([",", ";", "\t", " "])).join, rows)).encode()
    return draw(st.one_of(st.just(whole), damaged(whole)))


@tried(200)
@given(content=tables())
def test_a_table_of_images(content: bytes, folder: Path) -> None:
    (folder / "data.csv").write_bytes(content)
    check_data(folder / "data.csv")


def parquet(columns: dict[str, Any]) -> bytes:
    """A file of Parquet."""
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content)
    return content.getvalue()


@tried(200)
@given(data=st.data())
def test_a_file_of_parquet(data: st.DataObject, folder: Path) -> None:
    pixels: dict[str, Any] = {name: [0, 1, 3, 9] * 3 for name in ROWS[0][1:]}
    stored = {"image": [{"bytes": pictures()[0], "path": None}] * 12}
    columns = {"label": [0, 1, 2] * 4, **data.draw(st.sampled_from([pixels, stored]))}
    for _ in range(data.draw(st.integers(0, 2))):
        odd = data.draw(st.sampled_from([[None], [""], [1.5], [b"x"], [[1, 2]], [{"bytes": b"x"}], [2**40], [float("nan")]]))
        columns[data.draw(st.sampled_from(sorted(columns)))] = odd * 12
    content = parquet(columns)
    (folder / "data.parquet").write_bytes(data.draw(st.one_of(st.just(content), damaged(content))))
    check_data(folder / "data.parquet")


@st.composite
def packed(draw: st.DrawFn) -> tuple[str, bytes]:
    """Archives of files that are nearly right, in odd places."""
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    files = {name: idx(IMAGES if "images" in name else LABELS) for name in names}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(names))
        where = draw(st.sampled_from(["../", "/", "a/b/", "a\nb/", "\x1b[31m", "x" * 300, "raw/", "C:\\", "./", ""]))
        content = files.pop(name, b"")
        files[where + name] = draw(st.one_of(st.just(content), damaged(content), st.just(gzip.compress(content))))
    archive = io.BytesIO()
    kind = draw(st.sampled_from([".zip", ".tar", ".tar.gz"]))
    if kind == ".zip":
        with zipfile.ZipFile(archive, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as zipped:
            for name, content in files.items():
                zipped.writestr(name, content)
    else:
        types = st.sampled_from([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
        with tarfile.open(fileobj=archive, mode="w:gz" if kind == ".tar.gz" else "w") as tarred:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size, member.type = len(content), draw(types)
                if member.type != tarfile.REGTYPE:
                    member.linkname = draw(st.sampled_from([*names, "/etc/passwd"]))
                tarred.addfile(member, io.BytesIO(content))
    return kind, draw(st.one_of(st.just(archive.getvalue()), damaged(archive.getvalue())))


@tried(200)
@given(archive=packed())
def test_an_archive(archive: tuple[str, bytes], folder: Path) -> None:
    kind, content = archive
    (folder / f"data{kind}").write_bytes(content)
    check_data(folder / f"data{kind}")


@tried(100)
@given(content=st.one_of(damaged(b"eins\nzwei\ndrei\n"), st.text().map(lambda text: text.encode(errors="replace"))))
def test_a_file_of_names(content: bytes, folder: Path) -> None:
    (folder / "classes.txt").write_bytes(content)
    names = answer(lambda: read_class_names(folder / "classes.txt"))
    assert names is None or all(name.isprintable() for name in names)


PREDICTIONS = {"labels": LABELS, "predicted": LABELS, "seed": np.array(0), "mistakes": IMAGES[:1]}
SEVERAL = {**PREDICTIONS, "predicted": np.stack([LABELS, LABELS]), "seeds": np.array([0, 1])}
SEARCHED = {**PREDICTIONS, "predicted": np.tile(LABELS, (2, 2, 1)), "seeds": np.array([[0, 1], [2, 3]])}
del SEVERAL["seed"], SEARCHED["seed"]


@tried(100)
@given(content=st.one_of(*map(archives, (PREDICTIONS, SEVERAL, SEARCHED))), searched=st.booleans())
def test_predictions(content: bytes, searched: bool, folder: Path) -> None:
    run = written(folder / "tested", samples.search(5) if searched else samples.run())
    (run / "test_predictions.npz").write_bytes(content)
    report = load_report(run)
    found = answer(lambda: load_predictions(report))
    if found is not None:
        contestant("net", report.units, report.parameters, found.seeds, found.labels, found.predicted)
        page(report, mistakes=found.mistakes, drawings=(), command="x")


def pictures() -> list[bytes]:
    """A small picture in several formats."""
    grey = Image.fromarray((np.add.outer(np.arange(20), np.arange(16)) * 7 % 256).astype(np.uint8))
    found = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        content = io.BytesIO()
        grey.save(content, kind)
        found.append(content.getvalue())
    return found


@tried(200)
@given(content=st.sampled_from(pictures()).flatmap(damaged))
def test_a_picture(content: bytes) -> None:
    grey = answer(lambda: read_image(content))
    if grey is not None:
        assert (grey.dtype, grey.ndim) == (np.uint8, 2)
        for way in (prepare, fit):
            assert way(grey, (28, 28)).image.shape == (28, 28)
