"""The data of a search: arrays, datasets, generators, functions and data modules, here and in a worker."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from mnist_tuner import DataModule
from mnist_tuner.errors import InputError
from mnist_tuner.search import Tuner
from mnist_tuner.search.dask_engine import DaskEngine
from mnist_tuner.search.data import Elements, check_sendable
from mnist_tuner.search.experiment import Experiment
from tests.support.hypermodels import Wandering, blobs, net, trained

X, Y, VALIDATION = blobs()
BATCH = 32
ENOUGH = 1e9


def dataset(x: Any = X, y: Any = Y) -> tf.data.Dataset:
    """Batches of the blobs, the last of them short."""
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)


def batches() -> Iterator[Any]:
    """The same, by a generator."""
    for start in range(0, len(X), BATCH):
        yield X[start : start + BATCH], Y[start : start + BATCH]


def endless() -> Iterator[Any]:
    """Again and again."""
    while True:
        yield from batches()


ENDLESS = {"validation_data": dataset(*VALIDATION).repeat(), "steps_per_epoch": 3, "validation_steps": 1}


class Blobs(DataModule):
    """The same, as a data module."""

    def train_dataloader(self) -> Any:
        return dataset()

    def val_dataloader(self) -> Any:
        return dataset(*VALIDATION)

    def fingerprint(self) -> str:
        return "blobs"


class Rows(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """The same, as Keras's."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return X[index * BATCH :][:BATCH], Y[index * BATCH :][:BATCH]


class Fitted(Wandering):
    """Its fit is Keras's own."""

    def fit(self, hp: Any, model: keras.Model, x: Any, *arguments: Any, **options: Any) -> Any:
        return model.fit(x, *arguments, **options, verbose=0)


def scores(folder: Path, hypermodel: Any, *arguments: Any, workers: int = 0, **options: Any) -> list[tuple[float, ...]]:
    """The scores of a search of two trials and two replicates, with rows in their order."""
    found = Tuner(hypermodel, objective="val_loss", max_trials=2, epochs=2, replicates=2, workers=workers, directory=folder)
    trials = found.search(*arguments, **{"validation_data": VALIDATION, "verbose": False, "shuffle": False, **options})
    assert all(trial.completed for trial in trials)
    return [trial.scores for trial in sorted(trials, key=lambda trial: trial.trial_id)]


class TestElements:
    @pytest.mark.parametrize(
        "given",
        [
            dataset(),
            dataset().map(lambda x, y: ({"a": x, "b": [y]}, y)),
            tf.data.Dataset.from_tensor_slices(["one", "three"]).batch(2),
            tf.data.Dataset.from_tensor_slices(tf.ragged.constant([[1], [2, 3], []])).batch(2),
            tf.data.Dataset.from_tensor_slices(tf.sparse.from_dense(np.eye(3))).batch(2),
            dataset().filter(lambda x, y: tf.shape(x)[0] == BATCH),
        ],
        ids=["tuples", "dicts", "strings", "ragged", "sparse", "of unknown length"],
    )
    def test_a_dataset_made_of_them_again_is_the_same(self, given: tf.data.Dataset) -> None:
        again = pickle.loads(pickle.dumps(Elements.of(given, "x", ENOUGH))).dataset()
        assert again.element_spec == given.element_spec
        assert again.cardinality() == len(list(given))
        for _ in range(2):
            for one, other in zip(given, again, strict=True):
                flat = [tf.nest.flatten(each, expand_composites=True) for each in (one, other)]
                for mine, theirs in zip(*flat, strict=True):
                    np.testing.assert_array_equal(mine.numpy(), theirs.numpy())

    @pytest.mark.parametrize(
        ("given", "most", "message"),
        [
            (dataset().repeat(), ENOUGH, "x is an infinite tf.data.Dataset"),
            (dataset().repeat().filter(lambda x, y: True), 1e6, "x: a tf.data.Dataset of more than 1 MB"),
            (dataset().shuffle(9), ENOUGH, r"x is a tf.data.Dataset that gives something else each time \(it shuffles, say\)"),
            (dataset().map(lambda x, y: (x + tf.random.normal([4]), y)), ENOUGH, "gives something else each time"),
        ],
        ids=["infinite", "large", "shuffled", "noisy"],
    )
    def test_one_that_cannot_be_sent_is_refused_with_the_way_out(self, given: tf.data.Dataset, most: float, message: str) -> None:
        with pytest.raises(InputError, match=f"{message}.*such as x=make_dataset") as raised:
            Elements.of(given, "x", most)
        assert "\n" not in str(raised.value)

    def test_a_shuffle_of_two_is_noticed_although_it_often_gives_the_same_order(self) -> None:
        for seed in range(10):
            with pytest.raises(InputError, match="gives something else each time"):
                Elements.of(tf.data.Dataset.range(2).shuffle(2, seed=seed), "x", ENOUGH)

    def test_its_size_is_known(self) -> None:
        assert Elements.of(tf.data.Dataset.from_tensors(np.zeros((1000, 500), np.float32)), "x", ENOUGH).megabytes == "2.0 MB"


@pytest.mark.slow
class TestKinds:
    """Whatever the data is given as, the result is the same."""

    @pytest.fixture(scope="class", params=[trained, Fitted()], ids=["our loop", "a fit of its own"], name="case")
    @staticmethod
    def arrays(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[tuple[float, ...]]]:
        """A hypermodel, and the scores with arrays."""
        return request.param, scores(tmp_path_factory.mktemp("arrays"), request.param, X, Y)

    @pytest.mark.parametrize(
        ("arguments", "options"),
        [
            ((dataset(),), {"validation_data": dataset(*VALIDATION)}),
            (
                (dataset().repeat(),),
                {"validation_data": dataset(*VALIDATION).repeat(), "steps_per_epoch": 3, "validation_steps": 1},
            ),
            ((dataset,), {"validation_data": lambda: dataset(*VALIDATION)}),
            ((lambda: (X, Y),), {"validation_data": lambda: VALIDATION}),
            ((lambda: X, lambda: Y), {}),
            ((), {"x": lambda: (X, Y, np.ones(len(X), np.float32))}),
            ((Rows(),), {}),
        ],
        ids=[
            "dataset",
            "infinite dataset",
            "dataset's function",
            "arrays' function",
            "two functions",
            "with weights",
            "PyDataset",
        ],
    )
    def test_in_this_process(self, case: Any, arguments: Any, options: Any, tmp_path: Path) -> None:
        hypermodel, expected = case
        if not arguments and isinstance(hypermodel, Fitted):
            arguments, options = (options["x"],), {}
        got = scores(tmp_path, hypermodel, *arguments, **options)
        np.testing.assert_allclose(got, expected, rtol=1e-5)

    def test_a_generators_function_and_a_data_modules_class_or_instance(self, tmp_path: Path) -> None:
        expected = scores(tmp_path / "arrays", trained, X, Y)
        given: dict[str, tuple[Any, dict[str, Any]]] = {
            "function": (batches, {}),
            "class": (Blobs, {"validation_data": None}),
            "instance": (Blobs(), {"validation_data": None}),
        }
        for name, (x, options) in given.items():
            np.testing.assert_allclose(scores(tmp_path / name, trained, x, **options), expected, rtol=1e-5)
        own = scores(tmp_path / "own", Fitted(), endless, steps_per_epoch=3)
        np.testing.assert_allclose(own, scores(tmp_path / "own arrays", Fitted(), X, Y), rtol=1e-5)

    def test_in_a_worker(self, tmp_path: Path) -> None:
        written = Console(file=StringIO(), width=200)
        with closing(DaskEngine(1)) as engine:
            expected = scores(tmp_path / "arrays", trained, X, Y, engine=engine)
            options = {"validation_data": dataset(*VALIDATION), "verbose": True, "console": written}
            given: dict[str, tuple[Any, dict[str, Any]]] = {
                "dataset": (dataset(), options),
                "function": (batches, {}),
                "class": (Blobs, {"validation_data": None}),
                "PyDataset": (Rows(), {}),
            }
            for name, (x, more) in given.items():
                got = scores(tmp_path / name, trained, x, engine=engine, **more)
                np.testing.assert_allclose(got, expected, rtol=1e-5)
        assert isinstance(written.file, StringIO)
        assert "x: a tf.data.Dataset is sent to the workers as its 3 elements, 0.0 MB" in written.file.getvalue()
        assert "validation_data: a tf.data.Dataset is sent" in written.file.getvalue()


class TestRefusals:
    @pytest.mark.parametrize(
        "given", [batches(), map(len, [[]]), iter(dataset())], ids=["generator", "map", "dataset's iterator"]
    )
    @pytest.mark.parametrize("name", ["x", "validation_data"])
    def test_what_can_be_gone_through_once_is_refused_before_anything_runs(self, given: Any, name: str, tmp_path: Path) -> None:
        found = Tuner(trained, workers=0, directory=tmp_path / "search")
        with pytest.raises(InputError, match=f"^{name} is a .*, such as {name}=make_batches and not {name}=make_batches\\(\\)$"):
            found.search(**{"x": X, "y": Y, name: given})
        assert not (tmp_path / "search").exists()

    def test_what_cannot_be_sent_is_named_with_the_way_out(self) -> None:
        lock = threading.Lock()

        def build(hp: Any) -> keras.Model:
            with lock:
                return net()

        class Locked(keras.callbacks.Callback):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.lock = lock

        held = Wandering()
        held.lock = lock
        cases: list[tuple[Experiment, str]] = [
            (Experiment(held, "val_loss"), "^hypermodel: a Wandering cannot be sent .*make what it refers to where it is used"),
            (Experiment(Wandering(), "val_loss", (X, lock)), "^y: a lock cannot be sent .*such as y=make_y, or a DataModule; or"),
            (Experiment(Fitted(), "val_loss", (X,), {"other": lock}), "^other: a lock cannot be sent"),
            (
                Experiment(Fitted(), "val_loss", (), {"callbacks": [Locked()]}),
                "^callbacks: .* such as callbacks=make_callbacks; or",
            ),
        ]
        for experiment, message in cases:
            with pytest.raises(InputError, match=f"{message}.*workers=0$"):
                check_sendable(experiment)
        check_sendable(Experiment(Fitted(), "val_loss", (X, Y)))
        assert build(None).built

    @pytest.mark.slow
    def test_a_search_with_workers_says_so(self, tmp_path: Path) -> None:
        lock = threading.Lock()
        with pytest.raises(InputError, match=r"^x: a function cannot be sent to a worker"):
            Tuner(trained, workers=1, directory=tmp_path).search(lambda: lock, Y)
