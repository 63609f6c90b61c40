"""The scripts set themselves up. A small project in the place of ours keeps the installations short."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.support.commands import DEADLINE, ROOT, environment, python
from tests.support.project import MODULE, PYPROJECT, write_small_project

SCRIPT = """set -eu
. "$(dirname -- "$0")/environment.sh"
ensure_environment
exec "$python" -c 'import mnist_tuner; print(mnist_tuner.ANSWER)'"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A clone with a space in its path."""
    root = tmp_path / "a clone"
    write_program(root / "scripts" / "start", SCRIPT)
    shutil.copy(ROOT / "scripts" / "environment.sh", root / "scripts")
    write_small_project(root)
    return root


def start(root: Path, folder: Path = Path("/"), **changes: str) -> subprocess.CompletedProcess[str]:
    dropped = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHON")
    env = {name: value for name, value in os.environ.items() if name not in dropped} | changes
    script = root / "scripts" / "start"
    return subprocess.run([script], cwd=folder, capture_output=True, text=True, env=env, timeout=DEADLINE, check=False)


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.slow
def test_the_first_start_installs_and_the_next_ones_only_when_something_changed(project: Path) -> None:
    first = start(project)
    assert (first.returncode, first.stdout) == (0, "42\n"), first.stderr
    assert "Installing" in first.stderr
    second = start(project, folder=project / "scripts")
    assert (second.returncode, second.stdout, second.stderr) == (0, "42\n", "")

    moved = project.rename(project.with_name("moved"))
    third = start(moved)
    assert (third.returncode, third.stdout) == (0, "42\n")
    assert "Installing" in third.stderr

    (moved / "pyproject.toml").write_text(PYPROJECT.replace('version = "1"', 'version = "2"'))
    assert "Installing" in start(moved).stderr
    assert not (moved / ".venv.lock").exists()


@pytest.mark.slow
def test_a_failed_installation_leaves_nothing_behind_and_one_that_was_killed_is_not_trusted(project: Path) -> None:
    broken = PYPROJECT.replace('version = "1"', 'version = "1"\ndependencies = ["absent @ file:///no/such/package"]')
    (project / "pyproject.toml").write_text(broken)
    failed = start(project)
    assert failed.returncode == 1
    assert "error: the installation failed" in failed.stderr
    assert not (project / ".venv").exists()
    assert not (project / ".venv.lock").exists()

    (project / "pyproject.toml").write_text(PYPROJECT)
    write_program(project / ".venv" / "bin" / "python", "echo half-made")
    lock = project / ".venv.lock"
    lock.mkdir()
    (lock / "pid").write_text("4194999")  # beyond any process number
    assert start(project).stdout == "42\n"


@pytest.mark.slow
def test_what_would_send_packages_elsewhere_or_fails_in_uv_does_not_keep_the_project_from_its_environment(
    project: Path, tmp_path: Path
) -> None:
    write_program(tmp_path / "programs" / "uv", "echo no such uv; exit 1")
    elsewhere = {name: str(tmp_path / "elsewhere") for name in ("PIP_TARGET", "PIP_PREFIX", "PYTHONHOME", "TMPDIR")}
    done = start(project, PATH=f"{tmp_path / 'programs'}:{os.environ['PATH']}", **elsewhere)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    assert "no such uv); pip is tried" in done.stderr
    assert f"TMPDIR is '{tmp_path / 'elsewhere'}'" in done.stderr
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_what_python_is_asked_for_is_taken_or_refused(project: Path, tmp_path: Path) -> None:
    old = write_program(tmp_path / "old", "echo 3.9")
    for given, is_a in ((old, "3.9"), (tmp_path / "missing", "cannot be run")):
        refused = start(project, PYTHON=str(given))
        expected = f"error: PYTHON is '{given}' ({is_a}): expected Python 3.11, 3.12 or 3.13; set it to one, or unset it\n"
        assert (refused.returncode, refused.stderr) == (2, expected)
        assert not (project / ".venv").exists()

    with_a_space = tmp_path / "a python"
    with_a_space.symlink_to(sys.executable)
    first, second = start(project, PYTHON=str(with_a_space)), start(project, PYTHON=str(with_a_space))
    assert (first.returncode, first.stdout, second.stderr) == (0, "42\n", ""), first.stderr
    other = write_program(tmp_path / "other", f'case "$*" in *base_prefix*) echo other;; *) exec "{sys.executable}" "$@";; esac')
    again = start(project, PYTHON=str(other))
    assert (again.returncode, "Installing mnist_tuner" in again.stderr) == (0, True)


@pytest.mark.slow
def test_an_installation_that_cannot_be_imported_or_reaches_no_network_is_said_to_be_so(project: Path) -> None:
    (project / "mnist_tuner.py").write_text("ANSWER = 42\n")
    done = start(project)
    assert (done.returncode, (project / ".venv").exists()) == (1, False)
    assert "has no attribute 'Trainer'" in done.stderr
    assert "cannot be imported" in done.stderr

    (project / "mnist_tuner.py").write_text(MODULE)
    (project / "pyproject.toml").write_text(PYPROJECT.replace('version = "1"', 'version = "1"\ndependencies = ["not-there"]'))
    nowhere = "http://127.0.0.1:9/simple"
    done = start(project, PIP_INDEX_URL=nowhere, PIP_RETRIES="0", UV_DEFAULT_INDEX=nowhere, UV_HTTP_RETRIES="0")
    assert (done.returncode, (project / ".venv").exists()) == (1, False)
    assert "The network, or the package index, may be out of reach" in done.stderr


def test_the_lower_bounds_are_those_of_all_packages() -> None:
    program = (
        '. "$0"; choose_environment 3.12 lowest; python=$1; tensorflow=tensorflow-cpu; requirements dev; echo "$environment"'
    )
    command = ["sh", "-c", program, ROOT / "scripts" / "environment.sh", sys.executable]
    env = environment(MNIST_TUNER_TENSORFLOW="tensorflow-cpu")
    *lowest, folder = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert Path(folder) == ROOT / ".venv-3.12-lowest"
    assert not [line for line in lowest if not re.fullmatch(r"[\w-]+(\[\w+\])?==[\d.]+", line)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {re.split(r"[>\[]", each)[0] for each in project["dependencies"]} - {"tensorflow"} | {
        "tensorflow-cpu",
        "tf2onnx",
        "pytest",
    }
    assert named <= {re.split(r"[=\[]", line)[0] for line in lowest}


API = """
import keras
from mnist_tuner import EarlyStopping, Trainer, Tuner, fit_keras_model, runner
from mnist_tuner.config import TrainConfig

reveal_type(Trainer(max_epochs=1, callbacks=[EarlyStopping("val_loss")]).callback_metrics)
reveal_type(TrainConfig(epochs=1).epochs)
reveal_type(Tuner(lambda hp: keras.Sequential(), workers=1).ranked()[0].scores)
reveal_type(fit_keras_model)
reveal_type(runner.train)
Trainer(max_epochs="five")
"""


@pytest.mark.slow
def test_an_editor_follows_what_is_installed(tmp_path: Path) -> None:
    (tmp_path / "uses.py").write_text(API)
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "uses.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(), timeout=DEADLINE, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    types = [each["message"] for each in found if each["severity"] == "information"]
    assert len(types) == API.count("reveal_type"), done.stdout
    assert not [message for message in types if "Unknown" in message.partition(" is ")[2].partition("(")[0]]
    assert types[0].endswith('is "dict[str, float]"')
    assert types[1].endswith('is "int"')
    (error,) = [each["message"] for each in found if each["severity"] == "error"]
    assert '"max_epochs"' in error


@pytest.mark.slow
def test_a_wheel_holds_the_package_as_it_is_and_what_was_built_before_does_not_count(tmp_path: Path) -> None:
    def files(root: Path) -> set[str]:
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"}

    root = tmp_path / "source"
    shutil.copytree(ROOT / "mnist_tuner", root / "mnist_tuner", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, root)
    stale = root / "build" / "lib" / "mnist_tuner" / "stale.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, root]
    subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    assert held == {f"mnist_tuner/{name}" for name in files(root / "mnist_tuner")}


@pytest.mark.slow
def test_the_benchmark_of_the_searchs_machinery_measures_it_and_dask_alone() -> None:
    command = [sys.executable, ROOT / "scripts" / "benchmarks", "child", "benchmarks.overhead.instant_search", "20"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["whole_ms"] > 0
    assert measured["dask_ms"] > 0


@pytest.mark.parametrize("path", sorted((ROOT / "scripts" / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_what_the_benchmarks_use_of_the_package_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mnist_tuner"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}"), alias.name


ENSURE = """
import sys
sys.path.insert(0, SCRIPTS)
from pathlib import Path
from benchmarks.measure import ensure_environment
print(ensure_environment(Path(FOLDER), ["--editable", ROOT]))
"""


@pytest.mark.slow
def test_the_peers_have_an_environment_of_their_own_which_is_made_once_or_not_at_all(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "peers"
    program = ENSURE.replace("SCRIPTS", repr(str(ROOT / "scripts"))).replace("FOLDER", repr(str(folder)))

    def ensure() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program.replace("ROOT", repr(str(project)))]
        return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=DEADLINE, check=False)

    first, second = ensure(), ensure()
    assert ("Installing" in first.stderr, "Installing" in second.stderr) == (True, False)
    python = first.stdout.strip()
    assert second.stdout.strip() == python == str(folder / "bin" / "python")
    answer = subprocess.run(
        [python, "-Pc", "import mnist_tuner; print(mnist_tuner.ANSWER)"], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "42\n"

    (folder / "stamp").unlink()  # as a killed installation leaves it: it is made anew, and here that fails
    (project / "pyproject.toml").write_text(PYPROJECT + 'dependencies = ["absent @ file:///no/such/package"]\n')
    failed = ensure()
    assert failed.returncode == 1
    assert "error: the installation failed" in failed.stderr
    assert not folder.exists()


def test_the_benchmarks_table_can_be_pasted_into_the_readme() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(ROOT / "scripts")!r})
from benchmarks.baseline import markdown
print("\\n".join(markdown({{"(a)": {{"fit_s": 17.94, "command_s": 23.66, "peak_mb": 1708.6, "accuracy": 0.97291}}}})))
"""
    table = python(program).splitlines()
    assert table[-1] == "| (a) | 17.9 s | 23.7 s | 1,709 MB | 97.29 % |"
    assert "\n".join(table[:2]) in (ROOT / "README.md").read_text()
