"""What is imported when, and by whom."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

import mnist_tuner
from tests.support.commands import python

PACKAGE = Path(mnist_tuner.__file__).parent
ORDER = ("errors", "lazy", "trainer", "startup", "runs", "options", "config", "mnist", "search")
ORDER += ("reports", "render", "saved", "runner", "cli")
"""The rooms; each may import those before it, and itself."""


def imports(path: Path) -> dict[str, int]:
    """What a file imports of the package, types included, each with the line: "mnist_tuner.a.b" for a module or a name."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name: node.lineno for name in names if name.startswith("mnist_tuner.")}
    return found


@pytest.mark.parametrize("room", ORDER)
def test_rooms_import_only_what_lies_below(room: str) -> None:
    allowed = {"_version", *ORDER[: ORDER.index(room) + 1]}
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{line} imports {name}"
        for path in list((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]
        for name, line in imports(path).items()
        if name.split(".")[1] not in allowed
    ]
    assert not wrong, f"{room} may import {', '.join(sorted(allowed))}:\n" + "\n".join(wrong)


def test_every_room_has_its_place() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__", "__main__", "_version"} == set(ORDER), "a room without a place in ORDER, or the other way round"


def modules() -> dict[str, set[str]]:
    """What each module imports of the package, wherever it does; a package is its ``__init__``."""
    paths = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, path in paths.items():
        found[name] = set()
        for asked in imports(path):
            package = asked.rpartition(".")[0]  # of a name, the module that it is in
            candidates = (asked, f"{asked}.__init__", package, f"{package}.__init__")
            found[name] |= {next(each for each in candidates if each in paths)} - {name}
    return found


def test_there_is_no_circle_of_imports() -> None:
    left = modules()
    while ends := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in ends:
            del left[name]
    circle = list(left)[:1]  # each of those that are left imports one of them
    while circle and circle[-1] not in circle[:-1]:
        circle.append(min(left[circle[-1]] & left.keys()))
    assert not left, "a circle: " + " imports ".join(circle[circle.index(circle[-1]) :])


def test_what_is_known_needs_nothing_that_draws() -> None:
    names = [f"mnist_tuner.reports.{path.stem}" for path in (PACKAGE / "reports").glob("[!_]*.py")]
    drawing = ("rich", "matplotlib", "jinja2", "PIL", "mnist_tuner.render")
    assert python(f"import sys, {', '.join(names)}; print([n for n in {drawing} if n in sys.modules])") == "[]\n"


def test_the_page_is_imported_without_what_it_takes_to_draw_it() -> None:
    drawing = ("matplotlib", "jinja2", "PIL")
    assert python(f"import sys, mnist_tuner.render.page; print([n for n in {drawing} if n in sys.modules])") == "[]\n"


@pytest.mark.parametrize("room", ["", ".trainer", ".mnist", ".search", ".runner"])
def test_a_packages_names_are_those_of_its_imports_and_every_one_is_there(room: str) -> None:
    package = importlib.import_module(f"mnist_tuner{room}")
    assert package.__all__ == sorted(package.__all__) == dir(package)
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Trainr'"):
        package.Trainr  # noqa: B018


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
    allowed = {
        "mnist_tuner",
        "keras",
        "numpy",
        "pydantic",
        "rich",
        "safetensors",
        "tensorboard",
        "tensorflow",
    } | sys.stdlib_module_names
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


def test_no_functions_code_is_longer_than_a_screen() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                code = node.body[1 if ast.get_docstring(node) else 0 :] or node.body
                lines = (code[-1].end_lineno or 0) - code[0].lineno + 1
                assert lines <= 60, f"{path.relative_to(PACKAGE.parent)}:{node.lineno} {node.name} has {lines} lines of code"
