"""Trainings of the baseline with several seeds: each in a worker, tested there, and kept in a journal."""

from __future__ import annotations

import base64
import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mnist_tuner.config import TrainConfig
from mnist_tuner.errors import InputError, RunError
from mnist_tuner.mnist.baseline import build, judge, judging_module
from mnist_tuner.mnist.data import MNISTDataModule, data_module
from mnist_tuner.options import options_of
from mnist_tuner.reports.report import Epochs
from mnist_tuner.reports.statistics import Count, Finite, Share
from mnist_tuner.runs import finite
from mnist_tuner.search.engine import Done, Engine, Failed, Pump
from mnist_tuner.search.experiment import Experiment
from mnist_tuner.search.journal import Journal
from mnist_tuner.search.trial import Observer, Reporter, TrialSummary
from mnist_tuner.search.weights import put_back
from mnist_tuner.trainer.checked import checked, what_is_wrong
from mnist_tuner.trainer.files import atomic_write, parse_json

if TYPE_CHECKING:
    import keras
    import numpy as np
    import numpy.typing as npt

    from mnist_tuner.mnist.data import Dataset
    from mnist_tuner.trainer import Trainer


@dataclass(frozen=True)
class TrainingResult:
    """A net that was trained, and what it made of the test images.

    Attributes:
        seed: of the training.
        accuracy: the share that it read right.
        loss: the mean; None where it is not finite.
        parameters: the model's.
        epochs: one dict per epoch: epoch (from 1), the metrics, seconds.
        seconds: it took.
        predicted: the class that it read each image as, uint8, shape ``(n,)``, as bytes.
        confidence: the softmax of the logits there, float32, shape ``(n,)``, as bytes.
        model: the model as a ``.keras`` file; empty where it is not wanted.
    """

    seed: Count
    accuracy: Share
    loss: Finite | None
    parameters: Count
    epochs: Epochs
    seconds: Finite
    predicted: bytes
    confidence: bytes
    model: bytes = b""

    def summary(self, name: str, worker: str = "") -> TrialSummary:
        """It in short, as an observer hears of it: with the accuracy on the test images as its score."""
        scores, epochs = (self.accuracy,), len(self.epochs)
        return TrialSummary(name, {}, "completed", (self.seed,), scores, epochs, self.parameters, self.seconds, worker, None)

    def to_json(self) -> dict[str, Any]:
        """JSON values; the model is kept in a file of its own."""
        return {
            **{name: getattr(self, name) for name in ("seed", "accuracy", "loss", "parameters", "seconds")},
            "epochs": list(self.epochs),
            "predicted": base64.b64encode(self.predicted).decode(),
            "confidence": base64.b64encode(self.confidence).decode(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingResult:
        """What `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        kept = {name: base64.b64decode(values[name], validate=True) for name in ("predicted", "confidence")}
        return checked(cls, {**values, **kept, "model": b""})


@dataclass(frozen=True)
class TrainingSpec:
    """A net to train and to test.

    Attributes:
        config: the options, its seed among them.
        keeps_model: whether the model is wanted.
    """

    config: TrainConfig
    keeps_model: bool
    leaves_models: ClassVar[bool] = False
    """The model is kept for the next seed's training: nothing of it is to be forgotten."""

    def run(self, experiment: Experiment | MNISTDataModule, report: Reporter) -> TrainingResult:
        """Trains and tests, in a worker, on the data that stands at the beginning of the experiment."""
        from keras.src.saving import saving_lib  # keras.saving.save_model takes a path only

        from mnist_tuner.trainer import EarlyStopping, Trainer

        began = time.perf_counter()
        config = self.config
        dataset = (experiment.arguments[0] if isinstance(experiment, Experiment) else experiment).dataset
        data = data_module(config, dataset)
        kept = _kept_for(config, dataset)
        history = history_callback(lambda epoch: report({"replicate": 0, "epoch": epoch, "value": None}))
        patience = config.early_stopping
        trainer = Trainer(
            max_epochs=config.epochs,
            jit_compile=True,  # known to pay for a Dense stack
            fast_dev_run=config.fast_dev_run,
            callbacks=[history, *([] if patience is None else [EarlyStopping("val_loss", patience=patience)])],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(kept.module, datamodule=data)
        predicted, probabilities, loss = judge(trainer, kept.judge, data)
        content = io.BytesIO()
        if self.keeps_model:
            saving_lib.save_model(kept.model, content)
        return TrainingResult(
            config.seed,
            float((predicted == dataset.test_labels[: len(predicted)]).mean()),
            finite(loss),
            kept.model.count_params(),
            tuple(finite(history.epochs)),
            round(time.perf_counter() - began, 3),
            predicted.tobytes(),
            probabilities.max(axis=1).tobytes(),
            content.getvalue(),
        )


def mean_loss(trainings: Sequence[TrainingResult]) -> float | None:
    """The mean of the trainings' losses; None where one is not finite."""
    losses = [training.loss for training in trainings if training.loss is not None]
    return math.fsum(losses) / len(losses) if len(losses) == len(trainings) else None


def history_callback(heard: Callable[[int], None] = lambda epoch: None) -> Any:
    """Collects each epoch's metrics. Made in a function, since the base class is imported when it is needed.

    Args:
        heard: told the number of each epoch, from 1, when it has ended.
    """
    from mnist_tuner.trainer import Callback

    class History(Callback):
        runs_last = True

        def __init__(self) -> None:
            self.epochs: list[dict[str, int | float | None]] = []

        def state_dict(self) -> dict[str, Any]:
            return {"epochs": self.epochs}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.epochs = checked(list[dict[str, int | float | None]], state_dict["epochs"])

        def on_train_epoch_start(self, trainer: Trainer, module: Any) -> None:
            self.began = time.perf_counter()
            del self.epochs[trainer.current_epoch :]  # resumed in an epoch that was shown as far as it had come

        def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
            seconds = time.perf_counter() - self.began
            self.epochs.append({"epoch": trainer.current_epoch + 1, **trainer.callback_metrics, "seconds": seconds})
            heard(trainer.current_epoch + 1)

    return History()


@dataclass
class _Kept:
    """A model with its compiled loops, for the trainings that differ in their seed only."""

    key: str
    model: keras.Model
    module: Any
    judge: Any


_kept: list[_Kept] = []


def _kept_for(config: TrainConfig, dataset: Dataset) -> _Kept:
    """A model with this configuration's first weights: where there can be, the one that was trained before, put back."""
    from mnist_tuner.trainer import KerasModule

    model = build(config, dataset)
    key = f"{training_key(replace(config, seed=0))} {dataset.image_shape} {dataset.classes}"
    if not _kept or _kept[0].key != key or not put_back(_kept[0].model, model):
        _kept[:] = [_Kept(key, model, KerasModule(model), judging_module(model))]
    return _kept[0]


def train_all(
    engine: Engine, path: Path, configs: Sequence[TrainConfig], *, model_path: Path, observer: Observer
) -> tuple[list[TrainingResult], list[tuple[int, ...]]]:
    """Trains and tests a net for each configuration, in workers.

    Args:
        engine: where; a search's experiment or the data module has been begun with.
        path: the journal in which results are kept, so that none is made twice.
        configs: no two alike; the first one's model is kept.
        model_path: where: a ``.keras`` file.
        observer: hears of them as of trials.

    Returns:
        What came of each, and the widths of all nets that the journal has trainings of, in its order.

    Raises:
        InputError: the journal is damaged.
        RunError: a training failed twice, or there is nothing left to run it on.
        OSError: a result could not be written.
    """
    with closing(Journal(path) if path.exists() else Journal.create(path, {"kept": "trainings"})) as journal:
        known, owner = read_trainings(journal)
        places = [training_key(config) for config in configs]
        waiting = []
        for number, place in enumerate(places):
            if place in known and (number > 0 or (place == owner and model_path.exists())):
                observer.on_trial_ended(known[place].summary(f"training-{number}"), restored=True)
            else:
                waiting.append(number)

        def keep(name: str, event: Done | Failed) -> None:
            if isinstance(event, Failed):
                raise RunError(f"a training failed twice: {event.reason}")
            place, result = places[int(name.removeprefix("training-"))], event.result
            if result.model:
                atomic_write(model_path, result.model)
            if place not in known or result.model:
                journal.append({"of": place, "model": bool(result.model), **result.to_json()})
            known[place] = result
            observer.on_trial_ended(result.summary(name, event.worker), restored=False)

        pump = Pump(engine, observer, keep)
        while waiting or pump.running:
            while waiting and pump.free > 0:
                number = waiting.pop(0)
                pump.start(f"training-{number}", TrainingSpec(configs[number], keeps_model=number == 0))
            pump.wait()
        return [known[place] for place in places], list(map(_widths, known))


def read_trainings(journal: Journal) -> tuple[dict[str, TrainingResult], str]:
    """What a journal has of trainings, by their keys, and the key of the one whose model was kept last.

    Raises:
        InputError: an entry is damaged.
    """
    known: dict[str, TrainingResult] = {}
    owner = ""
    for entry in journal.entries():
        try:
            _widths(entry["of"])
            known[entry["of"]] = TrainingResult.from_json(entry)
            owner = entry["of"] if entry["model"] else owner
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{journal.path}: damaged: an entry is no training's result: {what_is_wrong(error)}") from None
    return known, owner


def training_key(config: TrainConfig) -> str:
    """What a training's result depends on, besides the data."""
    values = config.to_dict()
    names = [name for name, option in options_of(type(config)).items() if option.shapes_result]
    return json.dumps({name: values[name] for name in names}, sort_keys=True)


def _widths(key: str) -> tuple[int, ...]:
    """The hidden layers of a `training_key`."""
    return checked(tuple[int, ...], parse_json(key)["hidden"])


def predictions(trainings: Sequence[TrainingResult], dataset: Dataset) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The classes that each training's net read, uint8, and how sure it was, float32; both ``(trainings, n)``.

    Raises:
        InputError: they are not of this data.
    """
    import numpy as np

    images = len(trainings[0].predicted)
    for each in trainings:
        fits = (len(each.predicted), len(each.confidence)) == (images, 4 * images)
        if not 0 < images <= len(dataset.test_labels) or not fits or max(each.predicted) >= dataset.classes:
            raise InputError(f"trainings.jsonl: damaged: the training with seed {each.seed} is not of these test images")
    predicted = np.array([np.frombuffer(each.predicted, np.uint8) for each in trainings])
    return predicted, np.array([np.frombuffer(each.confidence, np.float32) for each in trainings])
