"""Batches of arrays."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from mnist_tuner.trainer import ArrayLoader, DataModule, seed_everything
from mnist_tuner.trainer.data import CHUNK_BYTES, slice_batch


def batches(loader: ArrayLoader, epoch: int = 0, start: int = 0) -> list[npt.NDArray[Any]]:
    """The batches' x of an epoch, as the chunks hold them."""
    return [
        slice_batch(chunk.rows, index, chunk.batch_size)[0].numpy()
        for chunk in loader.chunks(epoch, start)
        for index in range(chunk.batches)
    ]


@pytest.fixture(scope="module")
def large() -> npt.NDArray[np.float32]:
    """5,003 rows of 20 MB, more than a chunk holds; each row repeats its number."""
    rows = np.repeat(np.arange(5_003, dtype=np.float32)[:, None], 1_024, axis=1)
    assert rows.nbytes > CHUNK_BYTES
    return rows


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("rows", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (3, [3]), (1, [1])])
def test_an_epoch_takes_every_row_once_the_short_last_batch_included(shuffle: bool, rows: int, sizes: list[int]) -> None:
    loader = ArrayLoader(np.arange(rows), batch_size=4, shuffle=shuffle, seed=0)
    for epoch in range(3):
        taken = batches(loader, epoch)
        assert [len(batch) for batch in taken] == sizes
        assert sorted(np.concatenate(taken).tolist()) == list(range(rows))
    assert len(loader) == len(sizes)


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    first = ArrayLoader(np.arange(50), batch_size=4, shuffle=True, seed=1)
    second = ArrayLoader(np.zeros((50, 3)), batch_size=7, shuffle=True, seed=1)
    later = second.order(2)
    np.testing.assert_array_equal([first.order(0), first.order(1), first.order(2)], [second.order(0), second.order(1), later])


def test_the_order_differs_between_epochs_and_between_seeds() -> None:
    loader, other = (ArrayLoader(np.arange(50), shuffle=True, seed=seed) for seed in (1, 2))
    orders = {tuple(order.tolist()) for order in (loader.order(0), loader.order(1), other.order(0), other.order(1))}
    assert len(orders) == 4


def test_without_a_seed_the_loader_takes_the_one_given_to_seed_everything() -> None:
    seed_everything(11)
    np.testing.assert_array_equal(
        ArrayLoader(np.arange(50), shuffle=True).order(3), ArrayLoader(np.arange(50), shuffle=True, seed=11).order(3)
    )


def test_without_shuffling_the_rows_keep_their_order_in_every_epoch() -> None:
    loader = ArrayLoader(np.arange(10), batch_size=4)
    for epoch in range(2):
        np.testing.assert_array_equal(np.concatenate(batches(loader, epoch)), np.arange(10))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_indices_choose_the_rows_and_their_order(dtype: npt.DTypeLike) -> None:
    indices = np.array([7, 3, 3, 9, 0], dtype)
    loader = ArrayLoader(np.arange(10) * 10, indices=indices, batch_size=2)
    assert (len(loader), len(loader.order(0))) == (3, 5)
    assert np.concatenate(batches(loader)).tolist() == [70, 30, 30, 90, 0]


def test_indices_whose_ends_look_consecutive_are_not_taken_for_a_range() -> None:
    loader = ArrayLoader(np.arange(10), indices=np.array([3, 9, 1, 0, 8, 8]), batch_size=3)
    assert np.concatenate(batches(loader)).tolist() == [3, 9, 1, 0, 8, 8]


def test_shuffling_stays_within_the_indices() -> None:
    loader = ArrayLoader(np.arange(100), indices=np.arange(10, 30), batch_size=8, shuffle=True, seed=0)
    taken = np.concatenate(batches(loader))
    assert taken.tolist() != list(range(10, 30))
    assert sorted(taken.tolist()) == list(range(10, 30))


@pytest.mark.parametrize("shuffle", [False, True])
def test_data_beyond_one_chunk_come_in_chunks_of_one_shape_without_a_change(
    large: npt.NDArray[np.float32], shuffle: bool
) -> None:
    loader = ArrayLoader(large, batch_size=32, shuffle=shuffle, seed=0)
    *whole, short = loader.chunks(epoch=1)
    assert len(whole) == 2
    assert whole[0].rows[0].shape == whole[1].rows[0].shape
    assert whole[0].rows[0].shape[0] * 4_096 <= CHUNK_BYTES
    assert [chunk.first for chunk in (*whole, short)] == [0, whole[0].batches, 156]
    assert (sum(chunk.batches for chunk in whole), short.batches, short.batch_size) == (156, 1, 11)
    taken = np.concatenate(batches(loader, epoch=1))
    np.testing.assert_array_equal(taken, large[loader.order(1)])


@pytest.mark.parametrize("start", [0, 1, 5, 130, 155, 156])
def test_an_epoch_can_be_entered_at_any_batch(large: npt.NDArray[np.float32], start: int) -> None:
    loader = ArrayLoader(large, batch_size=32, shuffle=True, seed=0)
    assert next(loader.chunks(0, start)).first == start
    taken = np.concatenate(batches(loader, 0, start))
    np.testing.assert_array_equal(taken[:, 0], loader.order(0)[start * 32 :])


@pytest.mark.parametrize("rows", [8, 10])
def test_an_epoch_entered_at_its_end_has_no_batch_left(rows: int) -> None:
    loader = ArrayLoader(np.arange(rows), batch_size=4)
    assert batches(loader, start=len(loader)) == []


def test_structures_of_arrays_are_cut_together() -> None:
    x = {"image": np.arange(10).reshape(5, 2), "pair": (np.arange(5), np.arange(5) * 2)}
    loader = ArrayLoader(x, (np.arange(5) * 3, np.arange(5) * 4), np.arange(5) * 5, batch_size=2, shuffle=True, seed=0)
    seen = []
    for inputs, targets, weight in loader:
        rows = inputs["pair"][0].numpy()
        seen += rows.tolist()
        np.testing.assert_array_equal(inputs["image"], np.stack([rows * 2, rows * 2 + 1], axis=1))
        np.testing.assert_array_equal(inputs["pair"][1], rows * 2)
        np.testing.assert_array_equal(targets[0], rows * 3)
        np.testing.assert_array_equal(targets[1], rows * 4)
        np.testing.assert_array_equal(weight, rows * 5)
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_a_batch_has_the_parts_that_were_given() -> None:
    x, y, weight = np.arange(3), np.arange(3), np.ones(3)
    assert [len(ArrayLoader(*parts).first_batch()) for parts in ((x,), (x, y), (x, y, weight))] == [1, 2, 3]


def test_the_transform_is_applied_to_every_batch_and_to_the_first() -> None:
    loader = ArrayLoader(np.arange(5), np.arange(5), batch_size=2, transform=lambda x, y: (x + 100, y))
    assert [(x.numpy().tolist(), y.numpy().tolist()) for x, y in loader] == [
        ([100, 101], [0, 1]),
        ([102, 103], [2, 3]),
        ([104], [4]),
    ]
    assert loader.first_batch()[0].numpy().tolist() == [100, 101]


def test_the_first_batch_is_in_storage_order_though_epochs_are_shuffled() -> None:
    loader = ArrayLoader(np.arange(50), batch_size=6, shuffle=True, seed=0)
    assert loader.first_batch()[0].numpy().tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        *((np.float64, tf.float32), (np.float32, tf.float32), (np.float16, tf.float32), (tf.bfloat16.as_numpy_dtype, tf.float32)),
        *((np.uint8, tf.uint8), (np.int64, tf.int64), (np.bool_, tf.bool), (np.complex64, tf.complex64)),
    ],
)
def test_floats_become_those_of_keras_and_other_types_stay(given: npt.DTypeLike, kept: tf.DType) -> None:
    x, y = ArrayLoader(np.ones(4, given), {"target": tf.constant(np.ones(4, given))}).first_batch()
    assert (x.dtype, y["target"].dtype) == (kept, kept)


def test_floats_are_those_that_keras_is_set_to() -> None:
    keras.config.set_floatx("float64")
    try:
        assert ArrayLoader(np.array([0.1, 0.2], np.float64)).first_batch()[0].dtype == tf.float64
        assert ArrayLoader(np.array([0.1, 0.2], np.float32)).first_batch()[0].dtype == tf.float64
    finally:
        keras.config.set_floatx("float32")


@pytest.mark.parametrize("kind", [np.str_, np.bytes_, object, tf.constant])
def test_strings_are_kept_whole(kind: Any) -> None:
    words = (
        np.array(["red", "grün", "", "blue and green"])
        if kind is not np.bytes_
        else np.array([b"red", b"gr\xc3\xbcn", b"", b"blue and green"])
    )
    x = tf.constant(words) if kind is tf.constant else words.astype(kind)
    taken = np.concatenate([batch.numpy() for (batch,) in ArrayLoader(x, batch_size=3, shuffle=True, seed=0)])
    assert sorted(taken) == [b"", b"blue and green", "grün".encode(), b"red"]


@pytest.mark.slow
def test_long_strings_come_in_chunks_of_little_memory() -> None:
    loader = ArrayLoader(np.array(["x" * 100_000] * 400), batch_size=4)
    assert [chunk.batches * 400_000 <= CHUNK_BYTES for chunk in loader.chunks(0)] == [True] * 3


def test_tensors_are_taken_as_arrays_are() -> None:
    loader = ArrayLoader(tf.range(5), tf.range(5) * 2, batch_size=3)
    assert [x.numpy().tolist() for x, _ in loader] == [[0, 1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("arguments", "options", "reason"),
    [
        ((np.ones(4), np.ones(5)), {}, r"different lengths: \[4, 5\]"),
        (({"a": np.ones(4), "b": np.ones(3)},), {}, r"different lengths: \[3, 4\]"),
        ((np.ones(4), np.ones(4), np.ones(2)), {}, r"different lengths: \[2, 4\]"),
        ((np.ones(4), None, np.ones(4)), {}, "sample_weight was given without y"),
        ((np.ones((0, 3)),), {}, "there are no rows"),
        ((np.ones(4),), {"indices": np.array([], np.int64)}, "there are no rows"),
        ((np.ones(4),), {"batch_size": 0}, "batch_size is 0"),
        ((np.ones(4),), {"batch_size": -3}, "batch_size is -3"),
    ],
)
def test_what_cannot_be_cut_into_batches_is_refused(arguments: tuple[Any, ...], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ArrayLoader(*arguments, **options)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ([[1.0, 2.0], [3.0, 4.0]], "x holds a float: expected dense arrays or tensors"),
        (np.float32(1), "x holds a float32: expected dense arrays"),
        ((np.ones(3), None), "x holds a NoneType: expected dense arrays"),
        (tf.sparse.from_dense(np.eye(3)), "x holds a SparseTensor: .* of what is sparse or ragged a tf.data.Dataset"),
        (tf.ragged.constant([[1], [2, 3]]), "x holds a RaggedTensor: expected dense arrays"),
        (np.array([1, 2, None]), "x holds an array of Python objects: expected numbers or strings"),
        (np.array(["a", 1], object), "x holds an array of Python objects: expected numbers or strings"),
    ],
    ids=["lists", "scalar", "None", "sparse", "ragged", "objects", "mixed"],
)
def test_what_is_no_dense_array_of_numbers_or_strings_is_refused(part: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=reason) as caught:
        ArrayLoader(part)
    assert "\n" not in str(caught.value)


def test_a_bare_data_module_has_no_data() -> None:
    data = DataModule()
    assert data.train_dataloader() is data.val_dataloader() is data.test_dataloader() is data.predict_dataloader() is None
