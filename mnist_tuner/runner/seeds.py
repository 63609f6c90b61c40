"""The runner of several trainings of the same net, which differ in their seed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.text import Text

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.baseline import check_memory
from mnist_tuner.mnist.data import data_module, timed_load
from mnist_tuner.render import run as rendering
from mnist_tuner.render.page import load_drawing
from mnist_tuner.reports.report import SeedResult, SeedSummary, classification_report, summarize
from mnist_tuner.reports.statistics import accuracy_interval
from mnist_tuner.runner.training import Run
from mnist_tuner.runner.trainings import Judged, Listener, Trainings, mean_loss, predictions, train_all
from mnist_tuner.trainer.live import Status, status

if TYPE_CHECKING:
    from mnist_tuner.search.engine import Engine


class SeveralSeeds(Run):
    """The steps of such a run. TensorFlow is loaded in the workers alone."""

    engine: Engine | None = None
    done: int = 0

    def load(self) -> None:
        """Starts the workers, while the data is read."""
        from mnist_tuner.search.loading import prepare_forking

        started = time.perf_counter()
        prepare_forking()
        with status(self.console, "starting the workers ..."), ThreadPoolExecutor(1) as reader:
            reading = reader.submit(timed_load, self.config)
            from dask.system import CPU_COUNT

            from mnist_tuner.search.dask_engine import DaskEngine

            self.engine = DaskEngine(min(self.config.seeds, CPU_COUNT))
            self.dataset, self.seconds["data_s"] = reading.result()
        config, dataset = self.config, self.dataset
        self.data = data_module(config, dataset)
        if len(dataset.test_labels) < 2:
            raise InputError(f"{dataset.name}: one test image: --seeds needs two or more")
        option = f"--hidden {','.join(map(str, config.hidden))}"
        check_memory(option, config.hidden, config.batch_size, dataset, self.engine.slots)
        summary = summarize(self.data)
        self.check_same_data(summary)
        self.report = replace(self.report, data=summary, workers=self.engine.slots)
        self.folder.write_manifest(self.report.to_dict())
        self.console.print(rendering.setting(self.report, summary))
        self.engine.begin(Trainings((self.data,)))
        self.seconds["import_s"] = time.perf_counter() - started

    def train(self) -> None:
        """Trains and tests, once for each seed."""
        assert self.engine is not None
        config = self.config
        started = time.perf_counter()
        with status(self.console, "training ...") as line:
            self.trainings = train_all(
                self.engine,
                self.folder / "trainings.jsonl",
                [replace(config, seed=config.seed + number) for number in range(config.seeds)],
                model_path=self.folder / "model.keras",
                listener=_Lines(self, line),
            )
        self.seconds["fit_s"] = time.perf_counter() - started

    def test(self) -> None:
        """Puts the trainings' results together."""
        dataset, trainings = self.dataset, self.trainings
        predicted, confidence = predictions(trainings)
        labels = dataset.test_labels[: predicted.shape[1]]
        self.report = replace(
            self.report,
            parameters=trainings[0].parameters,
            test=classification_report(labels, predicted, confidence, dataset.classes, mean_loss(trainings)),
            seeds=SeedSummary(
                tuple(SeedResult(each.seed, each.accuracy, each.loss, each.seconds, each.epochs) for each in trainings),
                accuracy_interval(predicted == labels),
            ),
        )
        self.keep(labels, predicted=predicted, confidence=confidence, seeds=[training.seed for training in trainings])

    def close(self) -> None:
        """Ends the workers."""
        if self.engine is not None:
            self.engine.close()

    def kept(self) -> str:
        """What an interruption leaves."""
        return f"; {self.done} training{'s are' if self.done > 1 else ' is'} kept" if self.done else ""


class _Lines(Listener):
    """Prints a line for each training, and shows how far they are."""

    def __init__(self, run: SeveralSeeds, status: Status) -> None:
        super().__init__()
        self.run, self.status = run, status
        self.began = time.monotonic()
        self.found: int | None = None

    def on_training_ended(self, judged: Judged) -> None:
        self.run.done = self.done
        load_drawing()
        line = f"seed {judged.seed}: test accuracy {judged.accuracy:.2%}, {judged.seconds:.1f} s"
        self.run.console.print(Text(f"{self.done} of {self.total}  {line}"))

    def on_change(self) -> None:
        self.run.done = self.done
        if self.found is None:
            self.found = self.done
        epochs = self.run.config.epochs
        fresh = (self.done - self.found) * epochs + sum(self.epochs.values())
        text = f"{self.done} of {self.total} trainings"
        if fresh:
            left = (self.total - self.found) * epochs - fresh
            text += f", about {(time.monotonic() - self.began) / fresh * left:.0f} s left"
        self.status.update(text)
