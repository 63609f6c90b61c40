"""The comparison at a search's end: winner and baseline, trained anew with fresh seeds, on the test images."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_tuner.errors import RunError
from mnist_tuner.search.driver import ATTEMPTS, TICK
from mnist_tuner.search.engine import Done, Engine, Event, Failed
from mnist_tuner.search.experiment import Experiment, seeded
from mnist_tuner.search.journal import Journal
from mnist_tuner.search.trial import replicate_seeds
from mnist_tuner.trainer.atomic import atomic_write

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Judged:
    """A net trained on all training images, and what it made of the test images.

    Attributes:
        values: the hyperparameters'.
        seed: of the training.
        predicted: the class of each test image, uint8, shape ``(n,)``, as bytes.
        accuracy: the share that is right.
        model: the model as a ``.keras`` file; empty where it is not wanted.
    """

    values: Mapping[str, Any]
    seed: int
    predicted: bytes
    accuracy: float
    model: bytes = b""


@dataclass(frozen=True)
class FinalSpec:
    """A net to train and to judge.

    Attributes:
        hyperparameters: KerasTuner's ``HyperParameters.get_config()``.
        seed: of the training.
        epochs: passes over all training images.
        keeps_model: whether the model is wanted.
    """

    hyperparameters: dict[str, Any]
    seed: int
    epochs: int
    keeps_model: bool

    def run(self, experiment: Experiment, report: Callable[[dict[str, Any]], None]) -> Judged:
        """Trains and judges, in a worker."""
        import keras_tuner
        import numpy as np
        from keras.src.saving import saving_lib  # keras.saving.save_model takes a path only

        from mnist_tuner.data import MNISTDataModule
        from mnist_tuner.trainer import Trainer

        hp = keras_tuner.HyperParameters.from_config(copy.deepcopy(self.hyperparameters))
        searched: MNISTDataModule = experiment.arguments[0]
        data = MNISTDataModule(searched.dataset, searched.batch_size)
        with seeded(self.seed):
            model = experiment.hypermodel.build(hp)
            experiment.hypermodel.fit(hp, model, data, epochs=self.epochs)
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        outputs = Trainer(enable_model_summary=False, **quiet).predict(model, datamodule=data)
        predicted = np.concatenate(outputs).argmax(axis=1).astype(np.uint8)
        content = io.BytesIO()
        if self.keeps_model:
            saving_lib.save_model(model, content)
        accuracy = float((predicted == data.dataset.test_labels).mean())
        return Judged(hp.values, self.seed, predicted.tobytes(), accuracy, content.getvalue())


def compare(
    engine: Engine,
    path: Path,
    nets: list[dict[str, Any]],
    *,
    search_seed: int,
    seeds: int,
    epochs: int,
    model_path: Path,
    heard: Callable[[int, int], None],
) -> list[list[Judged]]:
    """Trains each net with fresh seeds, each training in a worker, and judges it.

    Args:
        engine: where; the search's experiment has begun in it.
        path: the journal in which results are kept, so that none is made twice.
        nets: hyperparameters (``get_config()``); the first one's first model is kept.
        search_seed: from which, with a net's values, its seeds are drawn: other ones than the search's own, and others for each.
        seeds: trainings of each net.
        epochs: of each training.
        model_path: where the first net's first model is kept, a ``.keras`` file.
        heard: told how many trainings are done, of how many.

    Returns:
        What came of each net's trainings, in the order of the seeds.

    Raises:
        RunError: a training failed twice, or there is nothing left to run it on.
        OSError: a result could not be written.
    """
    journal = Journal(path) if path.exists() else Journal.create(path, {"kept": "each net's classes of the test images"})
    try:
        known = {
            (_key(entry["values"]), entry["seed"], entry["epochs"]): Judged(
                entry["values"], entry["seed"], base64.b64decode(entry["predicted"]), entry["accuracy"]
            )
            for entry in journal.entries()
        }
        owners = [(_key(entry["values"]), entry["seed"], entry["epochs"]) for entry in journal.entries() if entry["model"]]
        owner = owners[-1] if model_path.exists() and owners else None
        wanted: list[list[tuple[str, int, int]]] = []
        specs: dict[tuple[str, int, int], FinalSpec] = {}
        for number, net in enumerate(nets):
            drawn = replicate_seeds(search_seed, {**net["values"], "final": True}, seeds)
            wanted.append([(_key(net["values"]), seed, epochs) for seed in drawn])
            for index, place in enumerate(wanted[-1]):
                keeps = number == index == 0
                if place not in known or (keeps and place != owner):
                    specs[place] = FinalSpec(net, place[1], epochs, keeps)
        total = len(nets) * seeds
        heard(total - len(specs), total)
        for place, judged in _run(engine, specs):
            if judged.model:
                atomic_write(model_path, judged.model)
            if place not in known or judged.model:
                journal.append(
                    {
                        "values": dict(judged.values),
                        "seed": judged.seed,
                        "epochs": epochs,
                        "accuracy": judged.accuracy,
                        "model": bool(judged.model),
                        "predicted": base64.b64encode(judged.predicted).decode(),
                    }
                )
            known[place] = judged
            specs.pop(place)
            heard(total - len(specs), total)
        return [[known[place] for place in places] for places in wanted]
    finally:
        journal.close()


def _run(engine: Engine, specs: Mapping[tuple[str, int, int], FinalSpec]) -> Any:
    """Has the engine do them, in order, as many at a time as it has room for; gives each one's place and result."""
    specs = dict(specs)  # they are struck out as they are done
    waiting = list(specs)
    number = {place: index for index, place in enumerate(waiting)}
    attempts = dict.fromkeys(waiting, 0)
    running: dict[str, tuple[str, int, int]] = {}
    finished: list[tuple[tuple[str, int, int], Judged]] = []
    reason = ""

    def handle(event: Event) -> None:
        nonlocal reason
        match event:
            case Done():
                finished.append((running.pop(event.key), event.result))
            case Failed():
                waiting.insert(0, running.pop(event.key))
                reason = event.reason

    while waiting or running:
        while waiting and len(running) < engine.slots:
            place = waiting.pop(0)
            attempts[place] += 1
            if attempts[place] > ATTEMPTS:
                raise RunError(f"a training of the comparison failed twice: {reason}")
            key = f"final-{number[place]}-{attempts[place]}"
            running[key] = place
            engine.submit(key, specs[place])
        engine.wait(handle, TICK)
        yield from finished
        finished.clear()


def _key(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={values[name]}" for name in sorted(values) if not name.startswith("tuner/"))


def predictions(judged: list[list[Judged]]) -> npt.NDArray[np.uint8]:
    """The classes that each training of each net gave the test images, shape ``(nets, seeds, n)``."""
    import numpy as np

    return np.array([[np.frombuffer(each.predicted, np.uint8) for each in net] for net in judged])
