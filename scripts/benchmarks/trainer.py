"""What the trainer costs: against a loop written out by hand, and, one step per call, against plain Keras."""

from __future__ import annotations

import sys
import tempfile
import time
from importlib.util import find_spec
from statistics import median
from typing import Any

from benchmarks import contestants
from benchmarks.contestants import BATCH_SIZE, EPOCHS, IMAGES
from benchmarks.measure import EpochClock, child, progress, spread

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
    from rich.console import Console

    from mnist_tuner import MNISTDataModule, RichProgressBar, Trainer, build_baseline

    clock = EpochClock()
    bar = RichProgressBar(Console(file=sys.stderr, force_terminal=True, width=100))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(max_epochs=STEADY_EPOCHS + 1, default_root_dir=folder, callbacks=[clock.of_ours(), bar])
        trainer.fit(build_baseline(seed=0), datamodule=MNISTDataModule(seed=0))
    return {"epoch_s": median(clock.seconds()[1:])}


def our_hooked_fit() -> dict[str, float]:
    """Our fit with a batch hook, so that each step is a call: the seconds of a steady epoch."""
    import keras

    from mnist_tuner import MNISTDataModule, Trainer, build_baseline

    keras.utils.set_random_seed(0)
    clock = EpochClock()
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=4, callbacks=clock.of_ours(batches=True), **quiet)
    trainer.fit(build_baseline(seed=0), datamodule=MNISTDataModule(seed=0))
    return {"epoch_s": median(clock.seconds()[1:])}


def keras_steady() -> dict[str, float]:
    """Plain keras.Model.fit, as in the notebook, with a batch callback: the seconds of a steady epoch."""
    from mnist_tuner import build_baseline, load_dataset

    data, clock = load_dataset(), EpochClock()
    options: dict[str, Any] = {"batch_size": BATCH_SIZE, "epochs": 4, "verbose": 0, "callbacks": [clock.of_keras(batches=True)]}
    build_baseline(seed=0).fit(data.train_images / 255.0, data.train_labels, **options)
    return {"epoch_s": median(clock.seconds()[1:])}


def lightning_steady() -> dict[str, float]:
    """PyTorch Lightning on the same net: the seconds of a steady epoch."""
    return {"epoch_s": contestants.lightning()["fit_s"] / EPOCHS}


def trainer(repeats: int) -> dict[str, Any]:
    """What the trainer costs: an epoch of ours against a bare compiled loop; with a batch hook against plain Keras."""
    functions = [bare_loop, our_trainer, our_hooked_fit, keras_steady]
    functions += [lightning_steady] if find_spec("lightning") else []
    rows: dict[str, list[float]] = {function.__name__: [] for function in functions}
    for repeat in range(repeats):
        for function in functions:
            rows[function.__name__].append(child(function)["epoch_s"])
            progress(f"{repeat + 1}/{repeats} {function.__name__}: an epoch {rows[function.__name__][-1]:.3f} s")
    epoch = {name: median(seconds) for name, seconds in rows.items()}
    cost = [ours / bare - 1 for bare, ours in zip(rows["bare_loop"], rows["our_trainer"], strict=True)]
    hooked = [keras / ours for ours, keras in zip(rows["our_hooked_fit"], rows["keras_steady"], strict=True)]
    print(
        f"A steady epoch (median of {STEADY_EPOCHS}) takes {epoch['our_trainer']:.3f} s in our fit with progress display, CSV "
        f"log and checkpoints, and {epoch['bare_loop']:.3f} s in a bare compiled loop: the trainer costs {spread(cost, '.1%')}."
    )
    print(
        f"One step per call, with a batch hook: {epoch['our_hooked_fit']:.2f} s an epoch; plain keras.Model.fit with a batch "
        f"callback: {epoch['keras_steady']:.2f} s, {spread(hooked, '.1f', ' times as long')}."
    )
    if "lightning_steady" in epoch:
        print(f"PyTorch Lightning, bars off: {epoch['lightning_steady']:.2f} s an epoch.")
    return {"epoch_s": rows, "cost": cost, "hooked_vs_keras": hooked}
