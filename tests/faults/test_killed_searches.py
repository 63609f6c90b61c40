"""Killed at any instant, a search loses no trial that had reached the disk, leaves no process behind, and ends as it would."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.called import called, refused
from tests.support.commands import DEADLINE, environment, mnist_tuner
from tests.support.searches import (
    TRIALS,
    Undisturbed,
    check_folder,
    family,
    journal,
    launched,
    lives,
    outcome,
    run_in,
    search,
    wait_for_trials,
    wait_until,
    wait_until_at_work,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("strategy", "moments", "everything"),
    [
        pytest.param("hyperband", (0, 4), False, id="the driver of Hyperband, before the first trial and again in the middle"),
        pytest.param("bayesian", (6,), True, id="everything in a Bayesian search, before a point that it has thought about"),
    ],
)
def test_a_search_killed_at_any_time_is_resumed_without_repeating_a_trial(
    strategy: str, moments: tuple[int, ...], everything: bool, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    arguments = search(strategy, undisturbed.data, tmp_path / "runs", workers=1)
    kept: list[str] = []
    for trials in moments:
        with launched(*arguments) as process:
            wait_for_trials(process, trials)
            started = family(process)
            assert len(started) > 1  # the process that workers are forked from is another one
            for each in started if everything else ():
                each.suspend()  # so that none sees another one's death
            process.kill()
            for each in started if everything else ():
                each.kill()
            process.wait()
            wait_until(lambda alive=started: not any(map(lives, alive)))  # type: ignore[misc]
        run = run_in(tmp_path / "runs")
        assert json.loads((run / "run.json").read_text())["status"] == "running"
        assert journal(run)[: len(kept)] == kept
        kept = [line for line in journal(run) if line.endswith("\n")]
        assert max(len(kept) - 1, 0) >= trials
        arguments = ["search", "--resume", str(run), "--workers", "1"]

    mnist_tuner("search", "--resume", run, "--workers", "0")
    assert journal(run)[: len(kept)] == kept
    check_folder(run, TRIALS[strategy])
    assert outcome(run) == undisturbed.outcome(strategy)


def test_a_worker_killed_in_mid_trial_and_the_driver_in_the_final_comparison_cost_just_what_was_being_made(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    errors = tmp_path / "errors"
    arguments = search("random", undisturbed.data, tmp_path / "runs", workers=1)
    with errors.open("w") as file, launched(*arguments, stderr=file) as process:
        printed = wait_for_trials(process, 1)
        (forkserver,) = (each for each in psutil.Process(process.pid).children() if each.children())
        wait_until_at_work(forkserver.children()).kill()
        run = run_in(tmp_path / "runs")
        wait_until(lambda: len(journal(run, "trainings.jsonl")) == 2)
        assert errors.read_text() == ""
        started = family(process)
        process.kill()
        printed += process.communicate(timeout=DEADLINE)[0]
        wait_until(lambda: not any(map(lives, started)))
    assert "failed (its worker died (killed, or out of memory)) and is tried once more" in printed
    trials, final = journal(run), journal(run, "trainings.jsonl")
    assert len(trials) == 1 + TRIALS["random"]
    assert json.loads((run / "run.json").read_text())["status"] == "running"
    mnist_tuner("search", "--resume", run, "--workers", "0")
    assert journal(run) == trials
    assert journal(run, "trainings.jsonl")[: len(final)] == final
    assert outcome(run) == undisturbed.outcome("random")
    check_folder(run, TRIALS["random"])


def test_a_search_that_cannot_write_or_is_interrupted_says_how_to_go_on_again_and_again(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    output = tmp_path / "runs [of] mine"
    with launched(*search("random", undisturbed.data, output, workers=1)) as process:
        wait_for_trials(process, 1)
        for each in (process.pid, *(child.pid for child in family(process))):
            resource.prlimit(each, resource.RLIMIT_FSIZE, (1000, 1000))  # as if the disk were full, for the workers, too
        printed, errors = process.communicate(timeout=DEADLINE)
    run = run_in(output)
    goes_on = f"Go on with: mnist-tuner search --resume '{run}'\n"
    assert process.returncode in (1, 2)
    assert len(errors.splitlines()) == 1
    assert "File too large" in errors
    assert str(run / "study") in errors
    assert "Traceback" not in printed
    assert goes_on in printed
    kept = journal(run)
    assert len(kept) >= 2
    assert kept[-1].endswith("\n")

    made = {json.loads(line)["trial_id"] for line in kept[1:]}
    in_the_way = [run / "study" / f"trial_{number}" for number in range(TRIALS["random"]) if str(number) not in made]
    for path in in_the_way:  # root may write everywhere: but no folder where a file stands
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
        path.touch()
    done = called("search", "--resume", run, "--workers", 0, code=2)
    assert len(done.err.splitlines()) == 1
    assert any(str(path) in done.err for path in in_the_way)
    assert goes_on in done.out
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    assert journal(run) == kept
    for path in in_the_way:
        path.unlink()

    for number, trials in ((signal.SIGINT, 1), (signal.SIGTERM, 0)):
        with launched("search", "--resume", run, "--workers", "2" if trials else "1") as process:
            wait_for_trials(process, trials)
            started = family(process)
            process.send_signal(number)
            printed, errors = process.communicate(timeout=DEADLINE)
            assert process.returncode == 130
            assert errors == ""
            wait_until(lambda alive=started: not any(map(lives, alive)))  # type: ignore[misc]
        assert goes_on in printed
        manifest = json.loads((run / "run.json").read_text())
        assert manifest["status"] == "interrupted"
        assert len(manifest["trials"]) == len(journal(run)) - 1 >= len(kept) - 1 + trials
        assert journal(run)[: len(kept)] == kept
        kept = journal(run)

    mnist_tuner("search", "--resume", run, "--workers", "0")
    assert journal(run)[: len(kept)] == kept
    assert outcome(run) == undisturbed.outcome("random")
    check_folder(run, TRIALS["random"])


def test_a_search_goes_on_only_as_what_it_began_as_and_in_one_process(undisturbed: Undisturbed, tmp_path: Path) -> None:
    run = shutil.copytree(undisturbed.run("random"), tmp_path / "run")
    manifest = (run / "run.json").read_text()
    for option, value, difference in (
        ("--seed", "1", "--seed 0, and now it is 1"),
        ("--strategy", "grid", "--strategy random, and now it is grid"),
        ("--widths", "96:192:16", "--widths 96:192:32, and now it is 96:192:16"),
        ("--epochs", "3", "--epochs 2, and now it is 3"),
        ("--replicates", "3", "--replicates 2, and now it is 3"),
        ("--data", str(tmp_path), f"--data {undisturbed.data}, and now it is {tmp_path}"),
    ):
        done = called("search", "--resume", run, option, value, code=2)
        assert f"the search began with {difference}" in done.err
        assert len(done.err.splitlines()) == 1
        assert done.out == ""
    other = shutil.copytree(undisturbed.data, tmp_path / "other")
    images = other / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1] + b"\x00")
    changed = json.loads(manifest)
    changed["config"]["data"] = str(other)
    (run / "run.json").write_text(json.dumps(changed))
    line = refused("search", "--resume", run, "--workers", 0)
    assert "another data" in line
    assert "train-images-idx3-ubyte" in line
    assert json.loads((run / "run.json").read_text()) == changed

    (run / "run.json").write_text(manifest)
    (run / "study" / ".mnist_tuner-0123abcd-oracle.json").write_text(
        '{"ongoing_tri'
    )  # what is left where a file's writing was killed
    finished = {path: path.read_bytes() for path in run.rglob("*") if path.suffix in (".jsonl", ".csv", ".npz", ".keras", ".h5")}
    with launched("search", "--resume", run, "--workers", "0") as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("Device"))
        psutil.Process(process.pid).suspend()
        assert "another process is working on this run" in refused("search", "--resume", run)
        psutil.Process(process.pid).resume()
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 0
    assert outcome(run) == undisturbed.outcome("random")
    assert {path: path.read_bytes() for path in finished} == finished  # nothing was made again
    check_folder(run, TRIALS["random"])


POISONED = """
import json, os, signal, sys
import keras, keras_tuner
import numpy as np
from mnist_tuner import Tuner

class Poisoned(keras_tuner.HyperModel):
    def build(self, hp):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(hp.Int("units", 1, 4)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    def fit(self, hp, model, *arguments, **options):
        if hp.get("units") == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if hp.get("units") == 3:
            raise FileNotFoundError("three is missing")
        return 1 / hp.get("units")

x = np.random.default_rng(0).random((64, 3), np.float32)
folder, workers, scheduler = sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None
options = {"objective": "val_loss", "strategy": "grid", "epochs": 1, "replicates": 1, "directory": folder}
tuner = Tuner(Poisoned(), workers=workers, scheduler=scheduler, **options)
tuner.search(x, x[:, :1], validation_data=(x, x[:, :1]))
trials = [(trial.values["units"], trial.status, trial.reason) for trial in tuner.ranked()]
print(json.dumps(trials), file=sys.stderr)
"""


def poisoned(folder: Path, *arguments: str) -> tuple[dict[int, tuple[str, str | None]], str]:
    """Runs a search of which two points fail; returns each one's status and reason, and what was printed."""
    command = [sys.executable, "-W", "ignore", "-c", POISONED, str(folder / "study"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(TF_CPP_MIN_LOG_LEVEL="3"), timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stderr.splitlines()[-1])
    return {units: (status, reason) for units, status, reason in trials}, done.stdout


def check_poisoned(trials: dict[int, tuple[str, str | None]], printed: str, folder: Path) -> None:
    """The two that fail were tried twice and are marked; the others are done."""
    assert sorted(trials) == [1, 2, 3, 4]
    assert trials[1] == trials[4] == ("completed", None)
    assert trials[2] == ("failed", "its worker died (killed, or out of memory)")
    assert trials[3] == ("failed", "FileNotFoundError: three is missing")
    assert printed.count("and is tried once more") == 2
    rows = [line for line in (folder / "study" / "trials.csv").read_text().splitlines()[1:] if ",failed," in line]
    assert len(rows) == 2
    assert len(journal(folder, "study/journal.jsonl")) == 5


def test_a_trial_that_kills_its_worker_is_tried_twice_and_does_not_take_the_search_with_it(tmp_path: Path) -> None:
    trials, printed = poisoned(tmp_path, "2")
    check_poisoned(trials, printed, tmp_path)
