"""With KerasTuner's own tuners: our folders in them, our hypermodel in them, and TensorBoard's page of hyperparameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

from mnist_tuner import MNISTDataModule, WidthHyperModel, load_dataset
from mnist_tuner.search import Tuner
from mnist_tuner.search.oracles import STRATEGIES
from tests.support.hypermodels import Wandering, accuracy, blobs

# The stock tuners load weights into models whose optimizers are new.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")]

X, Y, VALIDATION = blobs()

STOCK: dict[str, Callable[..., keras_tuner.Tuner]] = {
    "random": lambda *arguments, epochs, **options: keras_tuner.RandomSearch(*arguments, **options),
    "grid": lambda *arguments, epochs, **options: keras_tuner.GridSearch(*arguments, **options),
    "bayesian": lambda *arguments, epochs, **options: keras_tuner.BayesianOptimization(*arguments, **options),
    "hyperband": lambda *arguments, epochs, max_trials, **options: keras_tuner.Hyperband(
        *arguments, max_epochs=epochs, **options
    ),
}


MOST = {"random": 8, "grid": 8, "bayesian": 8, "hyperband": 12}
"""Trials: Hyperband ends of itself, after those that take the place of failed ones."""


@pytest.fixture(scope="module", params=STRATEGIES)
def ours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tuner:
    """A search by each strategy, of which a trial has failed."""
    folder = tmp_path_factory.mktemp("studies") / request.param
    tuner = Tuner(
        Wandering(fails=lambda units: units in (4, 14)),
        strategy=request.param,
        max_trials=MOST[request.param],
        epochs=3,
        replicates=2,
        workers=0,
        directory=folder,
    )
    tuner.search(X, Y, validation_data=VALIDATION, verbose=False)
    assert any(not summary.completed for summary in tuner.ranked())
    return tuner


@pytest.fixture
def theirs(ours: Tuner) -> keras_tuner.Tuner:
    """The stock tuner of the same strategy, opened on the same folder."""
    return STOCK[ours.strategy](
        Wandering(),
        objective="val_accuracy",
        max_trials=MOST[ours.strategy],
        epochs=3,
        directory=ours.folder.parent,
        project_name=ours.folder.name,
        overwrite=False,
    )


class TestFolders:
    def test_the_stock_tuner_has_every_trial(self, ours: Tuner, theirs: keras_tuner.Tuner) -> None:
        assert set(theirs.oracle.trials) == set(ours.summaries)
        for trial_id, summary in ours.summaries.items():
            trial = theirs.oracle.trials[trial_id]
            assert trial.hyperparameters.values == summary.values
            assert trial.status == ("COMPLETED" if summary.completed else "FAILED")
            assert trial.message == summary.reason

    def test_a_score_is_the_mean_of_the_replicates_after_the_last_epoch(self, ours: Tuner, theirs: keras_tuner.Tuner) -> None:
        best_epochs = []
        for summary in ours.ranked():
            trial = theirs.oracle.trials[summary.trial_id]
            assert trial.score == (None if summary.mean is None else pytest.approx(summary.mean, abs=1e-12))
            if summary.completed:
                assert trial.best_step == summary.epochs - 1
                history = trial.metrics.get_history("val_accuracy")
                assert history[-1].value == list(summary.scores)
                best_epochs.append(max(observation.mean() for observation in history))
        assert any(best > (summary.mean or 0) for best, summary in zip(best_epochs, ours.ranked(), strict=False))

    def test_results_summary_runs(self, ours: Tuner, theirs: keras_tuner.Tuner, capsys: pytest.CaptureFixture[str]) -> None:
        theirs.results_summary()
        out = capsys.readouterr().out
        assert f"Trial {ours.ranked()[0].trial_id} summary" in out
        assert f"Score: {ours.ranked()[0].mean}" in out

    def test_the_best_hyperparameters_agree(self, ours: Tuner, theirs: keras_tuner.Tuner) -> None:
        scores = {str(summary.values): summary.mean for summary in ours.ranked() if summary.completed}
        mine = [scores[str(hp.values)] for hp in ours.get_best_hyperparameters(len(scores))]
        stock = [scores[str(hp.values)] for hp in theirs.get_best_hyperparameters(len(scores))]
        assert stock == mine == sorted(mine, reverse=True)  # those of equal scores stand in any order

    def test_the_best_models_agree(self, ours: Tuner, theirs: keras_tuner.Tuner) -> None:
        count = sum(summary.completed for summary in ours.ranked())
        stock = zip(theirs.oracle.get_best_trials(count), theirs.get_best_models(count), strict=True)
        models = {trial.trial_id: model for trial, model in stock}
        for model, summary in zip(ours.get_best_models(count), ours.ranked(), strict=False):
            for left, right in zip(model.get_weights(), models[summary.trial_id].get_weights(), strict=True):
                np.testing.assert_array_equal(left, right)
            assert accuracy(models[summary.trial_id], VALIDATION) == pytest.approx(summary.scores[0], abs=1e-6)

    def test_the_stock_tuner_finds_nothing_left_to_do(self, ours: Tuner, theirs: keras_tuner.Tuner) -> None:
        if ours.strategy in ("random", "bayesian"):
            assert theirs.oracle.remaining_trials() == 0
        theirs.search(X, Y, validation_data=VALIDATION, verbose=0)
        assert set(theirs.oracle.trials) == set(ours.summaries)


class Listening(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Writes down what it hears: tuners deep-copy callbacks, so into a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        with self.path.open("a") as file:
            file.write(f"{epoch} {' '.join(sorted(logs))}\n")


class TestWidthHyperModel:
    @staticmethod
    def small() -> WidthHyperModel:
        return WidthHyperModel(4, 8, 4, default=6, input_shape=(7, 5), classes=3)

    @pytest.mark.parametrize(("strategy", "epochs"), [("random", [0, 1]), ("grid", [0, 1]), ("hyperband", [0, 0, 0, 1, 2])])
    def test_it_works_unchanged_in_the_stock_tuner(
        self, strategy: str, epochs: list[int], small_dataset_folder: Path, tmp_path: Path
    ) -> None:
        # Hyperband's first bracket: three nets for one epoch, of which one goes on to the third, for the epochs that are left.
        count, most = (4, 3) if strategy == "hyperband" else (1, 2)
        data = MNISTDataModule(load_dataset(small_dataset_folder), batch_size=36, val_fraction=0.2)
        tuner = STOCK[strategy](
            self.small(),
            objective="val_accuracy",
            max_trials=count,
            epochs=most,
            directory=tmp_path,
            project_name="stock",
            seed=1,
        )
        tuner.oracle.max_trials = count
        heard = tmp_path / "heard"
        options = {} if strategy == "hyperband" else {"epochs": most}
        tuner.search(data, callbacks=[Listening(heard)], verbose=0, **options)
        trials = tuner.oracle.trials.values()
        assert len(trials) == count
        assert all(trial.status == "COMPLETED" and 0 <= trial.score <= 1 for trial in trials)
        assert heard.read_text().splitlines() == [f"{epoch} accuracy loss val_accuracy val_loss" for epoch in epochs]
        assert len(list(tmp_path.glob("stock/trial_*/checkpoint.weights.h5"))) == count
        assert len(tuner.get_best_models(count)) == count

    def test_it_works_on_plain_images_which_it_scales(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        labels = np.arange(60) % 3
        images = (40 + 80 * labels[:, None, None] + rng.integers(-20, 21, (60, 7, 5))).astype(np.uint8)
        tuner = keras_tuner.BayesianOptimization(
            self.small(), objective="val_accuracy", max_trials=1, directory=tmp_path, project_name="stock", seed=1
        )
        tuner.search(images[:45], labels[:45], validation_data=(images[45:], labels[45:]), epochs=2, batch_size=8, verbose=0)
        trial = next(iter(tuner.oracle.trials.values()))
        model = tuner.get_best_models()[0]
        loss, score = model.evaluate(images[45:] * np.float32(1 / 255), labels[45:], verbose=0)
        assert score == pytest.approx(trial.score, abs=1e-6)
        assert loss < 1.5  # unscaled, it would be tens

    def test_its_size_is_known_without_building_it(self) -> None:
        for first, second in ((4, 8), (8, 4), (6, 6)):
            hp = keras_tuner.HyperParameters()
            hp.values = {"units_1": first, "units_2": second}
            assert self.small().parameters(hp) == self.small().build(hp).count_params()

    def test_its_defaults_are_the_baseline_off_a_grid_of_widths(self) -> None:
        hp = keras_tuner.HyperParameters()
        WidthHyperModel().declare_hyperparameters(hp)
        assert hp.values == {"units_1": 100, "units_2": 100}
        assert [list(each.values) for each in hp.space] == [list(range(32, 513, 32))] * 2
        assert WidthHyperModel().build(hp).count_params() == WidthHyperModel().parameters(hp) == 89_610


class TestTensorBoard:
    def test_its_page_of_hyperparameters_shows_every_completed_trial(self, ours: Tuner) -> None:
        from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
        from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
        from tensorboard.context import RequestContext
        from tensorboard.plugins.base_plugin import TBContext
        from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

        folder = str(ours.folder / "tensorboard")
        multiplexer = EventMultiplexer().AddRunsFromDirectory(folder)
        multiplexer.Reload()
        page = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, folder)))
        request = RequestContext()
        experiment = get_experiment.Handler(request, page, "", api_pb2.GetExperimentRequest()).run()
        names = [info.name for info in experiment.hparam_infos]
        assert {"units", "activation"} <= set(names)
        wanted = api_pb2.ListSessionGroupsRequest(
            start_index=0,
            slice_size=100,
            allowed_statuses=[api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING, api_pb2.STATUS_SUCCESS],
            col_params=[api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos],
        )
        shown = list_session_groups.Handler(request, page, "", wanted).run().session_groups
        completed = [summary for summary in ours.ranked() if summary.completed]
        assert len(shown) == len(completed)
        found = set()
        for group in shown:
            values = group.hparams["units"].number_value, group.hparams["activation"].string_value
            scores = [v.value for v in group.metric_values if v.name.tag == "val_accuracy" and v.name.group == ""]
            epochs = [v.training_step for v in group.metric_values if v.name.tag == "val_accuracy" and v.name.group == ""]
            found.add((*values, round(scores[0], 6), epochs[0]))
        assert found == {(s.values["units"], s.values["activation"], round(s.mean or 0.0, 6), s.epochs) for s in completed}

    def test_each_trial_has_its_curves(self, ours: Tuner) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        for summary in ours.ranked():
            folder = ours.folder / "tensorboard" / summary.trial_id
            if not summary.completed:
                assert not folder.exists()
                continue
            events = EventAccumulator(str(folder)).Reload()
            assert set(events.Tags()["scalars"]) == {"accuracy", "val_accuracy"}
            curve = [(event.step, event.value) for event in events.Scalars("val_accuracy")]
            first = int(summary.values.get("tuner/initial_epoch", 0))
            assert [step for step, _ in curve] == list(range(first + 1, summary.epochs + 1))
            assert curve[-1][1] == pytest.approx(summary.mean, abs=1e-6)
