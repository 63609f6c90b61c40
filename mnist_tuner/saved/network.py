"""The network of a saved model: read from its file, made ready for pictures. Importing this imports TensorFlow."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mnist_tuner.errors import DAMAGES, InputError, brief
from mnist_tuner.mnist.baseline import build_baseline, check_finite
from mnist_tuner.trainer.checked import what_is_wrong
from mnist_tuner.trainer.files import check_sizes, open_file, parse_json


def load_keras_file(path: Path) -> keras.Model:
    """A model from a ``.keras`` file. Nothing in it can run code: it may consist of Keras's own layers only, and no Lambda.

    Raises:
        InputError: the file is missing, damaged, or has something else in it.
    """
    try:
        with open_file(path) as content, zipfile.ZipFile(content) as file:
            check_sizes(file)
            if file.testzip() is not None:  # Keras would crash the process on damaged weights, at its end
                raise zipfile.BadZipFile("its checksums are wrong")
            config = parse_json(file.read("config.json"), finite=False)
        foreign = next((found for part in _parts(config) if (found := _foreign(part))), None)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except DAMAGES as error:
        raise InputError(f"{path}: not a .keras file, or a damaged one ({what_is_wrong(error)})") from None
    if foreign is not None:
        raise InputError(f"{path}: holds {brief(foreign)}, which could run code: only Keras's own layers are loaded")
    try:
        model = keras.models.load_model(path, safe_mode=True)
    except Exception as error:  # whatever Keras makes of a damaged file
        raise InputError(f"{path}: not a model that Keras can load ({what_is_wrong(error)})") from None
    if not isinstance(model, keras.Model) or not model.built:
        raise InputError(f"{path}: not a built Keras model")
    return model


_MODULES = (
    *("layers", "initializers", "regularizers", "constraints", "activations", "optimizers", "losses", "metrics", "models"),
    *("dtype_policies", "random", "src.models", "src.layers", "src.dtype_policies"),
)
"""The parts of Keras of which a model may consist."""
_CODE = ("Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "StringLookup", "IntegerLookup")
"""Classes of Keras that hold code, or read files."""


def _foreign(part: dict[str, Any]) -> str | None:
    """What in a part of a configuration is none of Keras's own layers; None where all is well."""
    module, name, registered = (str(part.get(key) or "") for key in ("module", "class_name", "registered_name"))
    if ">" in registered:
        return registered
    known = module in ("", "builtins", "keras") or any(
        module == f"keras.{each}" or module.startswith(f"keras.{each}.") for each in _MODULES
    )
    return None if known and name not in _CODE else f"{module}.{name}".removeprefix(".")


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """All objects within a JSON value."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _parts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _parts(item)


def load_checkpoint(
    path: Path, hidden: tuple[int, ...], image_shape: tuple[int, int], classes: int, precision: str
) -> keras.Model:
    """The baseline with the weights of a checkpoint.

    Args:
        path: the checkpoint.
        hidden, image_shape, classes, precision: of the run that wrote it.

    Raises:
        InputError: the file is missing or damaged, or does not fit.
    """
    from mnist_tuner.trainer import KerasModule, read_checkpoint

    model = build_baseline(hidden, input_shape=image_shape, classes=classes, precision=precision)
    try:
        read_checkpoint(path).restore(KerasModule(model), weights_only=True)
    except (FileNotFoundError, ValueError) as error:
        raise InputError(str(error)) from None
    return model


def with_preprocessing(model: keras.Model, image_shape: tuple[int, int]) -> keras.Model:
    """The model with what comes before and after it: from grey values to probabilities.

    Args:
        model: a classifier of images of so many pixels, whatever their axes: `(height, width)`, with a channel, or flat. If its
            input is float and it does not scale itself, its input is taken to be from 0 to 1. If its last layer is Dense, its
            activation is replaced by the softmax of its logits (which is what Keras's loss trains, behind a sigmoid, too).
        image_shape: height and width.

    Returns:
        A model of Keras's own layers: uint8 ``(n, height, width)`` to float32 ``(n, classes)``, each row with the sum 1.

    Raises:
        InputError: the model takes or gives something else.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.outputs[0].shape) != 2 or model.outputs[0].shape[1] < 2:
        raise InputError("the model is no classifier of images: expected one input, and one output of the shape (n, classes)")
    wanted = tuple(model.inputs[0].shape[1:])
    if None in wanted or math.prod(wanted) != math.prod(image_shape):
        height, width = image_shape
        raise InputError(f"the model takes inputs of the shape {wanted}: the images are {height} x {width}")
    images = keras.Input(image_shape, dtype="uint8", name="images")
    hidden: Any = images
    scales_itself = any(
        isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)) for layer in model._flatten_layers()
    )
    if "float" in str(model.inputs[0].dtype):
        hidden = keras.layers.Rescaling(1.0 if scales_itself else float(np.float32(1 / 255)), name="scale")(hidden)
    if wanted != image_shape:
        hidden = keras.layers.Reshape(wanted, name="shape")(hidden)
    last = model.layers[-1]
    if type(last) is not keras.layers.Dense or len(last.get_weights()) != 1 + last.use_bias:
        whole = keras.Model(images, model(hidden), name=model.name)
        sums = whole(np.full((2, *image_shape), 100, np.uint8)).numpy().sum(axis=1)
        if not np.allclose(sums, 1, atol=1e-3):
            raise InputError("the model's outputs are no probabilities: expected a last layer that is Dense, or a softmax")
        return whole
    if len(model.layers) > 1:
        hidden = keras.Model(model.inputs, last.input)(hidden)
    dense = keras.layers.Dense(last.units, use_bias=last.use_bias, dtype="float32", name="logits")
    logits = dense(hidden)
    dense.set_weights(last.get_weights())
    return keras.Model(images, keras.layers.Softmax(dtype="float32", name="probabilities")(logits), name=model.name)


def read_images(model: keras.Model, images: np.ndarray[Any, np.dtype[np.uint8]], batch_size: int = 500) -> Any:
    """What a model `with_preprocessing` makes of images.

    Args:
        model: it.
        images: uint8 ``(n, height, width)``.
        batch_size: images at a time.

    Returns:
        Probabilities, float32 ``(n, classes)``.

    Raises:
        ArithmeticError: they are not finite.
    """
    read = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)
    found = [read(tf.constant(images[i : i + batch_size])).numpy() for i in range(0, len(images), batch_size)]
    probabilities = np.concatenate(found)
    check_finite(probabilities)
    return probabilities
