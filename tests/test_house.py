"""What is imported when, and by whom."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import mnist_tuner
from tests.support.commands import python

PACKAGE = Path(mnist_tuner.__file__).parent
ORDER = ("errors", "trainer", "startup", "runs", "config", "mnist", "search", "reports", "render", "saved", "runner", "cli")
"""The rooms; each may import those before it, and itself."""


def imports(path: Path) -> set[str]:
    """The rooms of the house that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mnist_tuner"):
            rest = node.module.split(".")[1:]
            names |= {rest[0]} if rest else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mnist_tuner.")}
    return names


@pytest.mark.parametrize("room", ORDER)
def test_rooms_import_only_what_lies_below(room: str) -> None:
    allowed = {"_version", *ORDER[: ORDER.index(room) + 1]}
    for path in list((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]:
        assert imports(path) <= allowed, path


def test_every_room_has_its_place() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__", "__main__", "_version"} == set(ORDER)


def modules() -> dict[str, set[str]]:
    """What each module of the package imports of the package, wherever it does, types included."""
    paths = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, path in paths.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mnist_tuner"):
                asked = {f"{node.module}.{alias.name}" for alias in node.names}
                packages = f"{node.module}.__init__"
                found[name] |= {each for each in asked if each in paths} or {packages if packages in paths else node.module}
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names if alias.name in paths}
        found[name] -= {name}
    return found


def test_there_is_no_circle_of_imports() -> None:
    left = modules()
    while ends := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in ends:
            del left[name]
    assert left == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "mnist_tuner",
        "mnist_tuner.cli",
        "mnist_tuner.mnist.data",
        "mnist_tuner.trainer",
        "mnist_tuner.runner.training",
        "mnist_tuner.runner.searching",
        "mnist_tuner.runner.seeds",
        "mnist_tuner.runner.reporting",
        "mnist_tuner.reports.stored",
        "mnist_tuner.render.html",
        "mnist_tuner.render.figures",
        "mnist_tuner.search",
        "mnist_tuner.search.worker",
    ],
)
def test_importing_does_not_load_tensorflow(module: str) -> None:
    assert python(f"import sys, {module}; print('tensorflow' in sys.modules or 'keras' in sys.modules)") == "False\n"


def test_the_trainer_needs_few_packages() -> None:
    allowed = {"mnist_tuner", "keras", "numpy", "rich", "safetensors", "tensorboard", "tensorflow"} | sys.stdlib_module_names
    allowed |= {"IPython"}  # in a notebook it is there
    for path in (PACKAGE / "trainer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert {name.partition(".")[0] for name in names} <= allowed, path


@pytest.mark.slow
def test_the_library_sets_no_global_state_at_import() -> None:
    program = """
import random, keras, numpy as np, tensorflow as tf
def state():
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    return random.getstate(), np.random.get_state()[1].tolist(), threads, keras.config.dtype_policy().name
before = state()
import mnist_tuner
for name in mnist_tuner.__all__:
    getattr(mnist_tuner, name)
print(state() == before)
"""
    assert python(program) == "True\n"


@pytest.mark.slow
def test_another_keras_backend_is_an_import_error_in_one_line() -> None:
    program = """
import mnist_tuner
try:
    mnist_tuner.Trainer
except ImportError as error:
    print(error)
"""
    assert "KERAS_BACKEND is 'jax': unset it" in python(program, KERAS_BACKEND="jax")


LOADED = "import sys; print(sorted({'sklearn', 'matplotlib', 'IPython'} & set(sys.modules)))"


@pytest.mark.slow
def test_the_commands_keep_optional_packages_out_while_keras_loads(tmp_path: Path) -> None:
    for name in ("sklearn", "matplotlib", "IPython"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    path = str(tmp_path)
    # A plain import of Keras does load one that is there; otherwise this test would show nothing.
    assert python(f"import keras; {LOADED}", PYTHONPATH=path) != "[]\n"
    start = "from mnist_tuner.startup import load_tensorflow; load_tensorflow(1)"
    assert python(f"{start}; {LOADED}", PYTHONPATH=path) == "[]\n"
    let_in = python(f"{start}; import sklearn, matplotlib, IPython; {LOADED}", PYTHONPATH=path)
    assert let_in == "['IPython', 'matplotlib', 'sklearn']\n"
