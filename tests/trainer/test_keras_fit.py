"""`keras.Model.fit`'s arguments and result, with our loop."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from mnist_tuner import MNISTDataModule, load_dataset, seed_everything
from mnist_tuner.trainer import ArrayLoader
from mnist_tuner.trainer.keras_fit import fit_keras_model
from tests.trainer.conftest import Weights, assert_same_bits, weights

pytestmark = pytest.mark.slow

Array = npt.NDArray[Any]
Model = Callable[[], keras.Model]

_generator = np.random.default_rng(3)
N = 60
"""Rows: of 16 there are three batches, and one of 12."""
Y = np.arange(N) % 3
X = (_generator.normal(size=(N, 4)) + 2 * np.eye(3, 4)[Y]).astype(np.float32)
HOT = np.eye(3, dtype=np.float32)[Y]
WEIGHT = _generator.uniform(0.5, 2, N).astype(np.float32)
CLASSES = {0: 1.0, 1: 5.0, 2: 0.2}
VALIDATION = X[:40] + 0.5, Y[:40]
HOT_VALIDATION = X[:40] + 0.5, HOT[:40]


def net(*layers: keras.layers.Layer, loss: str = "sparse_categorical_crossentropy") -> keras.Model:
    """A compiled net."""
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.1, 0.9), loss, metrics=["accuracy"])
    return model


def numbered() -> keras.Model:
    """A net whose targets are the classes' numbers."""
    return net()


def column() -> keras.Model:
    """The same, of numbers in a column: one model of Keras does not take both."""
    return net()


def one_hot() -> keras.Model:
    return net(loss="categorical_crossentropy")


def dropping() -> keras.Model:
    return net(keras.layers.Dense(6, activation="relu"), keras.layers.Dropout(0.3))


def binary() -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="tanh")])
    model.compile("sgd", "hinge")
    return model


def two_by_two() -> keras.Model:
    """A net of two inputs and two outputs."""
    a, b = keras.Input((4,), name="a"), keras.Input((1,), name="b")
    both = keras.layers.Concatenate()([a, b])
    outputs = [keras.layers.Dense(3, activation="softmax", name="p")(both), keras.layers.Dense(1, name="q")(both)]
    model = keras.Model([a, b], outputs)
    losses = ["sparse_categorical_crossentropy", "mse"]
    model.compile(keras.optimizers.SGD(0.05), losses, weighted_metrics=[["accuracy"], ["mae"]])
    return model


class Autoencoder(keras.Model):  # type: ignore[misc]  # Keras has no types
    """Learns x from x, with a train_step of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(4)
        self.mean = keras.metrics.Mean(name="loss")

    def call(self, x: Any) -> Any:
        return self.dense(x)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.mean]

    def train_step(self, data: Any) -> dict[str, Any]:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self(x) - x) ** 2)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self.mean.update_state(loss)
        return {"loss": self.mean.result()}

    def test_step(self, data: Any) -> dict[str, Any]:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        self.mean.update_state(keras.ops.mean((self(x) - x) ** 2))
        return {"loss": self.mean.result()}


def autoencoder() -> keras.Model:
    model = Autoencoder()
    model.compile(keras.optimizers.SGD(0.1))
    model(X[:2])
    return model


class Batches(keras.utils.PyDataset):
    """Batches of 16, by index; with `endless` they begin again and again, with `turns` they turn round after each epoch."""

    def __init__(self, *arrays: Array, endless: bool = False, turns: bool = False) -> None:
        super().__init__()
        self.arrays, self.endless, self.turns = arrays, endless, turns
        self.asked: list[int] = []

    @property
    def num_batches(self) -> int | None:
        return None if self.endless else 4

    def __getitem__(self, index: int) -> tuple[Array, ...]:
        self.asked.append(index)
        first = index % 4 * 16
        return tuple(array[first : first + 16] for array in self.arrays)

    def on_epoch_end(self) -> None:
        if self.turns:
            self.arrays = tuple(array[::-1] for array in self.arrays)


def dataset(*arrays: Any, size: int = 16) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0]).batch(size)


def shuffled() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(N, seed=5).batch(16)


def generated() -> tf.data.Dataset:
    """A dataset of a length that nobody knows."""
    signature = tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None,), tf.int64)
    return tf.data.Dataset.from_generator(
        lambda: ((X[i : i + 16], Y[i : i + 16]) for i in range(0, N, 16)), output_signature=signature
    )


@functools.cache
def made(make: Model) -> tuple[keras.Model, list[tuple[Any, Array]]]:
    """A model that the tests share, so that it is traced but once, and what its variables were made with."""
    model = make()
    model.optimizer.build(model.trainable_variables)
    return model, [(variable, np.array(variable.numpy())) for variable in (*model.variables, *model.optimizer.variables)]


def fresh(make: Model = numbered) -> keras.Model:
    """A shared model as it was made."""
    model, start = made(make)
    for variable, value in start:
        variable.assign(value)
    return model


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Shared models are not kept for the next file."""
    yield
    made.cache_clear()


class Validations(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """The loss of each validation."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def on_test_end(self, logs: Any = None) -> None:
        self.losses.append(logs["loss"])


def fitted(fit: Callable[..., Any], make: Model, *arguments: Any, **options: Any) -> tuple[Weights, dict[str, Any], list[float]]:
    """What comes of a fit from the same start: weights, history, losses of the validations."""
    model, validations = fresh(make), Validations()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data that end, and Keras's of what it does not shuffle
        history = fit(model, *arguments, callbacks=[validations], verbose=0, **options).history
    return weights(model), history, validations.losses


def assert_as_in_keras(make: Model, data: Callable[[], tuple[Any, ...]], **options: Any) -> None:
    """Both come to the same weights, history and validations.

    Args:
        make: the model.
        data: x, and y where there is one, for each fit anew.
        options: of both.
    """
    options = {"epochs": 2, "shuffle": False, **options}
    theirs = fitted(keras.Model.fit, make, *data(), **options)
    ours = fitted(fit_keras_model, make, *data(), **options)
    for left, right in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
    assert set(ours[1]) == set(theirs[1])
    for name, values in theirs[1].items():
        if options.get("validation_freq", 1) == 1:
            assert ours[1][name] == pytest.approx(values, abs=1e-5), name
    assert ours[2] == pytest.approx(theirs[2], abs=1e-5)


KINDS: dict[str, tuple[Model, Callable[[], tuple[Any, ...]], tuple[Array, Array]]] = {
    "arrays": (numbered, lambda: (X, Y), VALIDATION),
    "one-hot": (one_hot, lambda: (X, HOT), HOT_VALIDATION),
    "tf.data": (numbered, lambda: (dataset(X, Y),), VALIDATION),
    "PyDataset": (numbered, lambda: (Batches(X, Y),), VALIDATION),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "class_weight": {"class_weight": CLASSES},
    "steps that divide": {"steps_per_epoch": 2, "epochs": 3},
    "steps that do not": {"steps_per_epoch": 3, "epochs": 4, "class_weight": CLASSES, "validation_data": True},
    "steps beyond the data": {"steps_per_epoch": 7},
    "initial_epoch": {"initial_epoch": 1, "epochs": 3},
    "validation": {"validation_data": True},
    "validation_steps, _freq": {"validation_data": True, "validation_steps": 2, "validation_freq": 2, "epochs": 5},
    "validation_batch_size": {"validation_data": True, "validation_batch_size": 8},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_options_do_what_they_do_in_keras_with_each_kind_of_data(kind: str, option: str) -> None:
    make, data, validation = KINDS[kind]
    options = {**OPTIONS[option], **({"validation_data": validation} if "validation_data" in OPTIONS[option] else {})}
    assert_as_in_keras(make, data, **options, **({"batch_size": 16} if len(data()) == 2 else {}))


@pytest.mark.parametrize(
    "options",
    [
        {"validation_split": 0.12, "batch_size": 16},  # 52.8 rows
        {"validation_split": 0.3, "class_weight": CLASSES, "sample_weight": None, "batch_size": 16},
        {"validation_split": 0.2, "sample_weight": WEIGHT, "batch_size": 16},
        {"sample_weight": WEIGHT, "validation_data": (*VALIDATION, WEIGHT[:40]), "batch_size": 16},
        {"steps_per_epoch": 4, "validation_data": VALIDATION, "validation_steps": 3},
        {"validation_data": list(VALIDATION), "batch_size": 1000},
        {"validation_data": tuple(map(tf.constant, VALIDATION)), "batch_size": 16},
        {"validation_data": dataset(*VALIDATION), "validation_steps": 2, "batch_size": None},
        {"validation_data": Batches(X, Y)},
    ],
    ids=lambda options: " ".join(options),
)
def test_options_of_arrays_do_what_they_do_in_keras(options: dict[str, Any]) -> None:
    assert_as_in_keras(numbered, lambda: (X, Y), **options)


def test_class_weights_of_some_classes_leave_the_others_at_one() -> None:
    assert_as_in_keras(column, lambda: (X, Y[:, None]), batch_size=16, class_weight={1: 3})


@pytest.mark.parametrize("target", [np.where(Y, 1.0, -1.0), Y > 0], ids=["-1 and 1", "bool"])
def test_class_weights_are_those_of_the_number_whatever_it_is(target: Array) -> None:
    assert_as_in_keras(binary, lambda: (X, target), class_weight={-1: 4.0, 0: 3.0, 1: 0.5})


@pytest.mark.parametrize(
    ("x", "y", "options"),
    [
        ([X, X[:, :1]], [Y, X[:, 1:2]], {}),
        ({"a": X, "b": X[:, :1]}, [Y, X[:, 1:2]], {"sample_weight": WEIGHT}),
        ((X, X[:, :1]), [Y, X[:, 1:2]], {"sample_weight": [WEIGHT, WEIGHT[::-1]], "validation_split": 0.5}),
    ],
    ids=["lists", "a dict", "a weight for each"],
)
def test_several_inputs_and_outputs_are_taken_as_keras_takes_them(x: Any, y: Any, options: dict[str, Any]) -> None:
    assert_as_in_keras(two_by_two, lambda: (x, y), batch_size=15, **options)  # no batch is short: see the loss of each output


@pytest.mark.parametrize("options", [{}, {"validation_split": 0.25}, {"validation_data": X[:40] / 2}, {"steps_per_epoch": 3}])
@pytest.mark.parametrize("data", [lambda: (X,), lambda: (dataset(X),)], ids=["array", "tf.data"])
def test_without_y_a_model_learns_from_x_alone(data: Callable[[], tuple[Any, ...]], options: dict[str, Any]) -> None:
    if isinstance(data()[0], tf.data.Dataset) and "validation_split" in options:
        options = {"validation_data": dataset(X[:32])}
    assert_as_in_keras(autoencoder, data, **options)


@pytest.mark.parametrize("options", [{"epochs": 3}, {"steps_per_epoch": 2, "epochs": 5}, {"steps_per_epoch": 3, "epochs": 5}])
@pytest.mark.parametrize("repeated", [False, True])
def test_a_shuffled_dataset_has_the_order_that_it_has_in_keras(repeated: bool, options: dict[str, Any]) -> None:
    if repeated and "steps_per_epoch" not in options:
        options = {"steps_per_epoch": 4, "epochs": 3}
    assert_as_in_keras(numbered, lambda: (shuffled().repeat() if repeated else shuffled(),), **options)


def test_a_second_call_goes_on_in_the_order_of_a_shuffled_dataset_as_in_keras() -> None:
    trained = []
    for fit in (keras.Model.fit, fit_keras_model):
        model, data = fresh(), shuffled()
        for begin, end in ((0, 2), (2, 3), (0, 1)):
            fit(model, data, initial_epoch=begin, epochs=end, shuffle=False, verbose=0)
        trained.append(weights(model))
    for left, right in zip(*trained, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


@pytest.mark.parametrize(
    "data",
    [lambda: Batches(X, Y, endless=True), lambda: dataset(X, Y).repeat(), generated],
    ids=["PyDataset", "tf.data", "of unknown length"],
)
@pytest.mark.parametrize("steps", [3, 4])
def test_of_endless_and_unknown_data_an_epoch_takes_its_steps_as_in_keras(data: Callable[[], Any], steps: int) -> None:
    epochs = 1 if data is generated and steps == 4 else 4  # Keras trains nothing in the second, and calls its loss 0
    assert_as_in_keras(numbered, lambda: (data(),), steps_per_epoch=steps, epochs=epochs)


def test_data_that_change_at_an_epochs_end_are_those_of_keras_in_each_epoch() -> None:
    assert_as_in_keras(numbered, lambda: (Batches(X, Y, turns=True),), epochs=3)


def test_the_batches_of_a_py_dataset_are_shuffled_by_the_seed() -> None:
    orders = []
    for seed in (1, 1, 2):
        data = Batches(X, Y)
        seed_everything(seed)
        fitted(fit_keras_model, numbered, data, epochs=3)
        orders.append(np.reshape(data.asked[-12:], (3, 4)).tolist())  # before that one was asked for to build the model
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders[0])
    assert len(set(map(tuple, orders[0]))) == 3


def test_data_that_end_within_an_epoch_are_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"ended after 1 of the 3 steps of epoch 2; the next epoch begins them anew"):
        fit_keras_model(fresh(), X, Y, batch_size=16, steps_per_epoch=3, epochs=2)


def test_the_history_is_one_of_keras_with_the_validation_of_evaluate() -> None:
    model = fresh()
    history = fit_keras_model(model, X, Y, validation_data=VALIDATION, epochs=2, batch_size=16, shuffle=False)
    assert isinstance(history, keras.callbacks.History)
    assert history.epoch == [0, 1]
    loss, score = model.evaluate(*VALIDATION, verbose=0)
    assert history.history["val_loss"][-1] == pytest.approx(loss, abs=1e-5)
    assert history.history["val_accuracy"][-1] == pytest.approx(score, abs=1e-6)


def test_callbacks_are_driven_and_without_validation_data_there_is_no_validation() -> None:
    class Noting(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[Any] = []

        def on_train_begin(self, logs: Any = None) -> None:
            self.heard.append("begin")

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.heard.append((epoch, sorted(logs)))

    noting, model = Noting(), fresh()
    history = fit_keras_model(model, X, Y, epochs=3, initial_epoch=1, batch_size=16, callbacks=noting)
    assert noting.heard == ["begin", (1, ["accuracy", "loss"]), (2, ["accuracy", "loss"])]
    assert history.epoch == [1, 2]
    assert noting.model is model


@pytest.mark.parametrize("steps", [None, 3])
def test_calls_that_go_on_do_what_one_call_does_to_the_bit(steps: int | None) -> None:
    options: dict[str, Any] = {"validation_data": VALIDATION, "batch_size": 12, "steps_per_epoch": steps}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if steps else "error")
        seed_everything(5)
        model = fresh(dropping)
        unbroken = fit_keras_model(model, X, Y, epochs=4, **options)
        whole = weights(model)
        seed_everything(5)
        parts = fresh(dropping)
        first = fit_keras_model(parts, X, Y, epochs=1, **options)
        rest = fit_keras_model(parts, X, Y, epochs=4, initial_epoch=1, **options)
    assert_same_bits(whole, parts)
    assert (first.epoch, rest.epoch) == ([0], [1, 2, 3])
    for name, values in unbroken.history.items():
        assert first.history[name] + rest.history[name] == values


def test_rows_are_shuffled_by_the_seed_and_not_without_shuffling() -> None:
    losses = []
    for seed, shuffle in ((1, True), (2, True), (1, True), (1, False), (2, False)):
        seed_everything(seed)
        losses.append(fitted(fit_keras_model, numbered, X, Y, batch_size=16, shuffle=shuffle)[1]["loss"])
    assert losses[0] == losses[2] != losses[1]
    assert losses[3] == losses[4] != losses[0]


def test_a_transform_is_applied_to_training_and_validation_before_the_class_weights() -> None:
    options: dict[str, Any] = {"batch_size": 16, "shuffle": False, "class_weight": CLASSES}
    before = fitted(fit_keras_model, one_hot, X, HOT, validation_data=HOT_VALIDATION, **options)

    def transform(x: Any, y: Any) -> Any:
        return x * np.float32(0.5), tf.one_hot(y, 3)

    doubled = VALIDATION[0] * 2, VALIDATION[1]
    after = fitted(fit_keras_model, one_hot, X * 2, Y, validation_data=doubled, transform=transform, **options)
    assert_same_bits(before[0], after[0])
    assert before[1] == after[1]


@pytest.mark.parametrize(("initial_epoch", "epochs"), [(1, 1), (-1, 1), (0, 0), (3, 2)])
def test_epochs_that_are_none_are_refused(initial_epoch: int, epochs: int) -> None:
    with pytest.raises(ValueError, match=f"initial_epoch is {initial_epoch} and epochs {epochs}: expected"):
        fit_keras_model(fresh(), X, Y, epochs=epochs, initial_epoch=initial_epoch)


def test_a_data_module_is_data_enough(small_dataset_folder: Any) -> None:
    data = MNISTDataModule(load_dataset(small_dataset_folder), val_fraction=0.2)
    model = keras.Sequential([keras.Input((7, 5)), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    assert set(fit_keras_model(model, data).history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    fit_keras_model(model, data, steps_per_epoch=1)
    assert int(model.optimizer.iterations) == 3 + 1
    for more in ({"y": Y}, {"validation_data": VALIDATION}, {"class_weight": CLASSES}, {"validation_split": 0.1}):
        with pytest.raises(ValueError, match=f"brings its own data: leave out {next(iter(more))}"):
            fit_keras_model(model, data, **more)


NO_ARRAYS = r"is a _BatchDataset: {} goes with arrays; a loader's batches are \(x, y, sample_weight\)"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((dataset(X), Y), {}, NO_ARRAYS.format("y")),
        ((dataset(X, Y),), {"sample_weight": WEIGHT}, NO_ARRAYS.format("sample_weight")),
        ((dataset(X, Y),), {"validation_split": 0.5}, NO_ARRAYS.format("validation_split")),
        ((dataset(X, Y),), {"transform": lambda x, y: (x, y)}, NO_ARRAYS.format("transform")),
        ((X.tolist(), Y), {}, "x is a list: y goes with arrays"),
        ((None, Y), {}, "x is a NoneType: y goes with arrays"),
        ((X, Y.tolist()), {}, "y holds a int: expected dense arrays or tensors"),
        ((X.tolist(),), {}, "the list gives"),
        ((X, Y[:50]), {}, r"different lengths: \[50, 60\]"),
        ((X[:0], Y[:0]), {}, "there are no rows"),
        ((X,), {"sample_weight": WEIGHT}, "sample_weight was given without y"),
        ((X, Y), {"sample_weight": WEIGHT, "class_weight": CLASSES}, "the batches hold a sample_weight as well"),
        ((dataset(X, Y, WEIGHT),), {"class_weight": CLASSES}, "the batches hold a sample_weight as well"),
        ((X,), {"class_weight": CLASSES}, "the batches hold no y"),
        ((X, [Y, Y]), {"class_weight": CLASSES}, "the batches hold several outputs"),
        ((X, Y), {"class_weight": {"cat": 2.0}}, "class_weight is {'cat': 2.0}: expected a dict, a weight for each class"),
        ((X, Y), {"class_weight": [1.0, 2.0]}, "expected a dict, a weight for each class's number"),
        ((X, Y), {"class_weight": {"1": 2.0}}, "expected a dict, a weight for each class's number"),
        ((X, Y), {"class_weight": {0.5: 2.0}}, "expected a dict, a weight for each class's number"),
        ((X, Y), {"class_weight": {1: 2.0, 1.5: 3.0}}, "expected a dict, a weight for each class's number"),
        ((X, Y), {"validation_split": 1.0}, "validation_split is 1.0: expected 0 to less than 1"),
        ((X, Y), {"validation_split": -0.1}, "validation_split is -0.1: expected"),
        ((X, Y), {"validation_split": 0.5, "validation_data": VALIDATION}, "with arrays and no validation_data"),
        ((X, Y), {"validation_split": 0.99}, "validation_split is 0.99 of 60 rows, which leaves 0 and 60"),
        ((X, Y), {"validation_freq": [1, 3]}, r"validation_freq is \[1, 3\]: expected an int of 1 or more"),
        ((X, Y), {"batch_size": 0}, "batch_size is 0: expected an int of 1 or more"),
        ((X, Y), {"steps_per_epoch": 0}, "steps_per_epoch is 0: expected an int of 1 or more"),
        ((X, Y), {"validation_steps": -1}, "validation_steps is -1: expected an int of 1 or more"),
        ((X, Y), {"shuffle": "batch"}, "shuffle is 'batch': expected True or False"),
        ((X, Y), {"verbose": 3}, "verbose is 3: expected"),
        ((X, Y), {"validation_data": 3}, "the data to validate is a int: expected an ArrayLoader"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_obeyed_is_refused_in_one_line(arguments: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        fit_keras_model(fresh(), *arguments, **options)
    assert "\n" not in str(caught.value)


def test_a_loader_has_its_own_transform_under_the_class_weights() -> None:
    loader = ArrayLoader(X * 2, Y, batch_size=16, transform=lambda x, y: (x * np.float32(0.5), y))
    trained = fitted(fit_keras_model, numbered, loader, class_weight=CLASSES)
    plain = fitted(fit_keras_model, numbered, X, Y, class_weight=CLASSES, batch_size=16, shuffle=False)
    assert_same_bits(trained[0], plain[0])
    assert loader.transform is not None
    assert len(loader.first_batch()) == 2  # the caller's loader is as it was
