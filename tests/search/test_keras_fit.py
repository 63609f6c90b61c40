"""`keras.Model.fit`'s arguments and result, with our loop."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from mnist_tuner import MNISTDataModule, load_dataset, seed_everything
from mnist_tuner.trainer.keras_fit import fit_keras_model
from tests.search.hypermodels import blobs, net
from tests.trainer.conftest import assert_same_bits, weights

X, Y, VALIDATION = blobs()


def fresh(*layers: keras.layers.Layer) -> keras.Model:
    """A net with the same first weights each time."""
    seed_everything(1)
    return net(keras.layers.Dense(6, activation="relu"), *layers)


class TestLikeKeras:
    @pytest.fixture(scope="class", name="both")
    @staticmethod
    def fitted_by_both() -> dict[str, tuple[keras.Model, keras.callbacks.History]]:
        """The same net fitted by us and by Keras."""
        ours, theirs = fresh(), fresh()
        options: dict[str, Any] = {"validation_data": VALIDATION, "epochs": 2, "batch_size": 16, "shuffle": False}
        return {
            "ours": (ours, fit_keras_model(ours, X, Y, **options)),
            "theirs": (theirs, theirs.fit(X, Y, verbose=0, **options)),
        }

    def test_the_history_is_one_of_keras(self, both: dict[str, Any]) -> None:
        ours, theirs = both["ours"][1], both["theirs"][1]
        assert isinstance(ours, keras.callbacks.History)
        assert ours.epoch == theirs.epoch == [0, 1]
        assert set(ours.history) == set(theirs.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
        for name, values in theirs.history.items():
            assert ours.history[name] == pytest.approx(values, abs=1e-4)

    def test_the_weights_are_those_of_keras(self, both: dict[str, Any]) -> None:
        for left, right in zip(weights(both["ours"][0]), weights(both["theirs"][0]), strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5)

    def test_the_validation_is_that_of_evaluate(self, both: dict[str, Any]) -> None:
        model, history = both["ours"]
        loss, score = model.evaluate(*VALIDATION, verbose=0)
        assert history.history["val_loss"][-1] == pytest.approx(loss, abs=1e-5)
        assert history.history["val_accuracy"][-1] == pytest.approx(score, abs=1e-6)

    def test_callbacks_are_driven_and_without_validation_data_there_is_no_validation(self) -> None:
        class Noting(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
            def __init__(self) -> None:
                super().__init__()
                self.heard: list[Any] = []

            def on_train_begin(self, logs: Any = None) -> None:
                self.heard.append("begin")

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                self.heard.append((epoch, sorted(logs)))

        noting = Noting()
        model = fresh()
        history = fit_keras_model(model, X, Y, epochs=3, initial_epoch=1, callbacks=noting)
        assert noting.heard == ["begin", (1, ["accuracy", "loss"]), (2, ["accuracy", "loss"])]
        assert history.epoch == [1, 2]
        assert noting.model is model

    def test_sample_weights_count(self) -> None:
        model = fresh()
        before = weights(model)
        fit_keras_model(model, X, Y, sample_weight=np.zeros(len(X), np.float32))
        for left, right in zip(weights(model), before, strict=True):
            np.testing.assert_array_equal(left, right)


def test_calls_that_go_on_do_what_one_call_does_to_the_bit() -> None:
    whole, parts = fresh(keras.layers.Dropout(0.3)), fresh(keras.layers.Dropout(0.3))
    seed_everything(5)
    unbroken = fit_keras_model(whole, X, Y, validation_data=VALIDATION, epochs=4, batch_size=16)
    seed_everything(5)
    first = fit_keras_model(parts, X, Y, validation_data=VALIDATION, epochs=1, batch_size=16)
    rest = fit_keras_model(parts, X, Y, validation_data=VALIDATION, epochs=4, initial_epoch=1, batch_size=16)
    assert_same_bits(whole, parts)
    assert (first.epoch, rest.epoch) == ([0], [1, 2, 3])
    for name, values in unbroken.history.items():
        assert first.history[name] + rest.history[name] == values


def test_rows_are_shuffled_by_the_seed_and_not_without_shuffling() -> None:
    model = fresh()
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    start = [np.array(variable.numpy()) for variable in variables]
    losses = []
    for seed, shuffle in ((1, True), (2, True), (1, True), (1, False), (2, False)):
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        seed_everything(seed)
        losses.append(fit_keras_model(model, X, Y, batch_size=16, shuffle=shuffle).history["loss"])
    assert losses[0] == losses[2] != losses[1]
    assert losses[3] == losses[4] != losses[0]


def test_a_transform_is_applied_to_training_and_validation() -> None:
    plain, scaled = fresh(), fresh()
    options: dict[str, Any] = {"batch_size": 16, "shuffle": False}
    before = fit_keras_model(plain, X, Y, validation_data=VALIDATION, **options)
    doubled = (VALIDATION[0] * 2, VALIDATION[1])
    after = fit_keras_model(scaled, X * 2, Y, validation_data=doubled, transform=lambda x, y: (x * np.float32(0.5), y), **options)
    assert after.history == before.history


@pytest.mark.parametrize(("initial_epoch", "epochs"), [(1, 1), (-1, 1), (0, 0), (3, 2)])
def test_epochs_that_are_none_are_refused(initial_epoch: int, epochs: int) -> None:
    with pytest.raises(ValueError, match=f"initial_epoch is {initial_epoch} and epochs {epochs}: expected"):
        fit_keras_model(fresh(), X, Y, epochs=epochs, initial_epoch=initial_epoch)


def test_a_data_module_is_data_enough(small_dataset_folder: Any) -> None:
    data = MNISTDataModule(load_dataset(small_dataset_folder), val_fraction=0.2)
    model = keras.Sequential([keras.Input((7, 5)), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    assert set(fit_keras_model(model, data).history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    for more in ({"y": Y}, {"validation_data": VALIDATION}):
        with pytest.raises(ValueError, match="leave out y and validation_data"):
            fit_keras_model(model, data, **more)


@pytest.mark.parametrize(
    "options",
    [
        {"class_weight": {0: 1.0, 1: 5.0, 2: 0.5}, "validation_split": 0.2},
        {"steps_per_epoch": 3, "validation_data": tuple(map(tf.constant, VALIDATION))},
    ],
)
def test_other_options_do_what_they_do_in_keras(options: dict[str, Any]) -> None:
    common: dict[str, Any] = {"shuffle": False, "batch_size": 12, **options}
    ours, theirs = fresh(), fresh()
    history, expected = fit_keras_model(ours, X, Y, **common), theirs.fit(X, Y, verbose=0, **common)
    assert set(history.history) == set(expected.history)
    for name, values in expected.history.items():
        assert history.history[name] == pytest.approx(values, abs=1e-4)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations)


@pytest.mark.parametrize(
    "options", [{"validation_split": 1.0}, {"validation_split": -0.1}, {"validation_split": 0.5, "validation_data": VALIDATION}]
)
def test_a_share_that_cannot_be_held_out_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation_split is"):
        fit_keras_model(fresh(), X, Y, **options)
