"""A training's state on its way to a checkpoint and back."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from mnist_tuner._version import __version__
from mnist_tuner.trainer.callbacks import Callback, ModelCheckpoint
from mnist_tuner.trainer.checkpoint import Checkpoint, CheckpointError, CheckpointHeader, read_checkpoint
from mnist_tuner.trainer.data import ArrayLoader, Loader
from mnist_tuner.trainer.logging import MetricLog
from mnist_tuner.trainer.module import KerasModule, Module
from mnist_tuner.trainer.programs import logs_of, loops_of, trace_anew_if_changed
from mnist_tuner.trainer.progress import Progress, RunningStage, TrainerFn
from mnist_tuner.trainer.seed import global_generator
from mnist_tuner.trainer.streams import StreamLoader

if TYPE_CHECKING:
    from mnist_tuner.trainer.trainer import Trainer

_OWN = ("epoch", "global_step", "hyper_parameters", "callbacks")


def capture(trainer: Trainer, module: Module) -> Checkpoint:
    """The training's state as it is now, within the hooks of saving."""
    assert module.model is not None
    states = {key: state for key, callback in _keyed(trainer) if (state := callback.state_dict())}
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
    progress = trainer.progress
    own_logs, own_loggers = (
        logs_of(module).get(RunningStage.TRAINING, MetricLog()).state(),
        [logger.state_dict() for logger in trainer.loggers],
    )
    logs, loggers = trainer.snapshot or (own_logs, own_loggers)
    header = CheckpointHeader(
        epoch=progress.epoch,
        global_step=progress.global_step,
        batches_in_epoch=progress.batch,
        num_training_batches=int(trainer.num_training_batches) if trainer.num_training_batches < float("inf") else None,
        jit_compiled=trainer.jit_compiled,
        validation_jit_compiled=trainer.validation_jit_compiled,
        threads=tf.config.threading.get_intra_op_parallelism_threads(),
        metrics=trainer.callback_metrics,
        versions={"mnist_tuner": __version__} | {name: version(name) for name in ("tensorflow", "keras", "numpy")},
        total_batches=progress.total_batches,
        validated=progress.validated,
        ended=progress.ended,
        validation={} if trainer.snapshot else trainer.validation_metrics,
        logs=logs,
        callbacks=entries["callbacks"],
        loggers=loggers,
        datamodule=data_state,
        data_seed=trainer.data_seed,
        hyper_parameters=entries["hyper_parameters"],
        build_config=module.model.get_build_config(),
        extra={name: value for name, value in entries.items() if name not in _OWN},
    )
    checkpoint = Checkpoint.of(module, header)
    drawn = np.array(global_generator().state.numpy())
    if not np.array_equal(drawn, trainer.randomness):  # somebody draws from it: otherwise it is nothing of the training's
        checkpoint.tensors["random/global"] = drawn
    return checkpoint


def find_checkpoint(trainer: Trainer, ckpt_path: str | Path | None) -> Checkpoint | None:
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
    callback = trainer.checkpoint_callback
    if ckpt_path == "best":
        if callback is None or not callback.best_model_path:
            raise ValueError(
                'ckpt_path is "best", but '
                + ("there is no ModelCheckpoint among the callbacks" if callback is None else "this trainer has saved none")
                + ": give the path of a checkpoint"
            )
        return read_checkpoint(Path(callback.best_model_path))
    if ckpt_path != "last":
        return read_checkpoint(Path(ckpt_path))
    folders = {c.folder(trainer) for c in trainer.callbacks if isinstance(c, ModelCheckpoint)}
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


def resume_callbacks(trainer: Trainer, module: Module, checkpoint: Checkpoint) -> None:
    """The hooks of loading, the counters and the loggers, before the optimizer is made."""
    entries = checkpoint.entries()
    module.on_load_checkpoint(entries)
    for callback in trainer.callbacks:
        callback.on_load_checkpoint(trainer, module, entries)
    for key, callback in _keyed(trainer):
        if key in entries["callbacks"]:
            callback.load_state_dict(entries["callbacks"][key])
    header = checkpoint.header
    if trainer.datamodule is not None and header.datamodule:
        trainer.datamodule.load_state_dict(checkpoint.arrays_in(header.datamodule))
    trainer.progress = Progress(
        header.epoch, header.batches_in_epoch, header.total_batches, header.global_step, header.validated, header.ended
    )
    if header.ended:
        trainer.progress.next_epoch()
    trainer.callback_metrics, trainer.validation_metrics = dict(header.metrics), dict(header.validation)
    trainer.jit_compiled, trainer.validation_jit_compiled = header.jit_compiled, header.validation_jit_compiled
    for logger, state in zip(trainer.loggers, header.loggers, strict=False):
        logger.load_state_dict(state)


def resume_training(trainer: Trainer, module: Module, checkpoint: Checkpoint) -> None:
    """Weights, optimizer, metrics and what was logged; the model and the optimizer are built."""
    header = checkpoint.header
    trainer.metrics_restored = checkpoint.restore(module) or not trainer.progress.batch
    if "random/global" in checkpoint.tensors:
        global_generator().state.assign(checkpoint.tensors["random/global"])
    logs_of(module).setdefault(RunningStage.TRAINING, MetricLog()).restore(header.logs)
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    if header.threads != threads:
        named = [f"{number} threads" if number else "as many threads as TensorFlow chose" for number in (header.threads, threads)]
        warnings.warn(
            f"the checkpoint was made with {named[0]} and is resumed with {named[1]}: the result will differ in its last bits",
            stacklevel=4,
        )


def make_ready(trainer: Trainer, module: Module, loader: Loader | None) -> None:
    """With the first data: builds the model on its shape, and for a fit the optimizer on the model's variables; then restores
    the checkpoint that is resumed or, by another verb, its weights."""
    assert module.model is not None
    if trainer.ready:
        return
    trainer.ready = True
    fitting = trainer.state.fn is TrainerFn.FITTING
    own_train_step = fitting and isinstance(module, KerasModule) and module.has_own_train_step
    trace_anew_if_changed(module)
    stage = RunningStage.TRAINING if fitting else RunningStage(str(trainer.state.fn))
    if loader is not None and not any(key[0] is stage for key in loops_of(module)):  # else all is there
        if own_train_step and trainer._sources is not None and trainer._sources.has(RunningStage.TRAINING):
            (loader,) = trainer._sources.loaders(RunningStage.TRAINING)  # the sanity check's may give other parts
        module.build(loader, stage)
    trainer.randomness = np.array(global_generator().state.numpy())
    if fitting and module.optimizer is not None and not module.optimizer.built and not own_train_step:
        module.optimizer.build(module.model.trainable_variables)
    trace_anew_if_changed(module)
    if trainer.checkpoint is not None and fitting:
        resume_training(trainer, module, trainer.checkpoint)
    elif trainer.checkpoint is not None:
        trainer.checkpoint.restore(module, weights_only=True)


def take_order(trainer: Trainer, loader: Loader) -> None:
    """A resumed training takes its rows in the order in which it began."""
    shuffled = loader if isinstance(loader, (ArrayLoader, StreamLoader)) and loader.shuffle else None
    if trainer.checkpoint is not None:
        header = trainer.checkpoint.header
        if shuffled is not None and header.data_seed not in (None, shuffled.seed):
            if shuffled.seed_given:
                warnings.warn(
                    f"the training began with an order of seed {header.data_seed} and is resumed with {shuffled.seed}: the "
                    "result will differ from one never stopped",
                    stacklevel=4,
                )
            else:
                shuffled.seed = int(header.data_seed or 0)
        if trainer.progress.batch and header.num_training_batches not in (None, trainer.num_training_batches):
            warnings.warn(
                f"the checkpoint is from within an epoch of {header.num_training_batches} batches, and now it has "
                f"{trainer.num_training_batches}: with other data or batches the result will differ from one never stopped",
                stacklevel=4,
            )
    trainer.data_seed = None if shuffled is None else shuffled.seed


def warn_if_compiled_otherwise(checkpoint: Checkpoint | None, jit_compiled: bool | None) -> None:
    """XLA and a plain graph round differently and draw other random numbers."""
    before = None if checkpoint is None else checkpoint.header.jit_compiled
    if before is not None and before is not jit_compiled:
        names = {True: "XLA", False: "a plain graph"}
        warnings.warn(
            f"the checkpoint was made with {names[before]} and is resumed with {names[not before]}: the result will differ; see "
            "jit_compile",
            stacklevel=5,
        )


def _keyed(trainer: Trainer) -> list[tuple[str, Callback]]:
    """Each callback under a name of its own."""
    keyed: dict[str, Any] = {}
    for callback in trainer.callbacks:
        key, number = callback.state_key, 2
        while key in keyed:
            key, number = f"{callback.state_key} {number}", number + 1
        keyed[key] = callback
    return list(keyed.items())
