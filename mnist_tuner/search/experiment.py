"""What all trials of a search have in common, and the pure function that runs one, in a worker."""

from __future__ import annotations

import copy
import gc
import io
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mnist_tuner.errors import InputError
from mnist_tuner.search.engine import last_line
from mnist_tuner.search.trial import Replicate, Reporter, TrialResult, TrialSpec

if TYPE_CHECKING:
    import keras
    import keras_tuner


@dataclass(frozen=True)
class Experiment:
    """What all trials of a search have in common; sent to each worker once.

    Attributes:
        hypermodel: KerasTuner's.
        objective: the name of the metric that a trial is judged by.
        arguments, options: those of its ``fit``: the data first of all.
        planned_epochs: of a net's trainings together, by which all trials choose between XLA and a plain graph: it must not
            hang on how far one of them is trained at first.
    """

    hypermodel: keras_tuner.HyperModel
    objective: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    planned_epochs: int = 1

    def run_trial(self, spec: TrialSpec, report: Reporter) -> TrialResult:
        """See `run_trial`."""
        return run_trial(self, spec, report)

    def fit(self, hp: Any, model: keras.Model, **options: Any) -> Any:
        """Trains a model: with the hypermodel's own ``fit`` where it has one, else with our loop."""
        options = {**self.options, **options}
        if self.has_own_fit:
            return self.hypermodel.fit(hp, model, *self.arguments, **options)
        from mnist_tuner.trainer.keras_fit import fit_keras_model

        return fit_keras_model(model, *self.arguments, **options)

    @property
    def has_own_fit(self) -> bool:
        """Whether the hypermodel trains its models itself."""
        import keras_tuner

        return type(self.hypermodel).fit is not keras_tuner.HyperModel.fit

    @property
    def fit_can_be_repeated(self) -> bool:
        """Whether a model that has been fitted may be put back to new weights and fitted again."""
        return not self.has_own_fit or getattr(self.hypermodel, "fit_can_be_repeated", False)


class NotFiniteError(ArithmeticError):
    """A trial's objective or loss is infinite or not a number."""


def run_trial(experiment: Experiment, spec: TrialSpec, report: Reporter) -> TrialResult:
    """Trains a trial's replicates: a pure function of the experiment and the spec, up to the time that it takes.

    Args:
        experiment: what is trained on what.
        spec: the trial.
        report: told after each epoch of each replicate.

    Returns:
        The result; a trial whose loss or objective is not finite has failed.

    Raises:
        InputError: the objective is not among the metrics.
        Exception: whatever the hypermodel raises.
    """
    began = time.perf_counter()
    import keras_tuner

    from mnist_tuner.trainer.loop import NonFiniteLossError
    from mnist_tuner.trainer.xla import planned_epochs

    planned_epochs.set(experiment.planned_epochs)
    hp = keras_tuner.HyperParameters.from_config(copy.deepcopy(spec.hyperparameters))
    model: keras.Model | None = None
    replicates, states = [], []
    found: dict[str, Any] = {}
    try:
        for number, seed in enumerate(spec.seeds):
            model, history, state = _train(experiment, spec, number, hp, model, report)
            replicates.append(Replicate(seed, history))
            states.append(state)
            if number == 0:
                found = {"parameters": model.count_params(), "build_config": model.get_build_config(), "weights": _weights(model)}
            for name in (experiment.objective, "loss", "val_loss"):
                if name in history and not math.isfinite(history[name][-1]):
                    raise NotFiniteError(f"{name} is {history[name][-1]} after the last epoch")
    except (NotFiniteError, NonFiniteLossError, keras_tuner.errors.FailedTrialError) as error:
        seconds = time.perf_counter() - began
        return TrialResult(spec.trial_id, "failed", parameters=found.get("parameters"), seconds=seconds, reason=last_line(error))
    return TrialResult(
        spec.trial_id,
        "completed",
        tuple(replicates),
        spec.initial_epoch,
        seconds=time.perf_counter() - began,
        found=tuple(hp.get_config()["space"][len(spec.hyperparameters["space"]) :]),
        states=tuple(states) if spec.keeps_states else (),
        **found,
    )


def _train(
    experiment: Experiment, spec: TrialSpec, number: int, hp: Any, known: keras.Model | None, report: Reporter
) -> tuple[keras.Model, dict[str, tuple[float, ...]], bytes]:
    """Trains one replicate.

    Returns:
        The model, each metric after each epoch, and, if it is wanted, the state at the end.
    """
    with seeded(spec.seeds[number]):
        model = _new_model(experiment, hp, known)
        if spec.states:
            _restore(model, spec.states[number])
        epochs = _Epochs(spec, number, experiment.objective, report)
        options = {"initial_epoch": spec.initial_epoch} if spec.initial_epoch else {}
        given = copy.deepcopy(experiment.options.get("callbacks", []))
        given = given if isinstance(given, (list, tuple)) else [given]
        outcome = experiment.fit(hp, model, epochs=spec.epochs, callbacks=[*given, epochs.callback()], **options)
    history = epochs.history_of(outcome)
    return model, history, (epochs.state or _state(model)) if spec.keeps_states else b""


def forget_models() -> None:
    """Frees what Keras and TensorFlow keep of the models that were, so that a worker's memory does not grow."""
    import keras

    keras.backend.clear_session()
    gc.collect()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds everything within the block; see `same_randomness`."""
    from mnist_tuner.trainer.seed import seed_everything

    with same_randomness():
        seed_everything(seed)
        yield


@contextmanager
def same_randomness() -> Iterator[None]:
    """After the block Python's and numpy's generators are where they were."""
    import numpy as np

    before = random.getstate(), np.random.get_state()
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
    return known if put_back(known, model) else model


def put_back(model: keras.Model, new: keras.Model) -> bool:
    """Gives a model for which a loop is compiled the values of a new one, random states and the optimizer's included.

    Returns:
        Whether their variables are alike; otherwise nothing has been done.
    """
    known, initial = _variables(model), _variables(new)
    if [(v.shape, v.dtype) for v in known] != [(v.shape, v.dtype) for v in initial]:
        return False
    for variable, value in zip(known, initial, strict=True):
        variable.assign(value)
    return True


def _variables(model: keras.Model) -> list[Any]:
    """All that a training changes: weights, random state, the optimizer's."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]


def _state(model: keras.Model) -> bytes:
    """What a training goes on from."""
    import numpy as np
    from safetensors.numpy import save

    return save({str(index): np.array(variable.numpy()) for index, variable in enumerate(_variables(model))})


def _restore(model: keras.Model, state: bytes) -> None:
    from safetensors.numpy import load

    arrays = load(state)
    for index, variable in enumerate(_variables(model)):
        variable.assign(arrays[str(index)])


def _weights(model: keras.Model) -> bytes:
    """A Keras weights file without the optimizer's state, which is twice as large as the weights and which nobody reads.

    Keras 3.15 has no public way to write it but to a disk; where that is full, the process crashes in HDF5.
    """
    from keras.src.saving import saving_lib

    content = io.BytesIO()
    with without_optimizer(model):
        store = saving_lib.H5IOStore(content, mode="w")
        saving_lib._save_state(model, weights_store=store, assets_store=None, inner_path="", visited_saveables=set())
        store.close()
    return content.getvalue()


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

    def __init__(self, spec: TrialSpec, replicate: int, objective: str, report: Reporter) -> None:
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
        self.report({"replicate": self.replicate, "epoch": epoch + 1, "value": logs.get(self.objective)})
        if self.spec.keeps_states and epoch + 1 == self.spec.epochs:
            self.state = _state(model)  # before averaged weights (use_ema) take the weights' place

    def history_of(self, outcome: Any) -> dict[str, tuple[float, ...]]:
        """Each metric after each epoch, from what ``fit`` returned and what was heard meanwhile.

        Raises:
            TypeError: it returned nothing that KerasTuner knows.
            InputError: the objective is not among the metrics.
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
            case bool() | None | []:
                raise TypeError(f"fit returned {outcome!r}: expected a History, a number, a dict of metrics, or a list of these")
            case _:
                number: Any = outcome
                history = {self.objective: (float(number),)}
        if isinstance(outcome, keras.callbacks.History) and not history:
            history = {name: tuple(values) for name, values in self.heard.items()}
        if self.objective not in history:
            raise InputError(f"the objective is {self.objective!r}: expected one of {', '.join(history) or 'none'}")
        return history


def _mean(values: tuple[float, ...]) -> float:
    return math.fsum(values) / len(values)
