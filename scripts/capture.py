"""Runs the baseline and puts its report into the README: the text, and a picture of the terminal."""

from __future__ import annotations

import io
import os
import re
import tempfile
from pathlib import Path

from rich.console import Console

from mnist_tuner.config import TrainConfig
from mnist_tuner.runner.training import train

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / ".github" / "report.svg"


def main() -> None:
    """Trains, then writes."""
    os.environ["TERM"] = "dumb"  # no live line: a picture shows what stays
    console = Console(
        file=io.StringIO(), record=True, width=100, force_terminal=True, color_system="truecolor", legacy_windows=False
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        report = train(TrainConfig(), console)
        text = Path(report.run_dir, "report.txt").read_text()
    PICTURE.write_text(console.export_svg(title="mnist-tuner train", unique_id="report"))
    readme = ROOT / "README.md"
    block = f"<!-- report -->\n```text\n{text}```\n<!-- end of report -->"
    readme.write_text(re.sub(r"<!-- report -->.*<!-- end of report -->", lambda _: block, readme.read_text(), flags=re.S))


if __name__ == "__main__":
    main()
