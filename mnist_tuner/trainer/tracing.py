"""A person's step on its way into a graph: what it is called with, and what to say when it does what a graph cannot."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from mnist_tuner.trainer.compiled import without_all_reduce
from mnist_tuner.trainer.hooks import ModuleHooks
from mnist_tuner.trainer.module_state import logging_from


def traced(module: ModuleHooks, step: Callable[..., Any], dataloader_idx: int | None = None) -> Callable[[Any, Any], Any]:
    """A step as a function of batch and batch_idx that tells `Module.log` where it is.

    Args:
        module: whose step it is.
        step: takes the batch and, where it asks for them, batch_idx and dataloader_idx.
        dataloader_idx: which of several loaders the batches come from; None for the only one.

    Raises:
        TypeError: the step uses a tensor's value in Python, or there are several loaders and it takes no dataloader_idx.
    """

    def run(batch: Any, batch_idx: Any) -> Any:
        with logging_from(module, batch, batch_idx, dataloader_idx), _explained(module, step):
            return call_step(step, batch, batch_idx, *(() if dataloader_idx is None else (dataloader_idx,)))

    return run


def make_variables(module: ModuleHooks, step: Callable[..., Any], *arguments: Any) -> None:
    """Traces a step without running it: the variables that it makes at its first use are there then, and no other has changed."""

    def make(next_creator: Callable[..., Any], **options: Any) -> Any:
        # Outside of the graph, where it can be: after a trace that makes variables tf.function traces a second time.
        if tf.is_symbolic_tensor(options.get("initial_value")):
            return next_creator(**options)
        with tf.init_scope():
            return next_creator(**{**options, "experimental_enable_variable_lifting": False})

    def run(*arguments: Any) -> None:
        with _explained(module, step), tf.variable_creator_scope(make):
            call_step(step, *arguments)

    with without_all_reduce():
        tf.function(run, autograph=False).get_concrete_function(*tf.nest.map_structure(tf.type_spec_from_value, arguments))


def call_step(step: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a step with as many of (batch, batch_idx, dataloader_idx) as it takes."""
    parameters = inspect.signature(step).parameters.values()
    wanted = len(arguments) if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(parameters)
    if len(arguments) == 3 and wanted < 3:
        raise TypeError(f"there are several dataloaders: {step.__qualname__} must take (batch, batch_idx, dataloader_idx=0)")
    return step(*arguments[:wanted])


@contextmanager
def _explained(module: ModuleHooks, step: Callable[..., Any]) -> Iterator[None]:
    """Turns TensorFlow's complaints into advice, and warns where the step changed the module."""
    before = _footprint(module)
    try:
        yield
    except (TypeError, AttributeError, NotImplementedError) as error:
        if "ymbolic" not in str(error):
            raise
        raise TypeError(
            f"{_name(module, step)} uses a tensor's value in Python ({error}). The step is traced once into a graph: branch with "
            "keras.ops.where or tf.cond, record values with self.log, and do in a batch hook what needs Python"
        ) from error
    except ValueError as error:
        if not str(error).startswith("Unknown variable"):
            raise
        raise ValueError(
            "the optimizer has been built for other variables than those that are to be trained: after a change of trainable, or "
            f"of the layers, call compile again with a new optimizer ({error})"
        ) from error
    changed = [name for name, mark in _footprint(module).items() if before.get(name) != mark]
    if changed:
        warnings.warn(
            f"{_name(module, step)} changed self.{', self.'.join(changed)}. The step is traced once into a graph and not run "
            "again in Python: record values with self.log, keep state in a tf.Variable, or use a batch hook",
            stacklevel=2,
        )


def _footprint(module: ModuleHooks) -> dict[str, Any]:
    """What each attribute is, so that a change shows."""
    return {
        name: (id(value), [id(part) for part in (value.values() if isinstance(value, dict) else value)])
        if isinstance(value, (list, dict, set))
        else id(value)
        for name, value in vars(module).items()
        if not name.startswith("_")
    }


def _name(module: ModuleHooks, step: Any) -> str:
    owner, name = getattr(step, "__self__", module), getattr(step, "__name__", "train_step")
    return f"{type(owner).__name__}.{'training_step' if name == 'optimize' else name}"
