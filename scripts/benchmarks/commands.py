"""What the commands take: their start, many seeds at once, and reading pictures."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import MNIST_TUNER, child, medians, progress, run


def load_ours() -> dict[str, float]:
    """The import of TensorFlow and Keras as the commands do it."""
    from mnist_tuner.startup import load_tensorflow

    return {"import_s": load_tensorflow(threads=1)}


def load_plain() -> dict[str, float]:
    """The same as a plain import."""
    began = time.perf_counter()
    import keras  # noqa: F401

    return {"import_s": time.perf_counter() - began}


def start(repeats: int) -> dict[str, Any]:
    """Start-up: --help, --version, the first line of train, and the import of TensorFlow and Keras."""
    results: dict[str, Any] = {}
    for option in ("--help", "--version"):
        results[option] = median(run([*MNIST_TUNER, option]).seconds for _ in range(repeats))
        print(f"mnist-tuner {option}: {results[option]:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        train = [*MNIST_TUNER, "train", "--output", folder]
        firsts = [run(train, first_line=True, PYTHONUNBUFFERED="1").seconds for _ in range(repeats)]
    results["first_output"] = median(firsts)
    print(f"mnist-tuner train: the first line stands after {results['first_output']:.2f} s")
    rows = [(child(load_ours)["import_s"], child(load_plain)["import_s"]) for _ in range(repeats)]
    results["load_ours"], results["load_plain"] = (median(column) for column in zip(*rows, strict=True))
    print(f"the commands' import of TensorFlow and Keras: {results['load_ours']:.2f} s")
    print(f"a plain import: {results['load_plain']:.2f} s")
    return results


def seeds(repeats: int) -> dict[str, Any]:
    """The baseline's test accuracy over seeds 0, 1, 2, ...; ten seeds in one command against ten commands."""
    with tempfile.TemporaryDirectory() as folder:
        train = [*MNIST_TUNER, "train", "--json", "--output", folder]
        found = json.loads(run([*train, "--seeds", str(repeats)]).output)["seeds"]
        progress(f"{repeats} seeds are trained")
        together, alone = [], []
        for repeat in range(3):
            together.append(run([*train, "--seeds", "10"]).seconds)
            alone.append(run(train).seconds)
            progress(f"{repeat + 1}/3 ten seeds in one command {together[-1]:.1f} s, one command {alone[-1]:.1f} s")
    accuracies = [training["accuracy"] for training in found["trainings"]]
    low, high = found["interval95"]
    print(
        f"Test accuracy over {repeats} seeds: mean {found['mean']:.2%} (95 % interval {low * 100:.2f} to {high * 100:.2f} %), "
        f"standard deviation {found['sd'] * 100:.2f} points, lowest {min(accuracies):.2%}, highest {max(accuracies):.2%}; "
        f"seed 0: {accuracies[0]:.2%}."
    )
    share = median(together) / (10 * median(alone))
    print(f"Ten seeds in one command: {median(together):.1f} s; ten commands: {10 * median(alone):.1f} s ({share:.0%}).")
    return {"accuracies": accuracies, **{name: found[name] for name in ("mean", "sd", "interval95")}, "share": share}


def predict(repeats: int) -> dict[str, Any]:
    """What reading pictures costs: one, and a thousand."""
    from PIL import Image

    from mnist_tuner.mnist.data import load_dataset

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run([*MNIST_TUNER, "train", "--epochs", "1", "--output", folder / "runs"])
        (model,) = (folder / "runs").iterdir()
        (folder / "digits").mkdir()
        for number, image in enumerate(load_dataset().test_images[:1001]):
            Image.fromarray(255 - image).resize((112, 112)).save(folder / "digits" / f"{number:04}.png")
        (folder / "digits" / "1000.png").rename(folder / "one.png")
        rows = [
            {
                "import_s": child(load_ours)["import_s"],
                "one_s": run([*MNIST_TUNER, "predict", model, folder / "one.png"]).seconds,
                "thousand_s": run([*MNIST_TUNER, "predict", model, folder / "digits", "--csv"]).seconds,
            }
            for _ in range(repeats)
        ]
    found = medians(rows)
    one, more = found["one_s"], found["thousand_s"] - found["one_s"]
    print(
        f"One picture takes {one:.2f} s, {one - found['import_s']:.2f} s more than the import of TensorFlow; 1,000 more "
        f"of 112 x 112 pixels {more:.2f} s, {1000 / more:.0f} a second (medians of {repeats})."
    )
    return found
