"""The baseline: plain Keras, compiled Keras, ours, and what a user might pick instead; and what our display costs."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import contestants
from benchmarks.contestants import EPOCHS, IMAGES
from benchmarks.measure import MNIST_TUNER, ROOT, child, ensure_environment, medians, progress, run, spread

FLOP_PER_EPOCH = IMAGES * (3 * 2 * (784 * 100 + 100 * 100 + 100 * 10) - 2 * 784 * 100)
"""Forward, and backward to the weights and to the inputs; the first layer's inputs need no gradient."""

PEERS = ("jax", "keras", "lightning", "numpy", "rich", "scikit-learn", "torch")
"""What --peers installs, some 6 GB on Linux: PyTorch's package brings CUDA's libraries there, and does not load without."""
PEERS_NEED: dict[Callable[[], dict[str, float]], str] = {
    contestants.jax_scan: "jax",
    contestants.keras_jax: "jax",
    contestants.torch_loop: "torch",
    contestants.lightning: "lightning",
    contestants.sklearn_mlp: "sklearn",
}
TITLES = {
    "keras": "(a) `model.fit` as in the notebook",
    "keras_jit": "(b) `model.fit(jit_compile=True, steps_per_execution=100)`",
    "ours": "`mnist-tuner train`, display on",
    "ours_cold": "the same at a first start, nothing compiled yet",
    "jax_scan": "JAX, `lax.scan` over the epoch, Adam by hand",
    "keras_jax": "`model.fit` on JAX",
    "torch_loop": "PyTorch, a plain loop, one thread, fused Adam",
    "lightning": "PyTorch Lightning, bars off",
    "sklearn_mlp": "scikit-learn `MLPClassifier`",
}


def gemm(threads: int) -> dict[str, float]:
    """TensorFlow's float32 matrix product, 1024 x 1024: GFLOP/s with so many threads; 0: all."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    a = tf.random.normal((1024, 1024))
    rates = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(10):
            product = a @ a
        product.numpy()
        rates.append(10 * 2 * 1024**3 / (time.perf_counter() - began) / 1e9)
    return {"gflop_s": median(rates)}


def ours(*options: str, **environment: str) -> dict[str, Any]:
    """Runs the train command with its display on."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*MNIST_TUNER, "train", "--json", "--output", folder, *options]
        done = run(command, terminal=True, **environment)
    report = json.loads(done.output)
    return {
        "fit_s": report["timing"]["fit_s"],
        "accuracy": report["test"]["accuracy"],
        "epoch_s": median(epoch["seconds"] for epoch in report["epochs"][1:]),
        "command_s": done.seconds,
        "peak_mb": done.peak_mb,
    }


def baseline(repeats: int, peers: bool = False) -> dict[str, Any]:
    """The baseline, 5 epochs: plain Keras, compiled Keras, ours, and the peers that are installed, or all with --peers."""
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "keras": partial(child, contestants.keras_fit),
        "keras_jit": partial(child, contestants.keras_fit_jit),
        "ours": ours,
        "ours_cold": partial(ours, MNIST_TUNER_COMPILE_CACHE="off"),
    }
    python = ensure_environment(ROOT / ".venv-peers", PEERS) if peers else Path(sys.executable)
    for function, package in PEERS_NEED.items():
        if peers or find_spec(package) is not None:
            measures[function.__name__] = partial(child, function, python=python, PYTHONPATH=str(ROOT))
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in measures}
    for repeat in range(repeats):
        for name, measure in measures.items():
            rows[name].append(measure())
            progress(f"{repeat + 1}/{repeats} {name}: fit {rows[name][-1]['fit_s']:.2f} s")
    results = {name: medians(row) for name, row in rows.items()}
    one, every = (child(gemm, threads)["gflop_s"] for threads in (1, 0))
    a, b, mine, cold = (results[name] for name in ("keras", "keras_jit", "ours", "ours_cold"))
    rate = FLOP_PER_EPOCH / mine["epoch_s"] / 1e9
    ratios = {
        "fit_vs_keras": a["fit_s"] / mine["fit_s"],
        "fit_vs_keras_jit": b["fit_s"] / mine["fit_s"],
        "cold_fit_vs_keras": a["fit_s"] / cold["fit_s"],
        "cold_fit_vs_keras_jit": b["fit_s"] / cold["fit_s"],
        "command_vs_keras": a["command_s"] / mine["command_s"],
        "memory_vs_keras": mine["peak_mb"] / a["peak_mb"],
        "gemm_share_one_thread": rate / one,
        "gemm_share_all_threads": rate / every,
    }
    print(f"Baseline, {EPOCHS} epochs, medians of {repeats} alternating runs\n")
    print(*markdown({TITLES[name]: row for name, row in results.items()}), sep="\n")
    print("\nfit: times ours: " + ", ".join(f"{name} {row['fit_s'] / mine['fit_s']:.2f}" for name, row in results.items()))
    print(
        f"Ours is {ratios['fit_vs_keras']:.1f} times as fast as (a) and {ratios['fit_vs_keras_jit']:.1f} times as fast as "
        f"(b) in fit, compile included; {ratios['command_vs_keras']:.1f} times as fast as (a) for the whole command; "
        f"its peak memory is {ratios['memory_vs_keras']:.0%} of (a)'s. Without the cache of compiled programs it is "
        f"{ratios['cold_fit_vs_keras']:.1f} and {ratios['cold_fit_vs_keras_jit']:.1f} times as fast in fit."
    )
    print(
        f"A steady epoch takes {mine['epoch_s']:.3f} s: {rate:.0f} GFLOP/s, {rate / one:.0%} of this machine's float32 "
        f"matrix product on one thread ({one:.0f} GFLOP/s), which ours uses, and {rate / every:.0%} of that on all "
        f"({every:.0f} GFLOP/s)."
    )
    return {"results": results, "runs": rows, "ratios": ratios, "gemm_gflop_s": {"one_thread": one, "all_threads": every}}


def markdown(rows: dict[str, dict[str, float]]) -> list[str]:
    """The README's table of the baseline."""
    table = ["| | `fit`, compile included | whole command | peak memory | test accuracy |", "|---|---|---|---|---|"]
    for title, row in rows.items():
        cells = f"{row['fit_s']:.1f} s", f"{row['command_s']:.1f} s", f"{row['peak_mb']:,.0f} MB", f"{row['accuracy']:.2%}"
        table.append(f"| {' | '.join((title, *cells))} |".replace("%", " %"))
    return table


def display(repeats: int) -> dict[str, Any]:
    """What the progress display costs: the same training with and without it."""
    rows: dict[str, list[dict[str, Any]]] = {"on": [], "off": []}
    for repeat in range(repeats):
        for name, options in (("on", ()), ("off", ("--quiet",))):
            rows[name].append(ours(*options))
            progress(f"{repeat + 1}/{repeats} display {name}: a steady epoch {rows[name][-1]['epoch_s']:.3f} s")
    on, off = (medians(rows[name])["epoch_s"] for name in ("on", "off"))
    cost = [a["epoch_s"] / b["epoch_s"] - 1 for a, b in zip(rows["on"], rows["off"], strict=True)]
    print(f"A steady epoch takes {on:.3f} s with the display and {off:.3f} s without: it costs {spread(cost, '.1%')}.")
    return {"epoch_s": {"on": on, "off": off}, "cost": cost}
