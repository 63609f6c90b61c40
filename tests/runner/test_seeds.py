"""A training with several seeds: each as it would be alone, all of them together, killed, resumed and continued."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from mnist_tuner.config import TrainConfig
from mnist_tuner.errors import InputError
from mnist_tuner.reports.statistics import accuracy_interval
from tests.support.called import called, refused
from tests.support.commands import DEADLINE, mnist_tuner
from tests.support.runs import Runs
from tests.support.searches import family, journal, launched, lives, run_in, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs that nothing has happened to."""
    return Runs(tmp_path_factory)


def document_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return document


def arrays_of(folder: Path) -> dict[str, Any]:
    with np.load(folder / "test_predictions.npz") as arrays:
        return dict(arrays)


def without_times(folder: Path) -> dict[str, Any]:
    """What a finished run came to, times and its place apart."""
    document = document_of(folder)
    assert (document["status"], document["error"]) == ("finished", None)
    for training in document["seeds"]["trainings"]:
        del training["seconds"]
        for epoch in training["epochs"]:
            del epoch["seconds"]
    return {name: document[name] for name in ("seed", "model", "test", "seeds", "data")}


def check_equal(folder: Path, undisturbed: Path) -> None:
    """Two runs came to the same, to the bit."""
    assert without_times(folder) == without_times(undisturbed)
    assert (folder / "test_predictions.npz").read_bytes() == (undisturbed / "test_predictions.npz").read_bytes()
    assert list(folder.rglob(".*")) == []
    ours, theirs = (keras.models.load_model(each / "model.keras").get_weights() for each in (folder, undisturbed))
    for left, right in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(left, right)


def test_each_seeds_training_is_the_one_that_it_is_alone(runs: Runs) -> None:
    document, arrays = document_of(runs.seeds()), arrays_of(runs.seeds())
    assert arrays["predicted"].shape == arrays["confidence"].shape == (3, 200)
    assert arrays["seeds"].tolist() == [0, 1, 2]
    read = set()
    for seed, training in enumerate(document["seeds"]["trainings"]):
        alone, own = document_of(runs.single(seed)), arrays_of(runs.single(seed))
        assert training["seed"] == seed == own["seed"] == alone["seed"]
        assert (training["accuracy"], training["loss"]) == (alone["test"]["accuracy"], alone["test"]["loss"])
        np.testing.assert_array_equal(arrays["predicted"][seed], own["predicted"])
        np.testing.assert_array_equal(arrays["confidence"][seed], own["probabilities"].max(axis=1))
        for ours, theirs in zip(training["epochs"], alone["epochs"], strict=True):
            assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
        read.add(arrays["predicted"][seed].tobytes())
    assert len(read) == 3  # and the seeds do matter
    assert document["model"] == document_of(runs.single(0))["model"]


def test_the_model_that_is_kept_is_the_first_seeds(runs: Runs) -> None:
    kept, alone = (keras.models.load_model(folder / "model.keras") for folder in (runs.seeds(), runs.single(0)))
    for ours, theirs in zip(kept.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_mean_deviation_interval_and_matrix_are_those_of_the_predictions(runs: Runs) -> None:
    document, arrays = document_of(runs.seeds()), arrays_of(runs.seeds())
    correct = arrays["predicted"] == arrays["labels"]
    accuracies = correct.mean(axis=1)
    seeds, test = document["seeds"], document["test"]
    interval = accuracy_interval(correct)
    assert seeds["count"] == 3
    assert [training["accuracy"] for training in seeds["trainings"]] == accuracies.tolist()
    assert seeds["mean"] == pytest.approx(accuracies.mean(), abs=1e-12)
    assert seeds["sd"] == pytest.approx(accuracies.std(ddof=1), abs=1e-12)
    assert seeds["interval95"] == pytest.approx([interval.low, interval.high], abs=1e-12)
    assert interval.low < seeds["mean"] < interval.high
    alone = [document_of(runs.single(seed))["test"] for seed in range(3)]
    assert test["matrix"] == np.sum([each["matrix"] for each in alone], axis=0).tolist()
    assert (test["correct"], test["total"], test["wilson95"]) == (int(correct.sum()), 600, None)
    assert test["loss"] == pytest.approx(np.mean([each["loss"] for each in alone]))
    assert test["accuracy"] == pytest.approx(seeds["mean"])


def test_the_images_that_are_kept_are_the_mistakes_of_the_report(runs: Runs) -> None:
    images = np.frombuffer((runs.data / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(200, 6, 6)
    for folder in (runs.seeds(), runs.single(1)):
        arrays, mistakes = arrays_of(folder), document_of(folder)["test"]["mistakes"]
        assert mistakes
        np.testing.assert_array_equal(arrays["mistakes"], images[[mistake["index"] for mistake in mistakes]])
        predicted = np.atleast_2d(arrays["predicted"])
        for mistake in mistakes:
            read = predicted[:, mistake["index"]] == mistake["predicted"]
            assert read.sum() == mistake["trainings"]
            assert arrays["labels"][mistake["index"]] == mistake["label"] != mistake["predicted"]


def test_the_folder_and_the_document_are_those_of_several_trainings(runs: Runs) -> None:
    folder, document = runs.seeds(), document_of(runs.seeds())
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("run.json", "config.toml", "trainings.jsonl", "model.keras", "test_predictions.npz"),
        *("report.txt", "report.html", "figures"),
    }
    assert (document["command"], document["config"]["seeds"], document["seed"], document["epochs"]) == ("train", 3, 0, [])
    assert document["workers"] == min(3, os.cpu_count() or 1)
    assert (document["timing"]["compile_s"], document["timing"]["test_s"]) == (None, None)
    assert document["timing"]["total_s"] > document["timing"]["fit_s"] > 0
    kept = [json.loads(line) for line in journal(folder, "trainings.jsonl")[1:]]
    assert sorted(entry["seed"] for entry in kept) == [0, 1, 2]
    assert [entry["seed"] for entry in kept if entry["model"]] == [0]
    report = (folder / "report.txt").read_text()
    for training in document["seeds"]["trainings"]:
        assert f"{training['seed']}          {training['accuracy']:.2%}" in report
    assert f"Test accuracy {document['seeds']['mean']:.2%}  mean of 3 seeds" in report


def ended(process: subprocess.Popen[str], number: int) -> str:
    """Reads what is printed until so many trainings are done."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if f"{number} of " in line and "seed " in line and "test accuracy" in line:
            return printed
    assert process.stderr is not None
    raise AssertionError(f"it ended before {number} trainings were done:\n{printed}\n{process.stderr.read()}")


def test_killed_with_all_its_processes_it_repeats_no_training_and_comes_to_the_same(runs: Runs, tmp_path: Path) -> None:
    command = [*runs.train(), "--seeds", "3", "--output", str(tmp_path)]
    with launched(*command, start_new_session=True) as process:
        ended(process, 1)
        started = family(process)
        assert len(started) > 1
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for each in started:  # the workers are in a group of their own, perhaps
            if lives(each):
                each.kill()
        wait_until(lambda: not any(map(lives, started)))
    folder = run_in(tmp_path)
    assert document_of(folder)["status"] == "running"
    kept = [line for line in journal(folder, "trainings.jsonl") if line.endswith("\n")]
    assert len(kept) >= 2
    assert "killed" in called("runs", "--output", tmp_path).out
    mnist_tuner("train", "--resume", folder, "--quiet")
    after = journal(folder, "trainings.jsonl")
    assert after[: len(kept)] == kept
    assert sorted(json.loads(line)["seed"] for line in after[1:]) == [0, 1, 2]
    check_equal(folder, runs.seeds())


def test_interrupted_it_says_what_is_kept_and_how_to_go_on(runs: Runs, tmp_path: Path) -> None:
    output = tmp_path / "runs [of] mine"
    with launched(*runs.train(), "--seeds", "4", "--epochs", "100", "--output", output) as process:
        ended(process, 1)
        started = family(process)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=DEADLINE)
        assert (process.returncode, errors) == (130, "")
        wait_until(lambda: not any(map(lives, started)))
    folder = run_in(output)
    kept = len(journal(folder, "trainings.jsonl")) - 1
    assert 1 <= kept < 4
    assert f"Interrupted; {kept} training{'s are' if kept > 1 else ' is'} kept\n" in printed
    assert f"Go on with: mnist-tuner train --resume '{folder}'\n" in printed
    document = document_of(folder)
    assert (document["status"], document["seeds"], document["test"]) == ("interrupted", None, None)


def test_more_seeds_on_resume_add_their_trainings_and_repeat_none(runs: Runs, tmp_path: Path) -> None:
    folder = shutil.copytree(runs.seeds(), tmp_path / "run")
    before, model = journal(folder, "trainings.jsonl"), (folder / "model.keras").read_bytes()
    done = mnist_tuner("train", "--resume", folder, "--seeds", "4")
    after = journal(folder, "trainings.jsonl")
    assert after[: len(before)] == before
    (added,) = (json.loads(line) for line in after[len(before) :])
    assert (added["seed"], added["model"]) == (3, False)
    lines = [line for line in done.stdout.splitlines() if re.match(r"\d of \d  seed ", line)]
    assert len(lines) == 1
    assert lines[0].startswith(f"4 of 4  seed 3: test accuracy {added['accuracy']:.2%}")
    assert (folder / "model.keras").read_bytes() == model
    document, old = document_of(folder), document_of(runs.seeds())
    assert (document["config"]["seeds"], document["seeds"]["count"], document["test"]["total"]) == (4, 4, 800)
    assert document["seeds"]["trainings"][:3] == old["seeds"]["trainings"]
    arrays = arrays_of(folder)
    np.testing.assert_array_equal(arrays["predicted"][:3], arrays_of(runs.seeds())["predicted"])
    assert added["accuracy"] == (arrays["predicted"][3] == arrays["labels"]).mean()
    for options, message in (
        (["--seeds", "3"], "--seeds is 3: expected 4, which the run has, or more"),
        (["--epochs", "9"], "--epochs is 9: a run of several seeds goes on with its own, 8"),
    ):
        assert message in refused("train", "--resume", folder, *options)
    assert document_of(folder) == document


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-time", "10m"], "--max-time is for one training"),
        (["--profile"], "--profile is for one training"),
        (["--threads", "2"], "--threads is for one training"),
    ],
)
def test_what_is_for_one_training_is_refused_with_several_seeds(options: list[str], message: str, tmp_path: Path) -> None:
    assert message in refused("train", "--seeds", "3", *options, "--output", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "--seeds is 0: expected 1 to 1,000"),
        ({"seeds": 1001}, "--seeds is 1001"),
        ({"seeds": 2, "seed": 2**32 - 1}, "--seed"),
        ({"seeds": 2, "logger": ("csv", "tensorboard")}, "--logger tensorboard is for one training"),
    ],
)
def test_impossible_seeds_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**options)


def test_a_run_of_one_seed_is_not_gone_on_with_as_one_of_several(runs: Runs) -> None:
    assert "it is a run of one seed" in refused("train", "--resume", runs.single(0), "--seeds", "3")
