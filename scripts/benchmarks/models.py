"""Ten models as people write them, trained by `keras.Model.fit` and by our trainer: `scripts/benchmark models`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.measure import EpochClock, child, medians

EPOCHS = 5
VALIDATION_BATCH_SIZE = 500

Data = tuple[Any, Any]
Example = tuple[Callable[[], Any], Data, Data, int]
"""What makes the compiled model, the training data, the validation data, and the batch size."""


# The models: small, seeded, of keras.io's kinds. Each function imports Keras itself: it runs in a child process.


def _images(rows: int) -> Data:
    from mnist_tuner import load_dataset

    data = load_dataset()
    return (data.train_images[:rows] / 255.0).astype("float32")[..., None], data.train_labels[:rows]


def convnet() -> Example:
    """keras.io's convnet for MNIST, on part of it."""
    import keras
    from keras import layers

    x, y = _images(5000)

    def make() -> Any:
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                layers.Conv2D(32, 3, activation="relu"),
                layers.MaxPooling2D(2),
                layers.Conv2D(64, 3, activation="relu"),
                layers.MaxPooling2D(2),
                layers.Flatten(),
                layers.Dropout(0.5),
                layers.Dense(10, activation="softmax"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    return make, (x[:4000], y[:4000]), (x[4000:], y[4000:]), 128


def vae() -> Example:
    """A convolutional variational autoencoder with a train_step of its own."""
    import keras
    import tensorflow as tf
    from keras import layers, ops

    x, _ = _images(1800)

    class Sampling(layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.generator = keras.random.SeedGenerator(3)

        def call(self, inputs: Any) -> Any:
            mean, log_variance = inputs
            return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.generator)

    class VAE(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            images = keras.Input((28, 28, 1))
            hidden = layers.Conv2D(32, 3, activation="relu", strides=2, padding="same")(images)
            hidden = layers.Conv2D(64, 3, activation="relu", strides=2, padding="same")(hidden)
            hidden = layers.Dense(16, activation="relu")(layers.Flatten()(hidden))
            mean, log_variance = layers.Dense(2)(hidden), layers.Dense(2)(hidden)
            self.encoder = keras.Model(images, [mean, log_variance, Sampling()([mean, log_variance])])
            code = keras.Input((2,))
            hidden = layers.Reshape((7, 7, 64))(layers.Dense(7 * 7 * 64, activation="relu")(code))
            hidden = layers.Conv2DTranspose(64, 3, activation="relu", strides=2, padding="same")(hidden)
            hidden = layers.Conv2DTranspose(32, 3, activation="relu", strides=2, padding="same")(hidden)
            self.decoder = keras.Model(code, layers.Conv2DTranspose(1, 3, activation="sigmoid", padding="same")(hidden))
            self.loss_tracker = keras.metrics.Mean(name="loss")

        @property
        def metrics(self) -> list[Any]:
            return [self.loss_tracker]

        def losses_of(self, data: Any) -> Any:
            mean, log_variance, code = self.encoder(data)
            crossentropy = keras.losses.binary_crossentropy(data, self.decoder(code))
            divergence = -0.5 * (1 + log_variance - ops.square(mean) - ops.exp(log_variance))
            return ops.mean(ops.sum(crossentropy, axis=(1, 2))) + ops.mean(ops.sum(divergence, axis=1))

        def train_step(self, data: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = self.losses_of(data)
            self.optimizer.apply_gradients(zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights, strict=True))
            self.loss_tracker.update_state(loss)
            return {"loss": self.loss_tracker.result()}

        def test_step(self, data: Any) -> Any:
            self.loss_tracker.update_state(self.losses_of(data))
            return {"loss": self.loss_tracker.result()}

    def make() -> Any:
        model = VAE()
        model.compile(optimizer="adam")
        return model

    return make, (x[:1500], None), (x[1500:], None), 128


def autoencoder() -> Example:
    """A convolutional autoencoder."""
    import keras
    from keras import layers

    x, _ = _images(1200)

    def make() -> Any:
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                layers.Conv2D(16, 3, activation="relu", padding="same"),
                layers.MaxPooling2D(2),
                layers.Conv2D(16, 3, activation="relu", padding="same"),
                layers.MaxPooling2D(2),
                layers.Conv2DTranspose(16, 3, strides=2, activation="relu", padding="same"),
                layers.Conv2DTranspose(16, 3, strides=2, activation="relu", padding="same"),
                layers.Conv2D(1, 3, activation="sigmoid", padding="same"),
            ]
        )
        model.compile("adam", "binary_crossentropy")
        return model

    return make, (x[:1000], x[:1000]), (x[1000:], x[1000:]), 64


def residual() -> Example:
    """A small residual net with batch normalisation."""
    import keras
    from keras import layers

    x, y = _images(1200)

    def block(hidden: Any, filters: int, stride: int) -> Any:
        out = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(hidden)
        out = layers.ReLU()(layers.BatchNormalization()(out))
        out = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(out))
        if stride > 1:
            hidden = layers.Conv2D(filters, 1, strides=stride)(hidden)
        return layers.ReLU()(layers.Add()([out, hidden]))

    def make() -> Any:
        images = keras.Input((28, 28, 1))
        hidden = layers.Conv2D(8, 3, strides=2, padding="same")(images)
        hidden = block(block(hidden, 8, 1), 16, 2)
        model = keras.Model(images, layers.Dense(10, "softmax")(layers.GlobalAveragePooling2D()(hidden)))
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    return make, (x[:1000], y[:1000]), (x[1000:], y[1000:]), 32


def _texts(rows: int, length: int, words: int) -> Data:
    import numpy as np

    generator = np.random.default_rng(0)
    texts = generator.integers(1, words, (rows, length))
    return texts.astype("int32"), (np.isin(texts, [3, 5, 7]).sum(axis=1) > np.isin(texts, [4, 6, 8]).sum(axis=1)).astype("int32")


def transformer() -> Example:
    """A transformer block on text."""
    import keras
    from keras import layers

    x, y = _texts(1200, 64, 200)

    def make() -> Any:
        tokens = keras.Input((64,), dtype="int32")
        hidden = layers.Embedding(200, 32)(tokens)
        attention = layers.Dropout(0.1)(layers.MultiHeadAttention(2, 16)(hidden, hidden))
        hidden = layers.LayerNormalization(epsilon=1e-6)(hidden + attention)
        forward = layers.Dropout(0.1)(layers.Dense(32)(layers.Dense(32, "relu")(hidden)))
        hidden = layers.LayerNormalization(epsilon=1e-6)(hidden + forward)
        hidden = layers.Dropout(0.1)(layers.GlobalAveragePooling1D()(hidden))
        model = keras.Model(tokens, layers.Dense(2, "softmax")(layers.Dense(20, "relu")(hidden)))
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    return make, (x[:1000], y[:1000]), (x[1000:], y[1000:]), 32


def tabular() -> Example:
    """A table: a dict of inputs, embedding, batch normalisation, dropout, AUC."""
    import keras
    import numpy as np
    from keras import layers

    generator = np.random.default_rng(0)
    rows = 12_000
    numbers = generator.normal(size=(rows, 8)).astype("float32")
    kinds = generator.integers(0, 50, (rows, 1)).astype("int32")
    y = (numbers.sum(axis=1) + kinds[:, 0] % 5 - 2 > 0).astype("int32")

    def make() -> Any:
        a, b = keras.Input((8,), name="numbers"), keras.Input((1,), name="kinds", dtype="int32")
        hidden = layers.Concatenate()([layers.BatchNormalization()(a), layers.Flatten()(layers.Embedding(50, 8)(b))])
        hidden = layers.Dropout(0.3)(layers.Dense(64, "relu")(hidden))
        model = keras.Model({"numbers": a, "kinds": b}, layers.Dense(1, "sigmoid")(layers.Dense(32, "relu")(hidden)))
        model.compile("adam", "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC(name="auc")])
        return model

    def part(which: slice) -> Data:
        return {"numbers": numbers[which], "kinds": kinds[which]}, y[which]

    return make, part(slice(0, 10_000)), part(slice(10_000, None)), 128


def bidirectional() -> Example:
    """A bidirectional LSTM on text."""
    import keras
    from keras import layers

    x, y = _texts(1200, 40, 200)

    def make() -> Any:
        model = keras.Sequential(
            [
                keras.Input((40,), dtype="int32"),
                layers.Embedding(200, 32),
                layers.Bidirectional(layers.LSTM(32)),
                layers.Dense(1, "sigmoid"),
            ]
        )
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        return model

    return make, (x[:1000], y[:1000]), (x[1000:], y[1000:]), 32


def siamese() -> Example:
    """Two images through one net: are they the same digit?"""
    import keras
    import numpy as np
    from keras import layers, ops

    x, y = _images(4800)
    generator = np.random.default_rng(0)
    left, right = generator.integers(0, 4800, (2, 4800))
    same = (y[left] == y[right]).astype("float32")

    def make() -> Any:
        net = keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(32)])
        a, b = keras.Input((28, 28, 1)), keras.Input((28, 28, 1))
        distance = layers.Lambda(lambda pair: ops.abs(pair[0] - pair[1]))([net(a), net(b)])
        model = keras.Model([a, b], layers.Dense(1, "sigmoid")(distance))
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        return model

    train, validation = slice(0, 4000), slice(4000, None)
    return (
        make,
        ((x[left[train]], x[right[train]]), same[train]),
        ((x[left[validation]], x[right[validation]]), same[validation]),
        64,
    )


def _series(rows: int, length: int) -> Data:
    import numpy as np

    generator = np.random.default_rng(0)
    steps = generator.normal(size=(rows, length + 1, 1)).cumsum(axis=1).astype("float32") / 5
    return steps[:, :length], steps[:, length]


def gru() -> Example:
    """A GRU on time series."""
    import keras
    from keras import layers

    x, y = _series(1200, 24)

    def make() -> Any:
        model = keras.Sequential([keras.Input((24, 1)), layers.GRU(16), layers.Dense(1)])
        model.compile("adam", "mse", metrics=["mae"])
        return model

    return make, (x[:1000], y[:1000]), (x[1000:], y[1000:]), 32


def masked() -> Example:
    """An LSTM on texts of different lengths, padded and masked."""
    import keras
    import numpy as np
    from keras import layers

    x, y = _texts(1200, 30, 200)
    x[np.arange(30) >= np.random.default_rng(1).integers(5, 30, (1200, 1))] = 0

    def make() -> Any:
        model = keras.Sequential(
            [
                keras.Input((30,), dtype="int32"),
                layers.Embedding(200, 16, mask_zero=True),
                layers.LSTM(16),
                layers.Dense(1, "sigmoid"),
            ]
        )
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        return model

    return make, (x[:1000], y[:1000]), (x[1000:], y[1000:]), 32


MODELS: dict[str, Callable[[], Example]] = {
    function.__name__: function
    for function in (convnet, vae, autoencoder, residual, transformer, tabular, bidirectional, siamese, gru, masked)
}


# How each is trained, in a child process.

WAYS = {
    "fit": "model.fit",
    "fit_jit": "model.fit, jit_compile, 100 steps per execution",
    "ours": "Trainer.fit",
    "xla": "Trainer.fit, jit_compile=True",
    "plain": "Trainer.fit, jit_compile=False",
}
"""`models` runs the first three; the others are there to be asked for: `benchmark child benchmarks.models.train gru xla`."""


def train(name: str, way: str) -> dict[str, Any]:
    """One model, one way: the seconds of the fit and of a steady epoch, and what came of it."""
    import keras

    keras.utils.set_random_seed(0)
    make, training, validation, batch_size = MODELS[name]()
    model, clock = make(), EpochClock()
    began = time.perf_counter()
    fit = _by_keras if way in ("fit", "fit_jit") else _by_ours
    metrics = fit(model, training, validation, batch_size, way, clock)
    return {"fit_s": time.perf_counter() - began, "epoch_s": median(clock.seconds()[1:]), **metrics}


def _by_keras(model: Any, training: Data, validation: Data, batch_size: int, way: str, clock: EpochClock) -> dict[str, float]:
    if way == "fit_jit":
        model.jit_compile, model.steps_per_execution = True, 100
    history = model.fit(
        *training,
        batch_size=batch_size,
        epochs=EPOCHS,
        validation_data=validation[:1] if validation[1] is None else validation,
        validation_batch_size=VALIDATION_BATCH_SIZE,
        verbose=0,
        callbacks=[clock.of_keras()],
    ).history
    return {"loss": history["loss"][-1], "val_loss": history["val_loss"][-1], "xla": float(way == "fit_jit")}


def _by_ours(model: Any, training: Data, validation: Data, batch_size: int, way: str, clock: EpochClock) -> dict[str, float]:
    from mnist_tuner import ArrayLoader, Trainer

    trainer = Trainer(
        max_epochs=EPOCHS,
        callbacks=clock.of_ours(),
        jit_compile={"ours": "auto", "xla": True, "plain": False}[way],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    train_loader = ArrayLoader(*training, batch_size=batch_size, shuffle=True, seed=0)
    trainer.fit(model, train_loader, ArrayLoader(*validation, batch_size=VALIDATION_BATCH_SIZE))
    metrics = trainer.callback_metrics
    return {"loss": metrics["loss"], "val_loss": metrics["val_loss"], "xla": float(trainer.jit_compiled is True)}


def operation() -> dict[str, float]:
    """What an operation costs, in one thread: to start it in a plain graph, and to compile it; from the siamese net."""
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)

    from mnist_tuner import ArrayLoader, KerasModule, Trainer
    from mnist_tuner.trainer.compiled import CompiledLoop
    from mnist_tuner.trainer.programs import loops_of
    from mnist_tuner.trainer.xla import cost_of

    make, (x, y), _, _ = siamese()
    epoch_s, compile_s = {}, 0.0
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        clock, module = EpochClock(), KerasModule(make())
        trainer = Trainer(max_epochs=6, jit_compile=jit, callbacks=clock.of_ours(), logger=False, **quiet)
        trainer.fit(module, ArrayLoader(x, y, batch_size=4))
        epoch_s[jit] = median(clock.seconds()[1:])
        (loop,) = (loop for loop in loops_of(module).values() if isinstance(loop, CompiledLoop))
        compile_s = loop.xla_seconds
        cost = cost_of(next(iter(loop._programs.values())).graph)
    run_us = 1e6 * (epoch_s[False] - epoch_s[True]) / (len(y) / 4) / cost.runs
    return {"run_us": run_us, "compile_ms": 1e3 * compile_s / cost.operations}


# How it is measured.


def models(repeats: int) -> dict[str, Any]:
    """Ten models of other kinds: plain Keras, compiled Keras, ours."""
    from rich.console import Console
    from rich.table import Table

    results: dict[str, Any] = {}
    table = Table(title=f"Fits of {EPOCHS} epochs, compile included; in brackets a steady epoch; medians of {repeats}, seconds")
    for heading in ("model", "fit", "fit, XLA", "ours", "times the better fit"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name in MODELS:
        rows: dict[str, list[dict[str, Any]]] = {}
        for _ in range(repeats):
            for way in ("fit", "fit_jit", "ours"):
                rows.setdefault(way, []).append(child(train, name, way))
        found = {way: medians(each) for way, each in rows.items()}
        ratio = min(found["fit"]["fit_s"], found["fit_jit"]["fit_s"]) / found["ours"]["fit_s"]
        results[name] = {**found, "ratio": ratio}
        cells = [f"{found[way]['fit_s']:.2f} ({found[way]['epoch_s']:.3f})" for way in found]
        cells[2] += " XLA" if found["ours"]["xla"] else " plain"
        table.add_row(name, *cells, f"{ratio:.2f}")
        losses = ", ".join(f"{way} {figures['val_loss']:.4f}" for way, figures in found.items())
        print(f"{name}: {ratio:.2f} times; validation loss {losses}", flush=True)
    mean = math.exp(sum(math.log(each["ratio"]) for each in results.values()) / len(results))
    Console(width=110).print(table)
    print(f"Geometric mean {mean:.2f}; lowest {min(each['ratio'] for each in results.values()):.2f}.")
    costs = medians([child(operation) for _ in range(repeats)])
    run_us, compile_ms = costs["run_us"], costs["compile_ms"]
    print(
        f"An operation takes {run_us:.2f} microseconds to start in a plain graph and {compile_ms:.2f} ms to be compiled by XLA: "
        f"as long as {1000 * compile_ms / run_us:,.0f} starts."
    )
    return {"models": results, "geometric_mean": mean, "run_us": run_us, "compile_ms": compile_ms}
