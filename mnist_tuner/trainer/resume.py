"""A training's state on its way to a checkpoint and back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mnist_tuner._version import __version__
from mnist_tuner.trainer.backend import installed_version
from mnist_tuner.trainer.base import TrainerBase
from mnist_tuner.trainer.callbacks import ModelCheckpoint
from mnist_tuner.trainer.checked import what_is_wrong
from mnist_tuner.trainer.checkpoint import Checkpoint, CheckpointError, CheckpointHeader, read_checkpoint
from mnist_tuner.trainer.data import ArrayLoader, Loader
from mnist_tuner.trainer.hooks import Callback
from mnist_tuner.trainer.keras_module import KerasModule
from mnist_tuner.trainer.lifecycle import Verb
from mnist_tuner.trainer.module import Module, model_of
from mnist_tuner.trainer.module_state import log_of, loops_of, state_of
from mnist_tuner.trainer.programs import trace_anew_if_changed
from mnist_tuner.trainer.progress import Progress, RunningStage, TrainerFn
from mnist_tuner.trainer.seed import global_generator
from mnist_tuner.trainer.streams import StreamLoader

_OWN = ("epoch", "global_step", "hyper_parameters", "callbacks")


def capture(trainer: TrainerBase, module: Module, snapshot: tuple[dict[str, Any], list[Any]] | None) -> Checkpoint:
    """The training's state as it is now, within the hooks of saving.

    Args:
        trainer: whose training it is.
        module: what is trained.
        snapshot: instead of the present state of logs and loggers, see `Verb`.
    """
    states = {key: state for key, callback in _keyed(trainer.callbacks) if (state := callback.state_dict())}
    data_state = {} if trainer.datamodule is None else trainer.datamodule.state_dict()
    entries: dict[str, Any] = {
        "epoch": trainer.current_epoch,
        "global_step": trainer.global_step,
        "hyper_parameters": dict(module.hparams),
        "callbacks": states,
    }
    for callback in trainer.callbacks:
        callback.on_save_checkpoint(trainer, module, entries)
    module.on_save_checkpoint(entries)
    validation = trainer.progress.validation if snapshot is None else {}
    logs, loggers = snapshot or logged_state(trainer, module)
    header = CheckpointHeader(
        progress=replace(trainer.progress, validation=validation),
        num_training_batches=int(trainer.num_training_batches) if trainer.num_training_batches < float("inf") else None,
        jit_compiled=trainer.jit_compiled,
        validation_jit_compiled=trainer.validation_jit_compiled,
        threads=tf.config.threading.get_intra_op_parallelism_threads(),
        metrics=trainer.callback_metrics,
        versions={"mnist_tuner": __version__} | {name: installed_version(name) for name in ("tensorflow", "keras", "numpy")},
        logs=logs,
        callbacks=entries["callbacks"],
        loggers=loggers,
        datamodule=data_state,
        hyper_parameters=entries["hyper_parameters"],
        build_config=model_of(module).get_build_config(),
        extra={name: value for name, value in entries.items() if name not in _OWN},
    )
    checkpoint = Checkpoint.of(module, header)
    drawn, before = np.array(global_generator().state.numpy()), state_of(module).randomness
    if before is None or not np.array_equal(drawn, before):  # otherwise it is nothing of the training's
        checkpoint.tensors["random/global"] = drawn
    return checkpoint


def logged_state(trainer: TrainerBase, module: Module) -> tuple[dict[str, Any], list[Any]]:
    """What the training has logged in the epoch, and how much the loggers hold."""
    return log_of(module, RunningStage.TRAINING).state(), [logger.state_dict() for logger in trainer.loggers]


def find_checkpoint(trainer: TrainerBase, ckpt_path: str | Path | None) -> Checkpoint | None:
    """The checkpoint that a ckpt_path means.

    Args:
        trainer: whose `ModelCheckpoint`s to ask.
        ckpt_path: a file, "last", "best" or None.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is not a whole checkpoint.
        ValueError: it is "best", and no best checkpoint is known.
    """
    if ckpt_path is None:
        return None
    checkpoints = [callback for callback in trainer.callbacks if isinstance(callback, ModelCheckpoint)]
    if ckpt_path == "best":
        callback = checkpoints[0] if checkpoints else None
        if callback is None or not callback.best_model_path:
            raise ValueError(
                'ckpt_path is "best", but '
                + ("there is no ModelCheckpoint among the callbacks" if callback is None else "this trainer has saved none")
                + ": give the path of a checkpoint"
            )
        return read_checkpoint(Path(callback.best_model_path))
    if ckpt_path != "last":
        return read_checkpoint(Path(ckpt_path))
    folders = {callback.folder(trainer) for callback in checkpoints}
    paths = [path for folder in folders if folder.is_dir() for path in folder.rglob("*.safetensors")]
    for path in sorted((path for path in paths if path.name[0] != "."), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            warnings.warn(f"{error}; it is passed over", stacklevel=4)
    warnings.warn(
        f'ckpt_path is "last", but there is no checkpoint in {", ".join(map(str, folders)) or "any folder (no ModelCheckpoint)"}'
        f": {'the training starts afresh' if trainer.state.fn is TrainerFn.FITTING else 'the weights stay as they are'}",
        stacklevel=4,
    )
    return None


def resume_callbacks(trainer: TrainerBase, module: Module, checkpoint: Checkpoint) -> None:
    """The hooks of loading, the counters and the loggers, before the optimizer is made."""
    entries, header = checkpoint.entries(), checkpoint.header
    module.on_load_checkpoint(entries)
    for callback in trainer.callbacks:
        callback.on_load_checkpoint(trainer, module, entries)
    for key, callback in _keyed(trainer.callbacks):
        if key in entries["callbacks"]:
            with _fitting(key):
                callback.load_state_dict(entries["callbacks"][key])
    if trainer.datamodule is not None and header.datamodule:
        with _fitting("the data module"):
            trainer.datamodule.load_state_dict(checkpoint.arrays_in(header.datamodule))
    trainer.progress = replace(header.progress, validation=dict(header.progress.validation))
    if header.progress.ended:
        trainer.progress.next_epoch()
    trainer.callback_metrics = dict(header.metrics)
    trainer.jit_compiled, trainer.validation_jit_compiled = header.jit_compiled, header.validation_jit_compiled
    for logger, state in zip(trainer.loggers, header.loggers, strict=False):
        with _fitting(type(logger).__name__):
            logger.load_state_dict(state)


@contextmanager
def _fitting(what: str) -> Iterator[None]:
    """Names whose state it is that cannot be taken back."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint's state of {what} is damaged ({what_is_wrong(error)})") from error


def make_ready(verb: Verb, loader: Loader | None) -> None:
    """With the first data: builds the model on its shape, and for a fit the optimizer on the model's variables; then restores
    the checkpoint that is resumed or, by another verb, its weights."""
    if verb.ready:
        return
    verb.ready = True
    module, training = verb.module, RunningStage.TRAINING
    own_train_step = verb.fitting and isinstance(module, KerasModule) and module.has_own_train_step
    trace_anew_if_changed(module)
    stage = training if verb.fitting else RunningStage(str(verb.fn))
    if loader is not None and not any(key[0] is stage for key in loops_of(module)):  # else all is there
        if own_train_step and verb.sources.has(training):
            (loader,) = verb.sources.loaders(training)  # the sanity check's may give other parts
        module.build(loader, stage)
    state_of(module).randomness = np.array(global_generator().state.numpy())
    if verb.fitting and module.optimizer is not None and not module.optimizer.built and not own_train_step:
        module.optimizer.build(model_of(module).trainable_variables)
    trace_anew_if_changed(module)
    if verb.resumed is not None:
        verb.metrics_restored = _resume_training(module, verb.resumed)
    elif verb.checkpoint is not None:
        verb.checkpoint.restore(module, weights_only=True)


def _resume_training(module: Module, checkpoint: Checkpoint) -> bool:
    """Weights, optimizer, metrics and what was logged; the model and the optimizer are built. Returns whether that was all."""
    header = checkpoint.header
    metrics_restored = checkpoint.restore(module)
    if "random/global" in checkpoint.tensors:
        with _fitting("Keras's random generator"):
            global_generator().state.assign(checkpoint.tensors["random/global"])
    with _fitting("what was logged"):
        log_of(module, RunningStage.TRAINING).restore(header.logs)
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    if header.threads != threads:
        named = [f"{number} threads" if number else "as many threads as TensorFlow chose" for number in (header.threads, threads)]
        warnings.warn(
            f"the checkpoint was made with {named[0]} and is resumed with {named[1]}: the result will differ in its last bits",
            stacklevel=4,
        )
    return metrics_restored


def take_order(loader: Loader, progress: Progress, resumed: Checkpoint | None, batches: float) -> None:
    """A resumed training takes its rows in the order in which it began.

    Args:
        loader: of the training; gets the seed of that order.
        progress: gets the seed of the order that is taken.
        resumed: the checkpoint that the training goes on from.
        batches: that an epoch has now.
    """
    shuffled = loader if isinstance(loader, (ArrayLoader, StreamLoader)) and loader.shuffle else None
    before = None if resumed is None else resumed.header.progress.data_seed
    if shuffled is not None and before not in (None, shuffled.seed):
        if shuffled.seed_given:
            warnings.warn(
                f"the training began with an order of seed {before} and is resumed with {shuffled.seed}: the result will differ "
                "from one never stopped",
                stacklevel=5,
            )
        else:
            shuffled.seed = int(before or 0)
    if resumed is not None and progress.batch and resumed.header.num_training_batches not in (None, batches):
        warnings.warn(
            f"the checkpoint is from within an epoch of {resumed.header.num_training_batches} batches, and now it has {batches}: "
            "with other data or batches the result will differ from one never stopped",
            stacklevel=5,
        )
    progress.data_seed = None if shuffled is None else shuffled.seed


def warn_if_compiled_otherwise(checkpoint: Checkpoint | None, jit_compiled: bool | None) -> None:
    """XLA and a plain graph round differently and draw other random numbers."""
    before = None if checkpoint is None else checkpoint.header.jit_compiled
    if before is not None and before is not jit_compiled:
        names = {True: "XLA", False: "a plain graph"}
        warnings.warn(
            f"the checkpoint was made with {names[before]} and is resumed with {names[not before]}: the result will differ; see "
            "jit_compile",
            stacklevel=4,
        )


def _keyed(callbacks: Sequence[Callback]) -> list[tuple[str, Callback]]:
    """Each callback under a name of its own."""
    keyed: dict[str, Callback] = {}
    for callback in callbacks:
        key, number = callback.state_key, 2
        while key in keyed:
            key, number = f"{callback.state_key} {number}", number + 1
        keyed[key] = callback
    return list(keyed.items())
