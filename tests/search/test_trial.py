"""A trial is a pure function of what it is given."""

from __future__ import annotations

import copy
import io
import math
import random
from collections.abc import Callable
from typing import Any

import h5py
import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load

from mnist_tuner.errors import InputError
from mnist_tuner.search.experiment import Experiment, run_trial
from mnist_tuner.search.trial import TrialResult, TrialSpec, replicate_seeds
from tests.support.hypermodels import Wandering, blobs, net

X, Y, VALIDATION = blobs()


class Built(keras_tuner.HyperModel):  # type: ignore[misc]  # KerasTuner has no types
    """A hypermodel from a function, without a fit of its own."""

    def __init__(self, function: Callable[[Any], keras.Model]) -> None:
        super().__init__()
        self.function = function

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        return self.function(hp)


class Returning(Wandering):
    """Its fit returns what it is given, or calls it."""

    def __init__(self, outcome: Any) -> None:
        super().__init__()
        self.outcome = outcome

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, *arguments: Any, **options: Any) -> Any:
        return self.outcome() if callable(self.outcome) else self.outcome


def restless(hp: Any) -> keras.Model:
    """A net with dropout, batch normalisation and Adam: everything that has a state."""
    return net(
        keras.layers.Dense(8, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3),
        optimizer=keras.optimizers.Adam(0.01),
    )


class TwoOptimizers(keras.Model):  # type: ignore[misc]
    """Each of its layers has an optimizer of its own; that which it is compiled with is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = keras.layers.Dense(6, activation="relu"), keras.layers.Dense(3, activation="softmax")
        self.slow, self.fast = keras.optimizers.Adam(0.001), keras.optimizers.Adam(0.05)

    def call(self, x: Any) -> Any:
        return self.head(self.body(x))

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        for optimizer, layer in ((self.slow, self.body), (self.fast, self.head)):
            optimizer.apply(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables)
        return {"loss": loss}


def two_optimizers(hp: Any) -> keras.Model:
    """A model of which the weights are made by build, and what its optimizers have by the training."""
    model = TwoOptimizers()
    model(X[:1])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def made_in_fit(hp: Any) -> keras.Model:
    """A model of which the weights, too, are made by the training."""
    model = keras.Sequential([keras.layers.Dense(5), keras.layers.Dropout(0.3), keras.layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def experiment(hypermodel: keras_tuner.HyperModel, **options: Any) -> Experiment:
    """What is to be tried on the blobs."""
    return Experiment(hypermodel, "val_accuracy", (X, Y), {"validation_data": VALIDATION, **options})


def spec(hypermodel: keras_tuner.HyperModel, seeds: tuple[int, ...] = (1,), epochs: int = 2, **options: Any) -> TrialSpec:
    """A trial of the default values."""
    hp = keras_tuner.HyperParameters()
    hypermodel.build(hp)
    return TrialSpec("0", hp.get_config(), seeds, epochs, **options)


def run(hypermodel: keras_tuner.HyperModel, **options: Any) -> TrialResult:
    """Runs such a trial."""
    return run_trial(experiment(hypermodel), spec(hypermodel, **options), lambda news: None)


def histories(result: TrialResult) -> list[dict[str, tuple[float, ...]]]:
    """Of its replicates."""
    return [dict(replicate.history) for replicate in result.replicates]


def arrays(weights: bytes) -> dict[str, list[float]]:
    """What is in a weights file, without the layers' names."""
    found: dict[str, list[float]] = {}
    with h5py.File(io.BytesIO(weights)) as file:
        file.visititems(lambda name, item: found.update({name: item[...].tolist()}) if isinstance(item, h5py.Dataset) else None)
    assert found
    return found


def returned(outcome: Any, **options: Any) -> TrialResult:
    """The result of a trial whose fit returned that."""
    return run(Returning(outcome), **options)


def history(**metrics: list[float]) -> keras.callbacks.History:
    """Keras's History of these metrics."""
    made = keras.callbacks.History()
    made.history = metrics
    return made


def disturb() -> None:
    """Leaves the generators somewhere else, and another trial behind."""
    random.seed(99)
    np.random.seed(99)
    keras.utils.set_random_seed(99)
    run(Wandering(), seeds=(7,))


@pytest.fixture(scope="module")
def two_replicates() -> TrialResult:
    """Two trainings of the net that has everything, of four epochs each."""
    return run(Built(restless), seeds=(3, 4), epochs=4, keeps_states=True)


@pytest.mark.slow
class TestPurity:
    def test_what_ran_before_changes_nothing(self) -> None:
        first = run(Wandering(), seeds=(3, 4), keeps_states=True)
        disturb()
        again = run(Wandering(), seeds=(3, 4), keeps_states=True)
        assert histories(again) == histories(first)
        assert again.states == first.states
        assert arrays(again.weights) == arrays(first.weights)

    def test_another_seed_gives_another_result(self) -> None:
        one, other = run(Wandering(), seeds=(3, 4), keeps_states=True).states
        assert one != other

    def test_a_replicate_in_a_compiled_loop_equals_a_fresh_model_to_the_bit_whatever_ran_before(
        self, two_replicates: TrialResult
    ) -> None:
        disturb()
        alone = run(Built(restless), seeds=(4,), epochs=4, keeps_states=True)
        assert alone.states == two_replicates.states[1:]
        assert histories(alone) == histories(two_replicates)[1:]
        assert arrays(alone.weights) != arrays(two_replicates.weights)  # those of the first replicate

    def test_a_promoted_trial_equals_one_trained_without_a_break_to_the_bit(self, two_replicates: TrialResult) -> None:
        half = run(Built(restless), seeds=(3, 4), epochs=2, keeps_states=True)
        promoted = run(Built(restless), seeds=(3, 4), epochs=4, initial_epoch=2, states=half.states, keeps_states=True)
        assert promoted.states == two_replicates.states
        assert arrays(promoted.weights) == arrays(two_replicates.weights)
        assert promoted.initial_epoch == 2
        for number, whole in enumerate(histories(two_replicates)):
            for name, values in whole.items():
                assert histories(half)[number][name] + histories(promoted)[number][name] == values

    def test_a_promoted_trial_with_averaged_weights_equals_one_trained_without_a_break(self) -> None:
        def averaged(hp: Any) -> keras.Model:
            return net(optimizer=keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5))

        whole = run(Built(averaged), epochs=3, keeps_states=True)
        half = run(Built(averaged), epochs=1, keeps_states=True)
        promoted = run(Built(averaged), epochs=3, initial_epoch=1, states=half.states, keeps_states=True)
        assert promoted.states == whole.states
        assert arrays(promoted.weights) == arrays(whole.weights)

    @pytest.mark.parametrize("build", [two_optimizers, made_in_fit])
    def test_so_does_one_whose_optimizers_or_weights_are_made_when_it_is_trained(self, build: Any) -> None:
        whole = run(Built(build), seeds=(3, 4), epochs=3, keeps_states=True)
        half = run(Built(build), seeds=(3, 4), epochs=1, keeps_states=True)
        promoted = run(Built(build), seeds=(3, 4), epochs=3, initial_epoch=1, states=half.states, keeps_states=True)
        assert promoted.states == whole.states
        assert arrays(promoted.weights) == arrays(whole.weights)
        alone = run(Built(build), seeds=(4,), epochs=3, keeps_states=True)
        assert alone.states == whole.states[1:]
        assert len(load(whole.states[0])) >= 4 + 2 * 4  # Adam's two for each weight
        assert {name.partition("/")[0] for name in arrays(whole.weights)} <= {"body", "head", "layers"}

    def test_a_promotion_that_would_lose_what_was_trained_is_refused_with_the_way_out(self) -> None:
        half = run(Keras(made_in_fit), epochs=1, keeps_states=True)
        with pytest.raises(InputError, match=r"^trial 0: a promoted trial goes on from .*: have build make them"):
            run(Keras(made_in_fit), epochs=2, initial_epoch=1, states=half.states)

    def test_what_a_callback_freezes_is_not_frozen_in_the_next_replicate(self) -> None:
        class Freezes(keras.callbacks.Callback):  # type: ignore[misc]
            def on_train_end(self, logs: Any = None) -> None:
                self.model.layers[0].trainable = False

        def trained(seeds: tuple[int, ...]) -> TrialResult:
            return run_trial(experiment(Built(restless), callbacks=[Freezes()]), spec(Wandering(), seeds), lambda news: None)

        assert histories(trained((3, 4)))[1:] == histories(trained((4,)))

    def test_a_fit_that_does_not_use_the_models_optimizer_can_be_promoted(self) -> None:
        class Nudging(Wandering):
            def fit(self, hp: Any, model: Any, *arguments: Any, **options: Any) -> Any:
                model.trainable_variables[0].assign_add(np.ones((4, 5)))
                return float(np.sum(model.trainable_variables[0]))

        half = run(Nudging(), epochs=1, keeps_states=True)
        promoted = run(Nudging(), epochs=3, initial_epoch=1, states=half.states, keeps_states=True)
        before, after = (result.replicates[0].history["val_accuracy"][-1] for result in (half, promoted))
        assert after == pytest.approx(before + 20, abs=1e-4)

    def test_the_users_generators_are_left_where_they_were(self) -> None:
        given = spec(Wandering())
        before = random.getstate(), np.random.get_state()
        run_trial(experiment(Wandering()), given, lambda news: None)
        after = random.getstate(), np.random.get_state()
        assert after[0] == before[0]
        np.testing.assert_equal(after[1], before[1])

    def test_the_given_hyperparameters_are_left_as_they_were(self) -> None:
        given = spec(Wandering())
        before = copy.deepcopy(given.hyperparameters)
        run_trial(experiment(Wandering()), given, lambda news: None)
        assert given.hyperparameters == before

    def test_callbacks_are_copied_for_each_replicate(self) -> None:
        class Counting(keras.callbacks.Callback):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.epochs: list[int] = []

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                self.epochs.append(epoch)
                logs["counted"] = len(self.epochs)

        mine = Counting()
        told: list[dict[str, Any]] = []

        class Told(Wandering):
            def fit(self, hp: Any, model: Any, *arguments: Any, **options: Any) -> Any:
                outcome = super().fit(hp, model, *arguments, **options)
                told.append({"epochs": options["callbacks"][0].epochs, "same": options["callbacks"][0] is mine})
                return outcome

        run_trial(experiment(Told(), callbacks=[mine]), spec(Wandering(), seeds=(1, 2)), lambda news: None)
        assert mine.epochs == []
        assert told == [{"epochs": [0, 1], "same": False}] * 2

    def test_each_epoch_of_each_replicate_is_reported(self) -> None:
        told: list[dict[str, Any]] = []
        result = run_trial(experiment(Wandering()), spec(Wandering(), seeds=(1, 2)), told.append)
        assert [(news["replicate"], news["epoch"]) for news in told] == [(0, 1), (0, 2), (1, 1), (1, 2)]
        assert [news["value"] for news in told] == [value for each in histories(result) for value in each["val_accuracy"]]


class TestOutcomes:
    def test_a_number_is_the_objective(self) -> None:
        assert histories(returned(0.25, seeds=(1, 2))) == [{"val_accuracy": (0.25,)}] * 2

    def test_numpys_numbers_are_numbers(self) -> None:
        assert histories(returned(np.float32(0.25))) == [{"val_accuracy": (0.25,)}]

    def test_a_dict_holds_metrics(self) -> None:
        assert histories(returned({"val_accuracy": 0.5, "size": 3})) == [{"val_accuracy": (0.5,), "size": (3.0,)}]

    def test_a_history_holds_metrics_by_epoch(self) -> None:
        outcome = history(val_accuracy=[0.5, 0.75], loss=[2.0, 1.0])
        assert histories(returned(outcome)) == [{"val_accuracy": (0.5, 0.75), "loss": (2.0, 1.0)}]

    def test_a_list_of_outcomes_counts_with_its_mean(self) -> None:
        assert histories(returned([0.25, 0.75])) == [{"val_accuracy": (0.5,)}]
        several = [history(val_accuracy=[0.0, 0.5]), history(val_accuracy=[0.5, 1.0])]
        assert histories(returned(several)) == [{"val_accuracy": (0.25, 0.75)}]

    @pytest.mark.parametrize("outcome", [None, True, []], ids=repr)
    def test_anything_else_is_an_error_that_says_what_is_expected(self, outcome: Any) -> None:
        with pytest.raises(TypeError, match="expected a History, a number, a dict of metrics, or a list"):
            returned(outcome)

    def test_an_objective_that_is_not_among_the_metrics_is_named_beside_those_that_are(self) -> None:
        with pytest.raises(InputError, match="the objective is 'val_accuracy': expected one of loss, size"):
            returned({"loss": 1.0, "size": 2.0})

    def test_a_build_that_returns_no_compiled_model_is_an_error(self) -> None:
        with pytest.raises(TypeError, match=r"expected a compiled keras\.Model"):
            run_trial(experiment(Built(lambda hp: keras.Sequential([keras.Input((4,))]))), spec(Wandering()), lambda news: None)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize(
        "form", [float, lambda value: {"val_accuracy": value}, lambda value: history(val_accuracy=[0.5, value])]
    )
    def test_a_last_value_that_is_not_finite_fails_the_trial_at_once(self, value: float, form: Callable[[float], Any]) -> None:
        fits = []

        def outcome() -> Any:
            fits.append(None)
            return form(value)

        result = returned(outcome, seeds=(1, 2, 3))
        assert (result.status, result.replicates, len(fits)) == ("failed", (), 1)
        assert result.reason == f"NotFiniteError: val_accuracy is {value} after the last epoch"

    def test_a_value_that_is_not_finite_in_an_earlier_epoch_does_no_harm(self) -> None:
        result = returned(history(val_accuracy=[math.nan, math.inf, 0.5]))
        assert result.completed
        back = TrialResult.from_json(result.to_json())
        assert back.replicates[0].history["val_accuracy"][-1] == 0.5
        assert math.isnan(back.replicates[0].history["val_accuracy"][0])

    def test_a_training_whose_loss_becomes_nan_is_a_failed_trial(self) -> None:
        def exploding(hp: Any) -> keras.Model:
            return net(keras.layers.Rescaling(1e30), keras.layers.Rescaling(1e30))

        result = run(Built(exploding), seeds=(1, 2))
        assert result.status == "failed"
        assert result.reason is not None
        assert result.reason.startswith("NonFiniteLossError: ")

    def test_the_result_knows_the_model(self) -> None:
        result = run(Wandering(), seeds=(1, 2))
        assert result.parameters == 4 * 5 + 5 + 5 * 3 + 3
        assert [replicate.seed for replicate in result.replicates] == [1, 2]

    def test_a_result_comes_back_from_its_json(self) -> None:
        result = run(Wandering(), seeds=(1, 2))
        back = TrialResult.from_json({**result.to_json()})
        assert histories(back) == histories(result)
        assert (back.trial_id, back.parameters, back.initial_epoch) == (result.trial_id, result.parameters, 0)


class Keras(Built):
    """Its fit is Keras's own.

    Args:
        function: makes the model.
        after: is called with the model when the fit has ended.
        callbacks: makes more of them for each fit.
        options: more of the fit's.
    """

    def __init__(self, function: Callable[[Any], keras.Model], after: Any = None, callbacks: Any = list, **options: Any) -> None:
        super().__init__(function)
        self.after, self.callbacks, self.options = after, callbacks, options

    def fit(self, hp: Any, model: keras.Model, *arguments: Any, **options: Any) -> Any:
        options["callbacks"] = [*self.callbacks(), *options["callbacks"]]
        history = model.fit(*arguments, **{**options, **self.options}, verbose=0)
        if self.after is not None:
            self.after(model)
        return history


def leaping(hp: Any) -> keras.Model:
    """A net that does not get better: its steps are far too long. Its loss wanders, and no two epochs are alike."""
    return net(keras.layers.Dense(6, activation="relu"), keras.layers.BatchNormalization(), optimizer=keras.optimizers.SGD(3.0))


def loss_of(result: TrialResult) -> float:
    """The validation loss of the weights that a trial of a `leaping` net has kept."""
    model = leaping(None)
    with h5py.File(io.BytesIO(result.weights)) as file:
        layers = [file[f"layers/{name}/vars"] for name in ("dense", "batch_normalization", "dense_1")]
        model.set_weights([group[str(number)][...] for group in layers for number in range(len(group))])
    return float(model.evaluate(*VALIDATION, verbose=0)[0])


def stopping(**options: Any) -> keras.callbacks.Callback:
    """Keras's, which restores the best epoch's weights."""
    return keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True, **options)


class RestoresFirst(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """At the end the weights are those of the first epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 0:
            self.weights = self.model.get_weights()

    def on_train_end(self, logs: Any = None) -> None:
        self.model.set_weights(self.weights)


class GoesBack(RestoresFirst):
    """At the end of each epoch, after its validation, the weights are those of the first one again."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self.model.set_weights(self.weights)


def judged(hypermodel: keras_tuner.HyperModel, epochs: int = 6, **options: Any) -> TrialResult:
    """A trial of two replicates, judged by the validation loss."""
    given = Experiment(hypermodel, "val_loss", (X, Y), {"validation_data": VALIDATION, **options})
    return run_trial(given, spec(hypermodel, seeds=(5, 6), epochs=epochs), lambda news: None)


def scores(result: TrialResult) -> tuple[float, ...]:
    """Of its replicates."""
    return result.summary({}, "val_loss").scores


@pytest.mark.slow
class TestScores:
    """A trial's score is that of the weights that it keeps."""

    @pytest.mark.parametrize("patience", [1, 99], ids=["stopped", "to the last epoch"])
    @pytest.mark.parametrize("fit", [Built, Keras])
    def test_where_the_best_epochs_weights_are_restored_it_is_that_epochs(
        self, fit: Callable[[Any], keras_tuner.HyperModel], patience: int
    ) -> None:
        result = judged(fit(leaping), callbacks=[stopping(patience=patience)])
        for replicate, score in zip(result.replicates, scores(result), strict=True):
            losses = replicate.history["val_loss"]
            assert score == min(losses)
            assert replicate.scored == (None if losses[-1] == score else losses.index(score) + 1)
        assert any(replicate.scored for replicate in result.replicates)
        assert loss_of(result) == pytest.approx(scores(result)[0], abs=1e-5)
        assert TrialResult.from_json(result.to_json()).replicates == result.replicates

    def test_a_callback_that_stops_and_restores_nothing_changes_nothing(self) -> None:
        result = judged(Built(leaping), callbacks=keras.callbacks.EarlyStopping("val_loss", patience=1))
        assert [replicate.scored for replicate in result.replicates] == [None, None]
        assert scores(result) == tuple(replicate.history["val_loss"][-1] for replicate in result.replicates)
        assert loss_of(result) == pytest.approx(scores(result)[0], abs=1e-5)

    def test_whatever_restores_weights_is_noticed(self) -> None:
        first = {"callbacks": [RestoresFirst()]}
        seen = RestoresFirst()

        def put_back(model: keras.Model) -> None:
            model.set_weights(seen.weights)

        ours = judged(Built(leaping), epochs=3, **first)
        theirs = judged(Keras(leaping, callbacks=lambda: [RestoresFirst()]), epochs=3)
        after = judged(Keras(leaping, put_back, lambda: [seen]), epochs=3)
        for result in (ours, theirs, after):
            assert [replicate.scored for replicate in result.replicates] == [1, 1]
            assert scores(result) == tuple(replicate.history["val_loss"][0] for replicate in result.replicates)
            assert loss_of(result) == pytest.approx(scores(result)[0], abs=1e-5)

    @pytest.mark.parametrize("fit", [Built, Keras])
    def test_weights_that_are_replaced_between_an_epochs_validation_and_its_end_are_not_that_epochs(self, fit: Any) -> None:
        result = judged(fit(leaping), epochs=3, callbacks=[GoesBack()])
        assert [replicate.scored for replicate in result.replicates] == [1, 1]
        assert scores(result) == tuple(replicate.history["val_loss"][0] for replicate in result.replicates)
        assert loss_of(result) == pytest.approx(scores(result)[0], abs=1e-5)

    def test_weights_that_are_no_epochs_are_said_to_be_none_and_the_last_epoch_counts(self) -> None:
        def averaged(hp: Any) -> keras.Model:
            return net(optimizer=keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5))

        result = judged(Built(averaged), epochs=2)
        assert [replicate.scored for replicate in result.replicates] == [0, 0]
        assert scores(result) == tuple(replicate.history["val_loss"][-1] for replicate in result.replicates)
        assert result.summary({}, "val_loss").scored == (0, 0)

    @pytest.mark.parametrize("fit", [Built, Keras])
    def test_where_the_last_epoch_is_not_validated_score_and_weights_are_those_of_the_last_that_was(self, fit: Any) -> None:
        result = judged(fit(leaping), epochs=5, validation_freq=2)
        for replicate in result.replicates:
            assert [math.isnan(loss) for loss in replicate.history["val_loss"]] == [True, False, True, False, True]
            assert len(replicate.history["loss"]) == 5
            assert replicate.scored == 4
        assert scores(result) == tuple(replicate.history["val_loss"][3] for replicate in result.replicates)
        assert loss_of(result) == pytest.approx(scores(result)[0], abs=1e-5)
        whole = judged(fit(leaping), epochs=4, validation_freq=2)
        assert scores(whole) == scores(result)
        assert [replicate.scored for replicate in whole.replicates] == [None, None]

    def test_a_fit_that_skips_validations_by_itself_is_noticed_too(self) -> None:
        result = judged(Keras(leaping, validation_freq=3), epochs=4)
        assert [replicate.scored for replicate in result.replicates] == [3, 3]
        assert loss_of(result) == pytest.approx(scores(result)[0], abs=1e-5)
        with pytest.raises(InputError, match="val_loss was not measured after the last epoch"):
            judged(Keras(leaping, validation_freq=[1]), epochs=2)

    def test_of_several_histories_each_counts_with_the_epoch_that_it_keeps(self) -> None:
        histories = []

        class Folds(Keras):
            def fit(self, hp: Any, model: keras.Model, *arguments: Any, **options: Any) -> Any:
                folds = []
                for _ in range(2):
                    again = {**options, "callbacks": [*options["callbacks"], stopping(patience=1)]}
                    folds.append(super().fit(hp, leaping(hp), *arguments, **again))
                histories.append(folds)
                return folds

        result = judged(Folds(leaping))
        for replicate, folds in zip(result.replicates, histories, strict=True):
            best = [min(history.history["val_loss"]) for history in folds]
            assert replicate.history["val_loss"] == (pytest.approx(sum(best) / 2),)

    def test_a_restored_training_is_promoted_with_the_restored_weights(self) -> None:
        def trained(epochs: int, **options: Any) -> TrialResult:
            given = Experiment(Built(leaping), "val_loss", (X, Y), {"validation_data": VALIDATION, **options})
            return run_trial(given, spec(given.hypermodel, epochs=epochs, keeps_states=True), lambda news: None)

        half, first = trained(3, callbacks=[RestoresFirst()]), trained(1)
        assert arrays(half.weights) == arrays(first.weights)
        assert load(half.states[0])["0"].tolist() == load(first.states[0])["0"].tolist()


class TestReplicateSeeds:
    def test_they_follow_from_the_searchs_seed_and_the_values(self) -> None:
        seeds = replicate_seeds(0, {"units": 32, "rate": 0.1}, 3)
        assert len(set(seeds)) == 3
        assert all(0 <= seed < 2**32 for seed in seeds)
        assert seeds == replicate_seeds(0, {"rate": 0.1, "units": 32}, 3)
        assert seeds[:2] == replicate_seeds(0, {"units": 32, "rate": 0.1}, 2)

    def test_another_search_or_another_value_has_others(self) -> None:
        sets = [
            replicate_seeds(0, {"units": 32}, 3),
            replicate_seeds(1, {"units": 32}, 3),
            replicate_seeds(0, {"units": 64}, 3),
            replicate_seeds(0, {"width": 32}, 3),
        ]
        assert len({seed for seeds in sets for seed in seeds}) == 12

    def test_what_hyperband_adds_is_left_out(self) -> None:
        promoted = {"units": 32, "tuner/epochs": 9, "tuner/trial_id": "0003", "tuner/bracket": 2}
        assert replicate_seeds(0, promoted, 2) == replicate_seeds(0, {"units": 32}, 2)
