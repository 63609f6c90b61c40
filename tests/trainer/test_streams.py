"""Batches that somebody else makes: tf.data, Keras's PyDataset, lists; refusals; streams that do not fit into memory."""

from __future__ import annotations

import functools
import gc
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from mnist_tuner.trainer import ArrayLoader, Callback, DataModule, KerasModule, ModelCheckpoint, Module, StreamLoader, Trainer
from mnist_tuner.trainer.compiled import CompiledLoop
from mnist_tuner.trainer.module_state import loops_of
from mnist_tuner.trainer.streams import CHUNK_BATCHES
from tests.support import nets
from tests.support.nets import Quiet, net, points
from tests.trainer.conftest import Reused, Weights, assert_same_bits, weights

pytestmark = pytest.mark.slow

Batch = tuple[npt.NDArray[Any], ...]

N = 72
"""Examples: batches of 32, 32 and 8."""
X, Y = points(N)
WEIGHT = np.where(Y == 0, 3.0, 0.5).astype(np.float32)


def compiled(momentum: float = 0.9) -> keras.Model:
    """A net of one layer, always with the same weights."""
    model = net("softmax")
    optimizer = keras.optimizers.SGD(0.1, momentum)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=[])
    return model


class Net(nets.Net):
    """The same net in a module, for several loaders."""

    def validation_step(self, batch: Any, batch_idx: tf.Tensor, dataloader_idx: int = 0) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(0.1, 0.9)


def batches(*arrays: npt.NDArray[Any], size: int = 32) -> list[Batch]:
    """The arrays cut into batches."""
    return [tuple(array[start : start + size] for array in arrays) for start in range(0, len(arrays[0]), size)]


class Digits(keras.utils.PyDataset):
    """Batches by index; notes what is asked of it. With `endless` they begin again and again."""

    def __init__(self, arrays: tuple[npt.NDArray[Any], ...] = (X, Y), endless: bool = False) -> None:
        super().__init__()
        self.batches = batches(*arrays)
        self.endless = endless
        self.asked: list[int] = []
        self.begun = self.ended = 0

    @property
    def num_batches(self) -> int | None:
        return None if self.endless else len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        self.asked.append(index)
        return self.batches[index % len(self.batches)]

    def on_epoch_begin(self) -> None:
        self.begun += 1

    def on_epoch_end(self) -> None:
        self.ended += 1


class Again:
    """An iterable that can be read again and again, of a length that nobody knows."""

    def __init__(self, *arrays: npt.NDArray[Any]) -> None:
        self.arrays = arrays

    def __iter__(self) -> Iterator[Batch]:
        return iter(batches(*self.arrays))


def dataset(*arrays: npt.NDArray[Any]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays).batch(32)


def generated(*arrays: npt.NDArray[Any]) -> tf.data.Dataset:
    signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in arrays)
    return tf.data.Dataset.from_generator(lambda: iter(batches(*arrays)), output_signature=signature)


KINDS: dict[str, Callable[..., Any]] = {
    "tf.data": dataset,
    "from_generator": generated,
    "PyDataset": lambda *arrays: Digits(arrays),
    "list": lambda *arrays: batches(*arrays),
    "list of lists": lambda *arrays: [list(batch) for batch in batches(*arrays)],
    "iterable": Again,
    "StreamLoader": lambda *arrays: StreamLoader(batches(*arrays)),
}
kinds = pytest.mark.parametrize("kind", list(KINDS))


@functools.cache
def reused(make: Callable[[], keras.Model] = compiled) -> Reused:
    """Such a net that the tests share."""
    return Reused(make)


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """The reused nets are not kept for the next file."""
    yield
    reused.cache_clear()


def fitted(quiet: Quiet, data: Any, make: Callable[[], keras.Model] = compiled, **options: Any) -> Weights:
    """The weights of a net trained on the data."""
    module = reused(make)()
    quiet(**{"jit_compile": False, "max_epochs": 2, **options}).fit(module, data)
    return weights(module.model)


@pytest.fixture(scope="module")
def expected() -> Weights:
    """The weights of a net trained on the arrays."""

    def quiet(**options: Any) -> Trainer:
        return Trainer(**options, logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)

    return fitted(quiet, ArrayLoader(X, Y))


@kinds
def test_each_kind_trains_to_the_bits_of_an_array_loader(kind: str, expected: Weights, quiet: Quiet) -> None:
    assert_same_bits(fitted(quiet, KINDS[kind](X, Y)), expected)


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset"])
def test_compiled_by_xla_the_bits_are_the_same(kind: str, quiet: Quiet) -> None:
    trained = fitted(quiet, KINDS[kind](X[:64], Y[:64]), jit_compile=True)
    assert_same_bits(trained, fitted(quiet, ArrayLoader(X[:64], Y[:64]), jit_compile=True))


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset", "list"])
def test_sample_weights_reach_the_loss(kind: str, expected: Weights, quiet: Quiet) -> None:
    weighted = fitted(quiet, KINDS[kind](X, Y, WEIGHT))
    assert_same_bits(weighted, fitted(quiet, ArrayLoader(X, Y, WEIGHT)))
    assert np.abs(weighted[0] - expected[0]).max() > 0.01


@pytest.mark.parametrize("kind", ["tf.data", "from_generator", "PyDataset", "list", "iterable"])
def test_each_kind_validates_tests_and_predicts(kind: str, quiet: Quiet) -> None:
    module, trainer = reused()(), quiet()
    model = module.model
    loss, accuracy = model.evaluate(X[:64], Y[:64], verbose=0)
    for verb, prefix in (("validate", "val"), ("test", "test")):
        expected = {f"{prefix}_loss": loss, f"{prefix}_accuracy": accuracy}
        assert getattr(trainer, verb)(module, [KINDS[kind](X[:64], Y[:64])]) == [pytest.approx(expected, abs=1e-5)]
    outputs = trainer.predict(module, [KINDS[kind](X, Y)])
    assert [len(output) for output in outputs] == [32, 32, 8]
    np.testing.assert_allclose(np.concatenate(outputs), model(X), atol=1e-6)


def test_the_data_of_a_fit_and_a_test_may_come_from_a_datamodule(quiet: Quiet) -> None:
    class Streams(DataModule):
        def train_dataloader(self) -> Any:
            return dataset(X, Y)

        def val_dataloader(self) -> Any:
            return [Digits(), generated(X[:40], Y[:40])]

        def test_dataloader(self) -> Any:
            return generated(X, Y)

    model, trainer = compiled(), quiet(jit_compile=False)
    trainer.fit(model, datamodule=Streams())
    assert_same_bits(model, fitted(quiet, ArrayLoader(X, Y), max_epochs=1))
    assert {"val_loss/dataloader_idx_0", "val_loss/dataloader_idx_1"} < set(trainer.callback_metrics)
    (tested,) = trainer.test(model, datamodule=Streams())
    assert tested["test_loss"] == pytest.approx(model.evaluate(X, Y, verbose=0)[0], abs=1e-5)


def test_several_validation_loaders_of_several_kinds_are_measured_each(quiet: Quiet) -> None:
    model, parts = compiled(), [(X, Y), (X[:40], Y[:40]), (X[40:], Y[40:])]
    trainer = quiet(jit_compile=False)
    loaders = [dataset(*parts[0]), Digits(parts[1]), ArrayLoader(*parts[2])]
    trainer.fit(model, ArrayLoader(X, Y), loaders)
    for index, (x, y) in enumerate(parts):
        loss, accuracy = model.evaluate(x, y, verbose=0)
        assert trainer.callback_metrics[f"val_loss/dataloader_idx_{index}"] == pytest.approx(loss, abs=1e-5)
        assert trainer.callback_metrics[f"val_accuracy/dataloader_idx_{index}"] == pytest.approx(accuracy, abs=1e-5)
    results = trainer.validate(model, loaders)
    assert [set(result) for result in results] == [
        {f"val_{m}/dataloader_idx_{i}" for m in ("loss", "accuracy")} for i in range(3)
    ]
    first, second, third = trainer.predict(model, [dataset(X), dataset(X[:40]), dataset(X[40:])])
    assert [[len(part) for part in output] for output in (first, second, third)] == [[32, 32, 8], [32, 8], [32]]


class Kept(Callback):
    """Keeps every batch, by epoch."""

    def __init__(self) -> None:
        self.epochs: list[list[Batch]] = []

    def on_train_epoch_start(self, trainer: Trainer, module: Module) -> None:
        self.epochs.append([])

    def on_train_batch_start(self, trainer: Trainer, module: Module, batch: Any, batch_idx: int) -> None:
        self.epochs[-1].append(tuple(np.array(part) for part in batch))


def shuffled(seed: int = 5) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(N, seed=seed).batch(24)


def test_a_shuffled_dataset_trains_to_the_bits_of_its_batches(quiet: Quiet) -> None:
    kept = Kept()
    keras.utils.set_random_seed(1)
    trained = fitted(quiet, shuffled(), callbacks=kept, max_epochs=3)
    assert [[len(batch[0]) for batch in epoch] for epoch in kept.epochs] == [[24, 24, 24]] * 3
    orders = [np.concatenate([batch[0] for batch in epoch]) for epoch in kept.epochs]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order, axis=0), np.sort(X, axis=0))  # every example once
    assert all((orders[a] != orders[b]).any() for a, b in ((0, 1), (0, 2), (1, 2)))
    twin, trainer = compiled(), quiet(jit_compile=False)
    for number, epoch in enumerate(kept.epochs):
        trainer.max_epochs = number + 1
        x, y = (np.concatenate([batch[part] for batch in epoch]) for part in (0, 1))
        trainer.fit(twin, ArrayLoader(x, y, batch_size=24))
    assert_same_bits(trained, twin)


def test_equal_seeds_of_the_shuffling_train_to_equal_bits(quiet: Quiet) -> None:
    trained = []
    for seed in (5, 5, 6):
        keras.utils.set_random_seed(1)
        trained.append(fitted(quiet, shuffled(seed)))
    assert_same_bits(trained[0], trained[1])
    assert np.abs(trained[0][0] - trained[2][0]).max() > 1e-4


def test_drop_remainder_leaves_out_the_short_batch(quiet: Quiet) -> None:
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32, drop_remainder=True)
    trainer, model = quiet(jit_compile=False, max_epochs=2), compiled()
    trainer.fit(model, data)
    assert (trainer.global_step, trainer.num_training_batches) == (4, 2)
    assert_same_bits(model, fitted(quiet, ArrayLoader(X[:64], Y[:64])))


@pytest.mark.parametrize("kind", ["from_generator", "iterable"])
def test_of_an_unknown_number_of_batches_all_are_taken(kind: str, quiet: Quiet) -> None:
    trainer = quiet(jit_compile=False, max_epochs=3)
    trainer.fit(reused()(), KINDS[kind](X, Y), KINDS[kind](X, Y))
    assert (trainer.global_step, trainer.current_epoch) == (9, 3)
    assert {"loss", "val_loss"} < set(trainer.callback_metrics)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit_train_batches": 0.5}, "is 0.5 of an unknown number of batches: give a number"),
        ({"limit_val_batches": 0.5}, "is 0.5 of an unknown number of batches: give a number"),
        ({"val_check_interval": 0.5}, "val_check_interval is 0.5 of a number of batches that is not known"),
    ],
)
def test_a_share_of_an_unknown_number_is_an_error(options: dict[str, Any], message: str, quiet: Quiet) -> None:
    with pytest.raises(ValueError, match=message):
        quiet(**options, jit_compile=False).fit(compiled(), generated(X, Y), generated(X, Y))


@pytest.mark.parametrize(
    ("options", "steps", "epochs"),
    [
        ({"limit_train_batches": 4, "max_epochs": 2}, 8, 2),
        ({"max_steps": 5, "max_epochs": -1}, 5, 1),
        ({"limit_train_batches": 4, "max_steps": 6, "max_epochs": 9}, 6, 2),
    ],
)
@pytest.mark.parametrize("endless", [lambda: dataset(X[:64], Y[:64]).repeat(), lambda: Digits((X[:64], Y[:64]), endless=True)])
def test_an_endless_stream_is_taken_as_far_as_a_limit_goes(
    endless: Callable[[], Any], options: dict[str, Any], steps: int, epochs: int, quiet: Quiet
) -> None:
    trainer, module = quiet(jit_compile=False, **options), reused()()
    trainer.fit(module, endless())
    assert (trainer.global_step, trainer.current_epoch) == (steps, epochs)
    trained = weights(module.model)
    x, y = np.tile(X[:64], (2, 1)), np.tile(Y[:64], 2)  # 4 batches, the two by turns
    assert_same_bits(trained, fitted(quiet, ArrayLoader(x, y), max_epochs=-1, max_steps=steps))


def test_an_endless_stream_validates_as_far_as_a_limit_goes(quiet: Quiet) -> None:
    model, trainer = compiled(), quiet(jit_compile=False, limit_val_batches=2)
    trainer.fit(model, ArrayLoader(X, Y), dataset(X[:64], Y[:64]).repeat())
    assert trainer.callback_metrics["val_loss"] == pytest.approx(model.evaluate(X[:64], Y[:64], verbose=0)[0], abs=1e-5)


def test_a_limit_reads_little_more_of_a_stream_than_it_takes(quiet: Quiet) -> None:
    data = Digits((X[:64], Y[:64]), endless=True)
    fitted(quiet, data, limit_train_batches=3, max_epochs=1)
    assert len(data.asked) < 10


def two_inputs() -> keras.Model:
    """A model of a dict of inputs."""
    a, b = keras.Input((4,), name="a"), keras.Input((1,), name="b")
    layer = keras.layers.Dense(3, activation="softmax", kernel_initializer=keras.initializers.GlorotUniform(3))
    model = keras.Model({"a": a, "b": b}, layer(keras.layers.Concatenate()([a, b])))
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset", "list"])
def test_inputs_may_be_a_dict(kind: str, quiet: Quiet) -> None:
    inputs = {"a": X, "b": X[:, :1] ** 2}
    cut = [({name: part[i : i + 32] for name, part in inputs.items()}, Y[i : i + 32]) for i in range(0, N, 32)]
    py = Digits()
    py.batches = cut
    data = {"tf.data": tf.data.Dataset.from_tensor_slices((inputs, Y)).batch(32), "PyDataset": py, "list": cut}[kind]
    trained = fitted(quiet, data, two_inputs)
    assert_same_bits(trained, fitted(quiet, ArrayLoader(inputs, Y), two_inputs))
    module = reused(two_inputs)()
    np.testing.assert_allclose(np.concatenate(quiet().predict(module, [data])), module.model(inputs), atol=1e-6)


def test_a_batch_may_be_a_dict(quiet: Quiet) -> None:
    class Named(Net):
        def loss(self, batch: Any) -> tf.Tensor:
            return super().loss((batch["x"], batch["y"]))

    named, plain = Named(), Net()
    quiet(jit_compile=False).fit(named, tf.data.Dataset.from_tensor_slices({"x": X, "y": Y}).batch(32))
    quiet(jit_compile=False).fit(plain, ArrayLoader(X, Y))
    assert named.model is not None
    assert plain.model is not None
    assert_same_bits(named.model, plain.model)


def test_a_py_dataset_hears_of_each_epochs_begin_and_end(quiet: Quiet) -> None:
    data = Digits()
    fitted(quiet, data, max_epochs=3)
    assert data.ended == 3
    assert data.begun == 3
    assert data.asked[-9:] == [0, 1, 2] * 3


@pytest.mark.parametrize("endless", [False, True])
def test_a_py_dataset_hears_of_the_end_of_a_limited_epoch(endless: bool, quiet: Quiet) -> None:
    data = Digits(endless=endless)
    fitted(quiet, data, max_epochs=3, limit_train_batches=2)
    assert data.ended == 3


def test_a_py_dataset_may_change_its_batches_between_epochs(quiet: Quiet) -> None:
    class Turning(Digits):
        def on_epoch_end(self) -> None:
            self.batches = [(x[::-1], y[::-1]) for x, y in self.batches]

    kept = Kept()
    fitted(quiet, Turning(), callbacks=kept, max_epochs=3)
    for epoch, turned in zip(kept.epochs, (False, True, False), strict=True):
        np.testing.assert_array_equal(epoch[0][0], X[:32][::-1] if turned else X[:32])


def test_float64_becomes_float32_as_in_keras(expected: Weights, quiet: Quiet) -> None:
    assert_same_bits(fitted(quiet, batches(X.astype(np.float64), Y)), expected)
    assert_same_bits(fitted(quiet, dataset(X.astype(np.float64), Y)), expected)


def test_sparse_elements_of_a_dataset_are_trained_on_as_dense_ones(quiet: Quiet) -> None:
    x, y = np.eye(8, 4, dtype=np.float32), np.array([0, 1] * 4)
    data = tf.data.Dataset.from_tensor_slices((tf.sparse.from_dense(x), y)).batch(4)
    assert_same_bits(fitted(quiet, data), fitted(quiet, ArrayLoader(x, y, batch_size=4)))


def test_a_y_that_is_none_is_left_out(quiet: Quiet) -> None:
    outputs = quiet().predict(reused()(), [[(X[:32], None), (X[32:64], None, None)]])
    np.testing.assert_allclose(np.concatenate(outputs), reused()().model(X[:64]), atol=1e-6)


SIZES = [16, 16, 8, 8, 16, 12, 16, 4, 3]


def changing() -> list[Batch]:
    """Batches of five sizes."""
    ends = np.cumsum(SIZES)
    x, y = np.tile(X, (2, 1)), np.tile(Y, 2)
    return [(x[end - size : end], y[end - size : end]) for size, end in zip(SIZES, ends, strict=True)]


WORDS = np.array(["red", "green", "blue", "good", "bad", "dull", "bright", "day", "night", "rain"])


def sentences(count: int = 96) -> list[list[int]]:
    """Lists of 1 to 13 numbers."""
    generator = np.random.default_rng(1)
    return [generator.integers(1, 20, 2 + index // 4 * 5 % 12 - index % 2).tolist() for index in range(count)]


def padded(size: int = 4) -> tf.data.Dataset:
    """Batches of sentences, each as long as its longest; the last is short."""
    texts = sentences()[:-2]
    data = tf.data.Dataset.from_generator(
        lambda: ((t, sum(t) % 2) for t in texts),
        output_signature=(tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.float32)),
    )
    return data.apply(tf.data.experimental.assert_cardinality(len(texts))).padded_batch(size)


def bags(ragged: bool = False) -> keras.Model:
    """A net of sentences of any length."""
    generator = keras.initializers.RandomNormal(seed=4)
    words = keras.Input((None,), dtype="int32", ragged=ragged)
    bag = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(20, 3, embeddings_initializer=generator)(words))
    model = keras.Model(words, keras.layers.Dense(1, activation="sigmoid", kernel_initializer=generator)(bag))
    model.compile(keras.optimizers.SGD(0.5, 0.9), "binary_crossentropy", metrics=["accuracy"])
    return model


def programs(module: Module) -> list[int]:
    """How many programs each of the module's loops has traced."""
    return [len(loop._programs) for loop in loops_of(module).values() if isinstance(loop, CompiledLoop)]


def assert_as_in_keras(
    quiet: Quiet, make: Callable[[], keras.Model], ours: Any, theirs: Any, validation: Any = None
) -> KerasModule:
    """Two epochs by the trainer and by Keras end alike."""
    module, twin, trainer = KerasModule(make()), make(), quiet(jit_compile=False, max_epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said of the batches' shapes
        trainer.fit(module, ours, validation)
    history = twin.fit(theirs, epochs=2, shuffle=False, verbose=0, validation_data=validation).history
    for a, b in zip(weights(module.model), weights(twin), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for name, values in history.items():
        assert trainer.callback_metrics[name] == pytest.approx(values[-1], abs=1e-5)
    return module


def test_batches_of_changing_sizes_are_trained_on_by_one_program(quiet: Quiet) -> None:
    signature = tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None,), tf.int64)
    theirs = tf.data.Dataset.from_generator(lambda: iter(changing()), output_signature=signature)
    theirs = theirs.apply(tf.data.experimental.assert_cardinality(len(SIZES)))
    assert programs(assert_as_in_keras(quiet, compiled, changing(), theirs)) == [1]


def test_batches_of_changing_lengths_are_trained_on_by_one_program(quiet: Quiet) -> None:
    assert len({x.shape[1] for x, _ in padded()}) > 5
    module = assert_as_in_keras(quiet, bags, padded(), padded(), validation=padded(7))
    assert programs(module) == [3, 1]  # the sanity check sees two batches, from which nothing follows, and traces them


def test_ragged_batches_are_trained_on_as_in_keras(quiet: Quiet) -> None:
    texts = sentences()
    labels = np.array([sum(text) % 2 for text in texts], np.float32)
    data = tf.data.Dataset.from_tensor_slices((tf.ragged.constant(texts, tf.int32), labels)).batch(7)
    module = assert_as_in_keras(quiet, lambda: bags(ragged=True), data, data, validation=data.take(3))
    assert programs(module) == [1, 1]
    assert module.model is not None
    outputs = quiet().predict(module, data)
    np.testing.assert_allclose(np.concatenate(outputs), module.model.predict(data, verbose=0), atol=1e-6)


def test_an_epochs_short_last_batch_has_a_program_of_its_own_and_the_others_that_of_their_shape() -> None:
    chunks = list(StreamLoader(batches(X, Y, size=16)).chunks(0))
    assert [(chunk.batches, chunk.batch_size, chunk.whole, chunk.spec) for chunk in chunks] == [
        (4, 16, True, None),
        (1, 8, False, None),
    ]


def test_of_batches_of_which_few_differ_the_others_stay_with_the_program_of_their_shape() -> None:
    data = batches(np.tile(X, (8, 1)), np.tile(Y, 8), size=16)
    data[11] = tuple(part[:5] for part in data[11])
    data[23] = tuple(part[:9] for part in data[23])
    data[30] = tuple(part[:7] for part in data[30])
    loader = StreamLoader(data)
    for _ in range(2):
        chunks = list(loader.chunks(0))
        assert [(chunk.batches, chunk.batch_size, chunk.whole) for chunk in chunks] == [
            *((11, 16, True), (1, 5, False), (11, 16, True), (1, 9, False), (6, 16, True), (1, 7, False), (5, 16, True)),
        ]
        assert [chunk.first for chunk in chunks] == [0, 11, 12, 23, 24, 30, 31]
        assert len({chunk.key for chunk in chunks if chunk.whole}) == 1
    taken = [x for x, _ in loader]
    for x, (expected, _) in zip(taken, data, strict=True):
        np.testing.assert_array_equal(x, expected)


def test_batches_that_differ_in_rank_are_refused(quiet: Quiet) -> None:
    with pytest.raises(ValueError, match="the batches differ in type or rank"):
        quiet(jit_compile=False).fit(compiled(), [(X[:9], Y[:9]), (X[:8], Y[:8]), (X[:7], Y[:7, None]), (X[:6], Y[:6])])


def test_validation_over_changing_shapes_weighs_each_example_alike(quiet: Quiet) -> None:
    model = compiled()
    (tested,) = quiet().test(model, [changing()])
    x, y = (np.concatenate([batch[part] for batch in changing()]) for part in (0, 1))
    assert tested["test_loss"] == pytest.approx(model.evaluate(x, y, verbose=0)[0], abs=1e-5)
    module = Net()
    (tested,) = quiet().test(module, [changing()])
    assert tested["test_loss"] == pytest.approx(float(module.loss((x, y))), abs=1e-5)


@pytest.mark.parametrize("hooked", [False, True])
def test_changing_shapes_are_predicted_and_hooked_by_few_programs(hooked: bool, quiet: Quiet) -> None:
    module, kept = KerasModule(compiled()), Kept()
    trainer = quiet(jit_compile=False, callbacks=[kept] if hooked else [])
    trainer.fit(module, changing())
    outputs = trainer.predict(module, [changing()])
    assert [len(output) for output in outputs] == SIZES
    assert module.model is not None
    np.testing.assert_allclose(np.concatenate(outputs), module.model(np.concatenate([x for x, _ in changing()])), atol=1e-6)
    assert programs(module) == [1]
    for program in loops_of(module).values():
        if not isinstance(program, CompiledLoop):
            assert program.experimental_get_tracing_count() <= 2
    for taken, given in zip(kept.epochs[0] if hooked else [], changing(), strict=hooked):
        np.testing.assert_array_equal(taken[0], given[0])


def test_resumed_in_mid_epoch_changing_batches_end_bit_identical(tmp_path: Path, quiet: Quiet) -> None:
    with pytest.raises(LookupError, match="stopped"):
        fitted(quiet, changing(), callbacks=[StopAfter(12), ModelCheckpoint(tmp_path, every_n_train_steps=12)])
    module, trainer = reused()(), quiet(max_epochs=2, jit_compile=False, callbacks=ModelCheckpoint(tmp_path))
    trainer.fit(module, changing(), ckpt_path="last")
    assert trainer.global_step == 18
    trained = weights(module.model)
    assert_same_bits(trained, fitted(quiet, changing()))


TEXTS = np.array([" ".join(WORDS[[i % 10, i * 3 % 10, i * 7 % 10]]) for i in range(40)])[:, None]
GOOD = np.array([float("good" in text[0]) for text in TEXTS], np.float32)


def reader() -> keras.Model:
    """A net of texts."""
    split = keras.layers.TextVectorization(output_sequence_length=3, vocabulary=list(WORDS))
    generator = keras.initializers.RandomNormal(seed=4)
    text = keras.Input((1,), dtype="string")
    bag = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(12, 3, embeddings_initializer=generator)(split(text)))
    model = keras.Model(text, keras.layers.Dense(1, activation="sigmoid", kernel_initializer=generator)(bag))
    model.compile(keras.optimizers.SGD(0.5, 0.9), "binary_crossentropy")
    return model


@pytest.mark.parametrize(
    "data",
    [
        lambda: tf.data.Dataset.from_tensor_slices((TEXTS, GOOD)).batch(16),
        lambda: batches(TEXTS, GOOD, size=16),
        lambda: ArrayLoader(TEXTS, GOOD, batch_size=16),
        lambda: ArrayLoader(TEXTS.astype(object), GOOD, batch_size=16),
        lambda: ArrayLoader(TEXTS.astype("S"), GOOD, batch_size=16),
        lambda: ArrayLoader(tf.constant(TEXTS), tf.constant(GOOD), batch_size=16),
    ],
    ids=["tf.data", "list", "str", "object", "bytes", "tensor"],
)
def test_strings_are_trained_on_as_in_keras(data: Callable[[], Any], quiet: Quiet) -> None:
    trained = fitted(quiet, data(), reader)
    twin = reader()
    twin.fit(tf.data.Dataset.from_tensor_slices((TEXTS, GOOD)).batch(16), epochs=2, shuffle=False, verbose=0)
    for a, b in zip(trained, weights(twin), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (lambda: (batch for batch in batches(X, Y)), TypeError, "is a generator, which can be read only once: make a tf.data"),
        (lambda: iter(batches(X, Y)), TypeError, "which can be read only once"),
        (lambda: iter(dataset(X, Y)), TypeError, "which can be read only once"),
        (lambda: (X, Y), TypeError, r"is a tuple: expected an ArrayLoader \(of arrays x, y\), a tf.data.Dataset of batches"),
        (lambda: [X, Y], TypeError, "is a list: expected an ArrayLoader"),
        (lambda: X, TypeError, "is a ndarray: expected an ArrayLoader"),
        (lambda: tf.constant(X), TypeError, "expected an ArrayLoader"),
        (lambda: "digits.npz", TypeError, "is a str: expected an ArrayLoader"),
        (lambda: {"x": X, "y": Y}, TypeError, "is a dict: expected an ArrayLoader"),
        (lambda: Digits, TypeError, "expected an ArrayLoader"),
        (lambda: 3, TypeError, "is a int: expected an ArrayLoader"),
        (list, ValueError, "gives no batches"),
        (lambda: dataset(X, Y).take(0), ValueError, "gives no batches"),
        (lambda: tf.data.Dataset.from_tensor_slices((X, Y)), ValueError, r"take dataset\.batch\(32\)"),
        (lambda: [(X[:32], Y[:31])], ValueError, r"gives \(\(32, 4\), \(31,\)\): expected batches"),
        (lambda: [(None, X[:32])], ValueError, "expected batches"),
        (lambda: [(X[:32].astype(object), Y[:32])], TypeError, "a batch holds an array of Python objects: expected numbers"),
    ],
    ids=[
        *("generator", "iterator", "tf iterator", "x-y tuple", "x-y list", "array", "tensor", "path", "dict", "class", "number"),
        *("empty list", "empty dataset", "unbatched", "lengths", "None", "objects"),
    ],
)
def test_what_is_no_stream_of_batches_is_refused(
    data: Callable[[], Any], kind: type[Exception], message: str, quiet: Quiet
) -> None:
    with pytest.raises(kind, match=message):
        quiet(jit_compile=False).fit(compiled(), data())


def test_a_refusal_names_what_the_data_was_given_as(quiet: Quiet) -> None:
    class Wrong(DataModule):
        def train_dataloader(self) -> Any:
            return X

    with pytest.raises(TypeError, match=r"Wrong\.train_dataloader\(\) is a ndarray"):
        quiet().fit(compiled(), datamodule=Wrong())
    with pytest.raises(TypeError, match="test"):
        quiet().test(compiled(), X)


class Large:
    """A stream whose batches are counted while they are alive."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.alive = self.most = self.read = 0

    def _gone(self) -> None:
        self.alive -= 1

    def __iter__(self) -> Iterator[Batch]:
        for index in range(self.length):
            x = np.full((4, 4), index, np.float32)
            weakref.finalize(x, self._gone)
            self.alive += 1
            self.most = max(self.most, self.alive)
            self.read += 1
            yield x, Y[:4]


class ReadAhead(Callback):
    """How much more has been read than trained on."""

    def __init__(self, stream: Large) -> None:
        self.stream = stream
        self.most = 0

    def on_train_steps_end(self, trainer: Trainer, module: Module) -> None:
        self.most = max(self.most, self.stream.read - trainer.global_step)


def test_a_stream_larger_than_what_is_kept_in_memory_does_not_accumulate(quiet: Quiet) -> None:
    stream = Large(20 * CHUNK_BATCHES)
    ahead = ReadAhead(stream)
    trainer = quiet(jit_compile=False, callbacks=ahead, steps_per_call=10)
    trainer.fit(reused()(), stream)
    assert trainer.global_step == 20 * CHUNK_BATCHES
    assert stream.most <= 3 * CHUNK_BATCHES
    assert ahead.most <= 3 * CHUNK_BATCHES
    gc.collect()
    assert stream.alive == 0


def test_an_exception_in_the_source_reaches_the_caller(quiet: Quiet) -> None:
    class Breaks(Digits):
        def __getitem__(self, index: int) -> Batch:
            if index == 2:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    with pytest.raises(OSError, match="the disk is gone"):
        fitted(quiet, Breaks())


class StopAfter(Callback):
    """Ends the fit after a step (and its checkpoint), as a crash does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, module: Module, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise LookupError("stopped")


@pytest.mark.parametrize(
    ("module", "stop"), [(lambda: reused()(), 2), (lambda: KerasModule(compiled()), 7), (lambda: reused()(), 6), (Net, 5)]
)
def test_resumed_in_mid_epoch_a_shuffled_dataset_ends_bit_identical(
    module: Callable[[], Module], stop: int, tmp_path: Path, quiet: Quiet
) -> None:
    def run(*callbacks: Callback, ckpt_path: str | None = None) -> Weights:
        keras.utils.set_random_seed(1)
        trained = module()
        trainer = quiet(max_epochs=3, callbacks=list(callbacks), jit_compile=False)
        trainer.fit(trained, shuffled(), shuffled(), ckpt_path=ckpt_path)
        assert trainer.global_step == 9
        assert trained.model is not None
        return weights(trained.model)

    whole = run()
    with pytest.raises(LookupError, match="stopped"):
        run(ModelCheckpoint(tmp_path, every_n_train_steps=stop), StopAfter(stop))
    assert_same_bits(run(ModelCheckpoint(tmp_path), ckpt_path="last"), whole)


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset", "iterable"])
def test_resumed_in_mid_epoch_each_kind_ends_bit_identical(kind: str, expected: Weights, tmp_path: Path, quiet: Quiet) -> None:
    with pytest.raises(LookupError, match="stopped"):
        fitted(quiet, KINDS[kind](X, Y), callbacks=[StopAfter(4), ModelCheckpoint(tmp_path, every_n_train_steps=4)])
    module, trainer = reused()(), quiet(max_epochs=2, jit_compile=False, callbacks=ModelCheckpoint(tmp_path))
    trainer.fit(module, KINDS[kind](X, Y), ckpt_path="last")
    assert trainer.global_step == 6
    assert_same_bits(module.model, expected)
