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
    if [(v.shape, v.dtype) for v in known] != [(v.shape, v.dtype) for v in initial]:
        return False
    for variable, value in zip(known, initial, strict=True):
        variable.assign(value)
    return True


def variables_of(model: keras.Model) -> list[Any]:
    """All that a training changes: weights, random state, the optimizer's."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]


def state_of(model: keras.Model) -> bytes:
    """What a training goes on from."""
    import numpy as np
    from safetensors.numpy import save

    return save({str(index): np.array(variable.numpy()) for index, variable in enumerate(variables_of(model))})


def restore(model: keras.Model, state: bytes) -> None:
    """Makes a model what it was; see `state_of`."""
    from safetensors.numpy import load

    arrays = load(state)
    for index, variable in enumerate(variables_of(model)):
        variable.assign(arrays[str(index)])


def weights_file(model: keras.Model) -> bytes:
    """A Keras weights file without the optimizer's state, which is twice as large as the weights and which nobody reads.

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
    """Within the block the model has no optimizer: its weights are saved and loaded alone."""
    optimizer, model.optimizer = model.optimizer, None
    try:
        yield
    finally:
        model.optimizer = optimizer


def checksum(model: keras.Model) -> bytes:
    """A checksum of what ``get_weights`` gives; it takes about 4 ms for each million of parameters."""
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(variable.numpy().tobytes())
    return digest.digest()
