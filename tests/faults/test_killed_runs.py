"""Killed at any instant, a run loses nothing that had reached the disk, and ends as if it had never been killed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mnist_tuner.trainer import read_checkpoint
from tests.support.called import refused
from tests.support.commands import DEADLINE, environment, mnist_tuner
from tests.support.searches import made_once, run_in, shared_folder

pytestmark = pytest.mark.slow

EPOCHS = 30


def training(folder: Path, data: Path) -> list[str]:
    """A training on little data that takes a while."""
    options = ["--epochs", EPOCHS, "--hidden", "16", "--val-fraction", "0.2", "--data", data, "--output", folder]
    return ["train", *map(str, options)]


def killed_after(lines: int, command: list[str], number: signal.Signals = signal.SIGKILL, said: bytes = b"Epoch ") -> int:
    """Starts a command and kills it when it has said that so many epochs are done; returns its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "mnist_tuner", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        seen += line.startswith(said)
        if line.startswith(said if lines else b"Net") and seen == lines:
            process.send_signal(number)
            break
    process.communicate(timeout=DEADLINE)
    return process.returncode


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the training that was never killed keeps its run."""
    return shared_folder(tmp_path_factory, "whole") / "runs"


def outcome(run: Path) -> tuple[bytes, bytes, dict[str, bytes]]:
    """What the training came to: metrics, test predictions, the weights and the optimizer's state."""
    (path,) = (run / "checkpoints").glob("[!.]*")
    tensors = {name: tensor.tobytes() for name, tensor in read_checkpoint(path).tensors.items()}
    return (run / "metrics.csv").read_bytes(), (run / "test_predictions.npz").read_bytes(), tensors


def undisturbed(folder: Path, data: Path) -> tuple[bytes, bytes, dict[str, bytes]]:
    return outcome(run_in(made_once(folder, lambda path: mnist_tuner(*training(path, data)))))


@pytest.mark.parametrize("epochs", [0, 7])
def test_a_run_killed_at_any_time_is_resumed_to_the_bit(
    epochs: int, whole: Path, small_dataset_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    assert killed_after(epochs, training(folder, small_dataset_folder)) == -signal.SIGKILL
    (run,) = folder.iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "running"
    done = mnist_tuner("train", "--resume", run, "--json")
    document = json.loads(done.stdout)
    assert (document["status"], document["run_dir"]) == ("finished", str(run))
    assert [epoch["epoch"] for epoch in document["epochs"]] == list(range(1, EPOCHS + 1))
    assert outcome(run) == undisturbed(whole, small_dataset_folder)


def test_a_run_killed_when_its_report_stands_on_the_screen_is_finished_only_if_all_is_written(
    whole: Path, small_dataset_folder: Path, tmp_path: Path
) -> None:
    killed_after(1, training(tmp_path / "killed", small_dataset_folder), said=b"Run  ")
    (run,) = (tmp_path / "killed").iterdir()
    manifest = json.loads((run / "run.json").read_text())
    assert (manifest["status"] == "finished") <= (run / "report.html").exists()
    assert json.loads(mnist_tuner("train", "--resume", run, "--json").stdout)["status"] == "finished"
    assert "figures" in (run / "report.html").read_text()
    assert outcome(run) == undisturbed(whole, small_dataset_folder)


def test_an_interrupted_run_says_how_to_go_on_and_can_be_interrupted_again(
    whole: Path, small_dataset_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "interrupted"
    command = training(folder, small_dataset_folder)
    for number in (signal.SIGINT, signal.SIGTERM):
        assert killed_after(3, command, number) == 130
        (run,) = folder.iterdir()
        assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
        command = ["train", "--resume", str(run)]
    mnist_tuner("train", "--resume", run)
    assert outcome(run) == undisturbed(whole, small_dataset_folder)


def test_a_finished_run_is_reported_again_and_may_be_given_more_epochs(
    whole: Path, small_dataset_folder: Path, tmp_path: Path
) -> None:
    before = undisturbed(whole, small_dataset_folder)
    run = shutil.copytree(run_in(whole), tmp_path / "run")
    manifest = json.loads((run / "run.json").read_text())
    again = json.loads(mnist_tuner("train", "--resume", run, "--json").stdout)
    assert outcome(run) == before
    assert (again["test"], again["epochs"]) == (manifest["test"], manifest["epochs"])
    more = json.loads(mnist_tuner("train", "--resume", run, "--json", "--epochs", str(EPOCHS + 1)).stdout)
    assert more["epochs"][:-1] == manifest["epochs"]
    assert more["epochs"][-1]["epoch"] == EPOCHS + 1
    fewer = refused("train", "--resume", run, "--epochs", "3")
    assert f"--epochs is 3: expected {EPOCHS + 1}, which the run has, or more" in fewer
    shutil.rmtree(run / "checkpoints")
    assert "its checkpoints are gone" in refused("train", "--resume", run)
    assert json.loads((run / "run.json").read_text())["test"] == more["test"]


def test_a_run_stopped_by_max_time_keeps_to_its_options_and_its_data_and_is_resumed_to_the_bit(
    whole: Path, small_dataset_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "timed"
    document = json.loads(mnist_tuner(*training(folder, small_dataset_folder), "--max-time", "0.001s", "--json").stdout)
    assert document["status"] == "finished"
    assert "the time is over" in document["stopped"]
    assert len(document["epochs"]) < EPOCHS
    (run,) = folder.iterdir()

    wrong = refused("train", "--resume", run, "--batch-size", "8")
    assert "--resume takes the run's own options: leave out --batch-size" in wrong

    manifest = (run / "run.json").read_text()
    images = small_dataset_folder / "train-images-idx3-ubyte"
    content = images.read_bytes()
    images.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    wrong = refused("train", "--resume", run)
    assert "the run began with other data: train-images-idx3-ubyte has changed" in wrong
    assert (run / "run.json").read_text() == manifest  # and the run is not discarded
    assert any((run / "checkpoints").iterdir())
    images.write_bytes(content)

    mnist_tuner("train", "--resume", run)
    assert outcome(run) == undisturbed(whole, small_dataset_folder)


SAVING = """
import sys
import keras, numpy as np
from mnist_tuner.trainer import ArrayLoader, Callback, ModelCheckpoint, Trainer

class Tell(Callback):
    every_n_train_steps = 1
    def on_train_steps_end(self, trainer, module):
        print(trainer.global_step, flush=True)

keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256, "relu"), keras.layers.Dense(1)])
model.compile("adam", "mse", jit_compile=False)
x = np.random.default_rng(0).random((6400, 64), np.float32)
Trainer(
    max_steps=int(sys.argv[2]), default_root_dir=sys.argv[1], jit_compile=False, log_every_n_steps=1,
    callbacks=[Tell(), ModelCheckpoint(every_n_train_steps=1)], enable_progress_bar=False, enable_model_summary=False,
).fit(model, ArrayLoader(x, x[:, :1]), ckpt_path="last" if len(sys.argv) > 3 else None)
"""


def test_a_kill_while_a_checkpoint_is_written_leaves_a_whole_one(tmp_path: Path) -> None:
    def run(name: str, steps: int, *resumed: str, kill_at: int | None = None) -> None:
        command = [sys.executable, "-W", "ignore", "-c", SAVING, str(tmp_path / name), str(steps), *resumed]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) == kill_at:
                    process.kill()  # it is about to write, or writing
                    break

    run("whole", 30)
    run("killed", 30, kill_at=9)
    paths = [path for path in (tmp_path / "killed" / "checkpoints").glob("*.safetensors") if path.name[0] != "."]
    assert paths
    assert max(read_checkpoint(path).header.global_step for path in paths) <= 9
    run("killed", 30, "resume")
    last = [read_checkpoint(tmp_path / name / "checkpoints" / "epoch=0-step=30.safetensors") for name in ("whole", "killed")]
    for name, tensor in last[0].tensors.items():
        np.testing.assert_array_equal(tensor, last[1].tensors[name])
    logs = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("whole", "killed")]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda manifest: "{", "damaged: not a JSON document"),
        (lambda manifest: "[]", "damaged: not a JSON object"),
        (lambda manifest: json.dumps(manifest | {"schema_version": 99}), "not a run of mnist-tuner train"),
        (lambda manifest: json.dumps(manifest | {"command": "search"}), "not a run of mnist-tuner train"),
        (lambda manifest: json.dumps(manifest | {"config": {"epochs": "many"}}), "epochs is 'many': expected int"),
        (lambda manifest: json.dumps(manifest | {"config": {"width": 3}}), "unknown options: width"),
        (lambda manifest: json.dumps(manifest | {"config": {"fast_dev_run": True}}), "keeps no checkpoint to go on from"),
    ],
)
def test_a_folder_that_cannot_go_on_is_refused_and_left_alone(damage, message, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    manifest = {"schema_version": 1, "command": "train", "config": {"epochs": 3}}
    (tmp_path / "run.json").write_text(text := damage(manifest))
    assert message in refused("train", "--resume", tmp_path)
    assert (tmp_path / "run.json").read_text() == text


def test_two_processes_do_not_work_on_one_run(small_dataset_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "mnist_tuner", *training(tmp_path / "runs", small_dataset_folder)]
    command[command.index("--epochs") + 1] = "100000"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith(b"Epoch 1/"))
        (run,) = (tmp_path / "runs").iterdir()
        assert "another process is working on this run" in mnist_tuner("train", "--resume", run, code=2).stderr
        process.kill()
