"""The runner of a search: the widths are searched, the winner is compared with the baseline, and all is reported."""

from __future__ import annotations

import io
import os
import shlex
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from mnist_tuner.config import SearchConfig, TrainConfig, options_of, write_options
from mnist_tuner.errors import InputError, RunError
from mnist_tuner.render.page import keep_page
from mnist_tuner.render.run import headline
from mnist_tuner.render.search import heading, result, result_line, setting
from mnist_tuner.reports.comparison import compare, contestant
from mnist_tuner.reports.report import SCHEMA_VERSION, classification_report
from mnist_tuner.reports.search import OBJECTIVE, SearchReport, SearchTiming, read_curves, units_of
from mnist_tuner.runner.session import (
    as_text,
    check_data,
    check_memory,
    command,
    save_predictions,
    summarize,
    timed_load,
    versions_of,
)
from mnist_tuner.runner.trainings import Listener, mean_loss, predictions, train_all, trained_widths
from mnist_tuner.runs import RunDirectory
from mnist_tuner.search.engine import InlineEngine
from mnist_tuner.search.study import Study
from mnist_tuner.search.trial import replicate_seeds
from mnist_tuner.startup import load_keras_tuner, load_tensorflow
from mnist_tuner.trainer.files import atomic_write
from mnist_tuner.trainer.live import Status, status

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from distributed import Security

    from mnist_tuner.search.engine import Engine
    from mnist_tuner.search.tuner import Tuner

VAL_FRACTION = 0.1
BATCH_SIZE = 32


def resumed_config(path: Path, given: Mapping[str, Any]) -> SearchConfig:
    """The configuration of a search that is to go on.

    Args:
        path: the search's folder.
        given: the options that it is to go on with; by name.

    Raises:
        InputError: the folder holds no run of ``search``, one that this version cannot read, or one that began with others.
    """
    asked = SearchConfig(**given)
    _, manifest = RunDirectory.open(path)
    if manifest.get("schema_version") != SCHEMA_VERSION or manifest.get("command") != "search":
        hint = f" (it is one of train: mnist-tuner train --resume {path})" if manifest.get("command") == "train" else ""
        raise InputError(f"{path / 'run.json'}: not a run of mnist-tuner search that this version can read{hint}")
    try:
        config = SearchConfig.from_dict(manifest.get("config"))
    except InputError as error:
        raise InputError(f"{path / 'run.json'}: {error}") from None
    before, now, changed = config.to_dict(), asked.to_dict(), dict[str, Any]()
    for name, option in options_of(SearchConfig).items():
        if name in given and option.may_change:
            changed[name] = given[name]
        elif name in given and before[name] != now[name]:
            raise InputError(
                f"{path}: the search began with {option.flag} {option.text(before[name])}, and now it is "
                f"{option.text(now[name])}: leave the option out, or begin another search"
            )
    if "workers" in changed or "scheduler" in changed:  # there then, wherever it began
        changed = {"workers": None, "scheduler": None} | changed
    return replace(config, **changed)


def search(
    config: SearchConfig | None = None,
    console: Console | None = None,
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
        console: where the report goes; by default the standard output, or the notebook's cell.
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
    config, console = config or SearchConfig(), console or Console()
    talk = Console(file=io.StringIO(), force_jupyter=False) if quiet else console
    check_data(config)
    versions = versions_of("tensorflow", "keras", "keras-tuner", "numpy", "scipy", "scikit-learn", "distributed")
    talk.print(headline(versions))
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
        atomic_write(folder / "config.toml", write_options("search", config.to_dict()))
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
        folder.unlock()
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
        self.mistakes: npt.NDArray[np.uint8] | None = None
        self.engine: Engine = InlineEngine()  # until there is another, or for good

    def load(self) -> None:
        """Loads TensorFlow and the data, while the process that workers are forked from loads it, too; starts the workers."""
        from mnist_tuner.search.loading import prepare_forking

        config = self.config
        inline = config.scheduler is None and config.workers == 0
        if config.scheduler is None and not inline:
            prepare_forking()
        with status(self.console, "loading TensorFlow, starting the workers ..."), ThreadPoolExecutor(1) as reader:
            reading = reader.submit(timed_load, config)
            load_tensorflow(threads=1, cached=False)
            load_keras_tuner(bayesian=config.strategy == "bayesian")
            dataset, _ = reading.result()
            if not inline:
                from mnist_tuner.search.dask_engine import DaskEngine

                self.engine = DaskEngine(config.workers, config.scheduler, self.security)

        from mnist_tuner.mnist import WidthHyperModel
        from mnist_tuner.mnist.data import MNISTDataModule
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
            total=self.tuner.total,
        )
        if not self.before:
            self.folder.write_manifest(self.report.to_dict())
        self.console.print(setting(self.report))

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
        best, recommended = self.report.best, self.report.recommended
        if best is None or recommended is None:
            reason = trials[0].reason if trials else "there was no time for one"
            raise RunError(f"no trial was completed: {reason}")
        wanted = {best.trial_id, recommended.trial_id, trials[0].trial_id}
        self.report = replace(self.report, curves=read_curves(self.folder / "trials.csv", wanted))

    def compare(self) -> None:
        """Trains the winner and the baseline anew, with seeds of their own, and judges them by the test images."""
        assert self.tuner is not None
        best = self.report.best
        assert best is not None
        started = time.perf_counter()
        config, dataset, baseline = self.config, self.data.dataset, (self.tuner.hypermodel.default,) * 2
        nets = [units_of(best), baseline] if units_of(best) != baseline else [baseline]
        drawn = [replicate_seeds(config.seed, {"units": units, "final": True}, config.final_seeds) for units in nets]
        configs = [
            TrainConfig(epochs=config.epochs, batch_size=BATCH_SIZE, hidden=units, seed=seed, data=config.data)
            for units, seeds in zip(nets, drawn, strict=True)
            for seed in seeds
        ]
        with status(self.console, "comparing winner and baseline ...") as line:
            trainings = train_all(
                self.engine,
                self.folder / "trainings.jsonl",
                configs,
                model_path=self.folder / "model.keras",
                listener=_Comparison(line),
            )
        together = predictions(trainings)
        predicted = together[0].reshape(len(nets), config.final_seeds, -1)
        confidence = together[1].reshape(predicted.shape)
        labels = dataset.test_labels
        parameters = [trainings[number * config.final_seeds].parameters for number in range(len(nets))]
        contestants = [
            contestant("-".join(map(str, units)), units, size, seeds, labels, read)
            for units, size, seeds, read in zip(nets, parameters, drawn, predicted, strict=True)
        ]
        comparison = None
        if len(nets) > 1:
            comparison = compare((contestants[0].name, contestants[1].name), labels, (predicted[0], predicted[1]))
        loss = mean_loss(trainings[: config.final_seeds])
        test = classification_report(labels, predicted[0], confidence[0], dataset.classes, loss)
        looked = dict.fromkeys(trained_widths(self.folder / "trainings.jsonl"))
        self.report = replace(
            self.report,
            looked_before=tuple("-".join(map(str, units)) for units in looked if units not in nets),
            baseline=contestants[-1],
            winner=contestants[0] if len(nets) > 1 else None,
            comparison=comparison,
            test=test,
        )
        self.mistakes = dataset.test_images[[mistake.index for mistake in test.mistakes]]
        save_predictions(
            self.folder,
            labels=labels,
            predicted=predicted,
            confidence=confidence,
            units=nets,
            seeds=drawn,
            mistakes=self.mistakes,
        )
        self.seconds["final_s"] = time.perf_counter() - started

    def finish(self, result_console: Console | None) -> None:
        """Reports; what is kept with the run is written when it stands on the screen. Only then is the search finished."""
        self._take_time()
        report = replace(self.report, status="finished")
        for part in result(report):
            self.console.print(part)
        self.console.print(Text(f"Run  {self.folder.path}"), soft_wrap=True)
        if result_console is not None:
            result_console.print(result_line(report), soft_wrap=True)
        atomic_write(self.folder / "report.txt", as_text([*heading(report), *result(report)], width=100))
        keep_page(report, self.mistakes, self.config.command)
        self.folder.write_manifest(report.to_dict())
        self.report = report

    def _take_time(self) -> None:
        timing = SearchTiming(**self.seconds, total_s=time.perf_counter() - self.began, trials_per_minute=self.rate)
        if self.before.get("status") == "finished" and len(self.before["trials"]) == len(self.report.trials):
            timing = SearchTiming(**self.before["timing"])  # it is only being reported again
        self.report = replace(self.report, timing=timing)

    def give_up(self, error: BaseException, console: Console) -> None:
        """Writes down how the search ended; after bad input there is nothing to keep. A full disk hides nothing of the error."""
        if isinstance(error, InputError):
            if self.before:
                self.folder.write_manifest(self.before)
                return
            if not Study.summaries(self.folder / "study", OBJECTIVE):
                self.folder.discard()
                return
        if self.report.status == "finished":  # all is written
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


class _Comparison(Listener):
    """Shows how far the comparison is."""

    def __init__(self, status: Status) -> None:
        super().__init__()
        self.status = status

    def on_change(self) -> None:
        self.status.update(f"comparing winner and baseline: training {self.done} of {self.total} is done ...")
