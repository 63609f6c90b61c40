"""The runner of a training: the baseline is trained and tested, and all is reported."""

from __future__ import annotations

import io
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mnist_tuner.config import TrainConfig, threads_for
from mnist_tuner.errors import InputError
from mnist_tuner.mnist.baseline import build, check_memory, judge, judging_module
from mnist_tuner.mnist.data import data_module, timed_load
from mnist_tuner.options import options_of
from mnist_tuner.render import run as rendering
from mnist_tuner.render.page import load_drawing
from mnist_tuner.reports.report import SCHEMA_VERSION, RunReport, Timing, classification_report, summarize
from mnist_tuner.runner.seeds import SeveralSeeds
from mnist_tuner.runner.session import Session, Steps, session
from mnist_tuner.runner.trainings import history_callback
from mnist_tuner.runs import RunDirectory
from mnist_tuner.startup import load_tensorflow
from mnist_tuner.trainer.files import atomic_write
from mnist_tuner.trainer.live import status

if TYPE_CHECKING:
    import keras

    from mnist_tuner.mnist.data import Dataset
    from mnist_tuner.trainer import Trainer


def resumed_config(path: Path, given: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a run that is to go on.

    Args:
        path: the run's folder.
        given: the options that it is to go on with, perhaps for more epochs, or more seeds; by name.

    Raises:
        InputError: the folder holds no run of ``train``, or one that cannot go on so.
    """
    for name, option in options_of(TrainConfig).items():
        if name in given and not option.may_change:
            raise InputError(f"--resume takes the run's own options: leave out {option.flag}")
    _, manifest = RunDirectory.open(path)
    if manifest.get("schema_version") != SCHEMA_VERSION or manifest.get("command") != "train":
        raise InputError(f"{path / 'run.json'}: not a run of mnist-tuner train that this version can read")
    try:
        config = TrainConfig.from_dict(manifest.get("config"))
    except InputError as error:
        raise InputError(f"{path / 'run.json'}: {error}") from None
    epochs, seeds = given.get("epochs"), given.get("seeds")
    if seeds is not None and not (config.seeds > 1 and seeds >= config.seeds) and seeds != config.seeds:
        least = "1: it is a run of one seed" if config.seeds == 1 else f"{config.seeds}, which the run has, or more"
        raise InputError(f"--seeds is {seeds}: expected {least}")
    if config.seeds > 1:
        if epochs not in (None, config.epochs):
            raise InputError(f"--epochs is {epochs}: a run of several seeds goes on with its own, {config.epochs}")
        return replace(config, **given)
    if config.fast_dev_run:
        raise InputError(f"{path}: a run with --fast-dev-run keeps no checkpoint to go on from")
    # One that failed may have done so at its first checkpoint, as on a full disk: then it begins anew.
    if manifest.get("epochs") and manifest.get("status") != "failed" and not any((path / "checkpoints").glob("*.safetensors")):
        raise InputError(f"{path / 'checkpoints'}: its checkpoints are gone: there is nothing to go on from")
    if epochs is not None and epochs < config.epochs:
        raise InputError(f"--epochs is {epochs}: expected {config.epochs}, which the run has, or more")
    return replace(config, **given)


def train(
    config: TrainConfig | None = None,
    console: Console | None = None,
    *,
    resume: Path | None = None,
    max_time: str | None = None,
    profile: bool = False,
    quiet: bool = False,
    began: float | None = None,
    at_end: Callable[[RunReport], None] = lambda report: None,
) -> RunReport:
    """Trains the baseline, tests it and reports; writes the run's folder.

    Args:
        config: the options; by default the baseline's.
        console: where the report goes; by default the standard output, or the notebook's cell.
        resume: the folder of a run with this configuration, to go on with that.
        max_time: ends the training when it has taken this long, such as "10m"; see `Timer`.
        profile: whether to print where the time of the training went.
        quiet: whether it is just the result.
        began: when the process began, by ``time.perf_counter()``; by default now.
        at_end: is given the report, also where the run fails or is interrupted (but not after bad input).

    Raises:
        InputError: the data or the output folder cannot be used.
        NonFiniteLossError: the training diverged; the run's folder says "failed".
        KeyboardInterrupt: Ctrl-C; the run's folder says "interrupted" and holds a checkpoint.
        OSError: a file could not be written.
    """
    config = config or TrainConfig()
    threads = config.threads if isinstance(config.threads, int) else 1  # until it is known what is trained on
    begin = partial(RunReport, command="train", threads=threads)
    name, packages = "-".join(map(str, config.hidden))[:40], ("tensorflow", "keras", "numpy")
    with session(config, begin, name, packages, console=console, resume=resume, quiet=quiet, began=began, at_end=at_end) as run:
        steps: OneSeed | SeveralSeeds = OneSeed(run, max_time, profile) if config.seeds == 1 else SeveralSeeds(run)
        run.steps = steps
        steps.load()
        run.write_options()
        steps.train()
        steps.test()
        _finish(run)
    return run.report


def _finish(run: Session[TrainConfig, RunReport]) -> None:
    seconds: dict[str, Any] = {"compile_s": None, "test_s": None, **run.seconds}
    timing = Timing(**seconds, total_s=time.perf_counter() - run.began)
    before = run.earlier
    if before is not None and before.status == "finished" and before.timing is not None:
        known = 0 if before.seeds is None else len(before.seeds.trainings)
        timing = before.timing if known == run.config.seeds else timing  # if so it is only being reported again
    report = replace(run.report, status="finished", timing=timing)
    whole = [*rendering.heading(report), *rendering.result(report, run.mistakes, epochs=True)]
    run.finish(report, rendering.result(report, run.mistakes, epochs=False), rendering.accuracy_line(report), whole)


class OneSeed(Steps):
    """The steps of a run with one seed: the training is this process's own, with checkpoints."""

    def __init__(self, run: Session[TrainConfig, RunReport], max_time: str | None, profile: bool) -> None:
        self.run, self.max_time, self.profile = run, max_time, profile
        self.trainer: Trainer | None = None
        self.history: Any = None

    def load(self) -> None:
        """Imports TensorFlow while a thread reads the data; then makes the model."""
        run, config = self.run, self.run.config
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(timed_load, config)
            with status(run.console, "loading TensorFlow ..."):
                run.seconds["import_s"] = load_tensorflow(lambda: self._choose_threads(reading))
            self.dataset, run.seconds["data_s"] = reading.result()

        import tensorflow as tf

        self.data = data_module(config, self.dataset)
        check_memory(f"--hidden {','.join(map(str, config.hidden))}", config.hidden, config.batch_size, self.dataset)
        self.model: keras.Model = build(config, self.dataset)
        summary = summarize(self.data)
        run.check_same_data(summary)
        device = "GPU" if tf.config.list_physical_devices("GPU") else run.report.device
        run.know(parameters=self.model.count_params(), data=summary, device=device)
        run.write_manifest()
        run.console.print(rendering.setting(run.report, summary))

    def _choose_threads(self, reading: Future[tuple[Dataset, float]]) -> int:
        """TensorFlow's threads, as they stand in the report: a run goes on with those that it began with."""
        run, before = self.run, self.run.earlier
        threads = 0 if before is None or before.data is None else before.threads
        if run.config.threads != "auto" or not threads:
            try:
                dataset, _ = reading.result()
            except Exception:  # it is told by who needs the data
                return run.report.threads
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            threads = threads_for(run.config, math.prod(dataset.image_shape), dataset.classes, cores)
        run.know(threads=threads)
        return threads

    def train(self) -> None:
        """Fits."""
        import tensorflow as tf

        from mnist_tuner.trainer import CheckpointError, EarlyStopping, Profiler

        run = self.run
        self.history = history_callback(lambda epoch: load_drawing())  # from then on the compiled loop leaves Python time
        patience = run.config.early_stopping
        self.early_stopping = None if patience is None else EarlyStopping("val_loss", patience=patience)
        resuming = any((run.folder / "checkpoints").glob("*.safetensors"))
        if not resuming:  # killed before the first checkpoint: nothing that it has logged counts
            shutil.rmtree(run.folder / "tensorboard", ignore_errors=True)
        self.trainer = self._make_trainer()
        for logger in self.trainer.loggers:
            logger.log_hyperparams(run.config.to_dict())
        started = time.perf_counter()
        try:
            self.trainer.fit(self.model, datamodule=self.data, ckpt_path="last" if resuming else None)
        except CheckpointError as error:
            raise InputError(f"{run.folder / 'checkpoints'}: {error}") from None
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError("the machine's memory is too small for this net and batch size") from error
        run.seconds["fit_s"] = time.perf_counter() - started
        run.seconds["compile_s"] = self.trainer.compile_seconds
        self.trainer.loggers = []  # what is logged is the training; the test stands in the report
        self.trainer.profiler = Profiler()
        run.know(epochs=tuple(self.history.epochs), stopped=self._why_it_stopped(self.trainer))

    def _make_trainer(self) -> Trainer:
        from mnist_tuner.trainer import (
            CSVLogger,
            Logger,
            ModelCheckpoint,
            RichModelSummary,
            RichProgressBar,
            SimpleProfiler,
            TensorBoardLogger,
            Trainer,
        )

        run, config = self.run, self.run.config
        loggers: list[Logger] = [CSVLogger(run.folder / "metrics.csv")] if "csv" in config.logger else []
        if "tensorboard" in config.logger:
            loggers.append(TensorBoardLogger(run.folder / "tensorboard"))
        profiler = SimpleProfiler(run.console) if self.profile else None
        if profiler is not None:
            profiler.record("import", run.seconds["import_s"])
        return Trainer(
            max_epochs=config.epochs,
            jit_compile=True,  # known to pay for a Dense stack, whose program is cached
            max_time=self.max_time,
            fast_dev_run=config.fast_dev_run,
            callbacks=[
                RichModelSummary(run.console),
                RichProgressBar(run.console, unit="img"),
                self.history,
                *([self.early_stopping] if self.early_stopping else []),
                ModelCheckpoint(run.folder / "checkpoints"),
            ],
            logger=loggers,
            profiler=profiler,
            default_root_dir=run.folder.path,
        )

    def _why_it_stopped(self, trainer: Trainer) -> str | None:
        """Why the training ended before its last epoch; None where it did not."""
        if not trainer.should_stop:
            return None
        where = f"after epoch {trainer.current_epoch}"
        if self.early_stopping is not None and self.early_stopping.stopping_reason_message:
            return f"{where}: {self.early_stopping.stopping_reason_message}"
        return f"in or {where}: the time is over; --resume goes on"

    def test(self) -> None:
        """Measures the model on the test images, and keeps it and its predictions."""
        from keras.src.saving import saving_lib  # keras.saving.save_model takes a path only, and a full disk crashes HDF5

        assert self.trainer is not None
        run = self.run
        started = time.perf_counter()
        predicted, probabilities, loss = judge(self.trainer, judging_module(self.model), self.data)
        labels = self.dataset.test_labels[: len(predicted)]
        test = classification_report(labels, predicted, probabilities.max(axis=1), probabilities.shape[1], loss)
        run.seconds["test_s"] = time.perf_counter() - started
        run.know(test=test)
        run.keep_predictions(
            self.dataset, test, labels=labels, predicted=predicted, probabilities=probabilities, seed=run.config.seed
        )
        content = io.BytesIO()
        saving_lib.save_model(self.model, content)
        atomic_write(run.folder / "model.keras", content.getvalue())

    def so_far(self) -> dict[str, Any]:
        """The epochs that have ended."""
        return {"epochs": tuple(self.history.epochs) if self.history else ()}

    def kept(self) -> str:
        """The last checkpoint."""
        if self.trainer is None or self.trainer.checkpoint_callback is None:
            return ""
        path = self.trainer.checkpoint_callback.best_model_path
        return f"; the state after step {self.trainer.global_step:,} is kept in {path}" if path else ""
