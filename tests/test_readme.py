"""The READMEs: each command and each piece of Python in them is run as it stands, and what they point to is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_tuner.mnist.data import Dataset
from tests.support.commands import DEADLINE, ROOT, environment

READMES = ["README.md", "scripts/README.md"]
READMES += [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("mnist_tuner/*/README.md"))]
PAGES = [*READMES, "CONTRIBUTING.md", "CHANGELOG.md"]
RUN = ("python", "sh")
SHOWN = ("text", "console")
"""What is printed, and what takes more than one machine."""


def blocks(page: str) -> list[tuple[str, int, str]]:
    """The fenced blocks: the kind, the line that the content begins in, the content."""
    text = (ROOT / page).read_text()
    found = re.finditer(r"^```(.*)\n((?:.*\n)*?)^```$", text, re.MULTILINE)
    return [(match[1], text[: match.start(2)].count("\n") + 1, match[2]) for match in found]


def program(page: str) -> str:
    """All that a README has somebody do, as one program: its lines have the README's numbers."""
    lines = [""] * len((ROOT / page).read_text().splitlines())
    for kind, number, content in blocks(page):
        if kind == "python":
            lines[number - 1 : number - 1 + content.count("\n")] = content.splitlines()
        elif kind == "sh":
            lines[number - 1] = f"__import__('subprocess').run(['/bin/sh', '-eu', '-c', {content!r}], check=True)"
    return "\n".join(lines) + "\n"


@pytest.fixture
def clone(tmp_path: Path, mnist: Dataset, write_idx: Callable[..., Path]) -> Path:
    """A clone that is set up already, with few digits, few tests and some pictures of somebody's."""
    root = tmp_path / "clone"
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "mnist_tuner").symlink_to(ROOT / "mnist_tuner")
    (root / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "reports" / "test_search.py", root / "tests")
    (root / ".venv" / "bin").mkdir(parents=True)
    python = root / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    stamp = f'. "$0"; stamp_text dev >{shlex.quote(str(root))}/.venv/stamp-dev'
    subprocess.run(["/bin/sh", "-euc", stamp, root / "scripts" / "environment.sh"], check=True)
    for folder, first in (("digits", 0), ("other-digits", 500)):
        (root / folder).mkdir()
        for part, images, labels, count in (
            ("train", mnist.train_images, mnist.train_labels, 400),
            ("t10k", mnist.test_images, mnist.test_labels, 200),
        ):
            write_idx(root / folder, f"{part}-images-idx3-ubyte", images[first : first + count])
            write_idx(root / folder, f"{part}-labels-idx1-ubyte", labels[first : first + count])
    for picture, image in zip(("photo.jpg", "scans/a.png", "more/b.png"), mnist.test_images, strict=False):
        (root / picture).parent.mkdir(exist_ok=True)
        Image.fromarray(255 - np.kron(image, np.ones((4, 4), np.uint8))).save(root / picture)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("page", READMES)
def test_all_that_a_readme_says_to_do_can_be_done(page: str, clone: Path) -> None:
    (clone / "readme.py").write_text(program(page))
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    few = environment(PATH=path, PYTHONPATH=str(ROOT), MNIST_TUNER_DATA=str(clone / "digits"))
    done = subprocess.run(
        [sys.executable, "readme.py"], cwd=clone, capture_output=True, text=True, env=few, timeout=2 * DEADLINE, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("page", PAGES)
def test_every_fenced_block_is_run_or_shows_what_is_printed(page: str) -> None:
    kinds = {kind for kind, _, _ in blocks(page)}
    assert kinds <= {*RUN, *SHOWN}
    assert (ROOT / page).read_text().count("```") == 2 * len(blocks(page))
    if page in READMES:
        assert kinds & {*RUN}, "a room's README begins with an example"


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_points_to_is_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], target


def test_the_first_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 120


def test_the_workarounds_are_where_the_list_says() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.findall(r"^- `(\w[\w/]*\.py)`(?:, `(\w+)`)?", text[text.index("## Workarounds") :], re.MULTILINE)
    assert found
    for path, name in found:
        assert name in (ROOT / "mnist_tuner" / path).read_text(), (path, name)
