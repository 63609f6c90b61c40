"""The runner of a search: the widths are searched, the winner is compared with the baseline, and all is reported."""

from __future__ import annotations

import io
import os
import shlex
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.text import Text

from mnist_tuner.config import SearchConfig
from mnist_tuner.errors import InputError, RunError
from mnist_tuner.reports import console as rendering
from mnist_tuner.reports import search as report_of
from mnist_tuner.reports.report import SCHEMA_VERSION
from mnist_tuner.reports.search import OBJECTIVE, Retrained, SearchReport, SearchTiming
from mnist_tuner.runner.setting import as_text, check_folder, check_memory, command, summarize, timed_load, versions_of
from mnist_tuner.runs import RunDirectory
from mnist_tuner.search.engine import InlineEngine
from mnist_tuner.search.study import Study
from mnist_tuner.startup import load_keras_tuner, load_tensorflow
from mnist_tuner.trainer.atomic import atomic_write

if TYPE_CHECKING:
    from distributed import Security

    from mnist_tuner.search.engine import Engine
    from mnist_tuner.search.tuner import Tuner

VAL_FRACTION = 0.1
BATCH_SIZE = 32


_MAY_CHANGE = ("workers", "scheduler")
"""The options that a search may be resumed with."""


def resumed_config(path: Path, asked: SearchConfig, given: Sequence[str]) -> SearchConfig:
    """The configuration of a search that is to go on.

    Args:
        path: the search's folder.
        asked: the options of the command.
        given: which of them were given to it.

    Raises:
        InputError: the folder holds no run of ``search``, one that this version cannot read, or one that began with others.
    """
    _, manifest = RunDirectory.open(path)
    if manifest.get("schema_version") != SCHEMA_VERSION or manifest.get("command") != "search":
        raise InputError(f"{path / 'run.json'}: not a run of mnist-tuner search that this version can read")
    try:
        config = SearchConfig.from_dict(manifest.get("config"))
    except InputError as error:
        raise InputError(f"{path / 'run.json'}: {error}") from None
    before, now = config.to_dict(), asked.to_dict()
    for name in before:
        if name in given and name not in _MAY_CHANGE and before[name] != now[name]:
            option = "--" + name.replace("_", "-")
            raise InputError(
                f"{path}: the search began with {option} {_shown(before[name])}, and now it is {_shown(now[name])}: leave the "
                "option out, or begin another search"
            )
    if "workers" in given:  # here then, wherever it began
        config = replace(config, workers=asked.workers, scheduler=None)
    return replace(config, workers=None, scheduler=asked.scheduler) if "scheduler" in given else config


def _shown(value: Any) -> str:
    return ":".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def search(
    config: SearchConfig,
    console: Console,
    *,
    resume: Path | None = None,
    max_time: str | None = None,
    security: Security | None = None,
    quiet: bool = False,
    began: float | None = None,
    at_end: Callable[[SearchReport], None] = lambda report: None,
) -> SearchReport:
    """Searches the baseline's widths, compares the winner with the baseline on the test images, and reports.

    Args:
        config: the options.
        console: where the report goes.
        resume: the folder of a search with this configuration, to go on with that.
        max_time: no trial is begun after this long, such as "10m".
        security: the certificates for ``config.scheduler``.
        quiet: whether it is just the result.
        began: when the process began, by ``time.perf_counter()``; by default now.
        at_end: is given the report, also where the search fails or is interrupted (but not after bad input).

    Raises:
        InputError: the data, the folder or the scheduler cannot be used, or the folder holds another search.
        RunError: no trial was completed, or there is nothing left to run trials on.
        KeyboardInterrupt: Ctrl-C; the search can be resumed.
        OSError: a file could not be written; the search can be resumed.
    """
    began = time.perf_counter() if began is None else began
    talk = Console(file=io.StringIO()) if quiet else console
    check_folder(config.data)
    versions = versions_of("tensorflow", "keras", "keras-tuner", "numpy", "scipy", "scikit-learn", "distributed")
    talk.print(rendering.headline(versions))
    before: dict[str, Any] = {}
    if resume is None:
        low, high, step = config.widths
        folder = RunDirectory.create(config.output, "search", f"{config.strategy}-{low}-{high}-{step}")
    else:
        folder, before = RunDirectory.open(resume)
    folder.lock()
    report = SearchReport(
        status="running",
        run_dir=str(folder.path),
        seed=config.seed,
        config=config.to_dict(),
        device=f"CPU ({os.cpu_count()} cores)",
        workers=0,
        versions=versions,
        space=[],
    )
    folder.write_manifest(before | {"status": "running"} if before else report.to_dict())
    run = _Search(config, folder, report, talk, began, before=before, max_time=max_time, security=security)
    try:
        run.load()
        run.search()
        run.compare()
        run.finish(console if quiet else None)
    except BaseException as error:
        run.give_up(error, console)
        if not isinstance(error, InputError):
            at_end(run.report)
        raise
    finally:
        run.close()
    at_end(run.report)
    return run.report


class _Search:
    """The steps of one search, and what they hand on."""

    def __init__(
        self,
        config: SearchConfig,
        folder: RunDirectory,
        report: SearchReport,
        console: Console,
        began: float,
        *,
        before: dict[str, Any],
        max_time: str | None,
        security: Security | None,
    ) -> None:
        self.config, self.folder, self.report, self.console, self.began = config, folder, report, console, began
        self.before, self.max_time, self.security = before, max_time, security
        self.seconds: dict[str, float] = {"final_s": 0.0, "search_s": 0.0}
        self.tuner: Tuner | None = None
        self.rate = 0.0
        self.engine: Engine = InlineEngine()  # until there is another, or for good

    def load(self) -> None:
        """Loads TensorFlow and the data, while the process that workers are forked from loads it, too; starts the workers."""
        from mnist_tuner.search.loading import prepare_forking

        config = self.config
        inline = config.scheduler is None and config.workers == 0
        if config.scheduler is None and not inline:
            prepare_forking()
        with self.console.status("loading TensorFlow, starting the workers ..."), ThreadPoolExecutor(1) as reader:
            reading = reader.submit(timed_load, config.data)
            load_tensorflow(threads=1, cached=False)
            load_keras_tuner(bayesian=config.strategy == "bayesian")
            dataset, _ = reading.result()
            if not inline:
                from mnist_tuner.search.dask_engine import DaskEngine

                self.engine = DaskEngine(config.workers, config.scheduler, self.security)

        from mnist_tuner.data import MNISTDataModule
        from mnist_tuner.models import WidthHyperModel
        from mnist_tuner.search.tuner import Tuner

        try:
            self.data = MNISTDataModule(dataset, BATCH_SIZE, VAL_FRACTION, split_seed=config.seed)
        except InputError as error:
            raise InputError(f"{config.data}: {error}") from None
        widths = ":".join(map(str, config.widths))
        check_memory(
            f"--widths {widths}", [config.widths[1]] * 2, BATCH_SIZE, dataset, 1 if config.scheduler else self.engine.slots
        )
        hypermodel = WidthHyperModel(*config.widths, input_shape=dataset.image_shape, classes=dataset.classes)
        strategy: Any = config.strategy
        self.tuner = Tuner(
            hypermodel,
            objective=OBJECTIVE,
            strategy=strategy,
            max_trials=config.trials,
            epochs=config.epochs,
            replicates=config.replicates,
            seed=config.seed,
            workers="auto" if config.workers is None else config.workers,
            directory=self.folder / "study",
        )
        self.tuner.find_space()
        self.report = replace(
            self.report,
            data=summarize(self.data),
            workers=self.engine.slots,
            space=self.tuner.oracle.hyperparameters.get_config()["space"],
        )
        if not self.before:
            self.folder.write_manifest(self.report.to_dict())
        self.console.print(report_of.setting(self.report, self.tuner.total))

    def search(self) -> None:
        """Runs the trials."""
        assert self.tuner is not None
        started = time.perf_counter()
        self.seconds["start_s"] = started - self.began
        with self.tuner.display(self.console, self.engine) as display:
            display.trainings_afterwards = self.config.final_seeds
            try:
                self.tuner.search(self.data, max_time=self.max_time, engine=self.engine, observer=display)
            finally:
                self.seconds["search_s"] = time.perf_counter() - started
                self.rate = display.trials_per_minute
                trials = sorted(self.tuner.summaries.values(), key=lambda trial: trial.trial_id)
                self.report = replace(self.report, trials=tuple(trials))
        if not self.tuner.complete:
            self.report = replace(self.report, stopped=f"after {self.max_time}; --resume goes on")
        (self.folder.path / "study" / "trials.csv").replace(self.folder / "trials.csv")
        if self.report.best is None:
            reason = trials[0].reason if trials else "there was no time for one"
            raise RunError(f"no trial was completed: {reason}")

    def compare(self) -> None:
        """Trains the winner and the baseline anew, and judges them by the test images."""
        import numpy as np

        from mnist_tuner.runner.final import compare, predictions

        assert self.tuner is not None
        best = self.report.best
        assert best is not None
        started = time.perf_counter()
        baseline, winner = self.tuner.oracle.get_space(), self.tuner.get_best_hyperparameters()[0]
        baseline.values = {**self.tuner.oracle.defaults(), **self.tuner.first}
        winner.values = {name: value for name, value in winner.values.items() if not name.startswith("tuner/")}
        nets = [winner, baseline] if winner.values != baseline.values else [baseline]
        with self.console.status("comparing winner and baseline ...") as status:
            judged = compare(
                self.engine,
                self.folder / "final.jsonl",
                [net.get_config() for net in nets],
                search_seed=self.config.seed,
                seeds=self.config.final_seeds,
                epochs=self.config.epochs,
                model_path=self.folder / "model.keras",
                heard=lambda done, total: status.update(f"comparing winner and baseline: training {done} of {total} is done ..."),
            )
        results = [
            Retrained(
                tuple(net.values[f"units_{i}"] for i in (1, 2)),
                self.tuner.hypermodel.parameters(net),
                tuple(each.seed for each in runs),
                tuple(each.accuracy for each in runs),
            )
            for net, runs in zip(nets, judged, strict=True)
        ]
        self.report = replace(self.report, baseline=results[-1], winner=results[0] if len(results) > 1 else None)
        predicted = io.BytesIO()
        np.savez(
            predicted,
            labels=self.data.dataset.test_labels,
            predicted=predictions(judged),
            units=np.array([result.units for result in results]),
            seeds=np.array([result.seeds for result in results]),
        )
        atomic_write(self.folder / "test_predictions.npz", predicted.getvalue())
        self.seconds["final_s"] = time.perf_counter() - started

    def finish(self, result_console: Console | None) -> None:
        """Reports; the report's text is kept with the run."""
        self._take_time()
        self.report = replace(self.report, status="finished")
        atomic_write(self.folder / "report.txt", self._text())
        self.folder.write_manifest(self.report.to_dict())
        for part in self._result():
            self.console.print(part)
        self.console.print(Text(f"Run  {self.folder.path}"), soft_wrap=True)
        if result_console is not None:
            result_console.print(report_of.result_line(self.report), soft_wrap=True)

    def _take_time(self) -> None:
        timing = SearchTiming(**self.seconds, total_s=time.perf_counter() - self.began, trials_per_minute=self.rate)
        if self.before.get("status") == "finished" and len(self.before["trials"]) == len(self.report.trials):
            timing = SearchTiming(**self.before["timing"])  # it is only being reported again
        self.report = replace(self.report, timing=timing)

    def _result(self) -> list[RenderableType]:
        assert self.report.timing is not None
        return ["", report_of.search_result(self.report), "", report_of.timing_line(self.report.timing)]

    def _text(self) -> str:
        """The report as plain text of 100 columns."""
        assert self.tuner is not None
        heading: list[RenderableType] = [
            rendering.headline(self.report.versions),
            report_of.setting(self.report, self.tuner.total),
        ]
        return as_text([*heading, *self._result()], width=100)

    def give_up(self, error: BaseException, console: Console) -> None:
        """Writes down how the search ended; after bad input there is nothing to keep. A full disk hides nothing of the error."""
        if isinstance(error, InputError):
            if self.before:
                self.folder.write_manifest(self.before)
                return
            if not Study.summaries(self.folder / "study", OBJECTIVE):
                self.folder.discard()
                return
        if self.report.status == "finished":  # all is written, the report was just being printed
            return
        interrupted = isinstance(error, KeyboardInterrupt)
        if len(self.report.trials) < len(kept := Study.summaries(self.folder / "study", OBJECTIVE)):
            self.report = replace(self.report, trials=tuple(kept))  # it was being resumed
        if "start_s" in self.seconds:
            self._take_time()
        self.report = replace(
            self.report,
            status="interrupted" if interrupted else "failed",
            error=None if interrupted else f"{error}" or type(error).__name__,
        )
        done = f": {len(self.report.trials)} trials are kept" if self.report.trials else ""
        console.print(Text(f"{'Interrupted' if interrupted else 'Stopped'}{done}"), soft_wrap=True)
        console.print(Text(f"Go on with: {command('search')} --resume {shlex.quote(str(self.folder.path))}"), soft_wrap=True)
        try:
            self.folder.write_manifest(self.report.to_dict())
        except OSError:
            return

    def close(self) -> None:
        """Ends the workers."""
        self.engine.close()
