"""The train command on the real MNIST: what it prints, writes and claims."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from mnist_tuner import load_dataset
from mnist_tuner.config import TrainConfig, threads_for
from mnist_tuner.mnist.baseline import build, judge, judging_module
from mnist_tuner.mnist.data import data_module
from mnist_tuner.trainer import KerasModule, Trainer, read_checkpoint
from tests.support.called import called
from tests.support.commands import mnist_tuner, on_a_terminal

pytestmark = pytest.mark.slow


class Run(NamedTuple):
    """A finished run: its folder, its JSON document, and its report."""

    folder: Path
    document: dict[str, Any]
    report: str


def train(folder: Path, *options: str | Path) -> Run:
    done = mnist_tuner("train", "--json", "--output", folder, *options)
    document = json.loads(done.stdout)
    return Run(Path(document["run_dir"]), document, done.stderr)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The baseline as it is trained by default."""
    return train(tmp_path_factory.mktemp("runs"))


def test_the_baseline_reads_over_97_percent_of_the_test_digits(baseline: Run) -> None:
    test = baseline.document["test"]
    assert test["total"] == 10_000
    assert test["accuracy"] == test["correct"] / 10_000 > 0.97
    low, high = test["wilson95"]
    assert 0.96 < low < test["accuracy"] < high < 0.99
    assert baseline.document["model"]["parameters"] == 89_610


def test_the_document_has_the_documented_form(baseline: Run) -> None:
    document = baseline.document
    assert (document["schema_version"], document["command"], document["status"]) == (1, "train", "finished")
    assert document["seed"] == 0
    assert document["config"]["hidden"] == [100, 100]
    assert [epoch["epoch"] for epoch in document["epochs"]] == [1, 2, 3, 4, 5]
    assert document["epochs"][-1]["accuracy"] > document["epochs"][0]["accuracy"] > 0.9
    timing = document["timing"]
    assert set(timing) == {"import_s", "data_s", "compile_s", "fit_s", "test_s", "total_s"}
    assert timing["total_s"] > timing["fit_s"] > timing["compile_s"] > 0
    assert set(document["versions"]) == {"mnist_tuner", "tensorflow", "keras", "numpy", "python"}
    assert document["data"]["name"] == "MNIST"
    assert document["data"]["sha256"] == load_dataset().sha256


def test_the_folder_holds_the_run(baseline: Run) -> None:
    names = {path.relative_to(baseline.folder).as_posix() for path in baseline.folder.rglob("*") if path.is_file()}
    assert names == {
        "run.json",
        "config.toml",
        "metrics.csv",
        "report.txt",
        "report.html",
        "model.keras",
        "test_predictions.npz",
        "checkpoints/epoch=4-step=9375.safetensors",
        *(f"figures/{path.name}" for path in (baseline.folder / "figures").iterdir()),
    }
    assert {path.suffix for path in (baseline.folder / "figures").iterdir()} == {".png", ".svg"}
    assert json.loads((baseline.folder / "run.json").read_text()) == baseline.document
    rows = list(csv.DictReader((baseline.folder / "metrics.csv").read_text().splitlines()))
    assert [(row["epoch"], row["step"]) for row in rows] == [(str(i), str(1875 * (i + 1))) for i in range(5)]
    assert [float(row["loss"]) for row in rows] == [epoch["loss"] for epoch in baseline.document["epochs"]]


def test_the_predictions_the_model_and_the_checkpoint_tell_the_same(baseline: Run) -> None:
    data = load_dataset()
    x = data.test_images * np.float32(1 / 255)
    kept = np.load(baseline.folder / "test_predictions.npz")
    np.testing.assert_array_equal(kept["labels"], data.test_labels)
    assert int((kept["predicted"] == data.test_labels).sum()) == baseline.document["test"]["correct"]
    np.testing.assert_allclose(kept["probabilities"].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(kept["probabilities"].argmax(axis=1), kept["predicted"])
    mistakes = baseline.document["test"]["mistakes"]
    assert len(mistakes) == 24
    np.testing.assert_array_equal(kept["mistakes"], data.test_images[[mistake["index"] for mistake in mistakes]])

    model = keras.models.load_model(baseline.folder / "model.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0).argmax(axis=1), kept["predicted"])
    loss, accuracy = model.evaluate(x, data.test_labels, verbose=0)
    assert loss == pytest.approx(baseline.document["test"]["loss"], abs=1e-5)
    assert accuracy == pytest.approx(baseline.document["test"]["accuracy"], abs=1e-6)

    restored = keras.models.clone_model(model)
    restored.compile("adam", "sparse_categorical_crossentropy")
    restored.optimizer.build(restored.trainable_variables)
    module = KerasModule(restored)
    module.optimizer = restored.optimizer
    checkpoint = read_checkpoint(baseline.folder / "checkpoints" / "epoch=4-step=9375.safetensors")
    checkpoint.restore(module)
    np.testing.assert_array_equal(restored.predict(x, verbose=0).argmax(axis=1), kept["predicted"])
    progress = checkpoint.header.progress
    assert (progress.epoch, progress.global_step, progress.batch) == (4, 9375, checkpoint.header.num_training_batches)
    assert int(restored.optimizer.iterations) == 9375


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_one_pass_judges_as_test_and_predict_do_to_the_bit(precision: str, small_dataset_folder: Path) -> None:
    config = TrainConfig(hidden=(6, 5), batch_size=8, data=small_dataset_folder, precision=precision)
    dataset = load_dataset(config.data)
    data, model = data_module(config, dataset), build(config, dataset)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    module = judging_module(model)
    for _ in range(2):  # what was counted before does not count
        predicted, probabilities, loss = judge(trainer, module, data)
    assert loss == trainer.test(KerasModule(model), datamodule=data)[0]["test_loss"]
    own = np.concatenate(trainer.predict(KerasModule(model), datamodule=data))
    np.testing.assert_array_equal(predicted, own.argmax(axis=1))
    assert probabilities.shape == (30, 3)


def test_the_report_says_what_the_document_says(baseline: Run) -> None:
    test = baseline.document["test"]
    low, high = (f"{limit * 100:.2f}" for limit in test["wilson95"])
    for report in (baseline.report, (baseline.folder / "report.txt").read_text()):
        assert f"Test accuracy {test['accuracy']:.2%}" in report
        assert f"{test['correct']:,} of 10,000" in report
        assert f"{low} to {high} %" in report
        assert str(test["matrix"][9][4]) in report
        assert "\x1b" not in report
        assert max(map(len, report.splitlines())) <= 80 or report is baseline.report
    assert "Epoch 5/5" in baseline.report
    assert "Epoch 6" not in baseline.report
    assert baseline.document["run_dir"] in baseline.report


def test_a_rerun_is_bit_identical(baseline: Run, tmp_path: Path) -> None:
    again = train(tmp_path)
    for name in ("metrics.csv", "test_predictions.npz"):
        assert (again.folder / name).read_bytes() == (baseline.folder / name).read_bytes()
    left, right = (read_checkpoint(next((run.folder / "checkpoints").iterdir())) for run in (again, baseline))
    assert left.tensors.keys() == right.tensors.keys()
    for name, tensor in left.tensors.items():
        np.testing.assert_array_equal(tensor, right.tensors[name])


def test_options_reach_the_training(small_dataset_folder: Path, tmp_path: Path) -> None:
    options = ["--epochs", "2", "--batch-size", "16", "--hidden", "8,6,4", "--learning-rate", "0.01", "--seed", "3"]
    run = train(tmp_path, "--data", small_dataset_folder, "--val-fraction", "0.2", "--threads", "2", *options)
    assert run.document["model"]["parameters"] == (7 * 5 + 1) * 8 + (8 + 1) * 6 + (6 + 1) * 4 + (4 + 1) * 3
    assert [run.document["data"][name] for name in ("train", "validation", "test", "classes")] == [72, 18, 30, 3]
    assert len(run.document["epochs"]) == 2
    assert {"val_loss", "val_accuracy"} < set(run.document["epochs"][0])
    assert (run.document["seed"], run.document["threads"]) == (3, 2)
    assert next(iter((run.folder / "checkpoints").iterdir())).name == "epoch=1-step=10.safetensors"
    assert len(run.document["test"]["classes"]) == 3


@pytest.mark.parametrize(
    ("widths", "batch_size", "threads"),
    [((100, 100), 32, 1), ((256, 256), 32, 2), ((100, 100), 256, 2), ((100, 100), 55, 1), ((100, 100), 56, 2), ((8,), 32, 1)],
)
def test_auto_takes_two_threads_from_five_million_multiply_adds_a_step(
    widths: tuple[int, ...], batch_size: int, threads: int
) -> None:
    config = TrainConfig(hidden=widths, batch_size=batch_size)
    assert [threads_for(config, 784, 10, cores) for cores in (1, 2, 64)] == [1, threads, threads]
    assert threads_for(replace(config, threads=3), 784, 10, 2) == 3


def test_the_threads_that_auto_took_are_written_down_and_kept_by_a_resumed_run(
    small_dataset_folder: Path, tmp_path: Path
) -> None:
    run = train(tmp_path, "--data", small_dataset_folder, "--epochs", "1", "--hidden", "400,400")  # 5.6 million multiply-adds
    took = min(2, len(os.sched_getaffinity(0)))
    assert (run.document["config"]["threads"], run.document["threads"]) == ("auto", took)
    (path,) = (run.folder / "checkpoints").iterdir()
    assert read_checkpoint(path).header.threads == took  # what TensorFlow itself says
    assert 'threads = "auto"' in (run.folder / "config.toml").read_text()

    manifest = (run.folder / "run.json").read_text()
    (run.folder / "run.json").write_text(manifest.replace(f'"threads": {took}', f'"threads": {3 - took}'))  # another machine's
    again = json.loads(mnist_tuner("train", "--resume", run.folder, "--epochs", "2", "--json").stdout)
    (path,) = (run.folder / "checkpoints").iterdir()
    assert again["threads"] == read_checkpoint(path).header.threads == 3 - took


def test_a_fast_dev_run_takes_one_batch_of_everything(small_dataset_folder: Path, tmp_path: Path) -> None:
    document = json.loads(called("train", "--json", "--output", tmp_path, "--data", small_dataset_folder, "--fast-dev-run").out)
    assert len(document["epochs"]) == 1
    assert not (Path(document["run_dir"]) / "checkpoints").exists()


def test_quiet_prints_the_result_alone(small_dataset_folder: Path, tmp_path: Path) -> None:
    done = called("train", "--quiet", "--data", small_dataset_folder, "--output", tmp_path)
    assert len(done.out.splitlines()) == 1
    assert "Test accuracy" in done.out
    assert done.err == ""


def test_colours_can_be_forced_and_refused(small_dataset_folder: Path, tmp_path: Path) -> None:
    options = ["train", "--data", small_dataset_folder, "--epochs", "1", "--output"]
    assert "\x1b[" in called(*options, tmp_path / "forced", FORCE_COLOR="1").out
    (run,) = (tmp_path / "forced").iterdir()
    assert "\x1b" not in (run / "report.txt").read_text()
    drawn = on_a_terminal(*options, tmp_path / "refused", NO_COLOR="1")
    assert "\N{UPPER HALF BLOCK}" not in drawn
    assert "Test accuracy" in drawn


def test_a_terminal_sees_progress_and_pictures(small_dataset_folder: Path, tmp_path: Path) -> None:
    drawn = on_a_terminal("train", "--data", small_dataset_folder, "--output", tmp_path, "--epochs", "3")
    assert "Epoch 3/3" in drawn
    assert "\N{UPPER HALF BLOCK}" in drawn
    assert "oneDNN" not in drawn
    assert "CUDA" not in drawn
