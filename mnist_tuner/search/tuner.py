"""The tuner: KerasTuner's strategies over parallel workers, in a folder that survives everything."""

from __future__ import annotations

import inspect
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import keras_tuner

from mnist_tuner.errors import InputError, RunError
from mnist_tuner.runs import lock_folder, remove_torn_files
from mnist_tuner.search.callbacks import check_copies
from mnist_tuner.search.data import as_sent, check_data, check_sendable
from mnist_tuner.search.display import SearchDisplay, score_note, trial_table
from mnist_tuner.search.driver import Driver
from mnist_tuner.search.engine import Engine, InlineEngine, Limit
from mnist_tuner.search.experiment import Experiment, apart
from mnist_tuner.search.journal import read_lines
from mnist_tuner.search.oracles import STRATEGIES, make_oracle
from mnist_tuner.search.space import points
from mnist_tuner.search.study import Study, fingerprint
from mnist_tuner.search.trial import Observer, TrialSummary, in_order, ranked
from mnist_tuner.search.weights import parameter_count, without_optimizer
from mnist_tuner.trainer.duration import parse_duration
from mnist_tuner.trainer.keras_fit import fit_keras_model

if TYPE_CHECKING:
    import keras
    from distributed import Client, Security
    from distributed.deploy import Cluster
    from rich.console import Console

ASKED_AHEAD = 256
"""Random and grid search do not learn: so many trials are known ahead, to begin with the longest."""


class Tuner:
    """Searches a hypermodel's space with KerasTuner's strategies, each trial trained with several seeds, in parallel.

    A search that was stopped, by whatever, goes on when the same tuner is made and `search` is called again: no finished trial is
    repeated. Its folder is a KerasTuner project, too.

    Args:
        hypermodel: KerasTuner's: a `keras_tuner.HyperModel`, or a function of the hyperparameters that returns a compiled model.
        objective: the name of a metric, or a `keras_tuner.Objective`; of a list of these the sum is minimized, in which those to
            be maximized are negative. A trial's score is the mean over its replicates after the last epoch, or after the one
            whose weights a callback, or a ``fit`` of one's own, has restored.
        strategy: "random", "grid", "bayesian" or "hyperband".
        max_trials: a cap; by default 16 for "random" and "bayesian", and none for those that end by themselves. A search may
            go on with another one, which is not below the trials that are done.
        epochs: of each trial; Hyperband's most.
        replicates: trainings of each trial, with seeds of their own.
        seed: 0 to 2**32 - 1, of all that is random.
        first: values of the first trial that differ from the hyperparameters' defaults.
        workers: processes on this machine; "auto" for one per core, 0 to run in this one, for debugging: with the threads and the
            XLA flags that it has, so that the last bits may differ.
        scheduler: a running Dask cluster instead: its scheduler's address, a `distributed.Client`, or a cluster object such as
            LocalCluster, SLURMCluster or KubeCluster. It is used, and left as it is.
        security: the certificates for it; by default those of the client or the cluster object.
        workers_wait: so long the cluster may be without workers, such as "10m": before the first one comes, and later.
        modules: of your own that the cluster's workers lack (``modules=[my_layers]``): what the hypermodel and the data take from
            them is sent along, by value.
        trial_time: a trial that takes longer, such as "10m", is ended with its worker, and has failed; with ``workers=0`` it is
            ended at the end of an epoch. May be another one when the search goes on.
        directory: the search's folder.
        overwrite: whether to begin anew where it holds a search.
        max_model_size: models with more parameters are not trained. Neither is what the hypermodel refuses, raising
            `keras_tuner.errors.FailedTrialError` in ``build``: other values are chosen instead.

    Raises:
        InputError: an argument is out of its range.

    Example::

        tuner = Tuner(build_model, objective="val_accuracy", max_trials=20, directory="my-search")
        tuner.search(x_train, y_train, validation_data=(x_val, y_val))
        model = tuner.get_best_models()[0]
    """

    def __init__(
        self,
        hypermodel: keras_tuner.HyperModel | Callable[[keras_tuner.HyperParameters], keras.Model],
        *,
        objective: str | keras_tuner.Objective | Sequence[str | keras_tuner.Objective] = "val_accuracy",
        strategy: Literal["random", "grid", "bayesian", "hyperband"] = "random",
        max_trials: int | None = None,
        epochs: int = 5,
        replicates: int = 3,
        seed: int = 0,
        first: Mapping[str, Any] | None = None,
        workers: Literal["auto"] | int = "auto",
        scheduler: str | Client | Cluster | None = None,
        security: Security | None = None,
        workers_wait: str = "30s",
        modules: Sequence[ModuleType] = (),
        trial_time: str | None = None,
        directory: str | Path = "search",
        overwrite: bool = False,
        max_model_size: int | None = None,
    ) -> None:
        for name, value, low, high in (
            ("max_trials", 1 if max_trials is None else max_trials, 1, 1_000_000),
            ("epochs", epochs, 1, 100_000),
            ("replicates", replicates, 1, 1_000),
            ("max_model_size", 1 if max_model_size is None else max_model_size, 1, 10**15),
            ("seed", seed, 0, 2**32 - 1),
            ("workers", 1 if workers == "auto" else workers, 0, 1_024),
        ):
            if not isinstance(value, int) or not low <= value <= high:
                raise InputError(f"{name} is {value!r}: expected {low:,} to {high:,}")
        if strategy not in STRATEGIES:
            raise InputError(f"strategy is {strategy!r}: expected {', '.join(STRATEGIES[:-1])} or {STRATEGIES[-1]}")
        for module in modules:
            if not isinstance(module, ModuleType):
                raise InputError(f"modules has {module!r}: expected imported modules: import my_layers; modules=[my_layers]")
        self.workers_wait = _seconds("workers_wait", workers_wait)
        if max_trials is None and strategy in ("random", "bayesian"):
            max_trials = 16
        self._limit = None if trial_time is None else Limit(trial_time, _seconds("trial_time", trial_time))
        self.hypermodel = _as_hypermodel(hypermodel)
        self.strategy, self.max_trials, self.epochs, self.replicates, self.seed = strategy, max_trials, epochs, replicates, seed
        self.workers, self.scheduler, self.security, self.modules = workers, scheduler, security, tuple(modules)
        self.first = dict(first or {})
        self.folder = Path(directory)
        self._overwrite, self.max_model_size = overwrite, max_model_size
        self.refused: list[tuple[dict[str, Any], str]] = []
        self.gave_up = False
        self.summaries: dict[str, TrialSummary] = {}
        self._objective = list(objective) if isinstance(objective, (list, tuple)) else objective
        if isinstance(objective, Sequence) and not objective:
            raise InputError(f"objective is {objective!r}: expected a metric, or a list of several")
        self._begin_anew()
        self.objective: str = self.oracle.objective.name
        self.direction: str = self.oracle.objective.direction
        self._parts: dict[str, str] = getattr(self.oracle.objective, "name_to_direction", {})
        for name, direction in (self._parts or {self.objective: self.direction}).items():
            if direction not in ("min", "max"):
                raise InputError(f"the direction of objective {name!r} is {direction!r}: expected 'min' or 'max'")

    def _begin_anew(self) -> None:
        """An oracle that has been asked nothing yet; what was found before comes back from the journal."""
        try:
            with apart():  # KerasTuner makes metrics to see which way they go
                self.oracle = make_oracle(
                    self.strategy,
                    objective=self._objective,
                    max_trials=self.max_trials,
                    epochs=self.epochs,
                    seed=self.seed,
                    first=self.first,
                )
        except (TypeError, ValueError) as error:
            raise InputError(" ".join(str(error).split())) from None
        self._space_known = False

    # The search.

    def search(
        self,
        *arguments: Any,
        max_time: str | None = None,
        engine: Engine | None = None,
        observer: Observer | None = None,
        console: Console | None = None,
        verbose: bool = True,
        **options: Any,
    ) -> list[TrialSummary]:
        """Searches, or goes on with a search.

        Args:
            arguments: what the models are fitted on: ``x`` and ``y``, or a `DataModule`, or what else ``fit`` takes. Data may be
                given as a function (or a DataModule's class) without arguments, which each training calls in its worker; one
                for x may return ``(x, y)``. To workers a `tf.data.Dataset` is sent as its elements.
            max_time: no trial is begun after this long, such as "10m".
            engine: where trials run; by default what `workers` and `scheduler` ask for.
            observer: hears of the progress; by default a display on `console`.
            console: by default the standard output.
            verbose: whether there is a display.
            options: of `fit_keras_model`, or of the hypermodel's own ``fit``: validation_data, batch_size, callbacks. Each
                training has copies of the callbacks, and those with a path write into a folder of its own below it.

        Returns:
            The trials that have ended, the best first.

        Raises:
            InputError: the folder holds another search, or an argument can be neither copied nor sent.
            RunError: no trial was completed.
            EngineLostError: there is nothing left to run trials on; the search can be resumed.
            OSError: a result could not be written; the search can be resumed.
            KeyboardInterrupt: Ctrl-C; the search can be resumed.
        """
        experiment = self._experiment(arguments, options)
        deadline = None if max_time is None else time.monotonic() + _seconds("max_time", max_time)
        if not self.oracle.is_new:
            self._begin_anew()
        self.find_space()
        with ExitStack() as stack:
            stack.enter_context(apart())
            self.folder.mkdir(parents=True, exist_ok=True)
            stack.callback(os.close, lock_folder(self.folder))
            if engine is None:
                engine = self.make_engine((console or _console()) if verbose else None)
                stack.callback(engine.close)
            if self._overwrite:
                Study.remove(self.folder)
                self._overwrite = False
            study = Study(self.folder, self._identity(experiment, engine.slots))
            stack.callback(study.close)
            remove_torn_files(self.folder)
            notes = self._send(experiment, engine)
            made_here = observer is None
            if observer is None:
                observer = stack.enter_context(self.display(console, engine)) if verbose else Observer()
            if isinstance(observer, SearchDisplay):
                list(map(observer.say, notes))
            driver = self._driver(study, engine, observer, experiment.has_own_fit and not self._declares_all, deadline)
            self.summaries, self.refused = driver.summaries, driver.refused
            try:
                self.complete = driver.run()
                self.gave_up = driver.gave_up
            except KeyboardInterrupt:
                if isinstance(observer, SearchDisplay) and made_here:
                    observer.say(f"Interrupted: {len(self.summaries)} trials are kept; to go on, search again")
                raise
            study.write_table(self.folder / "trials.csv", self.objective)
        ranked = self.ranked()
        if self.refused and not ranked and self.complete:
            raise RunError(f"no trial was begun. {self._refusals()}")
        if ranked and not ranked[0].completed:
            raise RunError(
                f"no trial was completed; the first one failed: {self.summaries[min(self.summaries, key=in_order)].reason}"
            )
        return ranked

    def _experiment(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Experiment:
        if "epochs" in options or "initial_epoch" in options:
            raise InputError("epochs belongs to the tuner: Tuner(..., epochs=5)")
        check_copies(options.get("callbacks"))
        experiment = Experiment(self.hypermodel, self.objective, arguments, options, self.epochs * self.replicates, self._parts)
        if not experiment.has_own_fit:
            try:
                inspect.signature(fit_keras_model).bind(None, *arguments, **options)
            except TypeError as error:
                raise InputError(f"search: {error}; its options are those of fit_keras_model") from None
        check_data(experiment)
        return experiment

    def _send(self, experiment: Experiment, engine: Engine) -> list[str]:
        """Gives the engine the experiment; returns what there is to say of what is sent."""
        if isinstance(engine, InlineEngine):
            engine.begin(experiment)
            return []
        sent, notes = as_sent(experiment)
        try:
            engine.begin(sent)
        except Exception:
            check_sendable(sent)
            raise
        return notes

    def make_engine(self, console: Console | None = None) -> Engine:
        """What `workers` and `scheduler` ask for; it is running.

        Args:
            console: is told of workers that cannot be used.

        Raises:
            InputError: there is no scheduler, or no worker that can be used.
        """
        if self.scheduler is None and self.workers == 0:
            return InlineEngine()
        from mnist_tuner.search.dask_engine import DaskEngine

        def say(line: str) -> None:
            if console is not None:
                console.print(line, markup=False, highlight=False, soft_wrap=True)

        return DaskEngine(
            None if self.workers == "auto" else self.workers,
            self.scheduler,
            self.security,
            workers_wait=self.workers_wait,
            modules=self.modules,
            say=say,
        )

    def _driver(self, study: Study, engine: Engine, observer: Observer, first_alone: bool, deadline: float | None) -> Driver:
        self.oracle.began_with(study.journal.identity["number_of_trials"])
        return Driver(
            self.oracle,
            study,
            engine,
            observer,
            objective=self.objective,
            seed=self.seed,
            replicates=self.replicates,
            epochs=self.epochs,
            ahead=int(study.journal.identity["concurrency"]),
            discover=self._discover,
            first_alone=first_alone,
            deadline=deadline,
            limit=self._limit,
        )

    def display(self, console: Console | None, engine: Engine) -> SearchDisplay:
        """A display of this search."""
        return SearchDisplay(
            console or _console(),
            objective=self.objective,
            direction=self.direction,
            total=self.total,
            replicates=self.replicates,
            epochs=self.epochs,
            workers=engine.slots,
        )

    @property
    def total(self) -> int | None:
        """The number of trials, where it is known beforehand and `find_space` has been called; more if Hyperband's fail."""
        if self.strategy == "hyperband":
            count = 1 + int(self.oracle.trials_in_all())
            return min(count, self.max_trials or count)
        every = points(self.oracle.hyperparameters)
        if every is None:
            return self.max_trials
        first = self.oracle.get_space()
        first.settle(self.first, "first")
        count = len(every) + (first.values not in every)
        return min(count, self.max_trials or count)

    # What was found.

    def ranked(self) -> list[TrialSummary]:
        """The trials that have ended, in the folder if not by this tuner, the best first, failed ones last."""
        if not self.summaries:
            self.summaries = {summary.trial_id: summary for summary in Study.summaries(self.folder, self.objective)}
        return ranked(self.summaries.values(), self.direction)

    def get_best_hyperparameters(self, num_trials: int = 1) -> list[keras_tuner.HyperParameters]:
        """The hyperparameters of the best trials that were completed."""
        self.find_space()
        found = []
        for summary in [summary for summary in self.ranked() if summary.completed][:num_trials]:
            hp = self.oracle.get_space()
            hp.values = dict(summary.values)
            found.append(hp)
        return found

    def get_best_models(self, num_models: int = 1) -> list[keras.Model]:
        """The best trials' models, with the weights that their first replicate was left with."""
        models = []
        best = [summary for summary in self.ranked() if summary.completed][:num_models]
        for hp, summary in zip(self.get_best_hyperparameters(num_models), best, strict=True):
            model = self.hypermodel.build(hp)
            folder = self.folder / f"trial_{summary.trial_id}"
            config = json.loads((folder / "build_config.json").read_text())
            if not model.built:
                if config is not None:
                    model.build_from_config(config)
                model.built = True  # one without a call never is, and has all its parts
            with without_optimizer(model):
                model.load_weights(folder / "checkpoint.weights.h5")
            models.append(model)
        return models

    def results_summary(self, num_trials: int = 10, console: Console | None = None) -> None:
        """Prints the best trials."""
        console = console or _console()
        trials = self.ranked()[:num_trials]
        console.print(trial_table(trials, self.objective))
        note = score_note(trials)
        console.print(f"Mean and standard deviation over the replicates {note}; in {self.folder}", soft_wrap=True, markup=False)
        if self.refused:
            console.print(self._refusals(), soft_wrap=True, markup=False)

    def _refusals(self) -> str:
        """What could not be trained in this search, since it was begun or resumed."""
        values, reason = self.refused[-1]
        which = ", ".join(f"{name}={value}" for name, value in values.items() if not name.startswith("tuner/"))
        rest = self.oracle.most_refused
        gave_up = f" After {rest} in a row no more were tried." if self.gave_up else ""
        return f"{len(self.refused)} combinations were refused, the last one {which}: {reason}.{gave_up}"

    # The space.

    def find_space(self) -> None:
        """Registers the hyperparameters of the space, by building models where the hypermodel does not declare them.

        Raises:
            InputError: a hyperparameter has two ranges, or what `first` says does not fit the space.
        """
        if self._space_known:
            return
        hp = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(hp)
        self.oracle.update_space(hp)
        if not self._declares_all:
            with apart(), redirect_stdout(StringIO()):
                self._explore()
        self.first = self.oracle.first = self.oracle.get_space().settle(self.first, "first")
        self._space_known = True

    def _explore(self) -> None:
        """Builds a model of the defaults, one in each conditional scope that has not been active yet, and the first trial's where
        it has names that are still unknown."""
        seen: list[Any] = []
        waiting: list[Any] = []
        hp = self.oracle.get_space()
        while True:
            self._look_at(hp)
            seen += hp.active_scopes
            waiting = [scope for scope in (*waiting, *hp.inactive_scopes) if scope not in seen]
            if not waiting:
                break
            seen.append(waiting[0])
            hp = self.oracle.get_space()
            hp.values |= {condition.name: condition.values[0] for condition in waiting[0]}
            hp.ensure_active_values()
        hp = self.oracle.get_space()
        known = {each.name for each in hp.space}
        if self.first.keys() - known:
            hp.settle({name: value for name, value in self.first.items() if name in known}, "first")
            hp.values |= {name: value for name, value in self.first.items() if name not in known}
            self._look_at(hp)

    def _look_at(self, hp: Any) -> None:
        """Registers what a model has of hyperparameters, or had until the hypermodel refused it."""
        with suppress(keras_tuner.errors.FailedTrialError):
            self.hypermodel.build(hp)
        self.oracle.update_space(hp)

    @property
    def _declares_all(self) -> bool:
        """Whether the hypermodel tells its space and its models' sizes without building them."""
        own = type(self.hypermodel).declare_hyperparameters is not keras_tuner.HyperModel.declare_hyperparameters
        return own and hasattr(self.hypermodel, "parameters")

    def _discover(self, hp: keras_tuner.HyperParameters) -> float:
        """The number of parameters of a trial's model. Building it here registers what it has of hyperparameters that were not
        known yet, at the same point of the search however the trials are timed."""
        size: int | None = None
        if self._declares_all:
            size = self.hypermodel.parameters(hp)
        else:
            with apart():
                try:
                    size = parameter_count(self.hypermodel.build(hp))
                except (InputError, keras_tuner.errors.FailedTrialError):  # a hyperparameter with two ranges; it is refused
                    raise
                except Exception:  # it is raised in the worker again, and is told
                    return 1.0
        if size and self.max_model_size and size > self.max_model_size:
            raise keras_tuner.errors.FailedTrialError(f"{size:,} parameters, more than max_model_size, {self.max_model_size:,}")
        return float(size or 1)

    def _identity(self, experiment: Experiment, workers: int) -> dict[str, Any]:
        """What a search must have in common with one that it goes on with."""
        # So many trials are asked for ahead of the results that the strategy learns from.
        concurrency = max(1, workers) if self.oracle.learns else ASKED_AHEAD
        with suppress(OSError, StopIteration, KeyError, TypeError, ValueError):
            concurrency = int(next(read_lines(self.folder / "journal.jsonl"))["concurrency"])
        return {
            "strategy": self.strategy,
            "seed": self.seed,
            "objective": f"{self.objective} ({self.direction})",
            "objective_parts": self._parts or None,
            "space": self.oracle.hyperparameters.get_config()["space"],
            "first_trial": self.oracle.defaults() | self.first,
            "number_of_trials": self.max_trials,
            "max_model_size": self.max_model_size,
            "epochs": self.epochs,
            "replicates": self.replicates,
            "data": fingerprint(experiment.arguments),
            "options": fingerprint(experiment.options),
            "concurrency": concurrency,
        }


def _seconds(name: str, duration: Any) -> float:
    """How long an argument says."""
    try:
        return parse_duration(duration).total_seconds()
    except (AttributeError, OverflowError, TypeError, ValueError):
        raise InputError(f"{name} is {duration!r}: expected a duration such as 90s, 10m or DD:HH:MM:SS") from None


def _console() -> Console:
    from rich.console import Console

    return Console()


def _as_hypermodel(given: Any) -> keras_tuner.HyperModel:
    if isinstance(given, keras_tuner.HyperModel):
        return given
    if not callable(given):
        raise InputError(
            f"hypermodel is a {type(given).__name__}: expected a keras_tuner.HyperModel, or a function of the hyperparameters"
        )
    return _BuildFunction(given)


class _BuildFunction(keras_tuner.HyperModel):  # type: ignore[misc]  # KerasTuner has no types
    """A function as a hypermodel."""

    def __init__(self, function: Callable[[keras_tuner.HyperParameters], keras.Model]) -> None:
        super().__init__()
        self.function = function

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Calls the function."""
        return self.function(hp)
