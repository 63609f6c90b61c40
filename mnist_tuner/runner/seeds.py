"""The runner of several trainings of the same net, which differ in their seed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from mnist_tuner.config import TrainConfig
from mnist_tuner.errors import InputError
from mnist_tuner.mnist.baseline import check_memory
from mnist_tuner.mnist.data import data_module, timed_load
from mnist_tuner.render import run as rendering
from mnist_tuner.render.page import load_drawing
from mnist_tuner.reports.report import RunReport, SeedResult, SeedSummary, classification_report, summarize
from mnist_tuner.reports.statistics import accuracy_interval
from mnist_tuner.runner.session import Session, Steps
from mnist_tuner.runner.trainings import mean_loss, predictions, train_all
from mnist_tuner.search.trial import Observer, TrialSummary
from mnist_tuner.trainer.live import Status, status

if TYPE_CHECKING:
    from mnist_tuner.search.engine import Engine


class SeveralSeeds(Steps):
    """The steps of a run with several seeds. TensorFlow is loaded in the workers alone."""

    def __init__(self, run: Session[TrainConfig, RunReport]) -> None:
        self.run = run
        self.progress = _Progress(run.console, run.config)

    def load(self) -> None:
        """Starts the workers, while the data is read."""
        from mnist_tuner.search.loading import prepare_forking

        run, config = self.run, self.run.config
        started = time.perf_counter()
        prepare_forking()
        with status(run.console, "starting the workers ..."), ThreadPoolExecutor(1) as reader:
            reading = reader.submit(timed_load, config)
            from dask.system import CPU_COUNT

            from mnist_tuner.search.dask_engine import DaskEngine

            self.engine: Engine = DaskEngine(min(config.seeds, CPU_COUNT))
            run.stack.callback(self.engine.close)
            self.dataset, run.seconds["data_s"] = reading.result()
        data = data_module(config, self.dataset)
        if len(self.dataset.test_labels) < 2:
            raise InputError(f"{self.dataset.name}: one test image: --seeds needs two or more")
        option = f"--hidden {','.join(map(str, config.hidden))}"
        check_memory(option, config.hidden, config.batch_size, self.dataset, self.engine.slots)
        summary = summarize(data)
        run.check_same_data(summary)
        run.know(data=summary, workers=self.engine.slots)
        run.write_manifest()
        run.console.print(rendering.setting(run.report, summary))
        self.engine.begin(data)
        run.seconds["import_s"] = time.perf_counter() - started

    def train(self) -> None:
        """Trains and tests, once for each seed."""
        run, config = self.run, self.run.config
        started = time.perf_counter()
        with status(run.console, "training ...") as line:
            self.progress.begin(line)
            self.trainings, _ = train_all(
                self.engine,
                run.folder / "trainings.jsonl",
                [replace(config, seed=config.seed + number) for number in range(config.seeds)],
                model_path=run.folder / "model.keras",
                observer=self.progress,
            )
        run.seconds["fit_s"] = time.perf_counter() - started

    def test(self) -> None:
        """Puts the trainings' results together."""
        trainings = self.trainings
        predicted, confidence = predictions(trainings, self.dataset)
        labels = self.dataset.test_labels[: predicted.shape[1]]
        test = classification_report(labels, predicted, confidence, self.dataset.classes, mean_loss(trainings))
        each = tuple(SeedResult(one.seed, one.accuracy, one.loss, one.seconds, one.epochs) for one in trainings)
        found = SeedSummary(each, accuracy_interval(predicted == labels))
        self.run.know(parameters=trainings[0].parameters, test=test, seeds=found)
        seeds = [one.seed for one in trainings]
        self.run.keep_predictions(self.dataset, test, labels=labels, predicted=predicted, confidence=confidence, seeds=seeds)

    def kept(self) -> str:
        """The trainings."""
        done = self.progress.done
        return f"; {done} training{'s are' if done > 1 else ' is'} kept" if done else ""


class _Progress(Observer):
    """Prints a line for each training, and shows how far they are.

    Attributes:
        done: trainings, those of the journal included.
    """

    def __init__(self, console: Console, config: TrainConfig) -> None:
        self.console, self.total, self.epochs = console, config.seeds, config.epochs
        self.done = self.restored = 0
        self.running: dict[str, int] = {}

    def begin(self, line: Status) -> None:
        """The trainings begin; the line shows how far they are."""
        self.line, self.began = line, time.monotonic()
        self._show()

    def on_epoch(self, trial_id: str, replicate: int, epoch: int, value: float | None) -> None:
        """How far it is."""
        self.running[trial_id] = epoch
        self._show()

    def on_trial_again(self, trial_id: str, reason: str) -> None:
        """It begins anew."""
        self.running.pop(trial_id, None)

    def on_trial_ended(self, summary: TrialSummary, *, restored: bool) -> None:
        """One is done."""
        self.running.pop(summary.trial_id, None)
        self.done += 1
        self.restored += restored
        if not restored:
            load_drawing()
            line = f"seed {summary.seeds[0]}: test accuracy {summary.scores[0]:.2%}, {summary.seconds:.1f} s"
            self.console.print(Text(f"{self.done} of {self.total}  {line}"))
        self._show()

    def _show(self) -> None:
        fresh = (self.done - self.restored) * self.epochs + sum(self.running.values())
        text = f"{self.done} of {self.total} trainings"
        if fresh:
            left = (self.total - self.restored) * self.epochs - fresh
            text += f", about {(time.monotonic() - self.began) / fresh * left:.0f} s left"
        self.line.update(text)
