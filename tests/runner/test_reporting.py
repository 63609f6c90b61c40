"""The commands report and runs on what the other commands have left."""

from __future__ import annotations

import html as markup
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from rich.console import Console

from mnist_tuner.errors import InputError
from mnist_tuner.reports.runs import list_runs
from mnist_tuner.reports.stored import load_report
from mnist_tuner.runner import reporting
from tests.support.commands import mnist_tuner, python
from tests.support.runs import Runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Finished runs."""
    return Runs(tmp_path_factory)


class Told(NamedTuple):
    """What a report says: its document, what it prints, and its page's text."""

    document: dict[str, Any]
    lines: list[str]
    page: str

    @property
    def text(self) -> str:
        return one_line("\n".join(self.lines))


def one_line(text: str) -> str:
    """With single spaces, and one before and after."""
    return f" {' '.join(text.split())} "


def text_of(page: str) -> str:
    """What a page's reader sees."""
    body = re.sub(r"<(style|script|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return one_line(markup.unescape(re.sub(r"<[^>]*>", " ", body)))


def told(*folders: Path, page: Path | None = None, width: int = 100) -> Told:
    """The report on these folders, as the command makes it, without a process."""
    screen = Console(file=io.StringIO(), width=width, force_terminal=False)
    document = reporting.report(folders, screen, html=page)
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return Told(json.loads(json.dumps(document, allow_nan=False)), lines, text_of(page.read_text()) if page else "")


def predictions(folder: Path) -> tuple[Any, Any]:
    """The labels, and what each training read, shape ``(trainings, n)``."""
    with np.load(folder / "test_predictions.npz") as arrays:
        predicted = arrays["predicted"]
        return arrays["labels"], predicted[0] if predicted.ndim == 3 else np.atleast_2d(predicted)


def percent(share: float) -> str:
    return f"{share:.2%}"


def limits(interval: list[float]) -> str:
    return f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"


@pytest.mark.parametrize(("kind", "columns"), [("seeds", 80), ("search", 100)])
def test_a_run_is_reported_again_as_it_was_reported_wherever_its_folder_lies(
    kind: str, columns: int, runs: Runs, tmp_path: Path
) -> None:
    folder = getattr(runs, kind)()
    moved = shutil.copytree(folder, tmp_path / "moved [to] here")
    done = mnist_tuner("report", moved, COLUMNS=str(columns))
    assert [line.rstrip() for line in done.stdout.splitlines()] == (folder / "report.txt").read_text().splitlines()
    assert done.stderr == ""


def test_a_single_training_is_reported_again_as_it_was_reported(runs: Runs) -> None:
    found = told(runs.single(0), width=80)
    assert [line.rstrip() for line in found.lines] == (runs.single(0) / "report.txt").read_text().splitlines()


def test_quiet_prints_the_result_alone(runs: Runs) -> None:
    folder = runs.single(0)
    for folders in ([folder], [runs.seeds()], [runs.search()], [folder, runs.single(1)]):
        screen = Console(file=io.StringIO(), width=200, force_terminal=False)
        document = reporting.report(folders, screen, quiet=True)
        printed = one_line(screen.file.getvalue())  # type: ignore[attr-defined]
        assert len(printed) < 500
        if document["command"] == "train":
            assert f"Test accuracy {percent(document['test']['accuracy'])}" in printed
        else:
            assert (document.get("final") or document)["verdict"] in printed


def check_contestants(found: Told, folders: list[Path]) -> None:
    """Each run has the accuracies that its predictions have, on the console and in the document."""
    entries = {entry["run_dir"]: entry for entry in found.document["runs"]}
    assert set(entries) == set(map(str, folders))
    for folder in folders:
        labels, predicted = predictions(folder)
        accuracies = (predicted == labels).mean(axis=1)
        entry = entries[str(folder)]
        assert entry["accuracies"] == pytest.approx(accuracies.tolist())
        assert entry["mean"] == pytest.approx(accuracies.mean())
        assert entry["count"] == len(predicted) == len(entry["seeds"])
        assert entry["parameters"] == load_parameters(folder)
        for number in (percent(entry["mean"]), limits(entry["interval95"]), f"{entry['parameters']:,}"):
            assert f" {number} " in found.text
    means = [entry["mean"] for entry in found.document["runs"]]
    assert means == sorted(means, reverse=True)


def load_parameters(folder: Path) -> int:
    document = json.loads((folder / "run.json").read_text())
    if document["command"] == "train":
        return int(document["model"]["parameters"])
    final = document["final"]
    return int((final["winner"] or final["baseline"])["parameters"])


def test_two_single_trainings_are_compared_digit_by_digit(runs: Runs) -> None:
    folders = [runs.single(0), runs.single(1)]
    found = told(*folders)
    check_contestants(found, folders)
    assert (found.document["command"], found.document["schema_version"], found.document["images"]) == ("report", 1, 200)
    (comparison,) = found.document["comparisons"]
    labels, (first,) = predictions(Path(found.document["runs"][0]["run_dir"]))
    _, (second,) = predictions(Path(found.document["runs"][1]["run_dir"]))
    only_first = int(((first == labels) & (second != labels)).sum())
    only_second = int(((first != labels) & (second == labels)).sum())
    assert (comparison["method"], comparison["only_first"], comparison["only_second"]) == ("McNemar", only_first, only_second)
    assert comparison["difference"]["value"] == pytest.approx((only_first - only_second) / 200)
    assert f"{only_first} images only the first reads right, {only_second} only the second" in found.text
    assert found.document["verdict"] == comparison["verdict"]
    names = [entry["name"] for entry in found.document["runs"]]  # of the same net, so they have the folder's name
    assert len(set(names)) == 2
    assert sorted(names) == sorted(f"48-32 ({folder.name})" for folder in folders)


def test_runs_of_several_seeds_a_search_and_a_single_training_are_compared_with_one_another(runs: Runs) -> None:
    folders = [runs.seeds(), runs.wide(), runs.search(), runs.single(0)]
    found = told(*folders)
    check_contestants(found, folders)
    assert len(found.document["comparisons"]) == 6
    for comparison in found.document["comparisons"]:
        assert comparison["confidence"] == pytest.approx(1 - 0.05 / 6)
        assert limits(comparison["difference"]["interval"]) in found.text
    assert "All these intervals hold together with 95 %" in found.text
    assert found.document["verdict"] in found.text
    pair = told(runs.wide(), runs.search())
    (comparison,) = pair.document["comparisons"]
    assert (comparison["method"], comparison["confidence"]) == ("Welch-Satterthwaite", 0.95)
    assert comparison["trainings"] in ([3, 2], [2, 3])
    assert f" {comparison['verdict']} " in pair.text
    (mixed,) = told(runs.wide(), runs.single(0)).document["comparisons"]
    assert (mixed["method"], mixed["trainings"]) == ("Welch-Satterthwaite", [3, 1])


def test_it_does_not_matter_in_which_order_runs_are_given(runs: Runs) -> None:
    one, other = told(runs.seeds(), runs.wide()), told(runs.wide(), runs.seeds())
    assert one == other


FACES = {
    "a single training": lambda runs: [runs.single(0)],
    "several seeds": lambda runs: [runs.seeds()],
    "a search": lambda runs: [runs.search()],
    "a comparison": lambda runs: [runs.seeds(), runs.wide()],
}


@pytest.mark.parametrize("kind", FACES)
def test_console_document_and_page_tell_the_same_numbers(kind: str, runs: Runs, tmp_path: Path) -> None:
    folders = FACES[kind](runs)
    found = told(*folders, page=tmp_path / "page.html", width=120)
    document = found.document
    numbers: list[str] = []
    if document["command"] == "train":
        assert document == json.loads((folders[0] / "run.json").read_text()) | {"run_dir": str(folders[0])}
        labels, predicted = predictions(folders[0])
        accuracies = (predicted == labels).mean(axis=1)
        interval = document["seeds"]["interval95"] if document["seeds"] else document["test"]["wilson95"]
        assert document["test"]["accuracy"] == pytest.approx(accuracies.mean())
        numbers += [percent(float(accuracies.mean())), limits(interval), f"{document['test']['loss']:.4f}"]
        for training in (document["seeds"] or {"trainings": []})["trainings"]:
            assert training["accuracy"] == accuracies[training["seed"]]
            numbers += [f" {training['seed']} {percent(training['accuracy'])} {training['loss']:.4f} "]
        if document["seeds"]:
            numbers.append(f"{100 * float(accuracies.std(ddof=1)):.2f} points")
        for score in document["test"]["classes"]:
            shares = " ".join(f"{score[name]:.4f}" for name in ("precision", "recall", "f1"))
            numbers.append(f" {score['label']} {score['support']} {shares} ")
        for epoch in document["epochs"]:
            metrics = " ".join(f"{value:.4f}" for name, value in epoch.items() if name not in ("epoch", "seconds"))
            numbers.append(f" {epoch['epoch']:.0f} {metrics} ")
    elif document["command"] == "search":
        final = document["final"]
        for trial in document["trials"]:
            scores = [replicate["val_accuracy"] for replicate in trial["replicates"]]
            assert trial["mean"] == pytest.approx(np.mean(scores))
            numbers.append(f"{np.mean(scores):.4f} +/- {np.std(scores, ddof=1):.4f} (2)")
            numbers.append(f" {trial['units'][0]} {trial['units'][1]} {trial['parameters']:,} ")
        for net in (final["winner"], final["baseline"]):
            numbers += [net["name"], percent(net["mean"]), percent(net["sd"]), limits(net["interval95"])]
            numbers += map(percent, net["accuracies"])
        numbers += [final["verdict"], final["comparison"]["outlook"], final["advice"]]
        numbers += [f"{document['selection']['luck']:.4f}", f"{document['selection']['standard_error']:.4f}"]
    else:
        (comparison,) = document["comparisons"]
        for entry in document["runs"]:
            numbers += [entry["name"], percent(entry["mean"]), percent(entry["sd"]), limits(entry["interval95"])]
        difference = comparison["difference"]
        numbers += [f"{100 * difference['value']:.2f}", limits(difference["interval"]), document["verdict"], document["outlook"]]
        labels, read = predictions(Path(document["runs"][0]["run_dir"]))
        _, other = predictions(Path(document["runs"][1]["run_dir"]))
        assert difference["value"] == pytest.approx((read == labels).mean() - (other == labels).mean())
    for number in numbers:
        assert number in found.text, "the console"
        assert number in found.page, "the page"


def test_a_page_is_written_with_its_figures_beside_it_and_without_tensorflow(runs: Runs, tmp_path: Path) -> None:
    page = tmp_path / "a page.html"
    program = f"""
import sys
from mnist_tuner.cli import app
app(["report", {str(runs.single(0))!r}, {str(runs.seeds())!r}, "--html", {str(page)!r}], standalone_mode=False)
app(["report", {str(runs.search())!r}, "--html", {str(page)!r}, "--quiet"], standalone_mode=False)
app(["runs", "--output", {str(runs.seeds().parent)!r}], standalone_mode=False)
print(sorted({{"tensorflow", "keras", "keras_tuner", "distributed"}} & set(sys.modules)))
"""
    printed = python(program)
    assert printed.splitlines()[-1] == "[]"
    assert f"Page {page}" in printed
    assert page.read_text().lower().startswith("<!doctype html>")
    (figures,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert figures.name == "a page-figures"
    kinds = {path.suffix for path in figures.iterdir()}
    assert kinds == {".png", ".svg"}
    assert {path.name for path in tmp_path.iterdir()} == {"a page.html", "a page-figures"}


def test_the_document_stands_alone_on_stdout(runs: Runs) -> None:
    done = mnist_tuner("report", runs.single(0), runs.single(1), "--json")
    assert json.loads(done.stdout) == told(runs.single(0), runs.single(1)).document
    assert one_line(json.loads(done.stdout)["verdict"]) in one_line(done.stderr)


def test_the_page_of_a_run_lies_in_its_folder_and_is_the_one_that_report_writes(runs: Runs, tmp_path: Path) -> None:
    for folder in (runs.single(0), runs.seeds(), runs.search()):
        assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".svg"}
        assert told(folder, page=tmp_path / "page.html").page == text_of((folder / "report.html").read_text())


def changed(folder: Path, into: Path, **values: Any) -> Path:
    """A copy of a run's folder with something else in its manifest."""
    shutil.copytree(folder, into)
    document = json.loads((into / "run.json").read_text())
    (into / "run.json").write_text(json.dumps(document | values))
    return into


def refusal(*folders: Path, **options: Any) -> str:
    screen = Console(file=io.StringIO(), width=80)
    with pytest.raises(InputError) as caught:
        reporting.report(folders, screen, **options)
    assert len(str(caught.value).splitlines()) == 1
    assert screen.file.getvalue() == "" or "html" in options  # type: ignore[attr-defined]
    return str(caught.value)


def test_runs_on_different_test_images_are_not_compared(runs: Runs, tmp_path: Path) -> None:
    data = json.loads((runs.seeds() / "run.json").read_text())["data"]
    other = {name: digest[::-1] if name.startswith("t10k-images") else digest for name, digest in data["sha256"].items()}
    folder = changed(runs.seeds(), tmp_path / "other", data=data | {"name": "shoes", "sha256": other})
    done = mnist_tuner("report", runs.wide(), folder, code=2)
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
    for name in (str(folder), str(runs.wide()), "shoes", "pictures"):
        assert name in done.stderr
    training = {name: digest[::-1] if name.startswith("train") else digest for name, digest in data["sha256"].items()}
    folder = changed(runs.seeds(), tmp_path / "more", data=data | {"name": "more pictures", "sha256": training})
    assert told(runs.wide(), folder).document["images"] == 200  # what they were trained on may differ
    folder = changed(runs.seeds(), tmp_path / "none", data=None)
    assert str(folder) in refusal(runs.wide(), folder)
    assert str(folder) in refusal(folder, runs.wide())


def test_a_part_of_the_test_images_is_not_compared_with_all_of_them(runs: Runs, tmp_path: Path) -> None:
    folder = changed(runs.single(1), tmp_path / "part")
    with np.load(folder / "test_predictions.npz") as arrays:
        part = {name: arrays[name][:32] if arrays[name].shape[:1] == (200,) else arrays[name] for name in arrays}
    np.savez(folder / "test_predictions.npz", **part)
    message = refusal(runs.single(0), folder)
    assert "32 test images" in message
    assert str(folder) in message


def test_the_same_run_given_twice_is_refused(runs: Runs) -> None:
    folder = runs.single(0)
    around = folder / ".." / folder.name
    done = mnist_tuner("report", folder, around, code=2)
    assert (done.stdout, done.stderr) == (
        "",
        "mnist-tuner: error: the same run is given twice: there is nothing to compare\n",
    )
    assert "given twice" in refusal(runs.single(1), folder, runs.single(1))


def test_a_run_that_has_not_been_tested_is_reported_and_not_compared(runs: Runs, tmp_path: Path) -> None:
    folder = changed(runs.single(1), tmp_path / "young", test=None, timing=None, status="interrupted")
    (folder / "test_predictions.npz").unlink()
    found = told(folder)
    assert "The run is interrupted" in found.text
    assert "Test accuracy" not in found.text
    message = refusal(runs.single(0), folder)
    assert str(folder) in message
    assert "the run has not been tested" in message


def test_a_run_whose_images_are_damaged_is_reported_without_them(runs: Runs, tmp_path: Path) -> None:
    folder = changed(runs.single(1), tmp_path / "damaged")
    (folder / "test_predictions.npz").write_bytes(b"PK")
    assert told(folder).lines == told(runs.single(1)).lines
    assert "damaged" in refusal(runs.single(0), folder)


def test_damaged_folders_are_refused_in_one_line(runs: Runs, tmp_path: Path) -> None:
    content = (runs.search() / "run.json").read_text()
    folder = tmp_path / "torn"
    folder.mkdir()
    (folder / "run.json").write_text(content[: len(content) // 2])
    done = mnist_tuner("report", runs.single(0), folder, code=2)
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
    assert f"{folder / 'run.json'}: damaged" in done.stderr
    assert "no folder of a run" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["versions", "config", "data"])
def test_a_manifest_that_lacks_what_the_report_shows_is_refused_and_not_a_traceback(
    name: str, runs: Runs, tmp_path: Path
) -> None:
    folder = changed(runs.single(0), tmp_path / name, **{name: {}})
    assert str(folder) in refusal(folder)
    listed = reporting.runs(tmp_path, Console(file=io.StringIO()))  # and the list goes on
    assert len(listed["runs"]) + len(listed["skipped"]) == 1


def test_a_page_that_cannot_be_written_is_refused_in_one_line(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    page = tmp_path / "file" / "page.html"
    done = mnist_tuner("report", runs.single(0), "--html", page, "--quiet", code=2)
    assert len(done.stderr.splitlines()) == 1
    assert str(page) in done.stderr
    (tmp_path / "folder").mkdir()
    for impossible in (tmp_path / "nowhere" / "page.html", tmp_path / "folder"):
        assert str(impossible) in refusal(runs.single(0), html=impossible)
    (tmp_path / "page-figures").touch()
    assert str(tmp_path / "page.html") in refusal(runs.single(0), html=tmp_path / "page.html")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_the_list_has_each_runs_date_kind_status_accuracy_and_time(runs: Runs, tmp_path: Path) -> None:
    for folder in (runs.single(0), runs.seeds(), runs.search()):
        shutil.copytree(folder, tmp_path / folder.name)
    changed(runs.single(1), tmp_path / "20200101-000000-train-killed", status="running", test=None, timing=None)
    (tmp_path / "20200101-foreign").mkdir()
    done = mnist_tuner("runs", "--output", tmp_path, "--json", COLUMNS="250")
    document = json.loads(done.stdout)
    assert (document["schema_version"], document["command"], document["folder"]) == (1, "runs", str(tmp_path))
    rows = {Path(row["run_dir"]).name: row for row in document["runs"]}
    expected = {runs.single(0): "train", runs.seeds(): "train x3", runs.search(): "search x4"}
    assert set(rows) == {*(folder.name for folder in expected), "20200101-000000-train-killed"}
    text = one_line(done.stderr)
    for folder, kind in expected.items():
        row, report = rows[folder.name], load_report(folder)
        labels, predicted = predictions(folder)
        value, (low, high) = row["accuracy"]["value"], row["accuracy"]["interval95"]
        assert value == pytest.approx((predicted == labels).mean())
        assert low < value < high
        assert (row["kind"], row["status"], row["run_dir"]) == (kind, "finished", str(tmp_path / folder.name))
        assert report.timing is not None
        assert row["seconds"] == report.timing.total_s
        minutes, seconds = divmod(round(report.timing.total_s), 60)
        date = f"{folder.name[:4]}-{folder.name[4:6]}-{folder.name[6:8]} {folder.name[9:11]}:{folder.name[11:13]}"
        assert row["date"] == date
        shown = f"{100 * value:.2f} ({100 * low:.2f}-{100 * high:.2f}) {minutes}:{seconds:02}"
        assert f" {date[5:]} {kind} {row['net']} {row['data']} finished {shown} {tmp_path / folder.name} " in text
    killed = rows["20200101-000000-train-killed"]
    assert (killed["status"], killed["accuracy"], killed["seconds"]) == ("killed", None, None)
    assert " 01-01 00:00 train 48-32 pictures killed " in text
    (skipped,) = document["skipped"]
    assert skipped["path"] == str(tmp_path / "20200101-foreign")
    assert f"skipped: {tmp_path / '20200101-foreign'}: no folder of a run" in text


def test_a_list_of_no_runs_says_so_and_one_of_no_folder_is_refused(tmp_path: Path) -> None:
    screen = Console(file=io.StringIO(), width=200)
    assert reporting.runs(tmp_path, screen)["runs"] == []
    assert screen.file.getvalue() == f"{tmp_path}: no runs\n"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="nowhere"):
        reporting.runs(tmp_path / "nowhere", screen)


def test_a_page_does_not_take_the_place_of_what_is_no_file(runs: Runs, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert f"--html {tmp_path / 'pipe'}: is there, and is not a file" in refusal(runs.single(0), html=tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.html").symlink_to(tmp_path / "elsewhere" / "page.html")
    assert told(runs.single(0), page=tmp_path / "link.html").page
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "elsewhere" / "page.html").is_file()


def test_on_a_terminal_the_list_grows_as_the_runs_are_read(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(120):
        (tmp_path / f"{number:03}").mkdir()
        shutil.copy(runs.single(0) / "run.json", tmp_path / f"{number:03}")
    seen: list[int] = []
    for terminal in (True, False):
        screen = Console(file=io.StringIO(), width=250, force_terminal=terminal)
        read = iter(list_runs(tmp_path))

        def counted(parent: Path, read: Any = read, screen: Console = screen) -> Any:
            for each in read:
                seen.append(screen.file.getvalue().count(str(tmp_path)))  # type: ignore[attr-defined]
                yield each

        monkeypatch.setattr(reporting, "list_runs", counted)
        document = reporting.runs(tmp_path, screen)
        lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert len(document["runs"]) == 120
        assert len([line for line in lines if str(tmp_path) in line]) == 120
    assert sorted(set(seen[:120])) == [0, 50, 100]
    assert set(seen[120:]) == {0}
