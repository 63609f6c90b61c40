"""A small project of our name, which takes a moment to install."""

from __future__ import annotations

from pathlib import Path

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "small"
version = "1"
"""
MODULE = "ANSWER, Trainer = 42, None\n"

_BACKEND = """
import pathlib, tomllib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None, editable=False):
    project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    requires = "".join(f"Requires-Dist: {each}\\n" for each in project.get("dependencies", []))
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / wheel, "w") as file:
        info = f"{name}-{version}.dist-info"
        if editable:
            file.writestr(f"{name}.pth", str(pathlib.Path.cwd()))
        else:
            file.write("mnist_tuner.py")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n{requires}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr(f"{info}/RECORD", "")
    return wheel

def build_editable(folder, config_settings=None, metadata_directory=None):
    return build_wheel(folder, editable=True)
"""


def write_small_project(root: Path) -> None:
    """Writes it; hatchling would have to be fetched for each installation, so it builds itself."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "backend.py").write_text(_BACKEND)
    (root / "mnist_tuner.py").write_text(MODULE)
