"""The outer loops: fit, validate, test, predict."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf
from rich.console import Console

from mnist_tuner.trainer.arguments import callback_list, check_choices, check_numbers, device_of, logger_list
from mnist_tuner.trainer.backend import check_backend
from mnist_tuner.trainer.base import TrainerBase, call
from mnist_tuner.trainer.callbacks import ModelCheckpoint
from mnist_tuner.trainer.callbacks.progress_bar import metrics_table
from mnist_tuner.trainer.compiled import JitCompile
from mnist_tuner.trainer.data import DataModule, Loader
from mnist_tuner.trainer.evaluation import begin, evaluate, predict, sanity_check
from mnist_tuner.trainer.hooks import Callback
from mnist_tuner.trainer.keras_module import KerasModule
from mnist_tuner.trainer.lifecycle import Verb, running
from mnist_tuner.trainer.loggers import Logger
from mnist_tuner.trainer.loop import train_epoch
from mnist_tuner.trainer.module import Module, model_of
from mnist_tuner.trainer.module_state import logging_to, state_of
from mnist_tuner.trainer.optimization import CLIPPING, POLICIES, configure_model, configure_optimizer
from mnist_tuner.trainer.profiler import Profiler, SimpleProfiler
from mnist_tuner.trainer.programs import trace_anew_if_changed
from mnist_tuner.trainer.progress import Limits, RunningStage, TrainerFn
from mnist_tuner.trainer.resume import (
    capture,
    find_checkpoint,
    make_ready,
    resume_callbacks,
    take_order,
    warn_if_compiled_otherwise,
)
from mnist_tuner.trainer.sources import Sources

check_backend(keras.backend.backend())


class Trainer(TrainerBase):
    """Runs a module over data: PyTorch Lightning's vocabulary and order of hooks around a compiled loop.

    Args:
        max_epochs: a cap on the epochs, -1 for none; by default 1,000 where max_steps is not given either.
        min_epochs, min_steps: should_stop counts only when these have been done.
        max_steps: a cap on the optimizer steps, -1 for none. Whichever cap is met first ends the fit.
        max_time: adds a `Timer` with this duration.
        limit_train_batches, limit_val_batches, limit_test_batches, limit_predict_batches: an int is a number of batches,
            a float a share of them (1 is not 1.0); 0 leaves the stage out.
        overfit_batches: takes so many (or such a share) of the training and validation batches, the same at each epoch.
        fast_dev_run: True (or n) runs one batch (or n) of everything for one epoch, without loggers, checkpoints, early stop.
        num_sanity_val_steps: validation batches that are tried before the training; -1 for all.
        check_val_every_n_epoch: validate after every so many epochs; None to count val_check_interval over epochs.
        val_check_interval: validate after such a share of an epoch (float) or so many batches (int).
        log_every_n_steps: what is logged per step goes to the loggers at these steps.
        callbacks: one or a list, Keras's own among them.
        logger: one, a list, True for ``metrics.csv`` in default_root_dir, or False.
        enable_checkpointing: whether a `ModelCheckpoint` is added where no callback is one.
        enable_progress_bar: the same for `RichProgressBar`.
        enable_model_summary: the same for `RichModelSummary`.
        gradient_clip_val, gradient_clip_algorithm: clips gradients by their common "norm" or by "value".
        accumulate_grad_batches: batches per optimizer step; set in the optimizer, where it stays.
        precision: "32-true", "16-mixed" or "bf16-mixed", for the model that configure_model makes; None for Keras's policy.
        deterministic: asks TensorFlow for deterministic operations, for the rest of the process.
        accelerator: "auto", "cpu" or "gpu".
        profiler: "simple" prints where the time went.
        jit_compile: True for XLA, False for a plain graph, "auto" for XLA where it pays: the model was compiled with it, or
            consists of operations that it is fast at, and so many steps are planned that it earns back its compilation; a
            training that is resumed goes on as it began. An epoch's short last batch always takes a plain graph.
        steps_per_call: optimizer steps between two returns to Python; "auto" for calls of about 100 ms.
        default_root_dir: where callbacks and loggers write that were not told; by default the working directory.

    Attributes:
        current_epoch: from 0; after a fit the number of epochs done.
        global_step: optimizer steps taken.
        should_stop: set it to end the fit after the running call of the loop.
        interrupted: whether the last run was ended by Ctrl-C.
        callback_metrics: every metric by name, as callbacks want it; logged_metrics: what the loggers got last.
        state: fn, stage and status.
        verbose: what Keras's callbacks find under this name in their params: 1 with a progress bar, 0 without; may be set.
        in_call: whether the compiled loop is running (as a signal handler may see it).
        jit_compiled, validation_jit_compiled: whether XLA ran the last training, and its validation; None before them.
        compile_seconds: what tracing and compiling have cost so far.

    Raises:
        ValueError: an argument is out of its range.
    """

    module: Module | None

    def __init__(
        self,
        *,
        max_epochs: int | None = None,
        min_epochs: int | None = None,
        max_steps: int = -1,
        min_steps: int | None = None,
        max_time: str | timedelta | dict[str, float] | None = None,
        limit_train_batches: int | float = 1.0,
        limit_val_batches: int | float = 1.0,
        limit_test_batches: int | float = 1.0,
        limit_predict_batches: int | float = 1.0,
        overfit_batches: int | float = 0,
        fast_dev_run: bool | int = False,
        num_sanity_val_steps: int = 2,
        check_val_every_n_epoch: int | None = 1,
        val_check_interval: int | float = 1.0,
        log_every_n_steps: int = 50,
        callbacks: Callback | keras.callbacks.Callback | Sequence[Callback | keras.callbacks.Callback] | None = None,
        logger: Logger | Sequence[Logger] | bool | None = True,
        enable_checkpointing: bool = True,
        enable_progress_bar: bool = True,
        enable_model_summary: bool = True,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        accumulate_grad_batches: int = 1,
        precision: Literal["32-true", "16-mixed", "bf16-mixed"] | None = None,
        deterministic: bool = False,
        accelerator: Literal["auto", "cpu", "gpu"] = "auto",
        profiler: Literal["simple"] | Profiler | None = None,
        jit_compile: JitCompile = "auto",
        steps_per_call: Literal["auto"] | int = "auto",
        default_root_dir: str | Path | None = None,
    ) -> None:
        check_choices(
            jit_compile=(jit_compile, (True, False, "auto")),
            precision=(precision, (None, *POLICIES)),
            accelerator=(accelerator, ("auto", "cpu", "gpu")),
            profiler=(None if isinstance(profiler, Profiler) else profiler, (None, "simple")),
            gradient_clip_algorithm=(gradient_clip_algorithm, tuple(CLIPPING)),
        )
        check_numbers(
            steps_per_call=(1 if steps_per_call == "auto" else steps_per_call, 1),
            fast_dev_run=(fast_dev_run, 0),
            num_sanity_val_steps=(num_sanity_val_steps, -1),
            log_every_n_steps=(log_every_n_steps, 1),
            accumulate_grad_batches=(accumulate_grad_batches, 1),
        )
        if gradient_clip_val is not None and not gradient_clip_val >= 0:
            raise ValueError(f"gradient_clip_val is {gradient_clip_val}: expected 0 (off) or more")
        super().__init__()
        self.device = device_of(accelerator)
        self._verb: Verb | None = None
        if max_epochs is None:
            max_epochs = 1000 if max_steps in (None, -1) else -1
        n = int(fast_dev_run)
        share: Any = n or overfit_batches
        self.limits = Limits(
            max_epochs=1 if n else max_epochs,
            max_steps=n or max_steps,
            min_epochs=min_epochs,
            min_steps=min_steps,
            limit_train_batches=share or limit_train_batches,
            limit_val_batches=share or limit_val_batches,
            limit_test_batches=n or limit_test_batches,
            limit_predict_batches=n or limit_predict_batches,
            check_val_every_n_epoch=1 if n else check_val_every_n_epoch,
            val_check_interval=1.0 if n else val_check_interval,
        )
        self.overfit_batches = overfit_batches
        self.fast_dev_run = fast_dev_run
        self.num_sanity_val_steps = 0 if n else math.inf if num_sanity_val_steps == -1 else num_sanity_val_steps
        self.log_every_n_steps = log_every_n_steps
        self.gradient_clipping = (CLIPPING[gradient_clip_algorithm], gradient_clip_val) if gradient_clip_val else None
        self.accumulate_grad_batches = accumulate_grad_batches
        self.precision = precision
        self.profiler = SimpleProfiler() if profiler == "simple" else profiler or Profiler()
        self.jit_compile: JitCompile = jit_compile
        self.steps_per_call = steps_per_call
        self.default_root_dir = Path(default_root_dir or Path.cwd())
        self.verbose: Any = int(enable_progress_bar)
        self.callbacks = callback_list(
            callbacks,
            max_time=max_time,
            summary=enable_model_summary,
            progress_bar=enable_progress_bar,
            checkpointing=enable_checkpointing,
            fast_dev_run=bool(n),
        )
        self._default_logger = logger is True
        self.loggers = [] if n else logger_list(logger, self.default_root_dir)
        if deterministic:
            tf.config.experimental.enable_op_determinism()

    # The four verbs.

    def fit(
        self,
        model: Module | keras.Model,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: DataModule | None = None,
        ckpt_path: str | Path | None = None,
    ) -> None:
        """Trains, and validates where there is validation data::

            configure_callbacks, prepare_data, setup("fit")
            configure_model
            [on_load_checkpoint, load_state_dict of what is resumed]
            configure_optimizers
            X on_fit_start
            [on_sanity_check_start, val_dataloader, VALIDATION of a few batches, on_sanity_check_end]
            train_dataloader, [without a sanity check: val_dataloader,] X on_train_start
            while not done:
                X on_train_epoch_start
                for each batch:
                    X on_train_batch_start, training_step, X on_train_batch_end
                    [VALIDATION when it is due]
                [VALIDATION if it is due at the epoch's end]
                X on_train_epoch_end [checkpoint]
            X on_train_end
            X on_fit_end, teardown("fit")

        X is that hook of every callback and then of the module; `hooks` tells more. An epoch is `loop.train_epoch`.

        Args:
            model: a module, or a compiled `keras.Model`, which is trained in place.
            train_dataloaders: the training batches: an `ArrayLoader`, a `tf.data.Dataset` of batches, a `keras.utils.PyDataset`.
            val_dataloaders: the validation batches, one such or a list; or None.
            datamodule: instead of the loaders; may also stand in the place of train_dataloaders. Without either, the module's own
                train_dataloader and val_dataloader are asked.
            ckpt_path: a checkpoint to go on from: a path, "last" for the newest whole one, "best" for that of this trainer.

        Raises:
            ValueError: there is no training data, or two arguments contradict each other.
            TypeError: the module lacks a method, or the data is of a kind that the trainer does not know.
            FileNotFoundError, CheckpointError: the checkpoint is not there, damaged, or does not fit the model.
            NonFiniteLossError: the loss became infinite or not a number; the weights are those after that step.
            KeyboardInterrupt: Ctrl-C; the weights are those of the last completed step.
        """
        given = {RunningStage.TRAINING: train_dataloaders, RunningStage.VALIDATING: val_dataloaders}
        with self._running(TrainerFn.FITTING, model, datamodule, given) as verb:
            module, verb.checkpoint = verb.module, find_checkpoint(self, ckpt_path)
            configure_model(module, self.precision)
            if verb.checkpoint is not None:
                resume_callbacks(self, module, verb.checkpoint)
            self._configure_optimizer(verb)
            for logger in self.loggers:
                logger.log_hyperparams(module.hparams)
            call(self, "on_fit_start")
            if self.num_sanity_val_steps and self.validates:
                sanity_check(self, verb, self.num_sanity_val_steps)
            if self.limits.shares[RunningStage.TRAINING] != 0:
                self._train(verb)
            elif verb.checkpoint is not None:
                make_ready(verb, None)
            call(self, "on_fit_end")

    def validate(
        self,
        model: Module | keras.Model | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        datamodule: DataModule | None = None,
        *,
        verbose: bool = False,
    ) -> list[dict[str, float]]:
        """One pass over the validation data.

        Args:
            model: None for that of the last fit, with its best checkpoint where there is one.
            dataloaders: one or a list, as in `fit`.
            ckpt_path: whose weights to load first.
            datamodule: instead of the loaders, as in `fit`.
            verbose: whether to print the metrics as a table.

        Returns:
            One dict of metrics per loader.
        """
        return self._evaluate_alone(TrainerFn.VALIDATING, model, dataloaders, ckpt_path, datamodule, verbose=verbose)

    def test(
        self,
        model: Module | keras.Model | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        datamodule: DataModule | None = None,
        *,
        verbose: bool = False,
    ) -> list[dict[str, float]]:
        """One pass over the test data; arguments and result as those of `validate`."""
        return self._evaluate_alone(TrainerFn.TESTING, model, dataloaders, ckpt_path, datamodule, verbose=verbose)

    def predict(
        self,
        model: Module | keras.Model | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        datamodule: DataModule | None = None,
    ) -> list[Any]:
        """The outputs of predict_step, one per batch, as numpy arrays (or structures of them); of several loaders a list each."""
        with self._alone(TrainerFn.PREDICTING, model, dataloaders, ckpt_path, datamodule) as (verb, loaders):
            return predict(self, verb, loaders) if loaders else []

    def save_checkpoint(self, path: str | Path) -> None:
        """Writes the training's state to a file, whole or not at all.

        Raises:
            RuntimeError: nothing has been trained.
            OSError: the folder cannot be written, or the disk is full.
        """
        if self.module is None or self.module.model is None:
            raise RuntimeError("there is nothing to save: fit a module first")
        with self.profiler.profile("checkpoints"):
            capture(self, self.module, None if self._verb is None else self._verb.snapshot).save(Path(path))

    @property
    def checkpoint_callback(self) -> ModelCheckpoint | None:
        """The first `ModelCheckpoint`."""
        return next((callback for callback in self.callbacks if isinstance(callback, ModelCheckpoint)), None)

    # The parts of the verbs.

    def _train(self, verb: Verb) -> None:
        """The part of a fit from on_train_start to on_train_end."""
        module, loader = verb.module, self._training_loader(verb)
        trains = not self.done
        if trains:
            self._plan_validation(verb)
            begun, resumed = self.progress, verb.checkpoint
            with logging_to(module, begin(self, module, RunningStage.TRAINING, anew=begun.batch == 0)):
                self._start_training(verb)
            anew = self.progress is not begun  # a callback has gone to another epoch: `go_to_epoch` makes a new Progress
            while not self.done:
                with logging_to(module, begin(self, module, RunningStage.TRAINING, anew)):
                    train_epoch(self, verb, loader)
                warn_if_compiled_otherwise(resumed, self.jit_compiled)
                anew, resumed = True, None
        elif verb.checkpoint is None and self.progress.total_batches:
            name = "max_epochs" if 0 <= self.max_epochs <= self.current_epoch else "max_steps"
            warnings.warn(
                f"fit() trains nothing: {name}={getattr(self, name)} has been reached by an earlier fit of this Trainer; raise "
                f"trainer.{name}, or make a new Trainer",
                stacklevel=3,
            )
        if module.optimizer is not None and (trains or verb.checkpoint is not None):
            # Moving averages of the weights (use_ema) take the weights' place, as at the end of Keras's fit.
            module.optimizer.finalize_variable_values(model_of(module).trainable_variables)
        if trains:
            call(self, "on_train_end")

    def _training_loader(self, verb: Verb) -> Loader:
        """The training data, with which model and optimizer are built."""
        loaders = verb.sources.loaders(RunningStage.TRAINING)
        if not loaders:
            raise ValueError(
                "there is no training data: give train_dataloaders, or a module or datamodule with train_dataloader()"
            )
        (loader,) = loaders
        make_ready(verb, loader)
        self.num_training_batches = verb.sources.batches(RunningStage.TRAINING, loader)
        take_order(loader, self.progress, verb.checkpoint, self.num_training_batches)
        return loader

    def _plan_validation(self, verb: Verb) -> None:
        """How many batches there are between two validations; asks for their data where the first epoch has one."""
        if self.validates:
            verb.val_check_batches = self.limits.batches_between_validations(self.num_training_batches)
            if self.limits.validates_in(self.current_epoch) and not verb.sources.loaders(RunningStage.VALIDATING):
                verb.val_check_batches = None

    def _start_training(self, verb: Verb) -> None:
        """on_train_start; what a callback sets there on a Keras model counts, as in Keras's fit, which traces only then."""
        module = verb.module
        optimizer = getattr(module.model, "optimizer", None)
        call(self, "on_train_start")
        if isinstance(module, KerasModule) and module.model.optimizer is not optimizer:
            self._configure_optimizer(verb)
            module.model.optimizer.build(module.model.trainable_variables)
        trace_anew_if_changed(module)

    def _configure_optimizer(self, verb: Verb) -> None:
        self.accumulation = configure_optimizer(
            verb.module,
            precision=self.precision,
            clipping=self.gradient_clipping,
            accumulate=self.accumulate_grad_batches,
            undo=verb.undo,
        )

    def _evaluate_alone(self, fn: TrainerFn, *arguments: Any, verbose: bool) -> list[dict[str, float]]:
        with self._alone(fn, *arguments) as (verb, loaders):
            results = evaluate(self, verb, loaders) if loaders else []
            if verbose and loaders:
                Console().print(metrics_table(str(fn), results))
            return results

    @contextmanager
    def _alone(
        self,
        fn: TrainerFn,
        model: Module | keras.Model | None,
        dataloaders: Any,
        ckpt_path: str | Path | None,
        datamodule: DataModule | None,
    ) -> Iterator[tuple[Verb, list[Loader]]]:
        """What surrounds a verb other than fit; gives its loaders too, with which the module is ready."""
        stage = RunningStage(str(fn))
        if model is None:
            if self.module is None:
                raise ValueError(f"{fn}() needs a model: give one, or call fit() first")
            model = self.module
            best = self.checkpoint_callback and self.checkpoint_callback.monitor and self.checkpoint_callback.best_model_path
            if ckpt_path is None and best:
                warnings.warn(f'{fn}() takes the best checkpoint, {best}: say so with ckpt_path="best"', stacklevel=4)
                ckpt_path = "best"
        with self._running(fn, model, datamodule, {stage: dataloaders}) as verb:
            verb.checkpoint = find_checkpoint(self, ckpt_path)
            configure_model(verb.module, self.precision)
            loaders = verb.sources.loaders(stage) if verb.sources.has(stage) else []
            if not loaders and self.limits.shares[stage] != 0:
                hook = {"validate": "val", "test": "test", "predict": "predict"}[stage]
                raise ValueError(
                    f"there is no data to {stage}: give dataloaders, or a module or datamodule with {hook}_dataloader()"
                )
            if loaders:
                make_ready(verb, loaders[0])
            yield verb, loaders

    @contextmanager
    def _running(
        self, fn: TrainerFn, model: Module | keras.Model, datamodule: DataModule | None, given: dict[RunningStage, Any]
    ) -> Iterator[Verb]:
        """Begins a verb with a clean slate, within its set-up and tear-down, and drops it at its end."""
        module = model if isinstance(model, Module) else KerasModule.of(model)
        main = next(iter(given))
        if datamodule is None and isinstance(given[main], DataModule):
            datamodule, given = given[main], {**given, main: None}
        if datamodule is not None and any(data is not None for data in given.values()):
            raise ValueError("both dataloaders and a datamodule were given: give one of them")
        self.module, module.trainer, self.datamodule = module, self, datamodule
        self.should_stop = self.interrupted = self.in_call = self.stops_within_epoch = False
        self.callback_metrics, self.progress.validation, self.num_training_batches = {}, {}, 0
        validates = fn is not TrainerFn.FITTING or type(module).validation_step is not Module.validation_step
        self._sources = Sources(module, given, datamodule, self.limits, bool(self.overfit_batches), validates)
        self._verb = verb = Verb(fn, module, self._sources)
        for log in state_of(module).logs.values():
            log.begin()
        try:
            with running(self, verb, self.device):
                yield verb
        finally:
            # What has been trained keeps neither its data alive nor the state that it was resumed from; a Keras model, with which
            # its module stays, does not keep the trainer and its callbacks, either.
            self._verb = self._sources = self.datamodule = None
            if isinstance(module, KerasModule):
                module.trainer = None
