"""What came of a training: what was heard of its epochs, and what its ``fit`` returned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_tuner.errors import InputError
from mnist_tuner.search.trial import Reporter, TrialSpec
from mnist_tuner.search.weights import checksum, restore, state_of

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes:
        history: each metric's value after each epoch; NaN where it was not measured.
        scored: see `Replicate`.
        measured: the values that belong to the weights.
        weights: where an epoch is scored that is neither the last nor restored, what ``get_weights`` gave after it.
    """

    history: dict[str, tuple[float, ...]]
    scored: int | None
    measured: dict[str, float]
    weights: list[Any] | None = None


@dataclass(frozen=True)
class _End:
    """An epoch's end.

    Attributes:
        logs: the metrics.
        checksum: of the weights.
    """

    logs: dict[str, float]
    checksum: bytes


class Epochs:
    """Listens to a training: passes its epochs on, and keeps what is needed to know which one the weights at its end are of.

    A callback or a ``fit`` that restores weights says nothing of it, so the weights are compared by their checksums: those that
    were validated, which another callback may have replaced by the epoch's end.

    Args:
        spec: the trial.
        replicate: its number.
        objective: the metric that trials are judged by.
        report: told of each epoch.
        skips: whether some epochs are known not to be validated; otherwise that is noticed at the first one.
        parts: where the objective is a sum, see `Experiment`.

    Attributes:
        state: see `TrialSpec.keeps_states`.
        goes_on_from: what the model is to be made when the training begins, where it lacked variables before.
    """

    def __init__(
        self,
        spec: TrialSpec,
        replicate: int,
        objective: str,
        report: Reporter,
        skips: bool = False,
        parts: Mapping[str, str] | None = None,
    ) -> None:
        self.spec, self.replicate, self.objective, self.report, self.skips = spec, replicate, objective, report, skips
        self.parts = parts or {}
        self.state = self.goes_on_from = b""
        self._ends: list[_End] = []
        self._validated: tuple[bytes, list[Any] | None] | None = None
        self._weights: list[Any] | None = None

    def callback(self) -> keras.callbacks.Callback:
        """Keras's view of it. Made in a function, since the base class is imported when it is needed."""
        import keras

        listener = self

        class Listener(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
            def on_train_begin(self, logs: Any = None) -> None:
                if listener.goes_on_from and restore(self.model, listener.goes_on_from):
                    listener.goes_on_from = b""

            def on_test_end(self, logs: Any = None) -> None:
                listener.see(self.model)

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                listener.hear(epoch, listener.read(logs or {}), self.model)

        return Listener()

    def see(self, model: keras.Model) -> None:
        """The model has been validated, with the weights that it has now."""
        self._validated = checksum(model), model.get_weights() if self.skips else None

    def hear(self, epoch: int, logs: dict[str, float], model: keras.Model) -> None:
        """An epoch, from 0, has ended."""
        if self._validated is None:
            self.see(model)
        assert self._validated is not None
        (digest, weights), self._validated = self._validated, None
        self._ends.append(_End(logs, digest))
        self.report({"replicate": self.replicate, "epoch": epoch + 1, "value": logs.get(self.objective)})
        if self.objective not in logs:
            self.skips = True
        elif self.skips:
            self._weights = weights
        if self.spec.keeps_states and epoch + 1 == self.spec.epochs:
            self.state = state_of(model)  # before averaged weights (use_ema) take the weights' place

    def read(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Metrics as numbers, with the objective where that is a sum. Of one with several values, such as an F1Score's, each has
        a name of its own, as in our trainer."""
        found: dict[str, float] = {}
        for name, value in metrics.items():
            values = np.ravel(value)
            found |= {name if len(values) == 1 else f"{name}_{number}": float(each) for number, each in enumerate(values)}
        if self.parts and self.objective not in found and self.parts.keys() <= found.keys():
            found[self.objective] = math.fsum(found[name] * (1 if way == "min" else -1) for name, way in self.parts.items())
        return found

    def outcome(self, returned: Any, model: keras.Model, later: int = 0) -> Outcome:
        """What came of it.

        Args:
            returned: by ``fit``: what KerasTuner knows.
            model: as it was left.
            later: how many epochs have been trained since.

        Raises:
            TypeError: it is nothing that KerasTuner knows.
            InputError: the objective is not among the metrics, or was not measured.
        """
        import keras

        match returned:
            case list() if returned:
                several = []
                for each in reversed(returned):
                    several.append(self.outcome(each, getattr(each, "model", None) or model, later))
                    later += len(several[-1].history[self.objective])
                return self._mean(several[::-1])
            case keras.callbacks.History():
                return self._outcome_of(returned.history, model, self._ends[: len(self._ends) - later])
            case dict():
                metrics = self.read(returned)
            case bool() | None | []:
                raise TypeError(f"fit returned {returned!r}: expected a History, a number, a dict of metrics, or a list of these")
            case _:
                number: Any = returned
                metrics = {self.objective: float(number)}
        self._check(metrics)
        return Outcome({name: (value,) for name, value in metrics.items()}, None, metrics)

    def _outcome_of(self, history: Mapping[str, Sequence[float]], model: keras.Model, ends: list[_End]) -> Outcome:
        """Of a `keras.callbacks.History`: which of its epochs is scored."""
        columns = _columns(self._laid_out(history), ends)
        if self.parts and self.objective not in columns and self.parts.keys() <= columns.keys():
            rows = [dict(zip(self.parts, row, strict=True)) for row in zip(*(columns[name] for name in self.parts), strict=False)]
            columns[self.objective] = [None if None in row.values() else self.read(row)[self.objective] for row in rows]
        self._check(columns)
        epochs = max(map(len, columns.values()))
        final = checksum(model)
        ends = ends[-epochs:] if epochs <= len(ends) else []
        alike = [place for place, end in enumerate(ends) if end.checksum == final]
        scored = None if not ends else alike[-1] + 1 if alike else 0
        weights = None
        place = (scored or 0) - 1
        if columns[self.objective][place] is None:  # not validated: the last one that was takes its place
            weights = self._weights
            place = max((i for i, value in enumerate(columns[self.objective]) if value is not None), default=-1)
            if weights is None or place < 0:
                raise InputError(f"{self.objective} was not measured after the last epoch: let each epoch be validated")
            scored = place + 1
        measured = {name: column[place if len(column) == epochs else -1] for name, column in columns.items()}
        return Outcome(
            {name: tuple(math.nan if value is None else value for value in column) for name, column in columns.items()},
            None if scored == epochs else scored,
            {name: value for name, value in measured.items() if value is not None},
            weights if scored != epochs else None,
        )

    def _mean(self, several: Sequence[Outcome]) -> Outcome:
        """Of several trainings, such as those of a cross-validation: epoch by epoch where it is the last one of each that is
        scored, else of the scored ones."""
        names = [name for name in several[0].history if all(name in each.history for each in several)]
        history = {name: tuple(map(_mean, zip(*(each.history[name] for each in several), strict=False))) for name in names}
        names = [name for name in names if all(name in each.measured for each in several)]
        measured = {name: _mean([each.measured[name] for each in several]) for name in names}
        lengths = {len(each.history[self.objective]) for each in several}
        if len(lengths) > 1 or any(each.scored for each in several):
            history = {name: (value,) for name, value in measured.items()}
        return Outcome(history, None, measured)

    def _laid_out(self, history: Mapping[str, Sequence[Any]]) -> dict[str, list[float]]:
        laid_out: dict[str, list[float]] = {}
        for name, values in history.items():
            for part, value in (item for each in values for item in self.read({name: each}).items()):
                laid_out.setdefault(part, []).append(value)
        return laid_out

    def _check(self, metrics: Mapping[str, Any]) -> None:
        if self.objective in metrics:
            return
        missing = next((name for name in self.parts if name not in metrics), self.objective)
        if f"{missing}_0" in metrics:
            raise InputError(
                f"the objective is {missing!r}, a metric with a value for each class: expected one number, such as with "
                f'average="macro", or one of {", ".join(metrics)}'
            )
        raise InputError(f"the objective is {missing!r}: expected one of {', '.join(metrics) or 'none'}")


def _columns(history: Mapping[str, Sequence[float]], ends: Sequence[_End]) -> dict[str, list[float | None]]:
    """Each metric by epoch, None where it was not measured: Keras leaves out the epochs that were not validated."""
    if not history:
        names = dict.fromkeys(name for end in ends for name in end.logs)
        return {name: [end.logs.get(name) for end in ends] for name in names}
    columns: dict[str, list[float | None]] = {name: list(values) for name, values in history.items()}
    epochs = max(map(len, columns.values()))
    ends = ends[-epochs:]
    for name, values in columns.items():
        if len(values) < epochs == len(ends) and len(values) == sum(name in end.logs for end in ends):
            left = iter(values)
            columns[name] = [next(left) if name in end.logs else None for end in ends]
    return columns


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
