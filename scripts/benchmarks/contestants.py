"""The baseline by other means, for comparison; each function runs in a process of its own and returns what it found."""

from __future__ import annotations

import os
import time
from itertools import pairwise
from typing import Any

EPOCHS, BATCH_SIZE, IMAGES = 5, 32, 60_000


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
