"""What callbacks, loops and people use of a trainer, besides its verbs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mnist_tuner.trainer.callbacks import Callback, ModelCheckpoint
from mnist_tuner.trainer.checkpoint import Checkpoint
from mnist_tuner.trainer.data import DataModule, Loader
from mnist_tuner.trainer.interrupt import Interrupt
from mnist_tuner.trainer.loggers import Logger
from mnist_tuner.trainer.module import Module
from mnist_tuner.trainer.profiler import Profiler
from mnist_tuner.trainer.programs import logs_of, loops_of
from mnist_tuner.trainer.progress import Limits, Progress, RunningStage, TrainerFn, TrainerState
from mnist_tuner.trainer.streams import StreamLoader
from mnist_tuner.trainer.xla import planned_epochs

if TYPE_CHECKING:
    from mnist_tuner.trainer.sources import Sources


class TrainerProperties:
    """The part of a `Trainer` that follows from the rest."""

    overfit_batches: int | float
    profiler: Profiler
    _default_logger: bool
    callbacks: list[Callback]
    accumulate_grad_batches: int
    limits: Limits
    loggers: list[Logger]

    def _make_ready(self, loader: Loader | None) -> None:
        raise NotImplementedError

    def __init__(self) -> None:
        self.state = TrainerState()
        self.progress = Progress()
        self.module: Module | None = None
        self.datamodule: DataModule | None = None
        self.should_stop = False
        self.interrupted = False
        self.callback_metrics: dict[str, float] = {}
        self.epoch_metrics: dict[str, float] = {}
        self.epoch_logs: dict[str, float] = {}
        self.logged_metrics: dict[str, float] = {}
        self.num_training_batches: float = 0
        # What the verbs and the loops keep here while they run.
        self.rows_in_epoch = 0
        self.accumulation = 1
        self.val_check_batches: float = math.inf
        self.validation_metrics: dict[str, float] = {}
        self.snapshot: tuple[dict[str, Any], list[Any]] | None = None
        self.undo: list[Callable[[], None]] = []
        self.interrupt = Interrupt()
        self.in_call = False
        self.checkpoint: Checkpoint | None = None
        self.data_seed: int | None = None
        self.metrics_restored = False
        self.randomness: Any = None
        self.ready = False
        self.jit_compiled: bool | None = None
        self.validation_jit_compiled: bool | None = None
        self._sources: Sources | None = None

    def measured(self, metrics: dict[str, float]) -> None:
        """Takes metrics for the callbacks, as those of the running epoch."""
        self.callback_metrics |= metrics
        self.epoch_metrics |= metrics

    def go_to_epoch(self, epoch: int) -> None:
        """Goes on at the start of an epoch, as a training that came there would."""
        progress, per_epoch = self.progress, self.num_training_batches
        skipped = 0 if math.isinf(per_epoch) else (epoch - progress.epoch) * int(per_epoch) - progress.batch
        batches = max(0, progress.total_batches + skipped)
        self.progress = Progress(epoch, 0, batches, batches // self.accumulation, validated=True)
        self.metrics_restored = True  # those of a checkpoint from within an epoch are of no use

    def steps_of(self, stage: RunningStage) -> int | None:
        """The batches of one pass over the data of a stage; None where nobody knows."""
        assert self._sources is not None
        steps = sum(self.limited(stage, loader) for loader in self._sources.loaders(stage))
        return None if math.isinf(steps) else int(steps)

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

    def val_loaders(self) -> list[Loader]:
        """The validation loaders of the fit."""
        assert self._sources is not None
        if loaders := self._sources.loaders(RunningStage.VALIDATING):
            self._make_ready(loaders[0])
        return loaders

    def limited(self, stage: RunningStage, loader: Loader) -> float:
        """How many of the loader's batches a stage takes."""
        if self.overfit_batches and isinstance(loader, StreamLoader):
            return loader.num_batches  # already cut to these
        return self.limits.batches(stage, loader.num_batches)

    @property
    def current_epoch(self) -> int:
        """The running epoch, from 0; after a fit the number of epochs done."""
        return self.progress.epoch

    @property
    def global_step(self) -> int:
        """Optimizer steps taken."""
        return self.progress.global_step

    @property
    def max_epochs(self) -> int:
        """The cap on the epochs, -1 for none; may be set between two fits."""
        assert self.limits.max_epochs is not None
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
                self.num_training_batches = self.limited(RunningStage.TRAINING, loader)
        batches = math.inf if self.max_epochs == -1 else self.max_epochs * self.num_training_batches
        steps = batches if math.isinf(batches) else batches // self.accumulate_grad_batches
        return steps if self.max_steps == -1 else min(steps, self.max_steps)

    @property
    def planned_epochs(self) -> float:
        """How many epochs there are to be, by which `jit_compile="auto"` chooses; one where it is no fit."""
        if self.state.fn is not TrainerFn.FITTING:
            return 1
        epochs = math.inf if self.max_epochs == -1 else max(self.max_epochs, planned_epochs.get())
        if self.max_steps == -1:
            return epochs
        return min(epochs, self.max_steps * self.accumulation / max(1, self.num_training_batches))

    @property
    def training(self) -> bool:
        """Whether the training stage runs (and not its validation)."""
        return self.state.stage is RunningStage.TRAINING

    @property
    def sanity_checking(self) -> bool:
        """Whether it is the sanity check that validates."""
        return self.state.stage is RunningStage.SANITY_CHECKING

    @property
    def validates(self) -> bool:
        """Whether the fit has validation data."""
        return self._sources is not None and self._sources.has(RunningStage.VALIDATING)

    @property
    def validates_at_each_epochs_end(self) -> bool:
        """Whether validation has the rhythm of the epochs (or there is none)."""
        whole = isinstance(self.limits.val_check_interval, float) and self.limits.val_check_interval == 1.0
        return not self.validates or (whole and self.limits.check_val_every_n_epoch == 1)

    @property
    def evaluation_metrics(self) -> dict[str, float]:
        """What the validation or test that runs has measured so far."""
        log = None if self.module is None else self.module._log
        return {} if log is None or self.training else log.all_values()

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """What was logged with prog_bar; of the running epoch what is known so far."""
        if self.module is None:
            return {}
        shown: dict[str, float] = {}
        for stage in RunningStage:
            if stage in logs_of(self.module):
                shown |= logs_of(self.module)[stage].prog_bar_values()
        return shown

    @property
    def compile_seconds(self) -> float:
        """What tracing and compiling the loops has cost so far, in seconds."""
        loops = [] if self.module is None else loops_of(self.module).values()
        return float(sum(getattr(loop, "compile_seconds", 0.0) for loop in loops))

    @property
    def checkpoint_callback(self) -> ModelCheckpoint | None:
        """The first `ModelCheckpoint`."""
        return next((callback for callback in self.callbacks if isinstance(callback, ModelCheckpoint)), None)

    @property
    def logger(self) -> Logger | None:
        """The first logger."""
        return self.loggers[0] if self.loggers else None
