"""The runner of a search: the widths are searched, the winner is compared with the baseline, and all is reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.errors import InputError, RunError
from mnist_tuner.mnist.baseline import check_memory
from mnist_tuner.mnist.data import Dataset, MNISTDataModule, timed_load
from mnist_tuner.options import options_of
from mnist_tuner.render.search import heading, result, result_line, setting
from mnist_tuner.reports.comparison import compare, contestant
from mnist_tuner.reports.report import SCHEMA_VERSION, classification_report, summarize
from mnist_tuner.reports.search import OBJECTIVE, SearchReport, SearchTiming, read_curves, units_of
from mnist_tuner.runner.session import Session, Steps, session
from mnist_tuner.runner.trainings import mean_loss, predictions, train_all
from mnist_tuner.runs import RunDirectory
from mnist_tuner.search.study import Study
from mnist_tuner.search.trial import Observer, TrialSummary, in_order, replicate_seeds
from mnist_tuner.startup import load_keras_tuner, load_tensorflow
from mnist_tuner.trainer.live import Status, status

if TYPE_CHECKING:
    from distributed import Client, Security
    from distributed.deploy import Cluster

    from mnist_tuner.runner.trainings import TrainingResult
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
    scheduler: str | Client | Cluster | None = None,
    security: Security | None = None,
    workers_wait: str | None = None,
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
        scheduler: a Dask cluster, instead of ``config.scheduler``: its address, a `distributed.Client`, or a cluster object.
        security: the certificates for it; by default those of the client or the cluster object.
        workers_wait: so long the cluster may be without workers, such as "10m"; by default 30 seconds.
        quiet: whether it is just the result.
        began: when the process began, by ``time.perf_counter()``; by default now.
        at_end: is given the report, also where the search fails or is interrupted (but not after bad input).

    Raises:
        InputError: the data, the folder or the scheduler cannot be used, or the folder holds another search.
        RunError: no trial was completed, or there is nothing left to run trials on.
        KeyboardInterrupt: Ctrl-C; the search can be resumed.
        OSError: a file could not be written; the search can be resumed.
    """
    config = config or SearchConfig()
    if scheduler is not None:
        from mnist_tuner.search.cluster import address_of

        config = replace(config, scheduler=address_of(scheduler))
    if workers_wait is not None and config.scheduler is None:
        raise InputError("--workers-wait is for a cluster's workers: give --scheduler as well, or leave it out")
    begin = partial(SearchReport, workers=0, space=[])
    name = f"{config.strategy}-{'-'.join(map(str, config.widths))}"
    packages = ("tensorflow", "keras", "keras-tuner", "numpy", "scipy", "scikit-learn", "distributed")
    with session(config, begin, name, packages, console=console, resume=resume, quiet=quiet, began=began, at_end=at_end) as run:
        steps = run.steps = _Search(run)
        steps.load(scheduler or config.scheduler, security, workers_wait or "30s")
        run.write_options()
        steps.search(max_time)
        steps.compare()
        report = replace(run.report, status="finished", timing=steps.timing())
        run.finish(report, result(report), result_line(report), [*heading(report), *result(report)], width=100)
    return run.report


class _Search(Steps):
    """The steps of a search, and what they hand on."""

    goes_on_after_failure = True

    def __init__(self, run: Session[SearchConfig, SearchReport]) -> None:
        self.run = run
        run.seconds |= {"search_s": 0.0, "final_s": 0.0}
        self.rate = 0.0

    def load(self, scheduler: str | Client | Cluster | None, security: Security | None, workers_wait: str) -> None:
        """Loads TensorFlow and the data, while the process that workers are forked from loads it, too; starts the workers."""
        from mnist_tuner.search.loading import prepare_forking

        run, config = self.run, self.run.config
        if config.scheduler is None and config.workers != 0:
            prepare_forking()
        with status(run.console, "loading TensorFlow, starting the workers ..."), ThreadPoolExecutor(1) as reader:
            reading = reader.submit(timed_load, config)
            load_tensorflow(threads=1, cached=False)
            load_keras_tuner(bayesian=config.strategy == "bayesian")
            dataset, _ = reading.result()
            self.tuner = self._make_tuner(dataset, scheduler=scheduler, security=security, workers_wait=workers_wait)
            self.engine: Engine = self.tuner.make_engine(run.console)
            run.stack.callback(self.engine.close)
        try:
            self.data = MNISTDataModule(dataset, BATCH_SIZE, VAL_FRACTION, split_seed=config.seed)
        except InputError as error:
            raise InputError(f"{config.data}: {error}") from None
        option, processes = f"--widths {':'.join(map(str, config.widths))}", 1 if config.scheduler else self.engine.slots
        check_memory(option, [config.widths[1]] * 2, BATCH_SIZE, dataset, processes)
        self.tuner.find_space()
        space = self.tuner.oracle.hyperparameters.get_config()["space"]
        run.know(data=summarize(self.data), workers=self.engine.slots, space=space, total=self.tuner.total)
        run.know(worker_info=self.engine.workers)
        if not run.before:
            run.write_manifest()
        run.console.print(setting(run.report))

    def _make_tuner(self, dataset: Dataset, **where: Any) -> Tuner:
        from mnist_tuner.mnist import WidthHyperModel
        from mnist_tuner.search.tuner import Tuner

        config = self.run.config
        strategy: Any = config.strategy
        return Tuner(
            WidthHyperModel(*config.widths, input_shape=dataset.image_shape, classes=dataset.classes),
            objective=OBJECTIVE,
            strategy=strategy,
            max_trials=config.trials,
            epochs=config.epochs,
            replicates=config.replicates,
            seed=config.seed,
            workers="auto" if config.workers is None else config.workers,
            trial_time=config.trial_time,
            directory=self.run.folder / "study",
            **where,
        )

    def search(self, max_time: str | None) -> None:
        """Runs the trials."""
        run, tuner = self.run, self.tuner
        started = time.perf_counter()
        run.seconds["start_s"] = started - run.began
        with tuner.display(run.console, self.engine) as display:
            display.trainings_afterwards = run.config.final_seeds
            try:
                tuner.search(self.data, max_time=max_time, engine=self.engine, observer=display)
            finally:
                run.seconds["search_s"] = time.perf_counter() - started
                self.rate = display.trials_per_minute
                trials = sorted(tuner.summaries.values(), key=lambda trial: in_order(trial.trial_id))
                run.know(trials=tuple(trials), worker_info=self.engine.workers)
        if not tuner.complete:
            run.know(stopped=f"after {max_time}; --resume goes on")
        (run.folder.path / "study" / "trials.csv").replace(run.folder / "trials.csv")
        best, recommended = run.report.best, run.report.recommended
        if best is None or recommended is None:
            reason = trials[0].reason if trials else "there was no time for one"
            raise RunError(f"no trial was completed: {reason}")
        wanted = {best.trial_id, recommended.trial_id, trials[0].trial_id}
        run.know(curves=read_curves(run.folder / "trials.csv", wanted))

    def compare(self) -> None:
        """Trains the winner and the baseline anew, with seeds of their own, and judges them by the test images."""
        run, config = self.run, self.run.config
        started = time.perf_counter()
        best = run.report.best
        assert best is not None
        baseline = (self.tuner.hypermodel.default,) * 2
        nets: list[tuple[int, ...]] = [units_of(best), baseline] if units_of(best) != baseline else [baseline]
        drawn = [replicate_seeds(config.seed, {"units": units, "final": True}, config.final_seeds) for units in nets]
        configs = [
            TrainConfig(epochs=config.epochs, batch_size=BATCH_SIZE, hidden=units, seed=seed, data=config.data)
            for units, seeds in zip(nets, drawn, strict=True)
            for seed in seeds
        ]
        with status(run.console, "comparing winner and baseline ...") as line:
            trainings, looked = train_all(
                self.engine,
                run.folder / "trainings.jsonl",
                configs,
                model_path=run.folder / "model.keras",
                observer=_Comparison(line, len(configs)),
            )
        self._judge(nets, drawn, trainings)
        run.know(worker_info=self.engine.workers)
        run.know(looked_before=tuple("-".join(map(str, units)) for units in dict.fromkeys(looked) if units not in nets))
        run.seconds["final_s"] = time.perf_counter() - started

    def _judge(self, nets: list[tuple[int, ...]], drawn: list[tuple[int, ...]], trainings: Sequence[TrainingResult]) -> None:
        """Compares the nets by their trainings: those of the first net, with the seeds drawn for it, then of the next."""
        run, dataset, seeds = self.run, self.data.dataset, self.run.config.final_seeds
        labels = dataset.test_labels
        predicted, confidence = predictions(trainings, dataset)
        predicted, confidence = predicted.reshape(len(nets), seeds, -1), confidence.reshape(len(nets), seeds, -1)
        parameters = [training.parameters for training in trainings[::seeds]]
        contestants = [
            contestant("-".join(map(str, units)), units, size, chosen, labels, read)
            for units, size, chosen, read in zip(nets, parameters, drawn, predicted, strict=True)
        ]
        comparison = None
        if len(nets) > 1:
            comparison = compare((contestants[0].name, contestants[1].name), labels, (predicted[0], predicted[1]))
        test = classification_report(labels, predicted[0], confidence[0], dataset.classes, mean_loss(trainings[:seeds]))
        winner = contestants[0] if len(nets) > 1 else None
        run.know(baseline=contestants[-1], winner=winner, comparison=comparison, test=test)
        run.keep_predictions(dataset, test, labels=labels, predicted=predicted, confidence=confidence, units=nets, seeds=drawn)

    def timing(self, trials: int | None = None) -> SearchTiming:
        """How long it took so far, with so many trials; if it is only being reported again, how long it took then."""
        run, before = self.run, self.run.earlier
        if before is not None and before.timing is not None and before.status == "finished":
            again = len(before.trials) == (len(run.report.trials) if trials is None else trials)
            if again:
                return before.timing
        return SearchTiming(**run.seconds, total_s=time.perf_counter() - run.began, trials_per_minute=self.rate)

    def so_far(self) -> dict[str, Any]:
        """The trials that have ended, before it was resumed if not since, and the time."""
        trials = max(self.run.report.trials, tuple(Study.summaries(self.run.folder / "study", OBJECTIVE)), key=len)
        return {"trials": trials} | ({"timing": self.timing(len(trials))} if "start_s" in self.run.seconds else {})

    def kept(self) -> str:
        """The trials."""
        trials = len(self.run.report.trials)
        return f": {trials} trials are kept" if trials else ""


class _Comparison(Observer):
    """Shows how far the comparison is."""

    def __init__(self, line: Status, total: int) -> None:
        self.line, self.total, self.done = line, total, 0
        self._show()

    def on_trial_ended(self, summary: TrialSummary, *, restored: bool) -> None:
        """One more is done."""
        self.done += 1
        self._show()

    def _show(self) -> None:
        self.line.update(f"comparing winner and baseline: training {self.done} of {self.total} is done ...")
