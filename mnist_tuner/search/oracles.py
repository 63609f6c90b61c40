"""KerasTuner's oracles, which choose the hyperparameters of each trial, with what they get wrong mended.

What is mended was found in KerasTuner 1.4.8. In all of them: a seed of 0 counts; the first trial has the default values; a
trial's score is that of the weights it is left with, not its best epoch's; nothing is written (see `Study`); failed trials stop
nothing.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from keras_tuner import oracles

from mnist_tuner.search.space import Space, points
from mnist_tuner.search.trial import in_order

STRATEGIES = ("random", "grid", "bayesian", "hyperband")
MOST_CANDIDATES = 5_000
"""Bayesian search weighs every untried point of a space of up to this size, else as many drawn at random."""
HYPERBAND_FACTOR = 3
MOST_FAILED = 3
"""A Hyperband bracket replaces so many times the failed trials that its first round has places."""

Answer = dict[str, Any]


class _Cap(int):
    """A number of trials, or of none too many; KerasTuner gives trials' names as many digits as it is written with."""

    digits: int

    def __str__(self) -> str:
        return "0" * self.digits


class _Mended:
    """What all four have in common; goes before KerasTuner's class."""

    first: Mapping[str, Any]
    learns = False
    """Whether what it chooses depends on results."""
    most_refused: float = 100
    """After so many combinations in a row that cannot be trained no more are chosen."""
    _refused_any = False

    def begin_with(self, seed: int, first: Mapping[str, Any]) -> None:
        """Takes the seed as it is, 0 included, and the values of the first trial that differ from the defaults."""
        self.seed = self._seed_state = seed
        self.first = first
        self.hyperparameters = Space()
        self._display.verbose = 0  # type: ignore[attr-defined]

    def began_with(self, trials: int | None) -> None:
        """The search began with another cap on its trials, perhaps: their names stay as long as they were then."""
        cap = _Cap(self.max_trials or sys.maxsize)  # type: ignore[has-type]
        cap.digits = len(str(trials))
        self.max_trials = cap

    def populate_space(self, trial_id: str) -> Answer:
        """The first trial has the default values, which need not be among those to choose from; then the strategy chooses."""
        if self.is_new:
            return {"status": "RUNNING", "values": {**self.defaults(), **self.first}}
        return self.choose(trial_id)

    def learn(self, trial: Any) -> None:
        """Takes what a trial's model turned out to have of hyperparameters."""
        self.update_space(trial.hyperparameters)  # type: ignore[attr-defined]
        self._record_values(trial)  # type: ignore[attr-defined]

    @property
    def is_new(self) -> bool:
        """Whether it has been asked for nothing yet."""
        return not self.start_order and not self._refused_any  # type: ignore[attr-defined]

    def refuse(self, trial: Any) -> None:
        """Takes back a trial that cannot be trained: its values count as tried, and another one gets its name."""
        self.learn(trial)
        self._refused_any = True
        self.start_order.remove(trial.trial_id)  # type: ignore[attr-defined]
        for known in (self.trials, self._id_to_hash):  # type: ignore[attr-defined]
            del known[trial.trial_id]
        ongoing = self.ongoing_trials  # type: ignore[attr-defined]
        del ongoing[next(asker for asker, other in ongoing.items() if other is trial)]

    def choose(self, trial_id: str) -> Answer:
        """The strategy's values."""
        answer: Answer = super().populate_space(trial_id)  # type: ignore[misc]
        return answer

    def defaults(self) -> dict[str, Any]:
        """The values of the hyperparameters that are active where all have their defaults."""
        hps = self.get_space()  # type: ignore[attr-defined]
        hps.ensure_active_values()
        return {hp.name: hps.values[hp.name] for hp in hps.active()}

    def score_trial(self, trial: Any) -> None:
        """The mean over the replicates after the last epoch, where the driver has not said another one."""
        if trial.score is not None:
            return
        last = trial.metrics.get_history(self.objective.name)[-1]  # type: ignore[attr-defined]
        trial.score, trial.best_step = float(last.mean()), last.step

    def save(self) -> None:
        """Nothing: it would rewrite all at each trial, and not atomically."""

    def _save_trial(self, trial: Any) -> None:
        pass

    def _check_consecutive_failures(self) -> None:
        pass


class RandomOracle(_Mended, oracles.RandomSearchOracle):  # type: ignore[misc]  # KerasTuner has no types
    """Points drawn at random, none twice.

    KerasTuner gives up when 20 draws running have been tried before; in a space that can be counted this goes on to the last
    point.
    """

    def choose(self, trial_id: str) -> Answer:
        """A point not yet tried."""
        answer = super().choose(trial_id)
        if answer["status"] != "STOPPED":
            return answer
        untried = [values for values in points(self.hyperparameters) or [] if not self._duplicate(values)]
        if not untried:
            return answer
        rng = np.random.default_rng([self.seed, len(self.start_order)])
        return {"status": "RUNNING", "values": untried[int(rng.integers(len(untried)))]}


class GridOracle(_Mended, oracles.GridSearchOracle):  # type: ignore[misc]
    """The grid's points in order, whoever has finished: KerasTuner waits for a trial's end before it gives the next one."""

    most_refused = math.inf  # it ends
    _last: str | None = None
    _after: dict[str, Any] | None = None

    def refuse(self, trial: Any) -> None:
        """See there; the grid goes on after its values."""
        super().refuse(trial)
        if self._last == trial.trial_id:
            self._after = dict(trial.hyperparameters.values)

    def choose(self, trial_id: str) -> Answer:
        """The next point of the grid; a default value that is none of the grid's is left out."""
        values = self._after or (self.defaults() if self._last is None else self.trials[self._last].hyperparameters.values)
        while values is not None:
            if self._on_grid(values) and not self._duplicate(values):
                self._last, self._after = trial_id, None
                return {"status": "RUNNING", "values": dict(values)}
            values = self._get_next_combination(values)
        return {"status": "STOPPED", "values": None}

    def _on_grid(self, values: dict[str, Any]) -> bool:
        return all(values[hp.name] in list(hp.values) for hp in self._at(values).active())

    def _get_next_combination(self, values: dict[str, Any]) -> dict[str, Any] | None:
        """As in KerasTuner, which takes hyperparameters of one name in several conditional scopes for one."""
        hps = self._at(values)
        active = hps.active()
        for number in reversed(range(len(active))):
            hp = active[number]
            order = [hp.default, *(value for value in hp.values if value != hp.default)]
            place = order.index(hps.values[hp.name]) + 1
            if place < len(order):
                for later in active[number + 1 :]:
                    del hps.values[later.name]
                hps.values[hp.name] = order[place]
                hps.ensure_active_values()
                return dict(hps.values)
        return None

    def _at(self, values: dict[str, Any]) -> Space:
        hps: Space = self.get_space()
        hps.values = dict(values)
        hps.ensure_active_values()
        return hps


class BayesianOracle(_Mended, oracles.BayesianOptimizationOracle):  # type: ignore[misc]
    """A Gaussian process's upper confidence bound, at the points that have not been tried.

    KerasTuner optimizes over a continuous space and rounds, which repeats points, and takes no notice of trials that are
    running when it asks for several. Here every untried point is weighed, with the running trials' results taken for what the
    process expects of them (Ginsbourger et al., "Kriging is well-suited to parallelize optimization", 2010). What is random
    follows from the seed and the trial's number.
    """

    learns = True
    known: Mapping[str, dict[str, Any]] = {}
    """Values chosen before, by trial: a search that is resumed need not think again."""

    def choose(self, trial_id: str) -> Answer:
        """The most promising point."""
        completed = [trial for trial in self.trials.values() if trial.status == "COMPLETED"]
        if len(completed) < (self.num_initial_points or max(3 * len(self.hyperparameters.space), 3)):
            if (values := self._random_values()) is not None:
                return {"status": "RUNNING", "values": values}
        elif trial_id in self.known:
            return {"status": "RUNNING", "values": dict(self.known[trial_id])}
        candidates = [values for values in self._candidates() if not self._duplicate(values)]
        if not candidates:
            return {"status": "STOPPED", "values": None}
        if len(completed) < 2:
            return {"status": "RUNNING", "values": candidates[0]}
        bounds = self._bounds(completed, np.array([self._vector(values) for values in candidates]))
        return {"status": "RUNNING", "values": candidates[int(np.argmin(bounds))]}

    def _bounds(self, completed: list[Any], candidates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The lower confidence bound of each candidate's score, signed so that less is better."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor

        sign = -1 if self.objective.direction == "max" else 1
        x = np.array([self._vector(trial.hyperparameters.values) for trial in completed])
        y = sign * np.array([trial.score for trial in completed])
        running = [self._vector(trial.hyperparameters.values) for trial in self.ongoing_trials.values()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its limit: the space is flat there
            process = self._make_gpr().fit(x, y)
            if running:
                expected = process.predict(np.array(running))
                process = GaussianProcessRegressor(process.kernel_, alpha=self.alpha, optimizer=None, normalize_y=True)
                process.fit(np.concatenate([x, running]), np.concatenate([y, expected]))
            mean, sd = process.predict(candidates, return_std=True)
        bounds: npt.NDArray[np.float64] = mean - self.beta * sd
        return bounds

    def _candidates(self) -> Iterator[dict[str, Any]]:
        every = points(self.hyperparameters, MOST_CANDIDATES)
        if every is not None:
            yield from every
            return
        rng = np.random.default_rng([self.seed, len(self.start_order)])
        for vector in rng.random((MOST_CANDIDATES, len(self._nonfixed_space()))):
            yield self._vector_to_values(vector)

    def _vector(self, values: Mapping[str, Any]) -> list[float]:
        """A point's place in the unit cube; a value between two of the grid's lies between them."""
        return [
            hp.value_to_prob(
                values[hp.name] if hp.name in values and all(c.is_active(values) for c in hp.conditions) else hp.default
            )
            for hp in self._nonfixed_space()
        ]


class HyperbandOracle(_Mended, oracles.HyperbandOracle):  # type: ignore[misc]
    """Hyperband (Li et al., JMLR 18, 2018): many nets for few epochs, of which the best go on.

    In KerasTuner one failed trial, or a space with too few points, leaves a bracket waiting for ever. Here a failed trial is
    struck out with all that it came from, so that another one takes its place (up to a number); and where
    there are no more points, a bracket goes on with those that it has. The first trial is outside the brackets and trains for
    all epochs.
    """

    learns = True

    def populate_space(self, trial_id: str) -> Answer:
        """The first trial's values, or a bracket's next trial."""
        begins = self.is_new
        answer = super().populate_space(trial_id)
        if begins and answer["values"] is not None:
            answer["values"] |= {"tuner/epochs": self.max_epochs, "tuner/initial_epoch": 0}
        return answer

    def refuse(self, trial: Any) -> None:
        """See there; its place in the bracket is free again."""
        super().refuse(trial)
        for infos in (infos for bracket in self._brackets for infos in bracket["rounds"]):
            infos[:] = [info for info in infos if info["id"] != trial.trial_id]

    def choose(self, trial_id: str) -> Answer:
        """A new net for a bracket's first round, or the best of a round for the next one."""
        while True:
            for bracket in self._brackets:
                self._strike_out_failed(bracket)
                answer = self._next_of(bracket, trial_id)
                if answer is not None:
                    return answer
            if self._current_bracket == 0 and self._current_iteration + 1 == self.hyperband_iterations:
                return {"status": "IDLE" if self.ongoing_trials else "STOPPED", "values": None}
            self._increment_bracket_num()
            self._start_new_bracket()

    def trials_in_all(self) -> int:
        """The trials of all brackets, where none fails and the space is large enough."""
        rounds = [(bracket, number) for bracket in range(self._get_num_brackets()) for number in range(bracket + 1)]
        return int(self.hyperband_iterations * sum(self._get_size(*each) for each in rounds))

    def _next_of(self, bracket: Answer, trial_id: str) -> Answer | None:
        rounds, number = bracket["rounds"], bracket["bracket_num"]
        if len(rounds[0]) < self._get_size(number, 0) and not bracket.get("exhausted"):
            values = self._random_values()
            if values is not None:
                rounds[0].append({"past_id": None, "id": trial_id})
                return self._answer(values, number, 0)
            bracket["exhausted"] = True
        for round_num in range(1, len(rounds)):
            best = self._to_promote(bracket, round_num)
            if best is not None:
                rounds[round_num].append({"past_id": best.trial_id, "id": trial_id})
                values = {**best.hyperparameters.values, "tuner/trial_id": best.trial_id}
                return self._answer(values, number, round_num)
        return None

    def _to_promote(self, bracket: Answer, round_num: int) -> Any:
        """The best trial of the round before that is sure to be among those that go on; None while there is none."""
        rounds, number = bracket["rounds"], bracket["bracket_num"]
        before = rounds[round_num - 1]
        promoted = {info["past_id"] for info in rounds[round_num]}
        finished = [self.trials[info["id"]] for info in before if info["id"] not in promoted]
        finished = [trial for trial in finished if trial.status == "COMPLETED"]
        size, expected = self._get_size(number, round_num), self._get_size(number, round_num - 1)
        if bracket.get("exhausted"):  # fewer points than the bracket has room for
            present = self._expected(bracket, round_num - 1)
            size, expected = max(1, min(size, present - 1)) if present else 0, present
        if len(promoted) >= size or len(finished) <= expected - size:
            return None
        return min(finished, key=lambda trial: (self._signed(trial.score), in_order(trial.trial_id)))

    def _expected(self, bracket: Answer, round_num: int) -> int:
        """How many trials a round of an exhausted bracket gets."""
        present = len(bracket["rounds"][0])
        for number in range(1, round_num + 1):
            present = max(1, min(self._get_size(bracket["bracket_num"], number), present - 1)) if present else 0
        return present

    def _strike_out_failed(self, bracket: Answer) -> None:
        rounds = bracket["rounds"]
        for round_num, infos in enumerate(rounds):
            for info in [info for info in infos if self.trials[info["id"]].status in ("FAILED", "INVALID")]:
                failed = info
                bracket["failed"] = bracket.get("failed", 0) + 1
                if bracket["failed"] >= MOST_FAILED * self._get_size(bracket["bracket_num"], 0):
                    bracket["exhausted"] = True  # no more are put in their places: perhaps every one would fail
                for earlier in range(round_num, -1, -1):
                    rounds[earlier].remove(failed)
                    if earlier:
                        failed = next(other for other in rounds[earlier - 1] if other["id"] == failed["past_id"])

    def _answer(self, values: dict[str, Any], number: int, round_num: int) -> Answer:
        values |= {
            "tuner/epochs": self._get_epochs(number, round_num),
            "tuner/initial_epoch": self._get_epochs(number, round_num - 1) if round_num else 0,
            "tuner/bracket": number,
            "tuner/round": round_num,
        }
        return {"status": "RUNNING", "values": values}

    def _signed(self, score: float) -> float:
        return -score if self.objective.direction == "max" else score


def make_oracle(
    strategy: str,
    *,
    objective: Any,
    max_trials: int | None,
    epochs: int,
    seed: int,
    first: Mapping[str, Any],
) -> Any:
    """An oracle without a space.

    Args:
        strategy: one of `STRATEGIES`.
        objective: the name of a metric, or a `keras_tuner.Objective`.
        max_trials: a cap on the trials; None for none.
        epochs: of a trial; Hyperband's most.
        seed: of all that is random, 0 included.
        first: values of the first trial that differ from the defaults.

    Raises:
        ValueError: the strategy is unknown, or KerasTuner does not know whether more or less of the objective is better.
    """
    options: dict[str, Any] = {"objective": objective, "seed": seed}
    match strategy:
        case "random":
            oracle: Any = RandomOracle(max_trials=max_trials, **options)
        case "grid":
            oracle = GridOracle(max_trials=max_trials, **options)
        case "bayesian":
            oracle = BayesianOracle(max_trials=max_trials, **options)
        case "hyperband":
            oracle = HyperbandOracle(max_epochs=epochs, factor=HYPERBAND_FACTOR, **options)
            oracle.max_trials = max_trials
        case _:
            raise ValueError(f"strategy is {strategy!r}: expected {', '.join(STRATEGIES[:-1])} or {STRATEGIES[-1]}")
    oracle.begin_with(seed, first)
    return oracle
