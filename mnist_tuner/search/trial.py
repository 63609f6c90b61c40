"""A trial: what it is given, what it gives back, and the function in between, which runs in a worker."""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import keras
    import keras_tuner

Report = Callable[[dict[str, Any]], None]
"""Takes news of a trial while it runs."""


@dataclass(frozen=True)
class TrialSpec:
    """What a worker needs to know of a trial, besides the experiment.

    Attributes:
        trial_id: its name; nothing in its result depends on it.
        hyperparameters: KerasTuner's ``HyperParameters.get_config()``.
        seeds: one for each replicate, 0 to 2**32 - 1.
        epochs: the epoch to end before.
        initial_epoch: the epoch to begin with, from 0.
        states: where that is not 0, what each replicate was after the epochs before.
        keeps_states: whether the result is to hold what each replicate is at its end.
    """

    trial_id: str
    hyperparameters: dict[str, Any]
    seeds: tuple[int, ...]
    epochs: int
    initial_epoch: int = 0
    states: tuple[bytes, ...] = ()
    keeps_states: bool = False

    def run(self, experiment: Experiment, report: Report) -> TrialResult:
        """The experiment's `run_trial`, in a worker."""
        return experiment.run_trial(self, report)


@dataclass(frozen=True)
class Replicate:
    """One training of a trial.

    Attributes:
        seed: of its first weights and the order of its rows.
        history: each metric's value after each epoch; NaN where it was not finite.
    """

    seed: int
    history: Mapping[str, tuple[float, ...]]

    def last(self, metric: str) -> float:
        """The metric after the last epoch."""
        return self.history[metric][-1]


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial.

    Attributes:
        trial_id: its name.
        status: "completed" or "failed".
        replicates: in the order of the seeds; empty where the trial failed.
        initial_epoch: the epoch that the histories begin with.
        parameters: the model's; None where none was built.
        seconds: it took.
        worker: where it ran.
        reason: why it failed, in a line.
        traceback: the whole of it, where there was one.
        weights: the first replicate's at its end, a Keras weights file; empty where they are on the disk or were not wanted.
        build_config: from which Keras builds that model.
        states: see `TrialSpec.keeps_states`.
    """

    trial_id: str
    status: str
    replicates: tuple[Replicate, ...] = ()
    initial_epoch: int = 0
    parameters: int | None = None
    seconds: float = 0.0
    worker: str = ""
    reason: str | None = None
    traceback: str = ""
    weights: bytes = b""
    build_config: Mapping[str, Any] | None = None
    states: tuple[bytes, ...] = ()

    @property
    def completed(self) -> bool:
        """Whether it has a score."""
        return self.status == "completed"

    def summary(self, values: Mapping[str, Any], objective: str) -> TrialSummary:
        """What the report needs of it.

        Args:
            values: the hyperparameters'.
            objective: the metric that trials are judged by.
        """
        return TrialSummary(
            trial_id=self.trial_id,
            values=dict(values),
            status=self.status,
            seeds=tuple(replicate.seed for replicate in self.replicates),
            scores=tuple(replicate.history[objective][-1] for replicate in self.replicates),
            epochs=self.initial_epoch + max((len(r.history[objective]) for r in self.replicates), default=0),
            parameters=self.parameters,
            seconds=self.seconds,
            worker=self.worker,
            reason=self.reason,
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values; what is kept in files of its own is left out."""
        return {
            "trial_id": self.trial_id,
            "status": self.status,
            "replicates": [
                {
                    "seed": replicate.seed,
                    "history": {
                        name: [value if math.isfinite(value) else None for value in values]
                        for name, values in replicate.history.items()
                    },
                }
                for replicate in self.replicates
            ],
            "initial_epoch": self.initial_epoch,
            "parameters": self.parameters,
            "seconds": round(self.seconds, 3),
            "worker": self.worker,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrialResult:
        """What `to_json` gave.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        replicates = tuple(
            Replicate(
                int(replicate["seed"]),
                {
                    str(name): tuple(math.nan if value is None else float(value) for value in history)
                    for name, history in replicate["history"].items()
                },
            )
            for replicate in values["replicates"]
        )
        if values["status"] not in ("completed", "failed"):
            raise ValueError(f"status is {values['status']!r}")
        return cls(**{**values, "replicates": replicates})


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """A finished trial in short.

    Attributes:
        trial_id: its name.
        values: the hyperparameters'.
        status: "completed" or "failed".
        seeds: of the replicates.
        scores: the objective after the last epoch, of each replicate; empty where the trial failed.
        epochs: that they were trained for, those before a promotion included.
        parameters: the model's; None where none was built.
        seconds: it took.
        worker: where it ran.
        reason: why it failed.
    """

    trial_id: str
    values: dict[str, Any]
    status: str
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    epochs: int
    parameters: int | None
    seconds: float
    worker: str
    reason: str | None

    @property
    def completed(self) -> bool:
        """Whether it has a score."""
        return self.status == "completed"

    @property
    def mean(self) -> float | None:
        """The mean of the scores: what trials are ranked by."""
        return math.fsum(self.scores) / len(self.scores) if self.scores else None

    @property
    def sd(self) -> float | None:
        """The scores' sample standard deviation; None of fewer than two."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


@dataclass(frozen=True)
class Experiment:
    """What all trials of a search have in common; sent to each worker once.

    Attributes:
        hypermodel: KerasTuner's.
        objective: the name of the metric that a trial is judged by.
        arguments, options: those of its ``fit``: the data first of all.
    """

    hypermodel: keras_tuner.HyperModel
    objective: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    makes_models: ClassVar[bool] = True
    """Whether a worker has models to forget after each piece of work."""

    def run_trial(self, spec: TrialSpec, report: Report) -> TrialResult:
        """See `run_trial`."""
        return run_trial(self, spec, report)

    def fit(self, hp: Any, model: keras.Model, **options: Any) -> Any:
        """Trains a model: with the hypermodel's own ``fit`` where it has one, else with our loop."""
        import keras_tuner

        options = {**self.options, **options}
        if type(self.hypermodel).fit is keras_tuner.HyperModel.fit:
            from mnist_tuner.trainer.keras_fit import fit_keras_model

            return fit_keras_model(model, *self.arguments, **options)
        return self.hypermodel.fit(hp, model, *self.arguments, **options)

    @property
    def fit_can_be_repeated(self) -> bool:
        """Whether a model that has been fitted may be put back to new weights and fitted again."""
        import keras_tuner

        own = type(self.hypermodel).fit is not keras_tuner.HyperModel.fit
        return not own or getattr(self.hypermodel, "fit_can_be_repeated", False)


def replicate_seeds(search_seed: int, values: Mapping[str, Any], replicates: int) -> tuple[int, ...]:
    """The seeds of a trial's replicates: a pure function of the search's seed and the hyperparameters' values.

    What Hyperband adds to the values ("tuner/epochs" and the like) is left out, so that a net that is promoted goes on with its
    own seeds.
    """
    own = {name: value for name, value in values.items() if not name.startswith("tuner/")}
    text = json.dumps([search_seed, own], sort_keys=True)
    return tuple(int.from_bytes(hashlib.sha256(f"{text} {number}".encode()).digest()[:4], "big") for number in range(replicates))


class NotFiniteError(ArithmeticError):
    """A trial's objective is infinite or not a number."""


def run_trial(experiment: Experiment, spec: TrialSpec, report: Report) -> TrialResult:
    """Trains a trial's replicates: a pure function of the experiment and the spec, up to the time that it takes.

    Args:
        experiment: what is trained on what.
        spec: the trial.
        report: told after each epoch of each replicate.

    Returns:
        The result; a trial whose loss or objective is not finite has failed.

    Raises:
        Exception: whatever the hypermodel raises.
    """
    began = time.perf_counter()
    import keras_tuner

    hp = keras_tuner.HyperParameters.from_config(copy.deepcopy(spec.hyperparameters))
    model: keras.Model | None = None
    replicates, states = [], []
    weights: bytes = b""
    build_config, parameters = None, None
    try:
        for number, seed in enumerate(spec.seeds):
            with seeded(seed):
                model = _new_model(experiment, hp, model)
                if spec.states:
                    _restore(model, spec.states[number])
                epochs = _Epochs(spec, number, experiment.objective, report)
                options = {"epochs": spec.epochs, "initial_epoch": spec.initial_epoch} if spec.initial_epoch else {}
                given = copy.deepcopy(experiment.options.get("callbacks", []))
                outcome = experiment.fit(
                    hp, model, **{"epochs": spec.epochs, **options, "callbacks": [*given, epochs.callback()]}
                )
            history = epochs.history_of(outcome)
            replicates.append(Replicate(seed, history))
            if spec.keeps_states:
                states.append(epochs.state or _state(model))
            if number == 0:
                parameters, build_config = model.count_params(), model.get_build_config()
                weights = _weights(model)
            if not math.isfinite(history[experiment.objective][-1]):
                raise NotFiniteError(f"{experiment.objective} is {history[experiment.objective][-1]} after the last epoch")
    except ArithmeticError as error:
        return TrialResult(
            spec.trial_id, "failed", parameters=parameters, seconds=time.perf_counter() - began, reason=f"{last_line(error)}"
        )
    return TrialResult(
        spec.trial_id,
        "completed",
        tuple(replicates),
        spec.initial_epoch,
        parameters,
        time.perf_counter() - began,
        weights=weights,
        build_config=build_config,
        states=tuple(states),
    )


def last_line(error: BaseException) -> str:
    """The last line of the error's traceback."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text[:300]}" if text else name


def forget_models() -> None:
    """Frees what Keras and TensorFlow keep of the models that were, so that a worker's memory does not grow."""
    import keras

    keras.backend.clear_session()
    gc.collect()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds everything within the block; afterwards Python's and numpy's generators are where they were."""
    import numpy as np

    from mnist_tuner.trainer.seed import seed_everything

    before = random.getstate(), np.random.get_state()
    seed_everything(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _new_model(experiment: Experiment, hp: Any, known: keras.Model | None) -> keras.Model:
    """A model with first weights of its own; where it can be, the one known, for which a loop is compiled already."""
    import keras

    model = experiment.hypermodel.build(hp)
    if not isinstance(model, keras.Model) or not model.compiled:
        raise TypeError(f"{type(experiment.hypermodel).__name__}.build returned {model!r}: expected a compiled keras.Model")
    if known is None or not experiment.fit_can_be_repeated or not model.built:
        return model
    model.optimizer.build(model.trainable_variables)
    new, old = _variables(model), _variables(known)
    if [(v.shape, v.dtype) for v in new] != [(v.shape, v.dtype) for v in old]:
        return model
    for variable, initial in zip(old, new, strict=True):
        variable.assign(initial)
    return known


def _variables(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _state(model: keras.Model) -> bytes:
    """All that a training goes on from: weights, random state, the optimizer's."""
    import numpy as np
    from safetensors.numpy import save

    return save({str(index): np.array(variable.numpy()) for index, variable in enumerate(_variables(model))})


def _restore(model: keras.Model, state: bytes) -> None:
    from safetensors.numpy import load

    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    arrays = load(state)
    for index, variable in enumerate(_variables(model)):
        variable.assign(arrays[str(index)])


def _weights(model: keras.Model) -> bytes:
    """A Keras weights file without the optimizer's state, which is twice as large as the weights and which nobody reads."""
    with tempfile.TemporaryDirectory() as folder, without_optimizer(model):
        path = Path(folder) / "checkpoint.weights.h5"
        model.save_weights(path)
        return path.read_bytes()


@contextmanager
def without_optimizer(model: keras.Model) -> Iterator[None]:
    """Within the block the model has no optimizer: its weights are saved and loaded alone."""
    optimizer, model.optimizer = model.optimizer, None
    try:
        yield
    finally:
        model.optimizer = optimizer


class _Epochs:
    """Listens to a training: passes its epochs on, and keeps their metrics."""

    def __init__(self, spec: TrialSpec, replicate: int, objective: str, report: Report) -> None:
        self.spec, self.replicate, self.objective, self.report = spec, replicate, objective, report
        self.heard: dict[str, list[float]] = {}
        self.state = b""

    def callback(self) -> keras.callbacks.Callback:
        """Keras's view of it. Made in a function, since the base class is imported when it is needed."""
        import keras

        listener = self

        class Listener(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                listener.hear(epoch, {name: float(value) for name, value in (logs or {}).items()}, self.model)

        return Listener()

    def hear(self, epoch: int, logs: dict[str, float], model: keras.Model) -> None:
        for name, value in logs.items():
            self.heard.setdefault(name, []).append(value)
        news = {"replicate": self.replicate, "epoch": epoch + 1, "value": logs.get(self.objective)}
        self.report(news)
        if self.spec.keeps_states and epoch + 1 == self.spec.epochs:
            self.state = _state(model)  # before averaged weights (use_ema) take the weights' place

    def history_of(self, outcome: Any) -> dict[str, tuple[float, ...]]:
        """Each metric after each epoch, from what ``fit`` returned and what was heard meanwhile.

        Raises:
            TypeError: it returned nothing that KerasTuner knows.
            KeyError: the objective is not among the metrics.
        """
        import keras

        match outcome:
            case list() if outcome:
                several = [self.history_of(each) for each in outcome]
                return {name: tuple(map(_mean, zip(*(each[name] for each in several), strict=True))) for name in several[0]}
            case keras.callbacks.History():
                history = {name: tuple(map(float, values)) for name, values in outcome.history.items()}
            case dict():
                history = {name: (float(value),) for name, value in outcome.items()}
            case bool() | None:
                raise TypeError(f"fit returned {outcome!r}: expected a History, a number, a dict of metrics, or a list of these")
            case _:
                number: Any = outcome
                history = {self.objective: (float(number),)}
        if isinstance(outcome, keras.callbacks.History) and not history:
            history = {name: tuple(values) for name, values in self.heard.items()}
        if self.objective not in history:
            raise KeyError(f"the objective {self.objective!r} is not among the metrics: {', '.join(history) or 'none'}")
        return history


def _mean(values: tuple[float, ...]) -> float:
    return math.fsum(values) / len(values)
