"""The command export: each format is loaded by its own runtime, in a process that knows nothing of mnist_tuner."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import pytest

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.data import Dataset, load_dataset
from mnist_tuner.reports.statistics import wilson_interval
from mnist_tuner.runner import export
from mnist_tuner.saved import export as exporting
from tests.support.called import SHADES, Made, called, refused
from tests.support.commands import DEADLINE, environment
from tests.support.runs import Runs

pytestmark = pytest.mark.slow

ENDINGS = {"keras": ".keras", "savedmodel": "", "onnx": ".onnx", "litert": ".tflite"}

READERS = {
    "keras": """
import keras
assert keras.config.backend() == "tensorflow"
model = keras.models.load_model(path)
assert model.input_shape == (None, *images.shape[1:]) and model.inputs[0].dtype == "uint8"
read = lambda batch: model.predict_on_batch(batch)
""",
    "savedmodel": """
import tensorflow as tf
loaded = tf.saved_model.load(path)
signature = loaded.signatures["serving_default"]
(given,) = signature.structured_input_signature[1].values()
assert given.dtype == tf.uint8 and given.shape.as_list() == [None, *images.shape[1:]], given
def read(batch):
    (served,) = signature(**{given.name: tf.constant(batch)}).values()
    called = loaded.serve(tf.constant(batch)).numpy()
    assert (served.numpy() == called).all()
    return called
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
(given,), (wanted,) = session.get_inputs(), session.get_outputs()
assert given.type == "tensor(uint8)" and wanted.type == "tensor(float)", (given.type, wanted.type)
assert list(given.shape[1:]) == list(images.shape[1:]) and not isinstance(given.shape[0], int), given.shape
read = lambda batch: session.run(None, {given.name: batch})[0]
assert "tensorflow" not in sys.modules
""",
    "litert": """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(path)
(given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
assert given["dtype"] == np.uint8 and wanted["dtype"] == np.float32
assert given["shape_signature"].tolist() == [-1, *images.shape[1:]], given["shape_signature"]
def read(batch):
    interpreter.resize_tensor_input(given["index"], batch.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], batch)
    interpreter.invoke()
    return interpreter.get_tensor(wanted["index"]).copy()
assert "tensorflow" not in sys.modules
""",
}
LOADING = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "mnist_tuner":
            raise AssertionError("it asked for mnist_tuner")
sys.meta_path.insert(0, Absent())
import numpy as np
path, source, target = sys.argv[1:]
images = np.load(source)
READER
whole = np.concatenate([read(images[i : i + 2500]) for i in range(0, len(images), 2500)])
one = read(images[:1])
assert one.shape == (1, whole.shape[1])
np.savez(target, whole=whole, one=one)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Finished runs."""
    return Made(tmp_path_factory)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Finished runs."""
    return Runs(tmp_path_factory)


class Exported(NamedTuple):
    """An exported model: where it is, and what the command said."""

    path: Path
    document: dict[str, Any]


@pytest.fixture(scope="module")
def exported(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """The net that reads MNIST, in all formats."""
    folder = tmp_path_factory.mktemp("exported")
    found = {}
    for kind in ENDINGS:
        path = folder / "new" / f"digits{ENDINGS[kind]}"
        found[kind] = Exported(
            path, json.loads(called("export", made.digits(), "--format", kind, "--output", path, "--json").out)
        )
    return found


def read_elsewhere(kind: str, path: Path, images: npt.NDArray[np.uint8], folder: Path) -> npt.NDArray[np.float32]:
    """What the format's own runtime makes of images, in another process, all at once and one alone."""
    np.save(folder / "images.npy", images)
    program = LOADING.replace("READER", READERS[kind])
    command = [sys.executable, "-c", program, str(path), str(folder / "images.npy"), str(folder / "read.npz")]
    quiet = environment(TF_CPP_MIN_LOG_LEVEL="3", PYTHONSAFEPATH="1")
    done = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "read.npz") as arrays:
        whole, one = arrays["whole"], arrays["one"]
    np.testing.assert_allclose(one[0], whole[0], atol=1e-6)
    return whole  # type: ignore[no-any-return]


def metadata_in(kind: str, path: Path) -> dict[str, Any]:
    """What is known of the model, from the place that its format has for that."""
    match kind:
        case "savedmodel":
            text = (path / "assets.extra" / "mnist_tuner.json").read_text(encoding="utf-8")
        case "onnx":
            import onnx

            graph = onnx.load(path)
            onnx.checker.check_model(graph)
            text = {entry.key: entry.value for entry in graph.metadata_props}["mnist_tuner"]
        case _:  # a .keras file is a zip file, and LiteRT's files may have one at their end
            with zipfile.ZipFile(path) as file:
                text = file.read("mnist_tuner.json").decode()
    document: dict[str, Any] = json.loads(text)
    return document


@pytest.mark.parametrize("kind", ENDINGS)
def test_the_formats_own_runtime_reads_all_ten_thousand_digits_as_the_run_did(
    kind: str, exported: dict[str, Exported], made: Made, mnist: Dataset, tmp_path: Path
) -> None:
    read = read_elsewhere(kind, exported[kind].path, mnist.test_images, tmp_path)
    with np.load(made.digits() / "test_predictions.npz") as arrays:
        predicted, probabilities = arrays["predicted"], arrays["probabilities"]
    assert read.dtype == np.float32
    assert read.shape == (10_000, 10)
    np.testing.assert_array_equal(read.argmax(1), predicted)
    np.testing.assert_allclose(read, probabilities, atol=2e-5)
    np.testing.assert_allclose(read.sum(axis=1, dtype=np.float64), 1, atol=1e-5)
    assert (read >= 0).all()
    assert len(np.unique(predicted)) == 10


@pytest.mark.parametrize("kind", ENDINGS)
def test_what_is_known_of_the_model_is_in_the_place_that_its_format_has_for_that(
    kind: str, exported: dict[str, Exported], made: Made
) -> None:
    path, document = exported[kind]
    assert list(document) == ["schema_version", "command", "format", "path", "metadata"]
    assert (document["schema_version"], document["command"], document["format"]) == (1, "export", kind)
    assert document["path"] == str(path)
    own = json.loads((made.digits() / "run.json").read_text())["test"]
    found = metadata_in(kind, path)
    assert found == document["metadata"]
    assert found["classes"] == 10
    assert found["class_names"] == [str(digit) for digit in range(10)]
    assert found["seed"] == 4
    assert found["accuracy"] == own["accuracy"] > 0.9
    assert found["interval95"] == own["wilson95"]
    assert found["data"] == "MNIST"
    assert "uint8 (n, 28, 28)" in found["input"]
    assert "float32 (n, 10)" in found["output"]


def test_nothing_but_the_model_is_left(exported: dict[str, Exported]) -> None:
    (folder,) = {each.path.parent for each in exported.values()}
    assert {path.name for path in folder.iterdir()} == {f"digits{ending}" for ending in ENDINGS.values()}


@pytest.mark.parametrize("kind", ENDINGS)
def test_other_shapes_classes_and_names_go_with_the_model(kind: str, made: Made, tmp_path: Path) -> None:
    folder = made.named()
    path = tmp_path / f"shades{ENDINGS[kind]}"
    done = called("export", folder, "--format", kind, "--output", path)
    assert done.out.split() == f"{path}: {kind}, uint8 (n, 7, 5) to 3 probabilities".split()
    assert done.err == ""
    images = load_dataset(made.shades()).test_images
    read = read_elsewhere(kind, path, images, tmp_path) if kind in ("onnx", "litert") else read_here(kind, path, images)
    with np.load(folder / "test_predictions.npz") as arrays:
        np.testing.assert_allclose(read, arrays["probabilities"], atol=1e-6)
    assert metadata_in(kind, path)["class_names"] == list(SHADES)


def read_here(kind: str, path: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    import tensorflow as tf

    if kind == "keras":
        return np.asarray(keras.models.load_model(path)(images))
    loaded = tf.saved_model.load(path)  # its weights live as long as it
    return np.asarray(loaded.serve(tf.constant(images)))


def test_by_default_it_lies_beside_the_model_and_quiet_says_only_where(made: Made, tmp_path: Path) -> None:
    model = tmp_path / "some.keras"
    model.write_bytes((made.digits() / "model.keras").read_bytes())
    place = tmp_path / "export-keras.keras"
    assert called("export", model, "--quiet").out == f"{place}\n"
    found = metadata_in("keras", place)
    assert (found["seed"], found["accuracy"], found["interval95"], found["data"]) == (None, None, None, None)
    assert found["classes"] == 10
    # What was exported is a model like any other: it can be tested and exported again.
    test = json.loads(called("evaluate", place, "--json").out)["test"]
    assert test["matrix"] == json.loads((made.digits() / "run.json").read_text())["test"]["matrix"]
    called("export", place, "--output", tmp_path / "again.keras")


def test_a_run_of_several_seeds_says_which_of_them_it_is_and_how_good_that_one_is(runs: Runs, tmp_path: Path) -> None:
    document = export(runs.seeds(), output=tmp_path / "seeds.keras", quiet=True)
    seeds = json.loads((runs.seeds() / "run.json").read_text())["seeds"]
    assert document["metadata"]["seed"] == seeds["trainings"][0]["seed"] == 0
    accuracy = seeds["trainings"][0]["accuracy"]
    assert document["metadata"]["accuracy"] == accuracy != seeds["mean"]
    assert document["metadata"]["interval95"] == list(wilson_interval(round(200 * accuracy), 200))


def test_a_checkpoint_is_exported_as_the_model_is(runs: Runs, tmp_path: Path) -> None:
    (checkpoint,) = (runs.single(0) / "checkpoints").iterdir()
    export(checkpoint, output=tmp_path / "checkpoint.keras", quiet=True)
    images = load_dataset(runs.data).test_images
    read = read_here("keras", tmp_path / "checkpoint.keras", images)
    with np.load(runs.single(0) / "test_predictions.npz") as arrays:
        np.testing.assert_allclose(read, arrays["probabilities"], atol=1e-6)


def test_the_softmax_of_another_programs_model_is_not_taken_twice(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Flatten(), keras.layers.Dense(5, activation="softmax")]
    model = keras.Sequential([keras.Input((9, 4, 1)), *layers])
    model.save(tmp_path / "mine.keras")
    export(tmp_path / "mine.keras", output=tmp_path / "exported.keras", quiet=True)
    images = np.random.default_rng(1).integers(0, 256, (20, 9, 4)).astype(np.uint8)
    wanted = np.asarray(model(images[..., None].astype(np.float32) / 255))
    np.testing.assert_allclose(read_here("keras", tmp_path / "exported.keras", images), wanted, atol=1e-6)


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        export(path, quiet=True, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("kind", ENDINGS)
def test_what_stands_in_its_place_is_not_written_over(kind: str, made: Made, tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("mine")
    folder.mkdir()
    (folder / "mine").write_text("mine")
    for place in (file, folder):
        assert f"{place}: exists already" in refusal(made.named(), kind=kind, output=place)
    assert file.read_text() == "mine" == (folder / "mine").read_text()
    below = refusal(made.named(), kind=kind, output=file / "below")
    assert f"{file / 'below'}: cannot be written" in below


WITHOUT = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {names!r} else super().find_spec(name, path, target)
sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
from pathlib import Path
from mnist_tuner.runner import export
for kind in ("onnx", "litert"):
    try:
        export(Path({run!r}), kind=kind, output=Path({folder!r}, kind))
    except ValueError as error:
        print(type(error).__name__, error)
print("tensorflow" in sys.modules)
"""


def test_a_missing_package_is_named_before_anything_is_loaded(made: Made, tmp_path: Path) -> None:
    program = WITHOUT.format(names={"tf2onnx", "ai_edge_litert"}, run=str(made.named()), folder=str(tmp_path))
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert done.stdout.splitlines() == [
        f"InputError --format onnx needs further packages: {shlex.quote(sys.executable)} -m pip install onnx tf2onnx",
        f"InputError --format litert needs further packages: {shlex.quote(sys.executable)} -m pip install ai-edge-litert",
        "False",
    ]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_refuses_with_code_2(made: Made, tmp_path: Path) -> None:
    message = refused("export", made.named(), "--format", "pickle")
    assert "--format is 'pickle': expected keras, savedmodel, onnx or litert" in message
    assert "no such file or folder" in refused("export", tmp_path / "none")
    sizes = tmp_path / "sizes.keras"
    keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)]).save(sizes)
    assert "takes inputs of the shape (7,): expected images" in refused("export", sizes)
    assert tuple(ENDINGS) == exporting.FORMATS
