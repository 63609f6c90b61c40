"""Trainings of the baseline's kind with several seeds: each in a worker, judged by the test images, kept in a journal."""

from __future__ import annotations

import base64
import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mnist_tuner.config import TrainConfig, options_of
from mnist_tuner.errors import InputError, RunError
from mnist_tuner.search.engine import ATTEMPTS, TICK, Done, Engine, Event, Failed, News
from mnist_tuner.search.journal import Journal
from mnist_tuner.trainer.files import atomic_write

if TYPE_CHECKING:
    import keras
    import numpy as np
    import numpy.typing as npt

    from mnist_tuner.mnist.data import Dataset, MNISTDataModule
    from mnist_tuner.trainer import Trainer


@dataclass(frozen=True)
class Judged:
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

    seed: int
    accuracy: float
    loss: float | None
    parameters: int
    epochs: tuple[dict[str, int | float | None], ...]
    seconds: float
    predicted: bytes
    confidence: bytes
    model: bytes = b""

    def to_json(self) -> dict[str, Any]:
        """JSON values; the model is kept in a file of its own."""
        return {
            **{name: getattr(self, name) for name in ("seed", "accuracy", "loss", "parameters", "seconds")},
            "epochs": list(self.epochs),
            "predicted": base64.b64encode(self.predicted).decode(),
            "confidence": base64.b64encode(self.confidence).decode(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Judged:
        """What `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        return cls(
            **{name: values[name] for name in ("seed", "accuracy", "loss", "parameters", "seconds")},
            epochs=tuple(values["epochs"]),
            predicted=base64.b64decode(values["predicted"], validate=True),
            confidence=base64.b64decode(values["confidence"], validate=True),
        )


@dataclass(frozen=True)
class Trainings:
    """What trainings in workers are about: stands where a search has its experiment.

    Attributes:
        arguments: the data module, as in the search's.
    """

    arguments: tuple[MNISTDataModule]
    makes_models: ClassVar[bool] = True


@dataclass(frozen=True)
class TrainingSpec:
    """A net to train and to judge.

    Attributes:
        config: the options, its seed among them.
        keeps_model: whether the model is wanted.
    """

    config: TrainConfig
    keeps_model: bool
    leaves_models: ClassVar[bool] = False
    """The model is kept for the next seed's training: nothing of it is to be forgotten."""

    def run(self, experiment: Any, report: Callable[[dict[str, Any]], None]) -> Judged:
        """Trains and judges, in a worker."""
        from keras.src.saving import saving_lib  # keras.saving.save_model takes a path only

        from mnist_tuner.trainer import EarlyStopping, Trainer

        began = time.perf_counter()
        config, dataset = self.config, experiment.arguments[0].dataset
        data = data_module(config, dataset)
        kept = _kept_for(config, dataset)
        history = history_callback(lambda epoch: report({"epoch": epoch}))
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
        return Judged(
            config.seed,
            float((predicted == dataset.test_labels[: len(predicted)]).mean()),
            _finite(loss),
            kept.model.count_params(),
            tuple({name: _finite(value) for name, value in epoch.items()} for epoch in history.epochs),
            round(time.perf_counter() - began, 3),
            predicted.tobytes(),
            probabilities.max(axis=1).tobytes(),
            content.getvalue(),
        )


def _finite(value: float | None) -> float | None:
    """What JSON can hold."""
    return value if value is not None and math.isfinite(value) else None


def mean_loss(trainings: Sequence[Judged]) -> float | None:
    """The mean of the trainings' losses; None where one is not finite."""
    losses = [training.loss for training in trainings if training.loss is not None]
    return math.fsum(losses) / len(losses) if len(losses) == len(trainings) else None


def judge(trainer: Trainer, module: Any, data: MNISTDataModule) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], float]:
    """Measures a model on the test images, in one pass: `Trainer.test` and `predict` after each other trace two graphs.

    Args:
        trainer: which has trained it.
        module: the model's `judging_module`.
        data: with the test images.

    Returns:
        The class that each image was read as, uint8 ``(n,)``; the softmax of the logits, float32 ``(n, classes)``; the mean loss.
    """
    import numpy as np

    outputs = trainer.predict(module, datamodule=data)
    own, probabilities = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    return own.argmax(axis=1).astype(np.uint8), probabilities, float(module.model.get_metrics_result()["loss"])


def data_module(config: TrainConfig, dataset: Dataset) -> MNISTDataModule:
    """The data as the options want it.

    Raises:
        InputError: they do not fit the data.
    """
    from mnist_tuner.mnist.data import MNISTDataModule

    try:
        return MNISTDataModule(dataset, config.batch_size, config.val_fraction, config.seed)
    except InputError as error:
        raise InputError("--" + str(error).replace("_", "-")) from None


def build(config: TrainConfig, dataset: Dataset) -> keras.Model:
    """The model that the options want, with its first weights."""
    from mnist_tuner.mnist import build_baseline

    return build_baseline(
        config.hidden,
        input_shape=dataset.image_shape,
        classes=dataset.classes,
        learning_rate=config.learning_rate,
        seed=config.seed,
        precision=config.precision,
    )


def judging_module(model: keras.Model) -> Any:
    """A module that predicts with the probabilities beside the model's own outputs, and counts the loss as Keras's test does."""
    from mnist_tuner.mnist import class_probabilities
    from mnist_tuner.trainer import KerasModule

    class Judge(KerasModule):
        def predict_step(self, batch: Any, batch_idx: Any, dataloader_idx: int = 0) -> Any:
            self.model.test_step(batch)
            return class_probabilities(self.model, batch[0])

    return Judge(model)


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
            self.epochs = state_dict["epochs"]

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
    key = f"{config.hidden} {dataset.image_shape} {dataset.classes} {config.learning_rate} {config.precision}"
    if not _kept or _kept[0].key != key:
        _kept[:] = [_Kept(key, model, KerasModule(model), judging_module(model))]
        return _kept[0]
    kept = _kept[0]
    for old, new in zip(_variables(kept.model), _variables(model), strict=True):
        old.assign(new)
    return kept


def _variables(model: keras.Model) -> list[Any]:
    model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]


@dataclass
class Listener:
    """Who hears of the trainings; all its methods may be overridden.

    Attributes:
        done: how many are done, those found in the journal included.
        total: how many there are to be.
    """

    done: int = 0
    total: int = 0
    epochs: dict[str, int] = field(default_factory=dict)

    def on_training_ended(self, judged: Judged) -> None:
        """One is done."""

    def on_change(self) -> None:
        """There is something new to show."""


def train_all(
    engine: Engine,
    path: Path,
    configs: Sequence[TrainConfig],
    *,
    model_path: Path,
    listener: Listener | None = None,
) -> list[Judged]:
    """Trains and judges a net for each configuration, in workers.

    Args:
        engine: where; a search's experiment or `Trainings` have begun in it.
        path: the journal in which results are kept, so that none is made twice.
        configs: no two alike; the first one's model is kept.
        model_path: where: a ``.keras`` file.
        listener: hears of them.

    Returns:
        What came of each.

    Raises:
        InputError: the journal is damaged.
        RunError: a training failed twice, or there is nothing left to run it on.
        OSError: a result could not be written.
    """
    listener = listener or Listener()
    journal = Journal(path) if path.exists() else Journal.create(path, {"kept": "trainings"})
    try:
        known: dict[str, Judged] = {}
        owner = ""
        for entry in journal.entries():
            try:
                known[entry["of"]] = Judged.from_json(entry)
                owner = entry["of"] if entry["model"] else owner
            except (KeyError, TypeError, ValueError):
                raise InputError(f"{path}: damaged: an entry is no training's result") from None
        places = [_place(config) for config in configs]
        specs = {
            place: TrainingSpec(config, number == 0)
            for number, (place, config) in enumerate(zip(places, configs, strict=True))
            if place not in known or (number == 0 and not (place == owner and model_path.exists()))
        }
        listener.total, listener.done = len(places), len(places) - len(specs)
        listener.on_change()
        for place, judged in _run(engine, specs, listener):
            if judged.model:
                atomic_write(model_path, judged.model)
            if place not in known or judged.model:
                journal.append({"of": place, "model": bool(judged.model), **judged.to_json()})
            known[place] = judged
            listener.done += 1
            listener.on_training_ended(judged)
            listener.on_change()
        return [known[place] for place in places]
    finally:
        journal.close()


def _run(engine: Engine, specs: Mapping[str, TrainingSpec], listener: Listener) -> Iterator[tuple[str, Judged]]:
    """Has the engine do them, in order, as many at a time as it has room for; gives each one's place and result."""
    waiting = list(specs)
    number = {place: index for index, place in enumerate(waiting)}
    attempts = dict.fromkeys(waiting, 0)
    running: dict[str, str] = {}
    finished: list[tuple[str, Judged]] = []
    reason = ""

    def handle(event: Event) -> None:
        nonlocal reason
        match event:
            case News():
                listener.epochs[event.key] = event.content["epoch"]
                listener.on_change()
            case Done():
                listener.epochs.pop(event.key, None)
                finished.append((running.pop(event.key), event.result))
            case Failed():
                listener.epochs.pop(event.key, None)
                waiting.insert(0, running.pop(event.key))
                reason = event.reason

    while waiting or running:
        while waiting and len(running) < engine.slots:
            place = waiting.pop(0)
            attempts[place] += 1
            if attempts[place] > ATTEMPTS:
                raise RunError(f"a training failed twice: {reason}")
            key = f"training-{number[place]}-{attempts[place]}"
            running[key] = place
            engine.submit(key, specs[place])
        engine.wait(handle, TICK)
        yield from finished
        finished.clear()


def _place(config: TrainConfig) -> str:
    """What a training's result depends on, besides the data."""
    values = config.to_dict()
    names = [name for name, option in options_of(type(config)).items() if option.shapes_result]
    return json.dumps({name: values[name] for name in names}, sort_keys=True)


def trained_widths(path: Path) -> list[tuple[int, ...]]:
    """The widths of the nets of which a journal has trainings, in its order."""
    journal = Journal(path)
    try:
        return [tuple(json.loads(entry["of"])["hidden"]) for entry in journal.entries()]
    finally:
        journal.close()


def predictions(trainings: Sequence[Judged]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The classes that each training's net read, uint8, and how sure it was, float32; both ``(trainings, n)``."""
    import numpy as np

    predicted = np.array([np.frombuffer(each.predicted, np.uint8) for each in trainings])
    return predicted, np.array([np.frombuffer(each.confidence, np.float32) for each in trainings])
