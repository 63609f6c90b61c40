"""Loading TensorFlow and matplotlib in a process of our own: what nobody asks for waits until somebody does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mnist_tuner.startup import compile_cache, is_tried
from mnist_tuner.trainer.backend import installed_version
from tests.support.commands import python, tried

pytestmark = pytest.mark.slow


def test_tensorflow_is_known_by_each_of_its_packages_and_only_the_tried_release_has_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for package, release, known in (
        ("tensorflow_cpu", "2.19.1", False),
        ("tensorflow", "2.20.0", False),
        ("tf_nightly", "2.21.1", True),
    ):
        info = tmp_path / release / f"{package}-{release}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {release}\n")
        monkeypatch.setattr(sys, "path", [str(info.parent)])
        assert (installed_version("tensorflow"), is_tried(), compile_cache() is not None) == (release, known, known)


DEFERRED = """
import sys
held = ["tensorflow._api.v2." + name for name in ("compat", "feature_column", "lite", "test", "tpu")]
held += ["tensorflow.lite.python", "tensorflow.python.feature_column", "tensorflow.python.keras", "scipy"]
def loaded():
    return [name for name in held if name in sys.modules]
"""


@tried
def test_a_training_does_not_load_what_it_does_not_ask_for_and_reads_the_same(tmp_path: Path, small_dataset_folder: Path) -> None:
    arguments = ["train", "--data", str(small_dataset_folder), "--epochs", "2", "--val-fraction", "0.2", "--quiet"]
    program = f"""
{DEFERRED}
from mnist_tuner.cli import app
app([*{arguments}, "--output", sys.argv[1] if sys.argv[1:] else OUTPUT], standalone_mode=False)
print(loaded())
"""
    ours = python(program.replace("OUTPUT", repr(str(tmp_path / "ours"))))
    assert ours.splitlines()[-1] == "[]"
    plain = python("import tensorflow\n" + program.replace("OUTPUT", repr(str(tmp_path / "plain"))))
    assert "scipy" in plain.splitlines()[-1]  # otherwise this test would show nothing
    for name in ("test_predictions.npz", "metrics.csv"):
        one, other = (next((tmp_path / which).glob(f"*/{name}")).read_bytes() for which in ("ours", "plain"))
        assert one == other, name


LET_IN = """
import threading
from pathlib import Path
from mnist_tuner.startup import load_tensorflow
load_tensorflow(1)
import keras, numpy as np, tensorflow as tf
assert loaded() == []

# From threads, all at once.
start, found = threading.Barrier(6), {}
def ask(name, reach):
    start.wait()
    try:
        found[name] = reach()
    except BaseException as error:
        found[name] = error
asked = {
    "compat": lambda: tf.compat.v1.placeholder_with_default([1.0], [1]).numpy().tolist(),
    "lite": lambda: tf.lite.Optimize.DEFAULT.name,
    "column": lambda: tf.feature_column.numeric_column("width").key,
    "tpu": lambda: tf.tpu.XLAOptions().use_spmd_for_xla_partitioning,
    "test": lambda: issubclass(tf.test.TestCase, object),
    "cell": lambda: tf.nn.RNNCellDropoutWrapper.__name__,
}
threads = [threading.Thread(target=ask, args=each) for each in asked.items()]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
import tensorflow.compat.v1 as v1
from tensorflow.python.keras.layers import Dense
assert v1.nn.relu is tf.compat.v1.nn.relu and tf.__internal__.feature_column and issubclass(tf.nn.RNNCellDeviceWrapper, object)
print(json.dumps({name: str(value) for name, value in sorted(found.items())}))
"""


@tried
def test_what_is_asked_for_is_let_in_also_by_threads_at_once() -> None:
    found = json.loads(python(f"import json\n{DEFERRED}{LET_IN}"))
    assert found == {
        "cell": "DropoutWrapper",
        "column": "width",
        "compat": "[1.0]",
        "lite": "DEFAULT",
        "test": "True",
        "tpu": "True",
    }


USED = """
from pathlib import Path
from mnist_tuner.startup import load_tensorflow
load_tensorflow(1)
import keras, numpy as np, tensorflow as tf
from mnist_tuner import Trainer
from mnist_tuner.runner import export

# A model of one's own, in whose traced step the old interface is asked for.
keras.utils.set_random_seed(0)
images = np.arange(4 * 35, dtype=np.uint8).reshape(4, 7, 5)
model = keras.Sequential([keras.Input((7, 5)), keras.layers.Flatten(), keras.layers.Dense(3)])
class Own(keras.Model):
    def call(self, x):
        assert isinstance(tf.nn.RNNCellResidualWrapper, type)
        return tf.compat.v1.nn.relu(model(x))
own = Own()
own.compile(loss="mse")
assert loaded() == []
Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False).fit(
    own, [(tf.constant(images, tf.float32) / 255, tf.zeros((4, 3)))]
)
assert "tensorflow.python.keras" in loaded()
keras.backend.clear_session()

# Weights in HDF5, and each format of export.
outputs = model(images / 255).numpy()
model.save_weights("own.weights.h5")
model.set_weights([0 * value for value in model.get_weights()])
model.load_weights("own.weights.h5")
assert (model(images / 255).numpy() == outputs).all()
model.save("own.keras")
wanted = np.asarray(keras.ops.softmax(outputs))
for kind in ("savedmodel", "onnx", "litert"):
    export(Path("own.keras"), kind=kind, output=Path(kind), quiet=True)
interpreter = tf.lite.Interpreter("litert")
interpreter.resize_tensor_input(0, images.shape)
interpreter.allocate_tensors()
interpreter.set_tensor(0, images)
interpreter.invoke()
saved = tf.saved_model.load("savedmodel")
for read in saved.serve(images), interpreter.get_tensor(interpreter.get_output_details()[0]["index"]):
    assert np.allclose(read, wanted, atol=1e-6), (read, wanted)
try:
    tf.no_such_thing
except AttributeError as error:
    print(error)
"""


@tried
def test_the_old_interface_in_a_traced_step_and_each_format_of_export_work(tmp_path: Path) -> None:
    said = python(f"import os\nos.chdir({str(tmp_path)!r})\n{DEFERRED}{USED}")
    assert said.splitlines()[-1] == "module 'tensorflow' has no attribute 'no_such_thing'"


OLD_MODEL = """
import tensorflow as tf
from tensorflow.python.keras.optimizer_v2.adam import Adam
module = tf.Module()
module.weight, module.optimizer = tf.Variable([1.0, 2.0]), Adam(0.5)
module.optimizer.apply_gradients([(tf.constant([1.0, 1.0]), module.weight)])
tf.saved_model.save(module, PATH)
"""


@tried
def test_a_saved_model_of_old_is_read_with_its_optimizer(tmp_path: Path) -> None:
    python(OLD_MODEL.replace("PATH", repr(str(tmp_path / "old"))))
    program = f"""
{DEFERRED}
from mnist_tuner.startup import load_tensorflow
load_tensorflow(1)
import tensorflow as tf
assert loaded() == []
module = tf.saved_model.load({str(tmp_path / "old")!r})
print(module.weight.numpy().round(4).tolist(), module.optimizer.get_slot_names())
"""
    assert python(program) == "[0.5, 1.5] ['m', 'v']\n"


DRAWN = """
import hashlib
from mnist_tuner.render import page
page.load_drawing()
page._loading.join()
from matplotlib.artist import Artist, kwdoc
from matplotlib.lines import Line2D
from mnist_tuner.render.drawing import Drawing, INK, key, sheet, style
class Own(Line2D):
    def set_own(self, own): pass
with style():
    figure, (axes,) = sheet("0", [40], [key("0", INK)])
    axes.add_line(Own([0, 1], [0, 1])).set(color=INK)
drawing = Drawing("line", "", "", figure)
print(hashlib.sha256(drawing.png + drawing.svg.encode()).hexdigest())
print("alpha" in kwdoc(Artist), "alpha" in (Line2D.set.__doc__ or ""))
"""


def test_figures_are_the_same_without_the_docstrings_that_matplotlib_composes() -> None:
    ours, plain = python(DRAWN).split(), python("import matplotlib.figure\n" + DRAWN).split()
    assert ours[0] == plain[0]
    assert (ours[1:], plain[1:]) == (["True", "False"], ["True", "True"])


@pytest.mark.parametrize("begin", ["mnist_tuner.render.page.load_drawing", "mnist_tuner.search.loading.begin_loading"])
def test_a_process_that_ends_while_a_thread_imports_waits_for_it(begin: str) -> None:
    """The interpreter would crash now and then."""
    module, _, name = begin.rpartition(".")
    program = f"import atexit, {module} as module\natexit.register(lambda: print(module._loading.is_alive()))\nmodule.{name}()"
    assert python(program) == "False\n"
