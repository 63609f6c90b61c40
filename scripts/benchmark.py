"""Measures what the README claims, side by side in one run: `scripts/benchmark --help`.

Each measurement is a process of its own, they alternate, and medians are compared: absolute times differ between machines
and hours, ratios much less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import pty
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import benchmark_models
import benchmark_report
import benchmark_search
from rich.console import Console
from rich.table import Table

EPOCHS, BATCH_SIZE, IMAGES = 5, 32, 60_000
FLOP_PER_EPOCH = IMAGES * (3 * 2 * (784 * 100 + 100 * 100 + 100 * 10) - 2 * 784 * 100)
"""Forward, and backward to the weights and to the inputs; the first layer's inputs need no gradient."""

ROOT = Path(__file__).resolve().parent.parent
PEERS = ("jax", "keras", "lightning", "numpy", "rich", "scikit-learn", "torch")
"""What --peers installs, some 6 GB on Linux: PyTorch's package brings CUDA's libraries there, and does not load without."""
PEERS_NEED = {
    "jax_scan": "jax",
    "keras_jax": "jax",
    "torch_loop": "torch",
    "lightning": "lightning",
    "sklearn_mlp": "sklearn",
}

console = Console(width=110 if not sys.stdout.isatty() else None)


# What is measured: each function runs in a child process and returns what it found.


def _notebook(keras: Any, **compile_options: Any) -> dict[str, float]:
    """The notebook of every tutorial. Its `keras.datasets.mnist.load_data()` downloads; the same arrays are read here."""
    from mnist_tuner.mnist.data import load_dataset

    data = load_dataset()
    x_train, x_test = data.train_images / 255.0, data.test_images / 255.0
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(10, activation="sigmoid"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"], **compile_options)
    began = time.perf_counter()
    model.fit(x_train, data.train_labels, epochs=EPOCHS, verbose=0)
    fit_s = time.perf_counter() - began
    return {"fit_s": fit_s, "accuracy": float(model.evaluate(x_test, data.test_labels, verbose=0)[1])}


def keras_fit() -> dict[str, float]:
    """(a) model.fit as in the notebook."""
    import tensorflow as tf

    return _notebook(tf.keras)


def keras_fit_jit() -> dict[str, float]:
    """(b) model.fit with XLA and 100 steps per execution."""
    import tensorflow as tf

    return _notebook(tf.keras, jit_compile=True, steps_per_execution=100)


def keras_jax() -> dict[str, float]:
    """model.fit as in the notebook, on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    return _notebook(keras)


def sklearn_mlp() -> dict[str, float]:
    """scikit-learn's MLPClassifier."""
    import warnings

    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    from mnist_tuner.mnist.data import load_dataset

    warnings.simplefilter("ignore", ConvergenceWarning)
    data = load_dataset()
    x_train = data.train_images.reshape(-1, 784) / np.float32(255)
    x_test = data.test_images.reshape(-1, 784) / np.float32(255)
    net = MLPClassifier((100, 100), batch_size=BATCH_SIZE, max_iter=EPOCHS, alpha=0.0, random_state=0)
    began = time.perf_counter()
    net.fit(x_train, data.train_labels)
    return {"fit_s": time.perf_counter() - began, "accuracy": float(net.score(x_test, data.test_labels))}


def jax_scan() -> dict[str, float]:
    """JAX: lax.scan over the epoch's batches, Adam by hand."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from mnist_tuner.mnist.data import load_dataset

    data = load_dataset()
    x, y = jnp.asarray(data.train_images.reshape(-1, 784)), jnp.asarray(data.train_labels, jnp.int32)
    generator = np.random.default_rng(0)
    sizes = (784, 100, 100, 10)
    limits = [(6 / (a + b)) ** 0.5 for a, b in pairwise(sizes)]
    params = [
        (jnp.asarray(generator.uniform(-limit, limit, (a, b)), jnp.float32), jnp.zeros(b))
        for a, b, limit in zip(sizes, sizes[1:], limits, strict=False)
    ]

    def logits(params: Any, x: Any) -> Any:
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        return x @ params[-1][0] + params[-1][1]

    def loss(params: Any, x: Any, y: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits(params, x)), y[:, None], 1).mean()

    def step(state: Any, index: Any) -> Any:
        params, m, v, t = state
        grads = jax.grad(loss)(params, x[index].astype(jnp.float32) / 255, y[index])
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        rate = 0.001 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        params = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-7), params, m, v)
        return (params, m, v, t), None

    epoch = jax.jit(lambda state, order: jax.lax.scan(step, state, order)[0])
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = (params, zeros, zeros, jnp.float32(0))
    began = time.perf_counter()
    for _ in range(EPOCHS):
        state = epoch(state, jnp.asarray(generator.permutation(IMAGES).reshape(-1, BATCH_SIZE)))
    jax.block_until_ready(state)
    fit_s = time.perf_counter() - began
    read = logits(state[0], jnp.asarray(data.test_images.reshape(-1, 784), jnp.float32) / 255).argmax(1)
    return {"fit_s": fit_s, "accuracy": float((np.asarray(read) == data.test_labels).mean())}


def _in_torch() -> tuple[Any, Any, Any, Any, Any]:
    """The net; training images and labels, test images and labels as tensors."""
    import torch
    from torch import nn

    from mnist_tuner.mnist.data import load_dataset

    data = load_dataset()
    x_train, x_test = (torch.tensor(images / 255.0, dtype=torch.float32) for images in (data.train_images, data.test_images))
    y_train, y_test = (torch.tensor(labels, dtype=torch.long) for labels in (data.train_labels, data.test_labels))
    layers = [nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)]
    return nn.Sequential(*layers), x_train, y_train, x_test, y_test


def torch_loop() -> dict[str, float]:
    """A plain PyTorch loop over tensors, at its fastest: one thread, fused Adam."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    net, x_train, y_train, x_test, y_test = _in_torch()
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    began = time.perf_counter()
    for _ in range(EPOCHS):
        for rows in torch.randperm(IMAGES).split(BATCH_SIZE):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x_train[rows]), y_train[rows]).backward()
            optimizer.step()
    fit_s = time.perf_counter() - began
    with torch.no_grad():
        accuracy = (net(x_test).argmax(1) == y_test).float().mean()
    return {"fit_s": fit_s, "accuracy": float(accuracy)}


def lightning() -> dict[str, float]:
    """PyTorch Lightning, with its bars, logger and checkpoints off."""
    import logging

    import lightning.pytorch as pl
    import torch
    from torch import nn

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    layers, x_train, y_train, x_test, y_test = _in_torch()

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = layers

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    net = Net()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x_train, y_train), batch_size=BATCH_SIZE, shuffle=True)
    trainer = pl.Trainer(
        max_epochs=EPOCHS, enable_progress_bar=False, enable_model_summary=False, logger=False, enable_checkpointing=False
    )
    began = time.perf_counter()
    trainer.fit(net, loader)
    fit_s = time.perf_counter() - began
    with torch.no_grad():
        accuracy = (net.net(x_test).argmax(1) == y_test).float().mean()
    return {"fit_s": fit_s, "accuracy": float(accuracy)}


def gemm() -> dict[str, float]:
    """TensorFlow's float32 matrix product, 1024 x 1024: GFLOP/s with one thread (GEMM_THREADS=1) or all."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["GEMM_THREADS"]))
    a = tf.random.normal((1024, 1024))
    rates = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(10):
            product = a @ a
        product.numpy()
        rates.append(10 * 2 * 1024**3 / (time.perf_counter() - began) / 1e9)
    return {"gflop_s": median(rates)}


def load_ours() -> dict[str, float]:
    """The import of TensorFlow and Keras as the commands do it."""
    from mnist_tuner.startup import load_tensorflow

    return {"import_s": load_tensorflow(threads=1)}


def load_plain() -> dict[str, float]:
    """The same as a plain import."""
    began = time.perf_counter()
    import keras  # noqa: F401

    return {"import_s": time.perf_counter() - began}


STEADY_EPOCHS = 20


def bare_loop() -> dict[str, float]:
    """A compiled loop written out by hand for the baseline, without our trainer: what it costs at least."""
    from mnist_tuner.startup import load_tensorflow

    load_tensorflow(threads=1)
    import numpy as np
    import tensorflow as tf

    from mnist_tuner import build_baseline, load_dataset

    data = load_dataset()
    model = build_baseline(seed=0)
    optimizer, loss_of = model.optimizer, tf.keras.losses.SparseCategoricalCrossentropy()
    optimizer.build(model.trainable_variables)
    loss_mean, accuracy = tf.keras.metrics.Mean(), tf.keras.metrics.SparseCategoricalAccuracy()
    accuracy.update_state([0], [[1.0, 0.0]])  # makes its variables
    pixels = data.train_images[0].shape

    @tf.function(jit_compile=True, autograph=False)
    def steps(images: Any, labels: Any, start: Any, stop: Any) -> Any:
        def body(i: Any) -> Any:
            x = tf.cast(tf.slice(images, [i * BATCH_SIZE, 0, 0], [BATCH_SIZE, *pixels]), tf.float32) * np.float32(1 / 255)
            y = tf.slice(labels, [i * BATCH_SIZE], [BATCH_SIZE])
            with tf.GradientTape() as tape:
                outputs = model(x, training=True)
                loss = loss_of(y, outputs)
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)
            loss_mean.update_state(loss, sample_weight=BATCH_SIZE)
            accuracy.update_state(y, outputs)
            return i + 1

        return tf.while_loop(lambda i: i < stop, body, [start], parallel_iterations=1)

    generator = np.random.default_rng(0)
    batches = IMAGES // BATCH_SIZE
    seconds = []
    for _ in range(STEADY_EPOCHS + 1):
        began = time.perf_counter()
        loss_mean.reset_state()
        accuracy.reset_state()
        order = generator.permutation(IMAGES)
        half = batches // 2 + 1  # so many batches are gathered at a time
        for first in range(0, batches, half):
            rows = order[first * BATCH_SIZE : (first + half) * BATCH_SIZE]
            rows = np.concatenate([rows, np.zeros(half * BATCH_SIZE - len(rows), rows.dtype)])
            images, labels = (tf.constant(np.take(part, rows, axis=0)) for part in (data.train_images, data.train_labels))
            steps(images, labels, tf.constant(0), tf.constant(min(half, batches - first)))
        loss_mean.result().numpy(), accuracy.result().numpy()
        seconds.append(time.perf_counter() - began)
    return {"epoch_s": median(seconds[1:])}


def our_trainer() -> dict[str, float]:
    """Our fit of the same, with progress display, CSV log and checkpoints."""
    from mnist_tuner.startup import load_tensorflow

    load_tensorflow(threads=1)
    from mnist_tuner import Callback, MNISTDataModule, Trainer, build_baseline

    class Clock(Callback):
        """Times the epochs from start to start, so that nothing in between is left out."""

        def __init__(self) -> None:
            self.starts: list[float] = []

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            self.starts.append(time.perf_counter())

        def on_train_end(self, trainer: Any, module: Any) -> None:
            self.starts.append(time.perf_counter())

    clock = Clock()
    console_of = Console(file=sys.stderr, force_terminal=True, width=100)
    with tempfile.TemporaryDirectory() as folder:
        from mnist_tuner import RichProgressBar

        trainer = Trainer(max_epochs=STEADY_EPOCHS + 1, default_root_dir=folder, callbacks=[clock, RichProgressBar(console_of)])
        trainer.fit(build_baseline(seed=0), datamodule=MNISTDataModule(seed=0))
    seconds = [after - before for before, after in pairwise(clock.starts)]
    return {"epoch_s": median(seconds[1:])}


def our_hooked_fit() -> dict[str, float]:
    """Our fit with a batch hook, so that each step is a call: the seconds of a steady epoch."""
    import keras

    from mnist_tuner import Callback, MNISTDataModule, Trainer, build_baseline

    class Clock(Callback):
        def __init__(self) -> None:
            self.starts: list[float] = []
            self.batches = 0

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            self.starts.append(time.perf_counter())

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.batches += 1

        def on_train_end(self, trainer: Any, module: Any) -> None:
            self.starts.append(time.perf_counter())

    keras.utils.set_random_seed(0)
    clock = Clock()
    trainer = Trainer(max_epochs=4, logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=clock)
    trainer.fit(build_baseline(seed=0), datamodule=MNISTDataModule(seed=0))
    return {"epoch_s": median(after - before for before, after in pairwise(clock.starts[1:]))}


def keras_steady() -> dict[str, float]:
    """Plain keras.Model.fit, as in the notebook, with a batch callback: the seconds of a steady epoch."""
    import keras

    from mnist_tuner import build_baseline, load_dataset

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        starts: list[float] = []  # noqa: RUF012
        batches = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.starts.append(time.perf_counter())

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.batches += 1

        def on_train_end(self, logs: Any = None) -> None:
            self.starts.append(time.perf_counter())

    data, clock = load_dataset(), Clock()
    build_baseline(seed=0).fit(
        data.train_images / 255.0, data.train_labels, batch_size=BATCH_SIZE, epochs=4, verbose=0, callbacks=[clock]
    )
    return {"epoch_s": median(after - before for before, after in pairwise(clock.starts[1:]))}


def lightning_steady() -> dict[str, float]:
    """PyTorch Lightning on the same net: the seconds of a steady epoch."""
    return {"epoch_s": lightning()["fit_s"] / EPOCHS}


CHILDREN: dict[str, Callable[[], dict[str, Any]]] = (
    {
        function.__name__: function
        for function in (
            *(keras_fit, keras_fit_jit, sklearn_mlp, jax_scan, keras_jax, torch_loop, lightning, gemm, load_ours, load_plain),
            *(bare_loop, our_trainer, our_hooked_fit, keras_steady, lightning_steady),
        )
    }
    | benchmark_search.CHILDREN
    | benchmark_report.CHILDREN
    | benchmark_models.CHILDREN
)


# How it is measured.


def run(command: list[str], *, terminal: bool = False, **environment: str) -> tuple[str, float, float]:
    """Runs a command.

    Returns:
        Its standard output, the seconds that the whole process took, and its peak memory in MB.
    """
    began = time.perf_counter()
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    if terminal:
        ours, theirs = pty.openpty()  # so that the display is really drawn
        environment.pop("TF_CPP_MIN_LOG_LEVEL")
        environment |= {"TERM": "xterm-256color", "COLUMNS": "100"}
        threading.Thread(target=_drain, args=(ours,), daemon=True).start()
        stderr: Any = theirs
    else:
        stderr = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environment) as process:
        assert process.stdout is not None
        output = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if terminal:
        os.close(theirs)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with code {process.returncode}")
    return output, seconds, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 65536):
            pass
    except OSError:  # the other side has closed
        os.close(descriptor)


def ensure_environment(folder: Path, packages: Sequence[str]) -> Path:
    """Makes a virtual environment where there is none that was made whole, with these packages and this Python.

    Args:
        folder: of the environment; what is there is removed if it is another one.
        packages: for pip, whose own settings hold.

    Returns:
        Its Python.
    """
    python, stamp = folder / "bin" / "python", folder / "stamp"
    wanted = "\n".join((str(folder), sys.version, *packages))
    if stamp.exists() and stamp.read_text() == wanted and python.exists():
        return python
    progress(f"Installing {', '.join(packages)} into {folder} (once) ...")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, stdout=sys.stderr)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True, stdout=sys.stderr)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, subprocess.CalledProcessError):
            raise
        raise SystemExit("error: the installation failed (its messages are above); nothing half-made was kept") from None
    stamp.write_text(wanted)
    return python


def child(name: str, *, python: Path = Path(sys.executable), **environment: str) -> dict[str, Any]:
    """Runs one of the functions above in a process of its own."""
    command = [str(python), __file__, "child", name]
    output, seconds, memory = run(command, **environment)
    return {**json.loads(output.splitlines()[-1]), "command_s": seconds, "peak_mb": memory}


def ours(*options: str, **environment: str) -> dict[str, Any]:
    """Runs the train command with its display on."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mnist_tuner", "train", "--json", "--output", folder, *options]
        output, seconds, memory = run(command, terminal=True, **environment)
    report = json.loads(output)
    steady = median(epoch["seconds"] for epoch in report["epochs"][1:])
    return {
        "fit_s": report["timing"]["fit_s"],
        "accuracy": report["test"]["accuracy"],
        "epoch_s": steady,
        "command_s": seconds,
        "peak_mb": memory,
    }


def first_output() -> float:
    """The seconds until the train command has printed something."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-u", "-m", "mnist_tuner", "train", "--output", folder]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            process.stdout.readline()
            seconds = time.perf_counter() - began
            process.kill()
    return seconds


def medians(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: median(row[name] for row in rows) for name in rows[0]}


def progress(text: str) -> None:
    """Says what goes on, apart from the results."""
    print(text, file=sys.stderr, flush=True)


# The benchmarks.


def baseline(repeats: int, peers: bool = False) -> dict[str, Any]:
    """The baseline, 5 epochs: plain Keras, compiled Keras, ours, and the peers that are installed, or all with --peers."""
    contestants: dict[str, Callable[[], dict[str, Any]]] = {
        "keras": lambda: child("keras_fit"),
        "keras_jit": lambda: child("keras_fit_jit"),
        "ours": ours,
        "ours_cold": lambda: ours(MNIST_TUNER_COMPILE_CACHE="off"),
    }
    python = ensure_environment(ROOT / ".venv-peers", PEERS) if peers else Path(sys.executable)
    for function, package in PEERS_NEED.items():
        if peers or find_spec(package) is not None:
            contestants[function] = partial(child, function, python=python, PYTHONPATH=str(ROOT))
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    for repeat in range(repeats):
        for name, measure in contestants.items():
            rows[name].append(measure())
            progress(f"{repeat + 1}/{repeats} {name}: fit {rows[name][-1]['fit_s']:.2f} s")
    results = {name: medians(row) for name, row in rows.items()}
    one, every = (child("gemm", GEMM_THREADS=threads)["gflop_s"] for threads in ("1", "0"))

    titles = {
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
    a, b, mine, cold = (results[name] for name in ("keras", "keras_jit", "ours", "ours_cold"))
    table = Table(title=f"Baseline, {EPOCHS} epochs, medians of {repeats} alternating runs")
    for heading in ("", "fit s", "command s", "peak MB", "test accuracy", "fit: times ours"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, row in results.items():
        table.add_row(
            titles[name],
            f"{row['fit_s']:.2f}",
            f"{row['command_s']:.2f}",
            f"{row['peak_mb']:,.0f}",
            f"{row['accuracy']:.4f}",
            f"{row['fit_s'] / mine['fit_s']:.2f}",
        )
    console.print(table)
    for line in markdown({titles[name]: row for name, row in results.items()}):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
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
    console.print(
        f"Ours is {ratios['fit_vs_keras']:.1f} times as fast as (a) and {ratios['fit_vs_keras_jit']:.1f} times as fast as "
        f"(b) in fit, compile included; {ratios['command_vs_keras']:.1f} times as fast as (a) for the whole command; "
        f"its peak memory is {ratios['memory_vs_keras']:.0%} of (a)'s. Without the cache of compiled programs it is "
        f"{ratios['cold_fit_vs_keras']:.1f} and {ratios['cold_fit_vs_keras_jit']:.1f} times as fast in fit."
    )
    console.print(
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
    pairs = [a["epoch_s"] / b["epoch_s"] - 1 for a, b in zip(rows["on"], rows["off"], strict=True)]
    console.print(
        f"A steady epoch takes {on:.3f} s with the display and {off:.3f} s without: it costs {median(pairs):.1%} "
        f"(median of {repeats} pairs, {min(pairs):.1%} to {max(pairs):.1%})."
    )
    return {"epoch_s": {"on": on, "off": off}, "cost": pairs}


def seed_study(repeats: int) -> dict[str, Any]:
    """The baseline's test accuracy over seeds 0, 1, 2, ...; ten seeds in one command against ten commands."""
    with tempfile.TemporaryDirectory() as folder:
        train = [sys.executable, "-m", "mnist_tuner", "train", "--json", "--output", folder]
        found = json.loads(run([*train, "--seeds", str(repeats)])[0])["seeds"]
        progress(f"{repeats} seeds are trained")
        together, alone = [], []
        for repeat in range(3):
            together.append(run([*train, "--seeds", "10"])[1])
            alone.append(run(train)[1])
            progress(f"{repeat + 1}/3 ten seeds in one command {together[-1]:.1f} s, one command {alone[-1]:.1f} s")
    accuracies = [training["accuracy"] for training in found["trainings"]]
    low, high = found["interval95"]
    console.print(
        f"Test accuracy over {repeats} seeds: mean {found['mean']:.2%} (95 % interval {low * 100:.2f} to {high * 100:.2f} %), "
        f"standard deviation {found['sd'] * 100:.2f} points, lowest {min(accuracies):.2%}, highest {max(accuracies):.2%}; "
        f"seed 0: {accuracies[0]:.2%}."
    )
    share = median(together) / (10 * median(alone))
    console.print(f"Ten seeds in one command: {median(together):.1f} s; ten commands: {10 * median(alone):.1f} s ({share:.0%}).")
    return {"accuracies": accuracies, **{name: found[name] for name in ("mean", "sd", "interval95")}, "share": share}


def trainer_study(repeats: int) -> dict[str, Any]:
    """What the trainer costs: an epoch of ours against a bare compiled loop; with a batch hook against plain Keras."""
    contestants = ["bare_loop", "our_trainer", "our_hooked_fit", "keras_steady"]
    contestants += ["lightning_steady"] if find_spec("lightning") else []
    rows: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats):
        for name in contestants:
            rows[name].append(child(name)["epoch_s"])
            progress(f"{repeat + 1}/{repeats} {name}: an epoch {rows[name][-1]:.3f} s")
    epoch = {name: median(seconds) for name, seconds in rows.items()}
    cost = [ours / bare - 1 for bare, ours in zip(rows["bare_loop"], rows["our_trainer"], strict=True)]
    hooked = [keras / ours for ours, keras in zip(rows["our_hooked_fit"], rows["keras_steady"], strict=True)]
    console.print(
        f"A steady epoch (median of {STEADY_EPOCHS}) takes {epoch['our_trainer']:.3f} s in our fit with progress display, CSV "
        f"log and checkpoints, and {epoch['bare_loop']:.3f} s in a bare compiled loop: the trainer costs {median(cost):.1%} "
        f"(median of {repeats} pairs, {min(cost):.1%} to {max(cost):.1%})."
    )
    console.print(
        f"One step per call, with a batch hook: {epoch['our_hooked_fit']:.2f} s an epoch; plain keras.Model.fit with a batch "
        f"callback: {epoch['keras_steady']:.2f} s, {median(hooked):.1f} times as long ({min(hooked):.1f} to {max(hooked):.1f})."
    )
    if "lightning_steady" in epoch:
        console.print(f"PyTorch Lightning, bars off: {epoch['lightning_steady']:.2f} s an epoch.")
    return {"epoch_s": rows, "cost": cost, "hooked_vs_keras": hooked}


def start(repeats: int) -> dict[str, Any]:
    """Start-up: --help, --version, the first line of train, and the import of TensorFlow and Keras."""
    results: dict[str, Any] = {}
    for option in ("--help", "--version"):
        seconds = [run([sys.executable, "-m", "mnist_tuner", option])[1] for _ in range(repeats)]
        results[option] = median(seconds)
        console.print(f"mnist-tuner {option}: {results[option]:.2f} s")
    results["first_output"] = median(first_output() for _ in range(repeats))
    console.print(f"mnist-tuner train: the first line stands after {results['first_output']:.2f} s")
    rows: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name in ("load_ours", "load_plain"):
            rows.setdefault(name, []).append(child(name)["import_s"])
    for name, what in (("load_ours", "the commands' import of TensorFlow and Keras"), ("load_plain", "a plain import")):
        results[name] = median(rows[name])
        console.print(f"{what}: {results[name]:.2f} s")
    return results


def models(repeats: int) -> dict[str, Any]:
    """Ten models of other kinds: plain Keras, compiled Keras, ours."""
    return benchmark_models.models_study(repeats, child, console.print)


def search(repeats: int) -> dict[str, Any]:
    """Six fixed trials by stock KerasTuner and by ours on all cores; eight equal ones with one worker and with two."""
    return benchmark_search.search_study(repeats, child, console.print)


def overhead(repeats: int) -> dict[str, Any]:
    """Instant trials: what the search's machinery itself costs."""
    return benchmark_search.overhead_study(repeats, child, console.print)


def report(repeats: int) -> dict[str, Any]:
    """What reports cost: of a search of 100 trials, and at the end of a training."""
    return benchmark_report.report_study(repeats, child, console.print)


def predict(repeats: int) -> dict[str, Any]:
    """What reading pictures costs: one, and a thousand."""
    return dict(benchmark_report.predict_study(repeats, run, child, console.print))


BENCHMARKS: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {
    "baseline": (baseline, 3),
    "display": (display, 5),
    "seeds": (seed_study, 20),
    "start": (start, 5),
    "trainer": (trainer_study, 5),
    "models": (models, 3),
    "search": (search, 3),
    "overhead": (overhead, 3),
    "report": (report, 5),
    "predict": (predict, 5),
}


def main() -> None:
    """Parses and runs."""
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(CHILDREN[sys.argv[2]]()))
        return
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=BENCHMARKS, help="; ".join(f"{n}: {f.__doc__}" for n, (f, _) in BENCHMARKS.items()))
    parser.add_argument("--repeats", type=int, help="runs of each (seeds: how many)")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="baseline: also what a user would pick instead: JAX, Keras on JAX, PyTorch, Lightning, scikit-learn; they are "
        "installed into .venv-peers, once (6 GB on Linux)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there (- for standard output)")
    arguments = parser.parse_args()
    function, repeats = BENCHMARKS[arguments.name]
    if arguments.peers and function is not baseline:
        parser.error("--peers is for baseline")
    if arguments.peers:
        function = partial(baseline, peers=True)
    results = {"benchmark": arguments.name, "machine": platform.platform(), "cores": os.cpu_count()}
    results |= function(arguments.repeats or repeats)
    text = json.dumps(results, indent=2) + "\n"
    if str(arguments.json) == "-":
        print(text, end="")
    elif arguments.json:
        arguments.json.write_text(text)


if __name__ == "__main__":
    main()
