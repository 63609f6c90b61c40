"""Puts the reports into the READMEs: of the baseline the text and a picture of the terminal, of a search the text."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from mnist_tuner.config import TrainConfig
from mnist_tuner.runner import train

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / ".github" / "report.svg"


def main() -> None:
    """Searches, trains, then writes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mnist_tuner", "search", "--json", "--output", folder]
        search = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        text = Path(search["run_dir"], "report.txt").read_text().replace(f"{folder}/", "runs/")
    put("mnist_tuner/search/README.md", "search report", text)
    put("README.md", "verdict", text[text.index("Trained anew on") : text.index("\nTime ")])
    os.environ["TERM"] = "dumb"  # no live line: a picture shows what stays
    console = Console(
        file=io.StringIO(), record=True, width=100, force_terminal=True, color_system="truecolor", legacy_windows=False
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        report = train(TrainConfig(), console)
        text = Path(report.run_dir, "report.txt").read_text()
    PICTURE.write_text(console.export_svg(title="mnist-tuner train", unique_id="report"))
    put("mnist_tuner/reports/README.md", "report", text)


def put(readme: str, name: str, text: str) -> None:
    """Puts a text between two comments of a README."""
    path = ROOT / readme
    block = f"<!-- {name} -->\n```text\n{text}```\n<!-- end of {name} -->"
    pattern = f"<!-- {name} -->.*<!-- end of {name} -->"
    path.write_text(re.sub(pattern, lambda _: block, path.read_text(), flags=re.DOTALL))


if __name__ == "__main__":
    main()
