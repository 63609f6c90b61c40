"""The outer loops: fit, validate, test, predict."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from mnist_tuner._version import __version__
from mnist_tuner.trainer.callbacks import Callback, ModelCheckpoint, RichModelSummary, RichProgressBar
from mnist_tuner.trainer.checkpoint import Checkpoint, CheckpointHeader
from mnist_tuner.trainer.compiled import JitCompile
from mnist_tuner.trainer.datamodule import ArrayLoader, DataModule
from mnist_tuner.trainer.interrupt import Interrupt, deferred_interrupt
from mnist_tuner.trainer.loggers import Logger
from mnist_tuner.trainer.loops import evaluate, logs_of, loops_of, predict, trace_anew_if_changed, train_epoch
from mnist_tuner.trainer.module import KerasModule, Module
from mnist_tuner.trainer.states import RunningStage, TrainerFn, TrainerState, TrainerStatus

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"mnist_tuner needs Keras's TensorFlow backend, and keras.json asks for {keras.backend.backend()!r}: "
        "set KERAS_BACKEND=tensorflow"
    )


class Trainer:
    """Runs a module over data: PyTorch Lightning's vocabulary and order of hooks around a compiled loop.

    Args:
        max_epochs: a cap on the epochs, -1 for none; by default 1,000 where max_steps is not given either.
        max_steps: a cap on the optimizer steps, -1 for none. Whichever cap is met first ends the fit.
        limit_train_batches, limit_val_batches, limit_test_batches, limit_predict_batches: an int is a number of batches,
            a float a share of them (1 is not 1.0); 0 leaves the stage out.
        fast_dev_run: True (or n) runs one batch (or n) of everything for one epoch, without loggers and checkpoints.
        callbacks: one or a list.
        logger: one, a list, or None.
        enable_progress_bar: whether a `RichProgressBar` is added where no callback is one.
        enable_model_summary: the same for `RichModelSummary`.
        jit_compile: True for XLA, False for a plain graph, "auto" for XLA with a plain graph where it refuses. An epoch's
            short last batch always takes a plain graph.
        steps_per_call: optimizer steps between two returns to Python; "auto" for calls of about 100 ms.
        default_root_dir: where callbacks write that were not told; by default the working directory.

    Attributes:
        current_epoch: from 0; after a fit the number of epochs done.
        global_step: optimizer steps taken.
        should_stop: set it to end the fit after the running call of the loop.
        interrupted: whether the last run was ended by Ctrl-C.
        callback_metrics: every metric by name, as callbacks want it.
        in_call: whether the compiled loop is running (as a signal handler may see it).
        jit_compiled: whether XLA ran the last training.
        compile_seconds: what tracing and compiling have cost so far.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        max_epochs: int | None = None,
        max_steps: int = -1,
        limit_train_batches: int | float = 1.0,
        limit_val_batches: int | float = 1.0,
        limit_test_batches: int | float = 1.0,
        limit_predict_batches: int | float = 1.0,
        fast_dev_run: bool | int = False,
        callbacks: Callback | Sequence[Callback] | None = None,
        logger: Logger | Sequence[Logger] | None = None,
        enable_progress_bar: bool = True,
        enable_model_summary: bool = True,
        jit_compile: JitCompile = "auto",
        steps_per_call: Literal["auto"] | int = "auto",
        default_root_dir: str | Path | None = None,
    ) -> None:
        if max_epochs is not None and max_epochs < -1:
            raise ValueError(f"max_epochs is {max_epochs}: expected -1 (endless), 0 or more")
        if max_steps < -1:
            raise ValueError(f"max_steps is {max_steps}: expected -1 (no cap), 0 or more")
        if steps_per_call != "auto" and not (isinstance(steps_per_call, Integral) and steps_per_call >= 1):
            raise ValueError(f"steps_per_call is {steps_per_call!r}: expected 'auto', or an int of 1 or more")
        if jit_compile not in (True, False, "auto"):
            raise ValueError(f"jit_compile is {jit_compile!r}: expected True, False or 'auto'")
        if fast_dev_run < 0:
            raise ValueError(f"fast_dev_run is {fast_dev_run}: expected True, False or a number of batches")
        self.max_epochs = (1000 if max_steps == -1 else -1) if max_epochs is None else max_epochs
        self.max_steps = max_steps
        self.limits = {
            RunningStage.TRAINING: _checked_limit("limit_train_batches", limit_train_batches),
            RunningStage.VALIDATING: _checked_limit("limit_val_batches", limit_val_batches),
            RunningStage.TESTING: _checked_limit("limit_test_batches", limit_test_batches),
            RunningStage.PREDICTING: _checked_limit("limit_predict_batches", limit_predict_batches),
        }
        self.callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        self.loggers = [logger] if isinstance(logger, Logger) else list(logger or [])
        if fast_dev_run:
            self.max_epochs, self.max_steps = 1, int(fast_dev_run)
            self.limits = dict.fromkeys(RunningStage, int(fast_dev_run))
            self.callbacks = [callback for callback in self.callbacks if not isinstance(callback, ModelCheckpoint)]
            self.loggers = []
        if enable_model_summary and not self._has(RichModelSummary):
            self.callbacks.insert(0, RichModelSummary())
        if enable_progress_bar and not self._has(RichProgressBar):
            self.callbacks.append(RichProgressBar())
        self.callbacks.sort(key=lambda callback: isinstance(callback, ModelCheckpoint))  # stable: it is always last
        self.fast_dev_run = fast_dev_run
        self.jit_compile: JitCompile = jit_compile
        self.steps_per_call = steps_per_call
        self.default_root_dir = Path(default_root_dir or Path.cwd())

        self.state = TrainerState()
        self.current_epoch = 0
        self.global_step = 0
        self.batches_in_epoch = 0
        self.rows_in_epoch = 0
        self.num_training_batches = 0
        self.should_stop = False
        self.interrupted = False
        self.callback_metrics: dict[str, float] = {}
        self.module: Module | None = None
        self.interrupt = Interrupt()
        self.in_call = False
        self.jit_compiled = jit_compile is not False

    # The four verbs.

    def fit(
        self,
        model: Module | keras.Model,
        train_dataloaders: ArrayLoader | None = None,
        val_dataloaders: ArrayLoader | None = None,
        datamodule: DataModule | None = None,
    ) -> None:
        """Trains, and validates after each epoch where there is validation data.

        Args:
            model: a module, or a compiled `keras.Model`, which is trained in place.
            train_dataloaders: the training batches; or give a datamodule.
            val_dataloaders: the validation batches, or None.
            datamodule: instead of the loaders.

        Raises:
            ValueError: there is no training data.
            TypeError: the module lacks a method, or a loader is of a kind that the trainer does not know.
            NonFiniteLossError: the loss became infinite or not a number; the weights are those after that step.
            KeyboardInterrupt: Ctrl-C; the weights are those of the last completed step.
        """
        with self._running(TrainerFn.FITTING, model, datamodule, train_dataloaders, val_dataloaders) as module:
            self._configure(module)
            if module.optimizer is None:
                module.optimizer = module.configure_optimizers()
            self.call("on_fit_start")
            if not self._done() and self.limits[RunningStage.TRAINING] != 0:
                train, val = self._loaders(train_dataloaders, val_dataloaders, datamodule)
                self.num_training_batches = self.limited(RunningStage.TRAINING, train)
                self._build(module, train)
                self.call("on_train_start")
                while not self._done():
                    train_epoch(self, module, train, val)
                assert module.model is not None
                # Moving averages of the weights (use_ema) take the weights' place, as at the end of Keras's fit.
                module.optimizer.finalize_variable_values(module.model.trainable_variables)
                module._log = None
                self.call("on_train_end")
            self.call("on_fit_end")

    def validate(
        self, model: Module | keras.Model, dataloaders: ArrayLoader | None = None, datamodule: DataModule | None = None
    ) -> list[dict[str, float]]:
        """One pass over the validation data.

        Returns:
            One dict of metrics per loader.
        """
        return self._evaluate_alone(TrainerFn.VALIDATING, model, dataloaders, datamodule)

    def test(
        self, model: Module | keras.Model, dataloaders: ArrayLoader | None = None, datamodule: DataModule | None = None
    ) -> list[dict[str, float]]:
        """One pass over the test data.

        Returns:
            One dict of metrics per loader.
        """
        return self._evaluate_alone(TrainerFn.TESTING, model, dataloaders, datamodule)

    def predict(
        self, model: Module | keras.Model, dataloaders: ArrayLoader | None = None, datamodule: DataModule | None = None
    ) -> list[Any]:
        """The outputs of predict_step, one per batch, as numpy arrays (or structures of them)."""
        with self._running(TrainerFn.PREDICTING, model, datamodule, dataloaders) as module:
            loader = self._stage_loader(module, RunningStage.PREDICTING, dataloaders, datamodule)
            return [] if loader is None else predict(self, module, loader)

    # What callbacks and people read.

    @property
    def training(self) -> bool:
        """Whether the training stage runs (and not its validation)."""
        return self.state.stage is RunningStage.TRAINING

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """What was logged with prog_bar; of the running epoch what is known so far."""
        if self.module is None:
            return {}
        shown: dict[str, float] = {}
        for log in logs_of(self.module).values():
            shown |= log.prog_bar_values()
        return shown

    @property
    def compile_seconds(self) -> float:
        """What tracing and compiling the loops has cost so far, in seconds."""
        return 0.0 if self.module is None else sum(loop.compile_seconds for loop in loops_of(self.module).values())

    @property
    def checkpoint_callback(self) -> ModelCheckpoint | None:
        """The first `ModelCheckpoint`."""
        return next((callback for callback in self.callbacks if isinstance(callback, ModelCheckpoint)), None)

    def save_checkpoint(self, path: str | Path) -> None:
        """Writes the training's state to a file, whole or not at all.

        Raises:
            RuntimeError: nothing has been trained.
            OSError: the folder cannot be written, or the disk is full.
        """
        if self.module is None or self.module.model is None:
            raise RuntimeError("there is nothing to save: fit a module first")
        header = CheckpointHeader(
            epoch=self.current_epoch,
            global_step=self.global_step,
            batches_in_epoch=self.batches_in_epoch,
            num_training_batches=self.num_training_batches,
            jit_compiled=self.jit_compiled,
            threads=tf.config.threading.get_intra_op_parallelism_threads(),
            metrics=self.callback_metrics,
            versions={"mnist_tuner": __version__} | {name: version(name) for name in ("tensorflow", "keras", "numpy")},
        )
        Checkpoint.of(self.module, header).save(Path(path))

    # The parts of the verbs.

    def _evaluate_alone(
        self, fn: TrainerFn, model: Module | keras.Model, loader: ArrayLoader | None, datamodule: DataModule | None
    ) -> list[dict[str, float]]:
        stage = RunningStage.TESTING if fn is TrainerFn.TESTING else RunningStage.VALIDATING
        with self._running(fn, model, datamodule, loader) as module:
            loader = self._stage_loader(module, stage, loader, datamodule)
            return [] if loader is None else [evaluate(self, module, stage, loader)]

    def _stage_loader(
        self, module: Module, stage: RunningStage, loader: ArrayLoader | None, datamodule: DataModule | None
    ) -> ArrayLoader | None:
        """The data of a verb other than fit, the module built on it; None where its limit is 0."""
        self._configure(module)
        if self.limits[stage] == 0:
            return None
        hook = {"validate": "val_dataloader", "test": "test_dataloader", "predict": "predict_dataloader"}[stage]
        if loader is None and datamodule is not None:
            loader = getattr(datamodule, hook)()
        if loader is None:
            raise ValueError(f"there is no data to {stage}: give dataloaders or a datamodule with {hook}()")
        self._build(module, loader)
        return loader

    # Setting up and ending.

    @contextmanager
    def _running(
        self, fn: TrainerFn, model: Module | keras.Model, datamodule: DataModule | None, *loaders: ArrayLoader | None
    ) -> Iterator[Module]:
        """What surrounds every verb: set-up, tear-down, and the hooks of an exception."""
        if datamodule is not None and any(loader is not None for loader in loaders):
            raise ValueError("both dataloaders and a datamodule were given: give one of them")
        module = model if isinstance(model, Module) else KerasModule(model)
        self.module, module.trainer = module, self
        self.state = TrainerState(TrainerStatus.RUNNING, fn)
        self.should_stop = self.interrupted = self.in_call = False
        self.callback_metrics = {}
        for log in logs_of(module).values():
            log.reset()
        try:
            if datamodule is not None:
                datamodule.prepare_data()
                datamodule.setup(fn)
            self.call_callbacks("setup", str(fn))
            module.setup(fn)
            with deferred_interrupt() as self.interrupt:
                yield module
                self.interrupt.check()
        except BaseException as exception:
            self.state.status = TrainerStatus.INTERRUPTED
            self.interrupted = isinstance(exception, KeyboardInterrupt)
            self._clean_up(exception, module, datamodule)
            raise
        finally:
            module._log = None
            self.state.stage = None
        for clean_up in self._teardown(fn, module, datamodule):
            clean_up()
        for logger in self.loggers:
            logger.finalize("success")
        self.state.status = TrainerStatus.FINISHED

    def _clean_up(self, exception: BaseException, module: Module, datamodule: DataModule | None) -> None:
        """Calls everything that must hear of the exception; what fails on the way is noted on it and hinders nothing."""
        assert self.state.fn is not None
        module._log = None
        calls: list[Callable[[], None]] = [
            *(partial(callback.on_exception, self, module, exception) for callback in self.callbacks),
            partial(module.on_exception, exception),
            *([partial(datamodule.on_exception, exception)] if datamodule is not None else []),
            *(partial(logger.finalize, "failed") for logger in self.loggers),
            *self._teardown(self.state.fn, module, datamodule),
        ]
        for call in calls:
            try:
                call()
            except Exception as error:
                exception.add_note(f"while cleaning up: {type(error).__name__}: {error}")

    def _teardown(self, fn: TrainerFn, module: Module, datamodule: DataModule | None) -> list[Callable[[], None]]:
        return [
            *([partial(datamodule.teardown, str(fn))] if datamodule is not None else []),
            *(partial(callback.teardown, self, module, str(fn)) for callback in self.callbacks),
            partial(module.teardown, str(fn)),
        ]

    def _configure(self, module: Module) -> None:
        """Makes the model, once."""
        if not module.__dict__.get("_configured"):
            module.model = module.configure_model()
            module.__dict__["_configured"] = True

    def _build(self, module: Module, loader: ArrayLoader) -> None:
        """Builds the model on the data's shape, and for a fit the optimizer on the model's variables."""
        if not isinstance(loader, ArrayLoader):
            raise TypeError(f"the data is a {type(loader).__name__}: expected an ArrayLoader (x, y as arrays)")
        module.build(loader)
        if self.state.fn is TrainerFn.FITTING and module.optimizer is not None and not module.optimizer.built:
            assert module.model is not None
            module.optimizer.build(module.model.trainable_variables)
        trace_anew_if_changed(module)

    def _loaders(
        self, train: ArrayLoader | None, val: ArrayLoader | None, datamodule: DataModule | None
    ) -> tuple[ArrayLoader, ArrayLoader | None]:
        if isinstance(train, DataModule):
            raise TypeError("a DataModule was given as train_dataloaders: pass it as datamodule=")
        if datamodule is not None:
            train = datamodule.train_dataloader()
            val = None if self.limits[RunningStage.VALIDATING] == 0 else datamodule.val_dataloader()
        if self.limits[RunningStage.VALIDATING] == 0:
            val = None
        if train is None:
            raise ValueError("there is no training data: give train_dataloaders or a datamodule with train_dataloader()")
        if val is not None and not self._has_own("validation_step"):
            warnings.warn("there is validation data, but the module has no validation_step: it is not validated", stacklevel=3)
            val = None
        return train, val

    def _done(self) -> bool:
        epochs = 0 <= self.max_epochs <= self.current_epoch
        steps = 0 <= self.max_steps <= self.global_step
        return epochs or steps or self.should_stop

    def limited(self, stage: RunningStage, loader: ArrayLoader) -> int:
        """How many of the loader's batches a stage takes.

        Raises:
            ValueError: the limit is a share that leaves none.
        """
        limit = self.limits[stage]
        if isinstance(limit, int):
            return min(limit, len(loader))
        batches = int(limit * len(loader))
        if limit > 0 and batches == 0:
            raise ValueError(f"the limit {limit} of {len(loader)} batches leaves none: raise it, or give a number of batches")
        return batches

    # Hooks.

    def call(self, hook: str, *arguments: Any, between: Callable[[], None] = lambda: None) -> None:
        """Every callback's hook, then the module's; at an epoch's end `between` and then the callbacks that run last."""
        late = hook == "on_train_epoch_end"
        self.call_callbacks(hook, *arguments, only=(lambda callback: not callback.runs_last) if late else None)
        assert self.module is not None
        getattr(self.module, hook)(*arguments)
        if late:
            between()
            self.call_callbacks(hook, *arguments, only=lambda callback: callback.runs_last)

    def call_callbacks(self, hook: str, *arguments: Any, only: Any = None) -> None:
        for callback in self.callbacks:
            if only is None or only(callback):
                getattr(callback, hook)(self, self.module, *arguments)

    def overridden(self, *hooks: str) -> bool:
        """Whether the module or a callback overrides one of these hooks."""
        return any(
            getattr(type(owner), hook) is not getattr(base, hook)
            for hook in hooks
            for owner, base in [(self.module, Module), *((callback, Callback) for callback in self.callbacks)]
        )

    def _has_own(self, step: str) -> bool:
        """Whether the module overrides a method of `Module`."""
        return getattr(type(self.module), step) is not getattr(Module, step)

    def _has(self, kind: type[Callback]) -> bool:
        return any(isinstance(callback, kind) for callback in self.callbacks)


def _checked_limit(name: str, limit: int | float) -> int | float:
    if not limit >= 0 or (not isinstance(limit, Integral) and limit > 1.0):
        raise ValueError(f"{name} is {limit}: expected a number of batches (int, 0 or more) or a share (float, 0.0 to 1.0)")
    return int(limit) if isinstance(limit, Integral) else float(limit)
