"""What callbacks and loops read of a trainer, besides its verbs; and how they call hooks."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from mnist_tuner.trainer.compiled import JitCompile
from mnist_tuner.trainer.data import DataModule
from mnist_tuner.trainer.hooks import Callback, ModuleHooks
from mnist_tuner.trainer.loggers import Logger
from mnist_tuner.trainer.module_state import loops_of, state_of
from mnist_tuner.trainer.profiler import Profiler
from mnist_tuner.trainer.progress import Limits, Progress, RunningStage, TrainerFn, TrainerState
from mnist_tuner.trainer.sources import Sources


class TrainerBase(ABC):
    """A trainer as loops and callbacks see it, without its verbs. Its attributes are said in `Trainer`, but for those that only
    callbacks of ours read.

    Attributes:
        progress: how far the training has come.
        limits: how far it is to go.
        epoch_metrics: what was measured in the running epoch; epoch_logs: the same as Keras's callbacks get it at its end.
        accumulation: batches per optimizer step, as the optimizer has it.
        rows_in_epoch: examples trained on in the running epoch since it was begun or resumed.
        stops_within_epoch: whether the running epoch's end (or its validation) is made only because the training stops: one that
            goes on has no such here.
    """

    callbacks: list[Callback]
    loggers: list[Logger]
    limits: Limits
    profiler: Profiler
    default_root_dir: Path
    fast_dev_run: bool | int
    accumulate_grad_batches: int
    log_every_n_steps: int
    jit_compile: JitCompile
    steps_per_call: Literal["auto"] | int
    gradient_clipping: tuple[str, float] | None
    verbose: Any
    _default_logger: bool

    def __init__(self) -> None:
        self.state = TrainerState()
        self.progress = Progress()
        self.module: ModuleHooks | None = None
        self.datamodule: DataModule | None = None
        self.should_stop = False
        self.interrupted = False
        self.in_call = False
        self.callback_metrics: dict[str, float] = {}
        self.logged_metrics: dict[str, float] = {}
        self.num_training_batches: float = 0
        self.jit_compiled: bool | None = None
        self.validation_jit_compiled: bool | None = None
        self.epoch_metrics: dict[str, float] = {}
        self.epoch_logs: dict[str, float] = {}
        self.accumulation = 1
        self.rows_in_epoch = 0
        self.stops_within_epoch = False
        self._sources: Sources | None = None

    @abstractmethod
    def save_checkpoint(self, path: str | Path) -> None:
        """Writes the training's state to a file, whole or not at all.

        Raises:
            RuntimeError: nothing has been trained.
            OSError: the folder cannot be written, or the disk is full.
        """

    # Where it is.

    @property
    def current_epoch(self) -> int:
        """The running epoch, from 0; after a fit the number of epochs done."""
        return self.progress.epoch

    @property
    def global_step(self) -> int:
        """Optimizer steps taken."""
        return self.progress.global_step

    @property
    def training(self) -> bool:
        """Whether the training stage runs (and not its validation)."""
        return self.state.stage is RunningStage.TRAINING

    @property
    def sanity_checking(self) -> bool:
        """Whether it is the sanity check that validates."""
        return self.state.stage is RunningStage.SANITY_CHECKING

    @property
    def stopping(self) -> bool:
        """Whether should_stop is set and counts."""
        return self.should_stop and self.limits.may_stop(self.progress)

    @property
    def done(self) -> bool:
        """Whether there is no further epoch to train."""
        return self.limits.reached(self.progress) or self.stopping

    def go_to_epoch(self, epoch: int) -> None:
        """Goes on at the start of another epoch, as a training that came there would; Keras's BackupAndRestore asks for it."""
        progress, per_epoch = self.progress, self.num_training_batches
        skipped = 0 if math.isinf(per_epoch) else (epoch - progress.epoch) * int(per_epoch) - progress.batch
        batches = max(0, progress.total_batches + skipped)
        steps = batches // self.accumulation
        self.progress = replace(
            progress, epoch=epoch, batch=0, total_batches=batches, global_step=steps, validated=True, ended=False
        )

    # Where it goes.

    @property
    def max_epochs(self) -> int:
        """The cap on the epochs, -1 for none; may be set between two fits."""
        return self.limits.max_epochs

    @max_epochs.setter
    def max_epochs(self, epochs: int) -> None:
        self.limits.max_epochs = epochs

    @property
    def max_steps(self) -> int:
        """The cap on the steps, -1 for none; may be set between two fits."""
        return self.limits.max_steps

    @max_steps.setter
    def max_steps(self, steps: int) -> None:
        self.limits.max_steps = steps

    @property
    def estimated_stepping_batches(self) -> float:
        """Optimizer steps that a fit will take in all, for a schedule, say; asks for the training data."""
        if not self.num_training_batches and self._sources is not None:
            for loader in self._sources.loaders(RunningStage.TRAINING):
                self.num_training_batches = self._sources.batches(RunningStage.TRAINING, loader)
        batches = math.inf if self.max_epochs == -1 else self.max_epochs * self.num_training_batches
        steps = batches if math.isinf(batches) else batches // self.accumulate_grad_batches
        return steps if self.max_steps == -1 else min(steps, self.max_steps)

    def batches_of(self, stage: RunningStage) -> int | None:
        """The batches of one pass over the data of a stage; None where nobody knows, or no verb runs."""
        if self._sources is None:
            return None
        steps = sum(self._sources.batches(stage, loader) for loader in self._sources.loaders(stage))
        return None if math.isinf(steps) else int(steps)

    @property
    def validates(self) -> bool:
        """Whether the fit has validation data."""
        return self._sources is not None and self._sources.has(RunningStage.VALIDATING)

    @property
    def validates_at_each_epochs_end(self) -> bool:
        """Whether validation has the rhythm of the epochs (or there is none)."""
        return not self.validates or (self.limits.validates_once and self.limits.check_val_every_n_epoch == 1)

    # What it has measured.

    def take_metrics(self, metrics: dict[str, float]) -> None:
        """Takes metrics for the callbacks, as those of the running epoch."""
        self.callback_metrics |= metrics
        self.epoch_metrics |= metrics

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Gives metrics to the loggers, by default as those of the present step."""
        # The file of the logger that nobody asked for may be that of another trainer's training.
        untrained = self._default_logger and not self.progress.total_batches and self.state.fn is not TrainerFn.FITTING
        if not metrics or self.sanity_checking or untrained:
            return
        self.logged_metrics = metrics = {"epoch": float(self.current_epoch), **metrics}
        with self.profiler.profile("logging"):
            for logger in self.loggers:
                logger.log_metrics(metrics, self.global_step if step is None else step)

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """What was logged with prog_bar; of the running epoch what is known so far."""
        logs = {} if self.module is None else state_of(self.module).logs
        return {name: value for stage in RunningStage if stage in logs for name, value in logs[stage].prog_bar_values().items()}

    @property
    def compile_seconds(self) -> float:
        """What tracing and compiling the loops has cost so far, in seconds."""
        loops: Iterable[Any] = () if self.module is None else loops_of(self.module).values()
        return float(sum(getattr(loop, "compile_seconds", 0.0) for loop in loops))

    @property
    def logger(self) -> Logger | None:
        """The first logger."""
        return self.loggers[0] if self.loggers else None


# Calling hooks.


def call(trainer: TrainerBase, hook: str, *arguments: Any) -> None:
    """Every callback's hook, then the module's."""
    call_callbacks(trainer, trainer.callbacks, hook, *arguments)
    call_module(trainer, hook, *arguments)


def call_callbacks(trainer: TrainerBase, callbacks: Iterable[Callback], hook: str, *arguments: Any) -> None:
    """The hook of some callbacks."""
    for callback in callbacks:
        began = time.perf_counter()
        getattr(callback, hook)(trainer, trainer.module, *arguments)
        seconds = time.perf_counter() - began
        trainer.profiler.record(f"{type(callback).__name__}.{hook}", seconds)
        if callback.displays:
            trainer.profiler.record("display", seconds)


def call_module(trainer: TrainerBase, hook: str, *arguments: Any) -> None:
    """The module's hook."""
    with trainer.profiler.profile(f"{type(trainer.module).__name__}.{hook}"):
        getattr(trainer.module, hook)(*arguments)


def overridden(trainer: TrainerBase, *hooks: str) -> bool:
    """Whether the module or a callback overrides one of these hooks, in its class or in itself."""
    return any(
        hook in vars(owner) or getattr(type(owner), hook) is not getattr(base, hook)
        for hook in hooks
        for owner, base in [(trainer.module, ModuleHooks), *((callback, Callback) for callback in trainer.callbacks)]
    )
