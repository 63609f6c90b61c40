"""A model's weights and all else that a training changes: taken, put back, told apart."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def parameter_count(model: keras.Model) -> int | None:
    """How many parameters a model has, or its parts where, without a ``call``, it is never built; None where there are none."""
    weights = model.weights
    return sum(math.prod(weight.shape) for weight in weights) if weights or model.built else None


def put_back(model: keras.Model, new: keras.Model) -> bool:
    """Gives a model for which a loop is compiled the values of a new one, random states and the optimizer's included.

    Returns:
        Whether their variables are alike; otherwise nothing has been done.
    """
    known, initial = variables_of(model), variables_of(new)
    if [(v.shape, v.dtype, v.trainable) for v in known] != [(v.shape, v.dtype, v.trainable) for v in initial]:
        return False
    for variable, value in zip(known, initial, strict=True):
        variable.assign(value)
    return True


def variables_of(model: keras.Model) -> list[Any]:
    """All that a training changes: weights, random state, the optimizer's, and what a train_step of the model's own has besides,
    such as more optimizers, whose variables may first be made when it is traced."""
    from mnist_tuner.trainer.keras_module import KerasModule

    optimizer = model.optimizer
    if model.built and optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)
    found = [*model.variables, *([] if optimizer is None else optimizer.variables), *KerasModule.of(model).own_variables()]
    return list({id(variable): variable for variable in found}.values())


def state_of(model: keras.Model) -> bytes:
    """What a training goes on from."""
    import numpy as np
    from safetensors.numpy import save

    return save({str(index): np.array(variable.numpy()) for index, variable in enumerate(variables_of(model))})


def restore(model: keras.Model, state: bytes) -> bool:
    """Makes a model what it was; see `state_of`.

    Returns:
        Whether it has the variables of that state; otherwise nothing has been done.
    """
    from safetensors.numpy import load

    arrays, variables = load(state), variables_of(model)
    values = [arrays[str(index)] for index in range(len(arrays))]
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        return False
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return True


def weights_file(model: keras.Model) -> bytes:
    """A Keras weights file without the optimizers' state, which is twice as large as the weights and which nobody reads.

    Keras 3.15 has no public way to write it but to a disk; where that is full, the process crashes in HDF5.
    """
    from keras.src.saving import saving_lib

    content = io.BytesIO()
    with without_optimizer(model):
        store = saving_lib.H5IOStore(content, mode="w")
        saving_lib._save_state(model, weights_store=store, assets_store=None, inner_path="", visited_saveables=set())
        store.close()
    return content.getvalue()


@contextmanager
def without_optimizer(model: keras.Model) -> Iterator[None]:
    """Within the block the model has no optimizers: its weights are saved and loaded alone."""
    import keras

    attributes = [(layer, *item) for layer in model._flatten_layers() for item in vars(layer).items()]
    optimizers = [each for each in attributes if isinstance(each[2], keras.Optimizer)]
    for layer, name, _ in optimizers:
        setattr(layer, name, None)
    try:
        yield
    finally:
        for layer, name, value in optimizers:
            setattr(layer, name, value)


def checksum(model: keras.Model) -> bytes:
    """A checksum of what ``get_weights`` gives; it takes about 4 ms for each million of parameters."""
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(variable.numpy().tobytes())
    return digest.digest()
