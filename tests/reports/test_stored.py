"""Reports that are read back from the folders of runs, whole ones, damaged ones and hostile ones."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_tuner.errors import InputError
from mnist_tuner.reports.report import RunReport
from mnist_tuner.reports.search import SearchReport
from mnist_tuner.reports.stored import load_predictions, load_report
from mnist_tuner.runs import to_json
from tests.support import samples
from tests.support.runs import Runs
from tests.support.samples import written


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs of the commands."""
    return Runs(tmp_path_factory)


def as_json(report: RunReport | SearchReport) -> Any:
    return json.loads(to_json(report.to_dict()))


BUILT: dict[str, Callable[[], RunReport | SearchReport]] = {
    "a run": lambda: samples.run(),
    "a run of 47 classes": lambda: samples.run(47, samples.HOSTILE, 2),
    "a run that was stopped": lambda: replace(samples.run(), stopped="after epoch 3: val_loss has not improved"),
    "a run that is running": lambda: replace(samples.run(), status="running", epochs=(), test=None, timing=None, data=None),
    "a run that failed": lambda: replace(samples.run(), status="failed", test=None, timing=None, error="the loss of step 7"),
    "a run that was interrupted": lambda: replace(samples.run(), status="interrupted", parameters=None, test=None, timing=None),
    "several seeds": lambda: replace(samples.seeds(3), workers=2),
    "several seeds that were interrupted": lambda: replace(samples.seeds(3), status="interrupted", seeds=None, test=None),
    "a search": lambda: samples.search(45),
    "a search of one replicate": lambda: samples.search(10, 1),
    "a search that found nothing": lambda: samples.search(10, 3, 0.0),
    "a search that the baseline won": lambda: replace(samples.search(10), winner=None, comparison=None),
    "a search that has looked before": lambda: replace(samples.search(10), looked_before=("64-32", "96-96")),
    "a search on a cluster": lambda: replace(samples.search(10), worker_info=samples.WORKERS),
    "a search that was interrupted": lambda: samples.unjudged_search(12),
    "a search that is running": lambda: replace(samples.unjudged_search(2), status="running", trials=(), curves=(), timing=None),
    "a search whose number of trials nobody knows": lambda: replace(samples.search(10), total=None, stopped="after 10m"),
}


@pytest.mark.parametrize("name", BUILT)
def test_every_report_that_is_written_is_read_back_as_it_was(name: str, tmp_path: Path) -> None:
    report = BUILT[name]()
    found = load_report(written(tmp_path / "run", report))
    assert type(found) is type(report)
    assert as_json(found) == as_json(report) | {"run_dir": str(tmp_path / "run")}
    alike = {"run_dir": report.run_dir, "config": report.config, "space": getattr(report, "space", None)}
    if isinstance(found, RunReport):
        del alike["space"]
        assert replace(found, **alike) == report
    else:
        assert isinstance(report, SearchReport)
        nowhere = tuple(replace(trial, worker="") for trial in report.trials)
        assert replace(found, **alike) == replace(report, trials=nowhere)
        assert (found.selection, found.verdict, found.advice) == (report.selection, report.verdict, report.advice)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "seeds", "search"])
def test_the_commands_reports_are_read_back_as_they_were_wherever_the_folder_lies(kind: str, runs: Runs, tmp_path: Path) -> None:
    folder = runs.single(1) if kind == "single" else getattr(runs, kind)()
    document = json.loads((folder / "run.json").read_text())
    assert to_json(load_report(folder).to_dict()) == (folder / "run.json").read_text()
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    found = load_report(moved)
    assert as_json(found) == document | {"run_dir": str(moved)}
    assert load_predictions(found).labels.shape == (200,)


@pytest.mark.slow
def test_the_commands_predictions_are_those_that_the_report_is_about(runs: Runs) -> None:
    for folder, seeds in ((runs.single(2), (2,)), (runs.seeds(), (0, 1, 2))):
        report = load_report(folder)
        assert isinstance(report, RunReport)
        made = load_predictions(report)
        assert made.seeds == seeds
        assert made.predicted.shape == (len(seeds), 200)
        assert report.test is not None
        assert int((made.predicted == made.labels).sum()) == report.test.correct
        assert len(made.mistakes) == len(report.test.mistakes) > 0
    report = load_report(runs.search())
    assert isinstance(report, SearchReport)
    net = report.winner or report.baseline
    assert net is not None
    made = load_predictions(report)
    assert made.seeds == net.seeds
    assert tuple((made.predicted == made.labels).mean(axis=1).tolist()) == net.accuracies


def refusal(folder: Path) -> str:
    """What is said of a folder that cannot be read: one line, with the place."""
    with pytest.raises(InputError) as caught:
        load_report(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert len(message.splitlines()) == 1
    return message


@pytest.fixture(scope="module")
def documents() -> dict[str, str]:
    """Two manifests."""
    return {"train": to_json(samples.seeds(3).to_dict()), "search": to_json(samples.search(5).to_dict())}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a JSON document"),
        (b"{", "not a JSON document"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"\xff\xfe{}", "not a JSON document"),
        (b"[" * 200_000 + b"]" * 200_000, "not a JSON document"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not a JSON document"),
        (b'{"schema_version": ' + b"1" * 5_000 + b"}", "not a JSON document"),
        (b"{}", "not a run of mnist-tuner that this version can read"),
        (b'{"schema_version": 2, "command": "train"}', "not a run of mnist-tuner that this version can read"),
        (b'{"schema_version": 1, "command": "report"}', "not a run of mnist-tuner that this version can read"),
        (b'{"schema_version": 1, "command": ["train"]}', "not a run of mnist-tuner that this version can read"),
        (b'{"schema_version": 1, "command": "train"}', "damaged"),
        (b'{"schema_version": 1, "command": "search"}', "damaged"),
    ],
    ids=range(14),
)
def test_a_manifest_that_is_none_is_refused_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert said in refusal(tmp_path)


def test_a_folder_without_a_manifest_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "no folder of a run" in refusal(tmp_path)
    assert "no folder of a run" in refusal(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "no folder of a run" in refusal(tmp_path / "file")


@pytest.mark.parametrize("command", ["train", "search"])
def test_a_torn_manifest_is_refused_wherever_it_is_torn(command: str, documents: dict[str, str], tmp_path: Path) -> None:
    content = documents[command].encode()
    for length in np.linspace(0, len(content) - 3, 40).astype(int):
        (tmp_path / "run.json").write_bytes(content[:length])
        assert "damaged: not a JSON document" in refusal(tmp_path)


NEEDED = {
    "train": ["status", "seed", "config", "device", "versions", "model", "seeds", "threads"],
    "search": ["status", "seed", "config", "device", "versions", "trials", "final", "workers", "space"],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "search"])
@pytest.mark.parametrize("value", [None, "text", [{}]], ids=str)
def test_a_manifest_with_something_else_in_a_place_is_refused_or_read_but_never_ends_in_another_error(
    command: str, value: Any, documents: dict[str, str], tmp_path: Path
) -> None:
    def places(node: Any, depth: int = 0) -> list[list[str | int]]:
        """The first of each kind, down to six levels."""
        items = list(node.items()) if isinstance(node, dict) else list(enumerate(node[:1])) if isinstance(node, list) else []
        return [[key, *rest] for key, item in items for rest in ([[]] + (places(item, depth + 1) if depth < 6 else []))]

    document = json.loads(documents[command])
    refused = 0
    for path in places(document):
        changed = json.loads(documents[command])
        node = changed
        for key in path[:-1]:
            node = node[key]
        if node[path[-1]] == value:
            continue
        node[path[-1]] = value
        (tmp_path / "run.json").write_text(json.dumps(changed))
        try:
            load_report(tmp_path)
        except InputError as error:
            assert str(tmp_path) in str(error)
            assert len(str(error).splitlines()) == 1, path
            refused += 1
    assert refused > 30  # most places take no such value


@pytest.mark.parametrize(("command", "name"), [(command, name) for command, names in NEEDED.items() for name in names])
def test_a_manifest_without_something_that_is_needed_is_damaged(
    command: str, name: str, documents: dict[str, str], tmp_path: Path
) -> None:
    document = json.loads(documents[command])
    del document[name]
    (tmp_path / "run.json").write_text(json.dumps(document))
    message = refusal(tmp_path)
    assert "damaged" in message
    assert name in message


class Trap:
    """What runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


ARRAYS = {
    "labels": np.array([0, 1, 2, 3], np.uint8),
    "predicted": np.array([0, 1, 2, 2], np.uint8),
    "probabilities": np.full((4, 4), 0.25, np.float32),
    "seed": np.array(0),
    "mistakes": np.zeros((1, 6, 6), np.uint8),
}


@pytest.fixture
def tested(tmp_path: Path) -> RunReport:
    """The report of a run whose predictions lie beside it."""
    folder = written(tmp_path / "run", samples.run())
    np.savez(folder / "test_predictions.npz", **ARRAYS)  # type: ignore[arg-type]
    report = load_report(folder)
    assert isinstance(report, RunReport)
    return report


def predictions_refusal(report: RunReport | SearchReport) -> str:
    with pytest.raises(InputError) as caught:
        load_predictions(report)
    assert str(Path(report.run_dir, "test_predictions.npz")) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_predictions_are_read(tested: RunReport) -> None:
    found = load_predictions(tested)
    assert (found.seeds, found.predicted.tolist(), found.mistakes.shape) == ((0,), [[0, 1, 2, 2]], (1, 6, 6))


@pytest.mark.parametrize("name", ["labels", "predicted", "seed", "mistakes"])
def test_objects_among_the_predictions_are_refused_and_run_no_code(name: str, tested: RunReport, tmp_path: Path) -> None:
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.savez(Path(tested.run_dir, "test_predictions.npz"), **{**ARRAYS, name: trap})  # type: ignore[arg-type]
    assert "damaged" in predictions_refusal(tested)
    assert not (tmp_path / "sprung").exists()
    with np.load(Path(tested.run_dir, "test_predictions.npz"), allow_pickle=True) as arrays:
        arrays[name]
    assert (tmp_path / "sprung").is_dir()  # so it was a trap


def test_a_pickle_in_place_of_the_predictions_is_refused_and_runs_no_code(tested: RunReport, tmp_path: Path) -> None:
    import pickle

    Path(tested.run_dir, "test_predictions.npz").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    predictions_refusal(tested)
    assert not (tmp_path / "sprung").exists()


def test_a_run_without_predictions_says_that_it_has_not_been_tested(tested: RunReport) -> None:
    Path(tested.run_dir, "test_predictions.npz").unlink()
    assert "the run has not been tested" in predictions_refusal(tested)


def test_torn_predictions_are_refused(tested: RunReport) -> None:
    path = Path(tested.run_dir, "test_predictions.npz")
    content = path.read_bytes()
    for length in np.linspace(0, len(content) - 1, 60).astype(int):
        path.write_bytes(content[:length])
        predictions_refusal(tested)
    for place in np.linspace(0, len(content) - 1, 300).astype(int):  # one byte is another
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            load_predictions(tested)
        except InputError as error:
            assert str(path) in str(error)
            assert len(str(error).splitlines()) == 1


def compressed(content: bytes) -> bytes:
    """The same archive, compressed, with a byte of the compressed data changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    damaged = bytearray(file.getvalue())
    start = damaged.index(b"labels.npy") + len("labels.npy")
    damaged[start : start + 4] = b"\xff\xff\xff\xff"
    return bytes(damaged)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, arrays: path.write_bytes(b""),
        lambda path, arrays: path.write_bytes(b"PK\x03\x04"),
        lambda path, arrays: path.write_bytes(b"no archive"),
        lambda path, arrays: path.write_bytes(compressed(path.read_bytes())),
        lambda path, arrays: np.save(path.with_suffix(".npy"), arrays["labels"]) or path.with_suffix(".npy").replace(path),
        lambda path, arrays: np.savez(path, labels=arrays["labels"]),
        lambda path, arrays: np.savez(path, **arrays | {"labels": np.array(3)}),
        lambda path, arrays: np.savez(path, **arrays | {"labels": np.zeros((2, 2), np.uint8)}),
        lambda path, arrays: np.savez(path, **arrays | {"labels": np.zeros(5, np.uint8)}),
        lambda path, arrays: np.savez(path, **arrays | {"labels": np.array(["a", "b", "c", "d"])}),
        lambda path, arrays: np.savez(path, **arrays | {"predicted": np.array([0.5, 0.5, 0.5, 0.5])}),
        lambda path, arrays: np.savez(path, **arrays | {"predicted": np.array(0)}),
        lambda path, arrays: np.savez(path, **arrays | {"seed": np.array("first")}),
        lambda path, arrays: np.savez(path, **arrays | {"seed": np.array([1, 2])}),
        lambda path, arrays: np.savez(path, **arrays | {"mistakes": np.zeros(4, np.uint8)}),
        lambda path, arrays: np.savez(path, **arrays | {"mistakes": np.array([[["a"]]])}),
        lambda path, arrays: np.savez(path, **{k: v for k, v in arrays.items() if k != "seed"}, seeds=np.array(3)),
        lambda path, arrays: path.unlink() or path.mkdir(),
    ],
    ids=[
        *("empty", "a beginning", "text", "compressed and damaged", "one array", "too few arrays", "one label", "square labels"),
        *("more labels", "labels of text", "fractions", "one prediction", "a seed of text", "two seeds", "flat mistakes"),
        *("mistakes of text", "one seed of several", "a folder"),
    ],
)
def test_damaged_predictions_are_refused_in_one_line(damage: Callable[[Path, Any], Any], tested: RunReport) -> None:
    damage(Path(tested.run_dir, "test_predictions.npz"), ARRAYS)
    predictions_refusal(tested)


def test_a_search_with_the_predictions_of_a_single_training_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", samples.search(5))
    np.savez(folder / "test_predictions.npz", **ARRAYS)  # type: ignore[arg-type]
    predictions_refusal(load_report(folder))
    np.savez(folder / "test_predictions.npz", **ARRAYS | {"predicted": np.zeros((1, 4), np.uint8)})  # type: ignore[arg-type]
    predictions_refusal(load_report(folder))


def inside(document: Any, path: str, value: Any) -> Any:
    """The document with another value in a place, such as "trials.0.units"."""
    *before, last = path.split(".")
    node = document
    for key in before:
        node = node[int(key) if isinstance(node, list) else key]
    node[int(last) if isinstance(node, list) else last] = value
    return document


@pytest.mark.parametrize(
    ("command", "place", "value"),
    [
        ("search", "trials.0.units", 5),
        ("search", "trials.0.units", "12"),
        ("search", "trials.0.units", [1.5, 2]),
        ("search", "trials.0.id", "first"),
        ("search", "trials.0.replicates.0.val_accuracy", 7),
        ("search", "trials.0.replicates", []),
        ("search", "trials.0.status", "failed"),
        ("search", "final.winner.units", {}),
        ("search", "final.winner.accuracies", []),
        ("search", "config.widths", "32:64:8"),
        ("search", "data.image_shape", [28]),
        ("train", "test.matrix.0.0", -3),
        ("train", "test.total", 0),
        ("train", "test.total", 10**400),
        ("train", "test.loss", "low"),
        ("train", "seeds.trainings", []),
        ("train", "seeds.trainings.0.accuracy", 10**400),
        ("train", "seeds.mean", "1e999"),
        ("train", "config.data", ""),
        ("train", "config.data", "a\0b"),
        ("train", "config.hidden", 100),
        ("train", "timing.total_s", "soon"),
        ("train", "status", "lost"),
        ("train", "data.class_names", ["\x1b[31m"] * 10),
        ("train", "versions.keras", 3),
        ("train", "threads", {}),
    ],
)
def test_what_is_not_as_it_should_be_is_named(
    command: str, place: str, value: Any, documents: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(inside(json.loads(documents[command]), place, value)))
    message = refusal(tmp_path)
    assert "damaged" in message
    assert message.isprintable()
    assert len(message) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "Infinity", '"\\ud800"'])
def test_what_is_no_number_and_no_text_is_refused(text: str, documents: dict[str, str], tmp_path: Path) -> None:
    document = json.loads(documents["train"])
    for place in ("seeds.mean", "test.loss", "timing.total_s", "device"):
        (tmp_path / "run.json").write_text(json.dumps(inside(document, place, "HERE")).replace('"HERE"', text))
        assert "damaged" in refusal(tmp_path)
        document = json.loads(documents["train"])


def test_a_long_value_is_repeated_in_part_only(documents: dict[str, str], tmp_path: Path) -> None:
    for place in ("config.hidden", "status", f"config.{'z' * 10_000}"):
        (tmp_path / "run.json").write_text(json.dumps(inside(json.loads(documents["train"]), place, "x" * 10_000)))
        assert len(refusal(tmp_path)) < 500 + len(str(tmp_path))


def test_a_pipe_in_a_manifests_place_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    assert "expected a file, and it is a pipe" in refusal(tmp_path)
    (tmp_path / "run.json").unlink()
    (tmp_path / "run.json").symlink_to("/dev/zero")
    assert "expected a file, and it is a device" in refusal(tmp_path)


def test_images_that_nobody_could_draw_are_refused(tested: RunReport) -> None:
    for mistakes in (np.zeros((1, 6, 6), np.int64), np.zeros((1, 0, 6), np.uint8)):
        np.savez(Path(tested.run_dir, "test_predictions.npz"), **ARRAYS | {"mistakes": mistakes})  # type: ignore[arg-type]
        assert "damaged" in predictions_refusal(tested)


def test_an_archive_that_would_fill_the_memory_is_refused_before_it_is_unpacked(tested: RunReport) -> None:
    path = Path(tested.run_dir, "test_predictions.npz")
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (4_200_000_000).to_bytes(4, "little")  # what it promises to have unpacked
    path.write_bytes(content)
    assert "unpacks to 4,200,000,000 bytes" in predictions_refusal(tested)
