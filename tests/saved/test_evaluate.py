"""The command evaluate: saved models are tested again."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.data import Dataset, load_dataset
from mnist_tuner.runner import evaluate
from tests.support.called import SHADES, Made, called, refused, write_shades
from tests.support.commands import mnist_tuner, python
from tests.support.runs import Runs
from tests.support.searches import write_pictures

pytestmark = pytest.mark.slow

EVALUATE = """
import io, json
from pathlib import Path
from rich.console import Console
from mnist_tuner.runner import evaluate
for path in {paths!r}:
    print(json.dumps(evaluate(Path(path), Console(file=io.StringIO()))))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Finished runs."""
    return Runs(tmp_path_factory)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Finished runs."""
    return Made(tmp_path_factory)


@pytest.fixture(scope="module")
def documents(runs: Runs) -> dict[str, dict[str, Any]]:
    """What evaluate makes of all that the runs have kept, in a fresh process, as the runs themselves had one."""
    single = runs.single(0)
    (checkpoint,) = (single / "checkpoints").iterdir()
    paths = {
        "folder": single,
        "model": single / "model.keras",
        "checkpoint": checkpoint,
        "seeds": runs.seeds(),
        "search": runs.search(),
    }
    lines = python(EVALUATE.format(paths=[str(path) for path in paths.values()])).splitlines()
    return dict(zip(paths, map(json.loads, lines), strict=True))


def manifest(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return document


def evaluated(path: Path, **options: Any) -> dict[str, Any]:
    """The document of an evaluation, as JSON has it."""
    document: dict[str, Any] = json.loads(json.dumps(evaluate(path, quiet=True, **options)))
    return document


def matrix(labels: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int) -> list[list[int]]:
    """Counts by true label (rows) and by what was read."""
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predicted), 1)
    return counts.tolist()


@pytest.mark.parametrize("kind", ["folder", "model", "checkpoint"])
def test_a_saved_model_has_the_numbers_of_its_own_report_to_the_last_digit(
    kind: str, documents: dict[str, dict[str, Any]], runs: Runs
) -> None:
    own = manifest(runs.single(0))["test"]
    assert 0.5 < own["accuracy"] < 1  # else equal numbers would say little
    assert documents[kind]["test"] == own


def check_first_training(document: dict[str, Any], folder: Path, labels: Any, predicted: Any, accuracies: list[float]) -> None:
    """A document is of the first training of several, whose model is kept."""
    journal = [json.loads(line) for line in (folder / "trainings.jsonl").read_text().splitlines()[1:]]
    (first,) = [entry for entry in journal if entry["model"]]
    test = document["test"]
    assert test["accuracy"] == first["accuracy"] == accuracies[0]
    assert test["loss"] == first["loss"]
    assert test["matrix"] == matrix(labels, predicted, 4)
    assert len(set(accuracies)) > 1  # else it could be any of them


def test_the_model_that_several_seeds_keep_is_the_first_ones(documents: dict[str, dict[str, Any]], runs: Runs) -> None:
    folder = runs.seeds()
    with np.load(folder / "test_predictions.npz") as arrays:
        labels, predicted = arrays["labels"], arrays["predicted"][0]
    accuracies = [training["accuracy"] for training in manifest(folder)["seeds"]["trainings"]]
    check_first_training(documents["seeds"], folder, labels, predicted, accuracies)
    # Seed 0 is also the single run's, which has trained in the same way.
    assert documents["seeds"]["test"] == documents["folder"]["test"]


def test_the_model_that_a_search_keeps_is_the_winners_first(documents: dict[str, dict[str, Any]], runs: Runs) -> None:
    folder = runs.search()
    with np.load(folder / "test_predictions.npz") as arrays:
        labels, predicted = arrays["labels"], arrays["predicted"][0, 0]
    winner = manifest(folder)["final"]["winner"]
    journal = [json.loads(line) for line in (folder / "trainings.jsonl").read_text().splitlines()[1:]]
    (first,) = [entry for entry in journal if entry["model"]]
    assert first["seed"] == winner["seeds"][0]
    test = documents["search"]["test"]
    assert test["accuracy"] == first["accuracy"] == winner["accuracies"][0]
    assert test["loss"] == first["loss"]
    assert test["matrix"] == matrix(labels, predicted, 4)


def test_the_document_says_what_was_tested_on_what(made: Made) -> None:
    folder = made.named()
    done = called("evaluate", folder, "--json")
    document = json.loads(done.out)
    assert list(document) == ["schema_version", "command", "model", "data", "class_names", "test", "held_out", "notes"]
    assert (document["schema_version"], document["command"]) == (1, "evaluate")
    assert document["model"] == str(folder / "model.keras")
    assert document["data"] == "shades"
    assert document["class_names"] == list(SHADES)
    test = document["test"]
    assert test["total"] == 30
    assert test["accuracy"] == test["correct"] / 30 == sum(test["matrix"][i][i] for i in range(3)) / 30
    assert [row["support"] for row in test["classes"]] == [sum(row) for row in test["matrix"]]
    low, high = test["wilson95"]
    assert 0 <= low < test["accuracy"] <= high <= 1
    assert "Test accuracy" in done.err


def test_the_report_goes_to_the_output_and_quiet_leaves_one_line_of_it(made: Made) -> None:
    folder = made.named()
    accuracy = manifest(folder)["test"]["accuracy"]
    done = called("evaluate", folder)
    assert f"Test accuracy {accuracy:.2%}" in done.out
    assert f"Data   shades: {30} test images" in done.out
    assert done.err == ""
    (line,) = called("evaluate", folder, "--quiet").out.splitlines()
    assert line.startswith(f"Test accuracy {accuracy:.2%}")


def test_other_data_of_the_right_shape_is_tested_with_its_own_labels(runs: Runs, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "rotated")
    labels = data / "t10k-labels-idx1-ubyte"
    raw = labels.read_bytes()
    labels.write_bytes(raw[:8] + bytes((label + 1) % 4 for label in raw[8:]))
    folder = runs.single(0)
    own = manifest(folder)["test"]["matrix"]
    document = evaluated(folder, data=data)
    assert document["data"] == "rotated"
    assert document["test"]["matrix"] == [own[(row - 1) % 4] for row in range(4)]
    assert document["test"]["accuracy"] == sum(own[(row - 1) % 4][row] for row in range(4)) / 200


def test_of_data_without_test_images_those_that_were_held_out_stay_so(tmp_path: Path) -> None:
    """With its images changed alone the same are held out; with others nobody knows, and that is said."""
    arrays = dict(np.load(write_shades(tmp_path / "shades.npz", 8, 8)))
    images, labels = arrays["x_train"], arrays["y_train"]
    data, copy = tmp_path / "data.npz", tmp_path / "copy.npz"
    np.savez(data, images=images, labels=labels)
    called("train", "--data", data, "--hidden", "8", "--epochs", 1, "--output", tmp_path / "runs", "--quiet")
    (folder,) = (tmp_path / "runs").iterdir()
    assert "Data   data: 18 test images" in called("evaluate", folder, "--data", data, "--transpose").out
    np.savez(copy, images=255 - images, labels=labels)
    assert "Data   copy: 18 test images" in called("evaluate", folder, "--data", copy).out
    np.savez(copy, images=images[1:], labels=labels[1:])
    assert "Data   copy: 89 test images" in called("evaluate", folder, "--data", copy).out
    np.savez(data, images=images[1:], labels=labels[1:])
    out = " ".join(called("evaluate", folder, "--data", data).out.split())
    assert "Data data: 18 test images" in out
    assert "some may have been trained on" in out


def test_the_environments_data_is_tested_where_the_command_names_none(runs: Runs, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "others")
    folder = runs.single(0)
    assert json.loads(called("evaluate", folder, "--json").out)["data"] == "pictures"
    assert json.loads(called("evaluate", folder, "--json", MNIST_TUNER_DATA=str(data)).out)["data"] == "others"
    chosen = called("evaluate", folder, "--json", "--data", runs.data, MNIST_TUNER_DATA=str(data))
    assert json.loads(chosen.out)["data"] == "pictures"


def test_a_run_can_be_moved(runs: Runs, tmp_path: Path) -> None:
    moved = shutil.copytree(runs.single(0), tmp_path / "moved [to] here")
    assert evaluated(moved)["test"]["matrix"] == manifest(runs.single(0))["test"]["matrix"]


def flat() -> keras.Model:
    return keras.Sequential([keras.Input((784,)), keras.layers.Dense(10, activation="softmax")])


def with_channel() -> keras.Model:
    layers = [keras.layers.Conv2D(4, 5, strides=3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((28, 28, 1)), *layers, keras.layers.Softmax()])


def rescaling() -> keras.Model:
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    return keras.Sequential([keras.Input((28, 28)), *layers])


def functional() -> keras.Model:
    images = keras.Input((28, 28))
    hidden = keras.layers.Flatten()(images)
    hidden = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(keras.layers.Dense(16, activation="relu")(hidden)))
    return keras.Model(images, keras.layers.Dense(10, activation="softmax")(hidden))


@pytest.mark.parametrize("build", [flat, with_channel, rescaling, functional])
def test_a_model_of_another_program_has_the_accuracy_that_keras_gives_it(
    build: Callable[[], keras.Model], mnist: Dataset, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(3)
    model = build()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    shape = (-1, *model.inputs[0].shape[1:])
    scale = 1 if build is rescaling else 255
    train = mnist.train_images[:6400].astype(np.float32) / scale
    model.fit(train.reshape(shape), mnist.train_labels[:6400], batch_size=64, verbose=0)
    model.save(tmp_path / "mine.keras")
    test = mnist.test_images.astype(np.float32).reshape(shape) / scale
    loss, accuracy = model.evaluate(test, mnist.test_labels, batch_size=500, verbose=0)
    assert accuracy > 0.6  # far from chance: a wrong scale would be seen
    result = evaluated(tmp_path / "mine.keras")["test"]
    assert result["total"] == 10_000
    assert result["accuracy"] == pytest.approx(accuracy, abs=2e-4)  # two images may lie on the edge of float32
    assert result["loss"] == pytest.approx(loss, rel=1e-4)


def untrained(path: Path, *layers: keras.Layer, shape: tuple[int, ...] = (28, 28)) -> Path:
    keras.Sequential([keras.Input(shape), *layers]).save(path)
    return path


def refusal(path: Path, **options: Any) -> str:
    """With what a model is refused: one line."""
    with pytest.raises(InputError) as caught:
        evaluate(path, quiet=True, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 500
    return message


def test_a_model_that_does_not_fit_the_data_is_refused(made: Made, tmp_path: Path) -> None:
    layers = keras.layers
    small = untrained(tmp_path / "small.keras", layers.Flatten(), layers.Dense(10), shape=(9, 9))
    assert "takes inputs of the shape (9, 9): the images are 28 x 28" in refusal(small)
    two = untrained(tmp_path / "two.keras", layers.Flatten(), layers.Dense(2))
    assert "the model knows 2 classes, and the data has labels up to 9" in refusal(two)
    picture = untrained(tmp_path / "picture.keras", layers.Conv2D(1, 3), shape=(28, 28, 1))
    assert "no classifier of images" in refusal(picture)
    colour = untrained(tmp_path / "colour.keras", layers.Flatten(), layers.Dense(10), shape=(28, 28, 3))
    assert "(28, 28, 3)" in refusal(colour)
    assert "7 x 5" in refusal(tmp_path / "two.keras", data=made.shades())


def test_a_run_whose_own_data_has_gone_says_so_and_takes_other(runs: Runs, tmp_path: Path) -> None:
    folder = shutil.copytree(runs.single(0), tmp_path / "run")
    document = manifest(folder)
    document["config"]["data"] = str(tmp_path / "gone")
    (folder / "run.json").write_text(json.dumps(document))
    assert str(tmp_path / "gone") in refusal(folder)
    assert evaluated(folder, data=runs.data)["test"]["matrix"] == document["test"]["matrix"]


def test_what_is_no_model_is_refused_in_one_line(made: Made, runs: Runs, tmp_path: Path) -> None:
    whole = (made.named() / "model.keras").read_bytes()
    damaged = tmp_path / "damaged.keras"
    middle = len(whole) // 2
    for content in (b"", b"PK", whole[:middle], whole[:-30]):
        damaged.write_bytes(content)
        assert str(damaged) in refusal(damaged)
    damaged.write_bytes(whole[:middle] + bytes(2000) + whole[middle + 2000 :])
    # In a process of its own: h5py, which reads the weights, may crash at the end of one in which it has failed.
    (line,) = mnist_tuner("evaluate", damaged, code=2).stderr.splitlines()
    assert str(damaged) in line
    with zipfile.ZipFile(damaged, "w") as file:
        file.writestr("config.json", "[" * 100_000)
    assert str(damaged) in refusal(damaged)
    with zipfile.ZipFile(damaged, "w") as file:
        file.writestr("config.json", "{}")
    assert str(damaged) in refusal(damaged)
    assert "no such file or folder" in refusal(tmp_path / "none.keras")
    assert "expected a run's folder, a .keras file" in refusal(Path(__file__))
    (tmp_path / "empty").mkdir()
    assert "it has no run.json" in refusal(tmp_path / "empty")
    (checkpoint,) = (runs.single(0) / "checkpoints").iterdir()
    stray = shutil.copy(checkpoint, tmp_path / "stray.safetensors")
    assert "outside of a run's folder" in refusal(stray)
    unfinished = shutil.copytree(runs.single(0), tmp_path / "unfinished")
    (unfinished / "model.keras").unlink()
    assert "has not come to its end" in refusal(unfinished)
    (kept,) = (unfinished / "checkpoints").iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])
    assert str(kept) in refusal(kept)


def repack(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The same model with another config.json."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            after.writestr(name, content)
    return target


PLANTED = """
from pathlib import Path
Path({witness!r}).write_text("imported")
import keras
class Layer(keras.layers.Dense):
    def __init__(self, *args, **kwargs):
        Path({witness!r}).write_text("made")
        super().__init__(*args, **kwargs)
def function(x):
    Path({witness!r}).write_text("called")
    return x
"""


@pytest.mark.parametrize("place", ["layer", "activation", "initializer", "build", "model", "loss", "unregistered", "no class"])
def test_a_model_with_somebody_elses_code_is_refused_before_anything_of_it_is_imported(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = tmp_path / "witness"
    (tmp_path / "planted_here.py").write_text(PLANTED.format(witness=str(witness)))
    monkeypatch.syspath_prepend(tmp_path)
    sound = untrained(tmp_path / "sound.keras", keras.layers.Flatten(), keras.layers.Dense(10))
    foreign = {"module": "planted_here", "class_name": "Layer", "config": {"units": 10}, "registered_name": "Layer"}
    function = {"module": "planted_here", "class_name": "function", "config": "function", "registered_name": "function"}

    def change(config: dict[str, Any]) -> None:
        dense = config["config"]["layers"][-1]
        assert dense["class_name"] == "Dense"
        match place:
            case "layer":
                dense |= foreign
            case "activation":
                dense["config"]["activation"] = function
            case "initializer":
                dense["config"]["kernel_initializer"] = foreign
            case "build":
                dense["build_config"] = {"input_shape": foreign}
            case "model":
                config |= {"module": "planted_here", "class_name": "Layer", "registered_name": "Layer"}
            case "loss":
                config["compile_config"] = {"optimizer": "adam", "loss": function, "metrics": [foreign]}
            case "unregistered":
                dense |= {"registered_name": "planted_here>Layer", "class_name": "Layer"}
            case "no class":
                dense |= {"module": "planted_here", "class_name": "Layer", "registered_name": None}

    message = refusal(repack(sound, tmp_path / "foreign.keras", change))
    assert "planted_here" in message
    assert "only Keras's own layers are loaded" in message
    assert not witness.exists()
    assert "planted_here" not in sys.modules


def test_a_module_in_keras_name_is_not_imported_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = tmp_path / "witness"
    (tmp_path / "keras_planted.py").write_text(PLANTED.format(witness=str(witness)))
    monkeypatch.syspath_prepend(tmp_path)
    sound = untrained(tmp_path / "sound.keras", keras.layers.Flatten(), keras.layers.Dense(10))

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][-1] |= {"module": "keras_planted", "class_name": "Layer", "registered_name": "Layer"}

    refusal(repack(sound, tmp_path / "foreign.keras", change))
    assert not witness.exists()


def test_a_function_of_keras_that_is_no_layer_is_not_called(tmp_path: Path) -> None:
    """Keras's own functions can write files, too."""
    sound = untrained(tmp_path / "sound.keras", keras.layers.Flatten(), keras.layers.Dense(10))
    target = tmp_path / "written"

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][-1] |= {
            "module": "keras.utils",
            "class_name": "get_file",
            "config": {"origin": "file:///etc/hostname", "cache_dir": str(target)},
            "registered_name": "get_file",
        }

    refusal(repack(sound, tmp_path / "function.keras", change))
    assert not target.exists()


def test_a_lambda_layer_is_refused_even_where_keras_would_load_it(tmp_path: Path) -> None:
    doubled = untrained(tmp_path / "lambda.keras", keras.layers.Flatten(), keras.layers.Lambda(lambda x: 2 * x))
    assert "holds keras.layers.Lambda, which could run code" in refusal(doubled)
    keras.config.enable_unsafe_deserialization()
    try:
        assert "holds keras.layers.Lambda, which could run code" in refusal(doubled)
    finally:
        keras.config.disable_unsafe_deserialization() if hasattr(keras.config, "disable_unsafe_deserialization") else None


def test_the_command_line_refuses_with_code_2(made: Made, tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'}: no such file or folder" in refused("evaluate", tmp_path / "none")
    assert "7 x 5" in refused("evaluate", made.digits(), "--data", made.shades())
    assert "no such folder of data" in refused("evaluate", made.named(), "--data", tmp_path / "none")
    assert "MODEL" in refused("evaluate")


def test_the_embedded_digits_are_tested_where_nothing_is_known_of_a_model(made: Made, tmp_path: Path) -> None:
    alone = shutil.copy(made.digits() / "model.keras", tmp_path / "alone.keras")
    document = evaluated(alone)
    assert document["data"] == "MNIST" == load_dataset().name
    assert document["test"]["matrix"] == manifest(made.digits())["test"]["matrix"]


def test_a_document_that_would_fill_the_memory_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "large.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("config.json", "w", force_zip64=True) as config:
        for _ in range(20):
            config.write(b" " * 1_000_000)
    assert path.stat().st_size < 100_000
    assert "config.json unpacks to 20,000,000 bytes" in refusal(path)


def test_a_pipe_in_a_models_place_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.keras")
    assert "it is a pipe" in refusal(tmp_path / "model.keras")
