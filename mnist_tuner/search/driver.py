"""The search itself: asks the oracle, has the trials run, writes down what came of them, and tells the oracle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from keras_tuner.errors import FailedTrialError

from mnist_tuner.errors import InputError
from mnist_tuner.search.engine import Done, Engine, Failed, Limit, Pump
from mnist_tuner.search.space import hyperparameters_of
from mnist_tuner.search.study import Study
from mnist_tuner.search.trial import Observer, TrialResult, TrialSpec, TrialSummary, replicate_seeds

ASKING_SECONDS = 0.05


@dataclass
class _Asked:
    """A trial that the oracle has given out and not been told of.

    Attributes:
        trial: KerasTuner's.
        cost: in proportion to the time that it should take.
        result: once there is one.
    """

    trial: Any
    cost: float
    result: TrialResult | None = None


@dataclass(eq=False)
class Driver:
    """Runs one search to its end.

    The oracle is told of results in the order of the trials' numbers, whatever the order in which they come, and asked for the
    next trial after each: so what it answers does not depend on timing. With `ahead` trials asked for and not yet told of, its
    answers do depend on that number where the strategy learns from results.

    Args:
        oracle: with the whole space, as far as it is known.
        study: where results go, and where those of a search that was stopped are found.
        engine: runs trials.
        observer: hears of it.
        objective: the metric that trials are judged by.
        seed: of the search.
        replicates: of each trial.
        epochs: of a trial, where the oracle does not say.
        ahead: how many trials are asked for before the first of them has been told of.
        discover: registers the hyperparameters that a trial's model has besides those known, and returns its cost; raises
            KerasTuner's FailedTrialError where these values cannot be trained: then other ones are chosen.
        first_alone: whether the first trial is waited for, since it may find more hyperparameters while it trains.
        deadline: ``time.monotonic()`` after which no trial is begun; None for none.
        limit: how long a trial may take; None for as long as it likes.
    """

    oracle: Any
    study: Study
    engine: Engine
    observer: Observer
    _: KW_ONLY
    objective: str
    seed: int
    replicates: int
    epochs: int
    ahead: int
    discover: Callable[[Any], float]
    first_alone: bool = False
    deadline: float | None = None
    limit: Limit | None = None

    def __post_init__(self) -> None:
        self.pump = Pump(self.engine, self.observer, self._ended, self.limit)
        self.summaries: dict[str, TrialSummary] = {}
        self._known = {result.trial_id: (values, result) for values, result in self.study.results()}
        self._asked: dict[str, _Asked] = {}
        self._asks = 0
        self._exhausted = False
        self.refused: list[tuple[dict[str, Any], str]] = []
        self._refused_running = 0
        self.oracle.known = {trial_id: values for trial_id, (values, _) in self._known.items()}

    @property
    def gave_up(self) -> bool:
        """Whether so many values in a row were refused that no more are tried."""
        return self._refused_running >= float(self.oracle.most_refused)

    @property
    def out_of_time(self) -> bool:
        """Whether no more trials are begun."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def run(self) -> bool:
        """Searches until there is nothing left to try, or the time is over.

        Returns:
            Whether the search is complete.

        Raises:
            InputError: what the study holds is not what this search would have done.
            EngineLostError: there is nothing left to run trials on.
            OSError: a result could not be written.
        """
        try:
            while True:
                self._tell_and_ask()
                self._submit()
                if not self.pump.running:  # all is done, or the time is over
                    self.study.save_oracle(self.oracle, at_once=True)
                    return self._exhausted and not self._asked
                self.pump.wait()
        except BaseException:
            with suppress(OSError):  # a full disk, which has been told
                self.study.save_oracle(self.oracle, at_once=True)
            raise

    def _tell_and_ask(self) -> None:
        """Tells of each result whose turn it is, and asks for another trial after each."""
        self._ask()
        while self._asked and (first := next(iter(self._asked.values()))).result is not None:
            del self._asked[first.trial.trial_id]
            self._tell(first.trial, first.result)
            self._ask()

    def _ask(self) -> None:
        """Asks for as many trials as there may be ahead; where the oracle does not learn, only for a moment once there are
        enough to keep the workers busy."""
        until = time.monotonic() + ASKING_SECONDS
        while self._ask_one():
            if not self.oracle.learns and time.monotonic() > until:
                waiting = sum(asked.result is None for asked in self._asked.values()) - len(self.pump.running)
                if waiting >= self.engine.slots:
                    return

    def _ask_one(self) -> bool:
        ahead = 1 if self.first_alone and not self.oracle.end_order else self.ahead
        if len(self._asked) >= ahead or (self.out_of_time and not self._known):
            return False
        trial, cost = self._next_trial()
        if trial is None:
            return False
        asked = self._asked[trial.trial_id] = _Asked(trial, cost)
        values = trial.hyperparameters.values
        self.observer.on_trial_asked(trial.trial_id, values, cost)
        if trial.trial_id in self._known:
            known_values, asked.result = self._known.pop(trial.trial_id)
            if known_values != values:
                raise InputError(
                    f"{self.study.folder}: trial {trial.trial_id} was made with {known_values}, and would now be made with "
                    f"{values}: it can go on with the versions of mnist_tuner, keras-tuner, numpy and scikit-learn of then"
                )
            self._remember(values, asked.result, restored=True)
        return True

    def _next_trial(self) -> tuple[Any, float]:
        """A trial that the hypermodel does not refuse, and its cost; None where there is none for now, or none at all."""
        while not self.gave_up:
            trial = self.oracle.create_trial(f"ask-{self._asks}")
            self._asks += 1
            self._exhausted = trial.status == "STOPPED"
            if trial.status != "RUNNING":
                return None, 0.0
            try:
                cost = self.discover(trial.hyperparameters)
            except FailedTrialError as error:
                self._refused_running += 1
                self.refused.append((dict(trial.hyperparameters.values), str(error)))
                self.observer.on_trial_refused(*self.refused[-1])
                self.oracle.refuse(trial)
            else:
                self._refused_running = 0
                self.oracle.learn(trial)
                return trial, cost
        self._exhausted = True
        return None, 0.0

    def _submit(self) -> None:
        """Gives the engine as much as it can do: the first trial, then those that take longest, which fills its workers best."""
        free = self.pump.free
        if free <= 0 or self.out_of_time:
            return
        running = self.pump.running
        waiting = [asked for asked in self._asked.values() if asked.result is None and asked.trial.trial_id not in running]
        waiting.sort(key=lambda asked: (len(self.summaries) > 0 or asked.trial.trial_id != self._first, -asked.cost))
        for asked in waiting[:free]:
            self.pump.start(asked.trial.trial_id, self._spec(asked.trial))

    @property
    def _first(self) -> str:
        return str(self.oracle.start_order[0])

    def _spec(self, trial: Any) -> TrialSpec:
        values = trial.hyperparameters.values
        initial = int(values.get("tuner/initial_epoch", 0))
        origin = values.get("tuner/trial_id")
        return TrialSpec(
            trial.trial_id,
            trial.hyperparameters.get_config(),
            replicate_seeds(self.seed, values, self.replicates),
            epochs=int(values.get("tuner/epochs", self.epochs)),
            initial_epoch=initial,
            states=self.study.states(origin, self.replicates) if origin else (),
            keeps_states="tuner/bracket" in values,
        )

    def _ended(self, trial_id: str, event: Done | Failed) -> None:
        """Puts a result on the disk; what is in files of its own is not kept in memory."""
        if isinstance(event, Done):
            result: TrialResult = replace(event.result, worker=event.worker)
        else:
            result = TrialResult(trial_id, "failed", worker=event.worker, reason=event.reason, traceback=event.traceback)
        asked = self._asked[trial_id]
        values = asked.trial.hyperparameters.values
        self.study.record(values, result)
        asked.result = replace(result, weights=b"", states=())
        self._remember(values, result, restored=False)

    def _remember(self, values: Mapping[str, Any], result: TrialResult, *, restored: bool) -> None:
        summary = result.summary(values, self.objective)
        self.summaries[summary.trial_id] = summary
        self.observer.on_trial_ended(summary, restored=restored)

    def _tell(self, trial: Any, result: TrialResult) -> None:
        """Lets the oracle know, in its own terms: each epoch is a step, with a value for each replicate."""
        if result.completed:
            for name in result.replicates[0].history:
                direction = self.oracle.objective.direction if name == self.objective else None
                trial.metrics.register(name, direction)
                series = [replicate.history[name] for replicate in result.replicates if name in replicate.history]
                for epoch, values in enumerate(zip(*series, strict=False)):
                    trial.metrics.metrics[name].update(list(values), step=result.initial_epoch + epoch)
            trial.score = self.summaries[trial.trial_id].mean
            first = result.replicates[0]
            trial.best_step = result.initial_epoch + range(len(first.history[self.objective]))[first.place]  # of the weights
            trial.status = "COMPLETED"
            if self.first_alone and not self.oracle.end_order:
                trial.hyperparameters.merge(hyperparameters_of(result.found))
        else:
            trial.status, trial.message = "FAILED", result.reason
        self.oracle.end_trial(trial)
        self.study.save_trial(trial, result, self.objective)
        self.study.save_oracle(self.oracle)
        trial.metrics = type(trial.metrics)()  # they are on the disk
