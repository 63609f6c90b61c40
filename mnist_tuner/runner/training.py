"""The runner of a training: the baseline is trained and tested, and all is reported."""

from __future__ import annotations

import io
import math
import os
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from mnist_tuner.config import TrainConfig, options_of, threads_for, write_options
from mnist_tuner.errors import InputError
from mnist_tuner.render import run as rendering
from mnist_tuner.render.page import keep_page, load_drawing
from mnist_tuner.reports.report import SCHEMA_VERSION, DataSummary, RunReport, Timing, classification_report
from mnist_tuner.runner.session import (
    as_text,
    available_cores,
    check_data,
    check_memory,
    command,
    save_predictions,
    summarize,
    timed_load,
    versions_of,
)
from mnist_tuner.runner.trainings import build, data_module, history_callback, judge, judging_module
from mnist_tuner.runs import RunDirectory
from mnist_tuner.startup import compile_cache, load_tensorflow
from mnist_tuner.trainer.files import atomic_path, atomic_write
from mnist_tuner.trainer.live import status

if TYPE_CHECKING:
    import keras
    import numpy as np
    import numpy.typing as npt

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
    if manifest.get("epochs") and not any((path / "checkpoints").glob("*.safetensors")):
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
    began = time.perf_counter() if began is None else began
    config, console = config or TrainConfig(), console or Console()
    talk = Console(file=io.StringIO(), force_jupyter=False) if quiet else console
    check_data(config)
    versions = versions_of("tensorflow", "keras", "numpy")
    talk.print(rendering.headline(versions))

    before: dict[str, Any] = {}
    if resume is None:
        folder = RunDirectory.create(config.output, "train", "-".join(map(str, config.hidden))[:40])
    else:
        folder, before = RunDirectory.open(resume)
    folder.lock()
    report = RunReport(
        command="train",
        status="running",
        run_dir=str(folder.path),
        seed=config.seed,
        config=config.to_dict(),
        device=f"CPU ({os.cpu_count()} cores)",
        threads=config.threads if isinstance(config.threads, int) else 1,  # until it is known what is trained on
        versions=versions,
    )
    folder.write_manifest(before | {"status": "running"} if before else report.to_dict())
    run = _kind(config)(config, folder, report, talk, began, before=before, max_time=max_time, profile=profile)
    try:
        run.load()
        atomic_write(folder / "config.toml", write_options("train", config.to_dict()))
        run.train()
        run.test()
        run.finish(console if quiet else None)
    except BaseException as error:
        run.give_up(error, console)
        if not isinstance(error, InputError):
            at_end(run.report)
        raise
    finally:
        run.close()
        folder.unlock()
    at_end(run.report)
    return run.report


def _kind(config: TrainConfig) -> type[Run]:
    if config.seeds == 1:
        return Run
    from mnist_tuner.runner.seeds import SeveralSeeds

    return SeveralSeeds


class Run:
    """The steps of one run of ``train``, and what they hand on."""

    def __init__(
        self,
        config: TrainConfig,
        folder: RunDirectory,
        report: RunReport,
        console: Console,
        began: float,
        *,
        before: dict[str, Any],
        max_time: str | None,
        profile: bool,
    ) -> None:
        self.before = before
        self.max_time = max_time
        self.profile = profile
        self.config = config
        self.folder = folder
        self.report = report
        self.console = console
        self.began = began
        self.seconds: dict[str, float] = {}
        self.trainer: Trainer | None = None
        self.history: Any = None
        self.mistakes: npt.NDArray[np.uint8] | None = None

    def load(self) -> None:
        """Imports TensorFlow while a thread reads the data; then makes the model."""
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(timed_load, self.config)
            with status(self.console, "loading TensorFlow ..."):
                self.seconds["import_s"] = load_tensorflow(lambda: self._choose_threads(reading))
            self.dataset, self.seconds["data_s"] = reading.result()

        import tensorflow as tf

        config, dataset = self.config, self.dataset
        self.data = data_module(config, dataset)
        check_memory(f"--hidden {','.join(map(str, config.hidden))}", config.hidden, config.batch_size, dataset)
        self.model: keras.Model = build(config, dataset)
        device = "GPU" if tf.config.list_physical_devices("GPU") else self.report.device
        summary = summarize(self.data)
        self.check_same_data(summary)
        self.report = replace(self.report, parameters=self.model.count_params(), data=summary, device=device)
        self.folder.write_manifest(self.report.to_dict())
        self.console.print(rendering.setting(self.report, summary))

    def _choose_threads(self, reading: Future[tuple[Dataset, float]]) -> int:
        """TensorFlow's threads, as they stand in the report: a run goes on with those that it began with."""
        threads = self.before.get("threads")
        if self.config.threads != "auto" or not self.before.get("data") or type(threads) is not int or threads < 1:
            try:
                dataset, _ = reading.result()
            except Exception:  # it is told by who needs the data
                return self.report.threads
            threads = threads_for(self.config, math.prod(dataset.image_shape), dataset.classes, available_cores())
        self.report = replace(self.report, threads=threads)
        return threads

    def train(self) -> None:
        """Fits."""
        import tensorflow as tf

        from mnist_tuner.trainer import (
            CSVLogger,
            EarlyStopping,
            Logger,
            ModelCheckpoint,
            Profiler,
            RichModelSummary,
            RichProgressBar,
            SimpleProfiler,
            TensorBoardLogger,
            Trainer,
        )

        self.history = history_callback(lambda epoch: load_drawing())  # from then on the compiled loop leaves Python time
        patience = self.config.early_stopping
        self.early_stopping = None if patience is None else EarlyStopping("val_loss", patience=patience)
        loggers: list[Logger] = [CSVLogger(self.folder / "metrics.csv")] if "csv" in self.config.logger else []
        if "tensorboard" in self.config.logger:
            loggers.append(TensorBoardLogger(self.folder / "tensorboard"))
        profiler = SimpleProfiler(self.console) if self.profile else None
        if profiler is not None:
            profiler.record("import", self.seconds["import_s"])
        resuming = any((self.folder / "checkpoints").glob("*.safetensors"))
        if not resuming:  # killed before the first checkpoint: nothing that it has logged counts
            shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)
        self.trainer = Trainer(
            max_epochs=self.config.epochs,
            jit_compile=True,  # known to pay for a Dense stack, whose program is cached
            max_time=self.max_time,
            fast_dev_run=self.config.fast_dev_run,
            callbacks=[
                RichModelSummary(self.console),
                RichProgressBar(self.console, unit="img"),
                self.history,
                *([self.early_stopping] if self.early_stopping else []),
                ModelCheckpoint(self.folder / "checkpoints"),
            ],
            logger=loggers,
            profiler=profiler,
            default_root_dir=self.folder.path,
        )
        for logger in self.trainer.loggers:
            logger.log_hyperparams(self.config.to_dict())
        started = time.perf_counter()
        try:
            self.trainer.fit(self.model, datamodule=self.data, ckpt_path="last" if resuming else None)
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError("the machine's memory is too small for this net and batch size") from error
        except tf.errors.OpError as error:
            cache = compile_cache()
            if cache is None or str(cache) not in error.message:
                raise
            shutil.rmtree(cache, ignore_errors=True)
            raise OSError(
                f"the cache of compiled programs, {cache}, could not be used and has been deleted: start again, "
                "or set MNIST_TUNER_COMPILE_CACHE=off"
            ) from error
        self.seconds["fit_s"] = time.perf_counter() - started
        self.seconds["compile_s"] = self.trainer.compile_seconds
        self.trainer.loggers = []  # what is logged is the training; the test stands in the report
        self.trainer.profiler = Profiler()
        self.report = replace(self.report, epochs=tuple(self.history.epochs), stopped=self._why_it_stopped())

    def _why_it_stopped(self) -> str | None:
        """Why the training ended before its last epoch; None where it did not."""
        assert self.trainer is not None
        if not self.trainer.should_stop:
            return None
        where = f"after epoch {self.trainer.current_epoch}"
        if self.early_stopping is not None and self.early_stopping.stopping_reason_message:
            return f"{where}: {self.early_stopping.stopping_reason_message}"
        return f"in or {where}: the time is over; --resume goes on"

    def check_same_data(self, data: DataSummary) -> None:
        """A run goes on with the data that it began with."""
        before = self.before.get("data") or {}
        if not isinstance(before, dict) or not isinstance(before.get("sha256", {}), dict):
            raise InputError(f"{self.folder / 'run.json'}: damaged: data is no object")
        for name, digest in before.get("sha256", {}).items():
            if data.sha256.get(name) != digest:
                raise InputError(f"{self.folder.path}: the run began with other data: {name} has changed")
        if before.get("classes", data.classes) != data.classes:
            raise InputError(
                f"{self.folder.path}: the run began with {before['classes']} classes, and now there are {data.classes}"
            )

    def test(self) -> None:
        """Measures the model on the test images, and keeps it and its predictions."""
        assert self.trainer is not None
        started = time.perf_counter()
        predicted, probabilities, loss = judge(self.trainer, judging_module(self.model), self.data)
        labels = self.dataset.test_labels[: len(predicted)]
        result = classification_report(labels, predicted, probabilities.max(axis=1), probabilities.shape[1], loss)
        self.seconds["test_s"] = time.perf_counter() - started
        self.report = replace(self.report, test=result)
        self.keep(labels, predicted=predicted, probabilities=probabilities, seed=self.config.seed)
        with atomic_path(self.folder / "model.keras") as path:
            self.model.save(path)

    def keep(self, labels: npt.NDArray[np.uint8], **arrays: Any) -> None:
        """Keeps the predictions."""
        assert self.report.test is not None
        self.mistakes = self.dataset.test_images[[mistake.index for mistake in self.report.test.mistakes]]
        save_predictions(self.folder, labels=labels, **arrays, mistakes=self.mistakes)

    def finish(self, result_console: Console | None) -> None:
        """Reports; what is kept with the run is written when it stands on the screen. Only then is the run finished."""
        seconds = self.seconds
        timing = Timing(
            import_s=seconds["import_s"],
            data_s=seconds["data_s"],
            compile_s=seconds.get("compile_s"),
            fit_s=seconds["fit_s"],
            test_s=seconds.get("test_s"),
            total_s=time.perf_counter() - self.began,
        )
        known = (self.before.get("seeds") or {}).get("count")
        if self.before.get("status") == "finished" and known == self.config.seeds:
            timing = Timing(**self.before["timing"])  # it is only being reported again
        report = replace(self.report, status="finished", timing=timing)
        for part in rendering.result(report, self.mistakes, epochs=False):
            self.console.print(part)
        self.console.print(Text(f"Run  {self.folder.path}"), soft_wrap=True)
        if result_console is not None:
            result_console.print(rendering.accuracy_line(report), soft_wrap=True)
        whole = [*rendering.heading(report), *rendering.result(report, self.mistakes, epochs=True)]
        atomic_write(self.folder / "report.txt", as_text(whole))
        keep_page(report, self.mistakes, self.config.command)
        self.folder.write_manifest(report.to_dict())
        self.report = report

    def give_up(self, error: BaseException, console: Console) -> None:
        """Writes down how the run ended; after bad input there is nothing to keep. A full disk hides nothing of the error."""
        if isinstance(error, InputError):
            if self.before:
                self.folder.write_manifest(self.before)
            else:
                self.folder.discard()
            return
        if self.report.status == "finished":  # all is written
            return
        interrupted = isinstance(error, KeyboardInterrupt)
        epochs = tuple(self.history.epochs) if self.history else ()
        self.report = replace(
            self.report,
            status="interrupted" if interrupted else "failed",
            epochs=epochs,
            error=None if interrupted else f"{error}" or type(error).__name__,
        )
        try:
            self.folder.write_manifest(self.report.to_dict())
        except OSError:
            return
        if interrupted:
            console.print(Text(f"Interrupted{self.kept()}"), soft_wrap=True)
            if not self.config.fast_dev_run:
                console.print(
                    Text(f"Go on with: {command('train')} --resume {shlex.quote(str(self.folder.path))}"), soft_wrap=True
                )

    def close(self) -> None:
        """Ends what was begun."""

    def kept(self) -> str:
        """What an interruption leaves."""
        if self.trainer is None or self.trainer.checkpoint_callback is None:
            return ""
        path = self.trainer.checkpoint_callback.best_model_path
        return f"; the state after step {self.trainer.global_step:,} is kept in {path}" if path else ""
