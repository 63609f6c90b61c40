"""Measures what the READMEs claim, side by side in one run: `scripts/benchmark --help`.

Each measurement is a process of its own, they alternate, and medians are compared: absolute times differ between machines
and hours, ratios much less.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this folder was started; its modules are found as a package

BENCHMARKS = {
    "baseline": ("baseline.baseline", 3),
    "display": ("baseline.display", 5),
    "seeds": ("commands.seeds", 20),
    "start": ("commands.start", 5),
    "trainer": ("trainer.trainer", 5),
    "models": ("models.models", 3),
    "search": ("search.search", 3),
    "overhead": ("overhead.overhead", 3),
    "report": ("reports.report", 5),
    "predict": ("commands.predict", 5),
}
"""By name the function, which takes the number of repeats, and how many there are where none is given."""


def function_of(name: str) -> Any:
    """The function `benchmarks.module.function`."""
    module, _, function = name.rpartition(".")
    return getattr(import_module(module), function)


def main() -> None:
    """Parses and runs."""
    if sys.argv[1:2] == ["child"]:  # see measure.child
        arguments = [int(text) if text.isdigit() else text for text in sys.argv[3:]]
        print(json.dumps(function_of(sys.argv[2])(*arguments)))
        return
    import argparse
    import platform

    functions = {name: function_of(f"benchmarks.{path}") for name, (path, _) in BENCHMARKS.items()}
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=BENCHMARKS, help="; ".join(f"{name}: {f.__doc__}" for name, f in functions.items()))
    parser.add_argument("--repeats", type=int, help="runs of each (seeds: how many)")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="baseline: also what a user would pick instead: JAX, Keras on JAX, PyTorch, Lightning, scikit-learn; they are "
        "installed into .venv-peers, once (6 GB on Linux)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there (- for standard output)")
    given = parser.parse_args()
    if given.peers and given.name != "baseline":
        parser.error("--peers is for baseline")
    results = {"benchmark": given.name, "machine": platform.platform(), "cores": os.cpu_count()}
    options = {"peers": True} if given.peers else {}
    results |= functions[given.name](given.repeats or BENCHMARKS[given.name][1], **options)
    text = json.dumps(results, indent=2) + "\n"
    if str(given.json) == "-":
        print(text, end="")
    elif given.json:
        given.json.write_text(text)


if __name__ == "__main__":
    main()
