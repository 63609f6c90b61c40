"""What all trials of a search have in common, and the pure function that runs one, in a worker."""

from __future__ import annotations

import copy
import gc
import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mnist_tuner.errors import InputError
from mnist_tuner.search.callbacks import copies
from mnist_tuner.search.data import for_training
from mnist_tuner.search.engine import last_line
from mnist_tuner.search.outcome import Epochs, Outcome
from mnist_tuner.search.trial import Replicate, Reporter, TrialResult, TrialSpec
from mnist_tuner.search.weights import parameter_count, put_back, restore, state_of, weights_file

if TYPE_CHECKING:
    import keras
    import keras_tuner


@dataclass(frozen=True)
class Experiment:
    """What all trials of a search have in common; sent to each worker once.

    Attributes:
        hypermodel: KerasTuner's.
        objective: the name of the metric that a trial is judged by.
        parts: where that is a sum, the names of the metrics in it, each with "min" (it is added) or "max" (it is taken off).
        arguments, options: those of its ``fit``: the data first of all.
        planned_epochs: of a net's trainings together, by which all trials choose between XLA and a plain graph: it must not
            hang on how far one of them is trained at first.
    """

    hypermodel: keras_tuner.HyperModel
    objective: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    planned_epochs: int = 1
    parts: Mapping[str, str] = field(default_factory=dict)

    def run_trial(self, spec: TrialSpec, report: Reporter) -> TrialResult:
        """See `run_trial`."""
        return run_trial(self, spec, report)

    def fit(self, hp: Any, model: keras.Model, **options: Any) -> Any:
        """Trains a model: with the hypermodel's own ``fit`` where it has one, else with our loop."""
        arguments, options = for_training(self, {**self.options, **options})
        if self.has_own_fit:
            return self.hypermodel.fit(hp, model, *arguments, **options)
        from mnist_tuner.trainer.keras_fit import fit_keras_model

        return fit_keras_model(model, *arguments, **options)

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

    from mnist_tuner.search.space import Space
    from mnist_tuner.trainer.loop import NonFiniteLossError
    from mnist_tuner.trainer.xla import planned_epochs

    planned_epochs.set(experiment.planned_epochs)
    hp = Space.from_config(copy.deepcopy(spec.hyperparameters))
    model: keras.Model | None = None
    replicates: list[Replicate] = []
    states = []
    found: dict[str, Any] = {}
    try:
        for number, seed in enumerate(spec.seeds):
            model, outcome, state = _train(experiment, spec, number, hp, model, report)
            if number == 0:
                found = {
                    "parameters": parameter_count(model),
                    "build_config": model.get_build_config(),
                    "weights": weights_file(model),
                }
            for name in (experiment.objective, "loss", "val_loss"):
                if not math.isfinite(outcome.measured.get(name, 0.0)):
                    epoch = f"epoch {spec.initial_epoch + outcome.scored}" if outcome.scored else "the last epoch"
                    raise NotFiniteError(f"{name} is {outcome.measured[name]} after {epoch}")
            replicates.append(Replicate(seed, outcome.history, outcome.scored))
            states.append(state)
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
) -> tuple[keras.Model, Outcome, bytes]:
    """Trains one replicate.

    Returns:
        The model, what came of it, and, if it is wanted, the state at the end.
    """
    with seeded(spec.seeds[number]):
        model = _new_model(experiment, hp, known)
        skips = experiment.options.get("validation_freq", 1) != 1
        epochs = Epochs(spec, number, experiment.objective, report, skips, experiment.parts)
        if spec.states and not restore(model, spec.states[number]):
            epochs.goes_on_from = spec.states[number]
        options = {"initial_epoch": spec.initial_epoch} if spec.initial_epoch else {}
        callbacks = copies(experiment.options.get("callbacks"), f"trial_{spec.trial_id}/replicate_{number}")
        returned = experiment.fit(hp, model, epochs=spec.epochs, callbacks=[*callbacks, epochs.callback()], **options)
    if epochs.goes_on_from:
        raise InputError(
            f"trial {spec.trial_id}: a promoted trial goes on from weights and optimizers for which its model had no variables "
            "when fit began: have build make them (keras.Input, optimizer.build), or take another strategy than hyperband"
        )
    outcome = epochs.outcome(returned, model)
    state = b""
    if spec.keeps_states:  # where weights were put back, the training goes on from those
        state = state_of(model) if outcome.scored and outcome.weights is None else epochs.state or state_of(model)
    if outcome.weights is not None:
        model.set_weights(outcome.weights)
    return model, outcome, state


def forget_models() -> None:
    """Frees what Keras and TensorFlow keep of the models that were, so that a worker's memory does not grow."""
    import keras

    keras.backend.clear_session()
    gc.collect()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds everything within the block; see `apart`."""
    from mnist_tuner.trainer.seed import seed_everything

    with apart():
        seed_everything(seed)
        yield


@contextmanager
def apart() -> Iterator[None]:
    """Within the block Keras counts anew for the names that it gives ("auc", "dense_1"), so that they do not depend on what was
    built before; after it Python's and numpy's generators and these counts are where they were.

    Keras 3.15 has no public way to the counts.
    """
    import numpy as np
    from keras.src.backend.common import global_state

    before = random.getstate(), np.random.get_state(), global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", None)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        global_state.set_global_attribute("object_name_uids", before[2])


def _new_model(experiment: Experiment, hp: Any, known: keras.Model | None) -> keras.Model:
    """A model with first weights of its own; where it can be, the one known, for which a loop is compiled already."""
    import keras

    model = experiment.hypermodel.build(hp)
    if not isinstance(model, keras.Model) or not model.compiled:
        raise TypeError(f"{type(experiment.hypermodel).__name__}.build returned {model!r}: expected a compiled keras.Model")
    if known is None or not experiment.fit_can_be_repeated or not model.built:
        return model
    return known if put_back(known, model) else model
