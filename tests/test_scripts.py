"""The scripts set themselves up. A small project in the place of ours keeps the installations short."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import DEADLINE, ROOT, environment, python

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "small"
version = "1"
"""

BACKEND = """
import pathlib, tomllib, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    requires = "".join(f"Requires-Dist: {each}\\n" for each in project.get("dependencies", []))
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / wheel, "w") as file:
        info = f"{name}-{version}.dist-info"
        file.writestr(f"{name}.pth", str(pathlib.Path.cwd()))
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n{requires}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr(f"{info}/RECORD", "")
    return wheel
"""

SCRIPT = """#!/bin/sh
set -eu
. "$(dirname -- "$0")/environment.sh"
ensure_environment
exec "$python" -c 'import small; print(small.ANSWER)'
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A clone with a space in its path."""
    root = tmp_path / "a clone"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "environment.sh", root / "scripts")
    (root / "scripts" / "start").write_text(SCRIPT)
    (root / "scripts" / "start").chmod(0o755)
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "backend.py").write_text(BACKEND)  # setuptools would have to be fetched for each installation
    (root / "small.py").write_text("ANSWER = 42\n")
    return root


def start(root: Path, folder: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    script = root / "scripts" / "start"
    return subprocess.run([script], cwd=folder, capture_output=True, text=True, env=environment, timeout=DEADLINE, check=False)


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
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").write_text("#!/bin/sh\necho half-made\n")
    (project / ".venv" / "bin" / "python").chmod(0o755)
    lock = project / ".venv.lock"
    lock.mkdir()
    (lock / "pid").write_text("4194999")  # beyond any process number
    assert start(project).stdout == "42\n"


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
    answer = subprocess.run([python, "-c", "import small; print(small.ANSWER)"], capture_output=True, text=True, check=True)
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
