"""The search command on little data: what it prints, writes and claims."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import statistics
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from distributed import Client, LocalCluster
from rich.console import Console

from mnist_tuner.config import SearchConfig
from mnist_tuner.reports.statistics import accuracy_interval, difference_interval
from mnist_tuner.runner import search
from tests.support.called import called, refused
from tests.support.commands import mnist_tuner, on_a_terminal
from tests.support.searches import WHOLE_BATCHES, made_once, shared_folder, write_pictures

pytestmark = pytest.mark.slow


class Run(NamedTuple):
    """A finished search: its folder, its JSON document, what it printed to stdout and to stderr, and the data."""

    folder: Path
    document: dict[str, Any]
    printed: str
    report: str
    data: Path


def options(data: Path) -> list[str]:
    """A small search with a comparison of two nets."""
    values = ["--trials", 3, "--epochs", 3, "--replicates", 2, "--widths", "96:192:32", "--seed", 3, "--final-seeds", 2]
    return ["search", "--data", str(data), *map(str, values)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Little data, hard enough that nets differ."""
    folder = shared_folder(tmp_path_factory, "search")
    return made_once(folder / "pictures", partial(write_pictures, training=WHOLE_BATCHES))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search with two workers, on a few more pictures, of which the last batch is a short one."""
    data = made_once(shared_folder(tmp_path_factory, "search") / "more", write_pictures)

    def make(folder: Path) -> None:
        done = mnist_tuner(*options(data), "--workers", "2", "--json", "--output", folder)
        (folder / "stdout").write_text(done.stdout)
        (folder / "stderr").write_text(done.stderr)

    folder = made_once(shared_folder(tmp_path_factory, "search") / "runs", make)
    printed, report = ((folder / name).read_text() for name in ("stdout", "stderr"))
    document = json.loads(printed)
    return Run(Path(document["run_dir"]), document, printed, report, data)


def table(folder: Path) -> list[dict[str, str]]:
    """The rows of ``trials.csv``."""
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_document_has_the_documented_form(run: Run) -> None:
    document = run.document
    assert run.printed == (run.folder / "run.json").read_text()  # one document and nothing else
    assert [document[name] for name in ("schema_version", "command", "status")] == [1, "search", "finished"]
    assert [document[name] for name in ("strategy", "seed", "workers", "error")] == ["random", 3, 2, None]
    assert "stopped" not in document
    assert [hp["config"]["name"] for hp in document["space"]] == ["units_1", "units_2"]
    for hp in document["space"]:
        assert [hp["config"][name] for name in ("min_value", "max_value", "step", "default")] == [96, 192, 32, 100]
    assert document["config"]["widths"] == [96, 192, 32]
    assert set(document["timing"]) >= {"total_s", "trials_per_minute"}
    assert all(isinstance(value, float) and value > 0 for value in document["timing"].values())
    assert document["data"]["train"] + document["data"]["validation"] == 400


def test_the_document_says_of_each_trial_what_the_table_says(run: Run) -> None:
    rows = table(run.folder)
    trials = run.document["trials"]
    assert [trial["id"] for trial in trials] == ["0", "1", "2"]
    assert list(rows[0])[:8] == ["trial", "status", "units_1", "units_2", "parameters", "replicate", "seed", "epoch"]
    assert {"scored", "loss", "accuracy", "val_loss", "val_accuracy"} == set(list(rows[0])[8:])
    assert len(rows) == 3 * 2 * 3
    for trial in trials:
        assert set(trial) == {"id", "units", "parameters", "replicates", "mean", "sd", "seconds", "status"}
        own = [row for row in rows if row["trial"] == trial["id"]]
        assert {(int(row["units_1"]), int(row["units_2"])) for row in own} == {tuple(trial["units"])}
        assert {int(row["parameters"]) for row in own} == {trial["parameters"]}
        first, second = trial["units"]
        assert trial["parameters"] == 37 * first + (first + 1) * second + (second + 1) * 4
        last = [row for row in own if row["epoch"] == "3"]
        assert last == [row for row in own if row["scored"] == "yes"]
        assert trial["replicates"] == [
            {"seed": int(row["seed"]), "val_accuracy": float(row["val_accuracy"]), "epochs": 3} for row in last
        ]
        scores = [replicate["val_accuracy"] for replicate in trial["replicates"]]
        assert len(scores) == len({replicate["seed"] for replicate in trial["replicates"]}) == 2
        assert trial["mean"] == pytest.approx(statistics.fmean(scores), abs=1e-12)
        assert trial["sd"] == pytest.approx(statistics.stdev(scores), abs=1e-12)
        assert trial["seconds"] > 0
        assert trial["status"] == "completed"
    assert trials[0]["units"] == [100, 100]
    assert run.document["baseline"] == trials[0]
    assert run.document["best"] == max(trials, key=lambda trial: trial["mean"])
    assert len({tuple(trial["units"]) for trial in trials}) == 3
    for trial in trials[1:]:
        assert set(trial["units"]) <= {96, 128, 160, 192}


def test_winner_and_baseline_are_measured_on_the_test_images_with_fresh_seeds(run: Run) -> None:
    winner, baseline = run.document["final"]["winner"], run.document["final"]["baseline"]
    assert baseline["units"] == [100, 100]
    assert winner["units"] == run.document["best"]["units"]
    with np.load(run.folder / "test_predictions.npz") as file:
        labels, predicted = file["labels"], file["predicted"]
        assert predicted.shape == (2, 2, 200)
        assert file["units"].tolist() == [winner["units"], baseline["units"]]
        assert file["seeds"].tolist() == [winner["seeds"], baseline["seeds"]]
        confidence, mistakes = file["confidence"], file["mistakes"]
    for net, classes in zip((winner, baseline), predicted, strict=True):
        assert net["accuracies"] == [float((each == labels).mean()) for each in classes]
        assert net["mean"] == pytest.approx(statistics.fmean(net["accuracies"]))
        assert net["sd"] == pytest.approx(statistics.stdev(net["accuracies"]))
        assert net["count"] == 2
        correct = classes == labels
        assert net["interval95"] == pytest.approx([*vars(accuracy_interval(correct)).values()][1:])
        assert net["name"] == "-".join(map(str, net["units"]))
    difference = difference_interval(predicted[0] == labels, predicted[1] == labels).estimate
    comparison = run.document["final"]["comparison"]
    better = winner if difference.value >= 0 else baseline
    assert comparison["first"] == better["name"]
    assert comparison["difference"]["value"] == pytest.approx(abs(difference.value))
    assert comparison["distinguishable"] == difference.excludes_zero
    assert run.document["final"]["verdict"] == comparison["verdict"]
    pooled = (predicted[0] == labels).sum()
    test = run.document["test"]
    assert (test["correct"], test["total"], sum(map(sum, test["matrix"]))) == (pooled, 400, 400)
    assert confidence.shape == predicted.shape
    assert len(mistakes) == len(test["mistakes"])
    searched = {replicate["seed"] for trial in run.document["trials"] for replicate in trial["replicates"]}
    assert len({*searched, *winner["seeds"], *baseline["seeds"]}) == len(searched) + 4

    model = keras.models.load_model(run.folder / "model.keras")
    images = np.frombuffer((run.data / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(200, 6, 6)
    guessed = model.predict(images * np.float32(1 / 255), verbose=0).argmax(axis=1)
    assert (guessed == labels).mean() == winner["accuracies"][0]
    assert guessed.tolist() == predicted[0, 0].tolist()
    assert [layer.units for layer in model.layers if hasattr(layer, "units")] == [*winner["units"], 4]


def test_the_folder_holds_the_run_and_the_report(run: Run) -> None:
    assert {path.name for path in run.folder.iterdir()} == {
        "run.json",
        "config.toml",
        "trials.csv",
        "model.keras",
        "test_predictions.npz",
        "report.txt",
        "report.html",
        "figures",
        "trainings.jsonl",
        "study",
    }
    study = {path.name for path in (run.folder / "study").iterdir()}
    assert study >= {"journal.jsonl", "oracle.json", "tuner0.json", *(f"trial_{number}" for number in range(3))}
    assert re.fullmatch(r"\d{8}-\d{6}-search-random-96-192-32", run.folder.name)
    report = (run.folder / "report.txt").read_text()
    assert {path.suffix for path in (run.folder / "figures").iterdir()} == {".png", ".svg"}
    assert run.document["final"]["verdict"] in (run.folder / "report.html").read_text()
    for text in (report, run.report):
        assert "\x1b" not in text
        assert "oneDNN" not in text
        for trial in run.document["trials"]:
            assert f"{trial['mean']:.4f} +/- {trial['sd']:.4f} (2)" in text
        assert "Trained anew on all training images" in text
        assert f"{run.document['final']['winner']['mean']:.2%}" in text
        assert "those of its first replicate" in " ".join(text.split())  # whose weights are kept
    lines = [line for line in run.report.splitlines() if re.match(r"\d of 3  trial \d  units_1=\d+ units_2=\d+ ", line)]
    assert [line[0] for line in lines] == ["1", "2", "3"]
    assert all("val_accuracy" in line and " left" in line for line in lines)
    ranks = [
        line.split()[0]
        for line in report.splitlines()
        if re.match(r" +\d +\d+ +\d+ +[\d,]+ +0\.|  *\d +\d+ +\d+ +[\d,]+ +1\.", line)
    ]
    best_first = sorted(run.document["trials"], key=lambda trial: (-trial["mean"], trial["id"]))
    assert ranks == [trial["id"] for trial in best_first]


def test_a_training_is_not_gone_on_with_as_a_search(run: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(manifest | {"command": "train"}))
    assert "not a run of mnist-tuner search" in refused("search", "--resume", folder)
    (folder / "run.json").write_text(json.dumps(manifest))
    assert "not a run of mnist-tuner train" in refused("train", "--resume", folder)


def test_a_search_stopped_by_max_time_is_finished_by_a_resume_with_the_same_table(run: Run, tmp_path: Path) -> None:
    command = [*options(run.data), "--output", tmp_path, "--workers", "0"]
    done = mnist_tuner(*command, "--max-time", "0.5s", "--json")  # time for one trial to begin
    document = json.loads(done.stdout)
    folder = Path(document["run_dir"])
    assert document["status"] == "finished"
    assert document["stopped"].startswith("after 0.5s")
    assert "0.5s" in done.stderr
    assert 1 <= len(document["trials"]) < 3
    assert document["final"] is not None
    again = mnist_tuner("search", "--resume", folder, "--quiet")
    assert again.stdout.splitlines()[1:] == [document_verdict(folder)]
    assert again.stdout.startswith(f"Best widths {'-'.join(map(str, run.document['best']['units']))}")
    assert again.stderr == ""
    for name in ("trials.csv", "test_predictions.npz"):  # nor does the number of workers change anything
        assert (folder / name).read_bytes() == (run.folder / name).read_bytes()
    assert "stopped" not in json.loads((folder / "run.json").read_text())
    assert "Stopped" not in (folder / "report.txt").read_text()
    winner = run.document["final"]["winner"]["units"]

    def kept() -> list[int]:
        model = keras.models.load_model(folder / "model.keras")
        return [layer.units for layer in model.layers if hasattr(layer, "units")]

    assert kept() == [*winner, 4]
    lines = (folder / "trainings.jsonl").read_text().splitlines(keepends=True)
    (folder / "trainings.jsonl").write_text("".join(line.replace('"model": true', '"model": false') for line in lines))
    (folder / "model.keras").write_bytes(b"of another net, which had won before")
    called("search", "--resume", folder, "--workers", 0, "--quiet")
    assert kept() == [*winner, 4]


def test_a_finished_search_goes_on_with_more_trials_and_compares_the_new_winner(run: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    before = (folder / "trials.csv").read_text()
    assert "3 trials have been begun, and now the search is to have 2" in refused("search", "--resume", folder, "--trials", 2)
    assert json.loads((folder / "run.json").read_text()) == json.loads((run.folder / "run.json").read_text())
    called("search", "--resume", folder, "--trials", 5, "--workers", 0, "--quiet")
    assert (folder / "trials.csv").read_text().startswith(before)
    document = json.loads((folder / "run.json").read_text())
    assert (document["config"]["trials"], document["total"], len(document["trials"])) == (5, 5, 5)
    assert document["status"] == "finished"
    assert "random: 5 trials" in (folder / "report.txt").read_text()
    assert "trials = 5" in (folder / "config.toml").read_text()
    best = max(document["trials"], key=lambda trial: trial["mean"])
    assert document["best"]["id"] == best["id"]
    if document["final"]["winner"] is not None:
        assert document["final"]["winner"]["units"] == document["best"]["units"]
    called("search", "--resume", folder, "--workers", 0, "--quiet")  # with the new number
    assert len(json.loads((folder / "run.json").read_text())["trials"]) == 5


def test_a_grid_is_all_its_points_and_the_baseline_which_has_nothing_to_be_compared_with_where_it_wins(
    data: Path, tmp_path: Path
) -> None:
    wanted = ["--strategy", "grid", "--widths", "8:12:4", "--epochs", "1", "--replicates", "1", "--final-seeds", "1"]
    done = called("search", "--data", data, "--output", tmp_path, *wanted, "--workers", 0)
    (folder,) = tmp_path.iterdir()
    widths = [(int(row["units_1"]), int(row["units_2"])) for row in table(folder)]
    assert widths == [(100, 100), (8, 8), (8, 12), (12, 8), (12, 12)]
    assert "grid: 5 trials" in done.out
    assert document_verdict(folder) in " ".join(done.out.split())
    assert "keep it" in document_verdict(folder)
    assert "\x1b" not in done.out
    assert "nan" not in done.out
    assert done.err == ""
    document = json.loads((folder / "run.json").read_text())
    assert document["final"]["winner"] is None
    assert document["final"]["baseline"]["units"] == document["best"]["units"] == [100, 100]
    assert (document["final"]["baseline"]["sd"], document["trials"][0]["sd"]) == (None, None)


def document_verdict(folder: Path) -> str:
    return str(json.loads((folder / "run.json").read_text())["final"]["verdict"])


def test_a_terminal_sees_the_trials_as_they_run(data: Path, tmp_path: Path) -> None:
    search = ["search", "--data", data, "--output", tmp_path, "--trials", "2", "--widths", "8:32:8"]
    drawn = on_a_terminal(*search, "--epochs", "2", "--replicates", "1", "--final-seeds", "1", "--workers", "1", columns=120)
    assert "\x1b[" in drawn
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn)
    assert re.search(r"\d of 2 trials  \d+\.\d trials a minute", plain)
    assert re.search(r" 0 runs ", plain)
    assert re.search(r" 0 done ", plain)
    assert "Best so far: none yet" in plain
    assert re.search(r"Best so far trial \d: units_1=\d+ units_2=\d+  val_accuracy", plain)
    assert re.search(r"about \d+:\d\d left", plain)
    assert "oneDNN" not in plain
    (folder,) = tmp_path.iterdir()
    assert len({row["trial"] for row in table(folder)}) == 2
    assert "\x1b" not in (folder / "report.txt").read_text()


def test_help_has_an_example_and_every_option() -> None:
    shown = called("search", "--help", COLUMNS="120").out
    assert "Example: mnist-tuner search" in shown
    for option in (
        *("--strategy", "--trials", "--epochs", "--replicates", "--widths", "--workers", "--scheduler", "--seed", "--max-time"),
        *("--trial-time", "--workers-wait"),
        *("--data", "--output", "--resume", "--json", "--quiet"),
    ):
        assert option in shown


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--strategy", "foo"], "--strategy is 'foo': expected random, grid, bayesian or hyperband"),
        (["--widths", "10"], "--widths has 1 parts: expected least:greatest:step"),
        (["--widths", "a:b:c"], "--widths is 'a:b:c': expected least:greatest:step, such as 32:512:32"),
        (["--widths", "64:32:8"], "--widths is 64:32:8: the greatest width is below the least"),
        (["--widths", "8:32:0"], "--widths' step is 0"),
        (["--trials", "0"], "--trials is 0: expected 1 to 1,000,000"),
        (["--replicates", "0"], "--replicates is 0: expected 1 to 1,000"),
        (["--final-seeds", "0"], "--final-seeds is 0"),
        (["--workers", "x"], "--workers is 'x': expected auto, or a number of processes such as 2, or 0"),
        (["--workers", "-1"], "--workers is -1: expected 0 to 1,024"),
        (["--max-time", "never"], "--max-time: "),
        (
            ["--trial-time", "never"],
            "--trial-time: 'never' is not a duration: expected DD:HH:MM:SS, or a number with s, m, h or d",
        ),
        (["--workers-wait", "never", "--scheduler", "tcp://x:1"], "--workers-wait: 'never' is not a duration"),
        (["--workers-wait", "10m"], "--workers-wait is for a cluster's workers: give --scheduler as well"),
        (["--scheduler", "nonsense://x:1"], "--scheduler is 'nonsense://x:1': expected an address such as tcp://host:8786"),
        (["--scheduler", "host"], "--scheduler is 'host'"),  # without a port
        (["--resume", "nowhere"], "nowhere: no folder of a run (it has no run.json)"),
        (["--data", "nowhere"], "--data nowhere: no such file or folder"),
        (["--output", __file__], "a run's folder cannot be made there"),
    ],
)
def test_nonsense_gets_one_clear_line_and_code_2(wrong: list[str], message: str, tmp_path: Path) -> None:
    output = ["--output", tmp_path] if "--output" not in wrong else []
    assert message in refused("search", *output, *wrong)
    assert list(tmp_path.iterdir()) == []


def test_in_python_a_search_runs_on_a_client_s_cluster_with_its_certificates(data: Path, tmp_path: Path) -> None:
    config = SearchConfig(trials=1, epochs=1, replicates=1, widths=(8, 32, 8), final_seeds=1, data=data, output=tmp_path)
    cluster = LocalCluster(n_workers=1, threads_per_worker=2, security=True, dashboard_address=":0")
    with cluster, Client(cluster, set_as_default=False) as client:
        report = search(config, Console(file=io.StringIO()), scheduler=client)
        assert client.status == "running"
        addresses = list(client.nthreads())
    assert (report.status, report.workers) == ("finished", 1)
    (folder,) = tmp_path.iterdir()
    document = json.loads((folder / "run.json").read_text())
    assert document["config"]["scheduler"] == cluster.scheduler_address
    assert document["config"]["scheduler"].startswith("tls://")
    (worker,) = document["worker_info"]
    assert worker["address"] in addresses
    assert worker["versions"]["mnist_tuner"] == document["versions"]["mnist_tuner"]
    assert (worker["versions"]["tensorflow"], worker["refused"]) == (document["versions"]["tensorflow"], None)
    assert worker["processor"]
