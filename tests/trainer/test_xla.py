"""When the compiled loop is compiled by XLA, and what is done so that it is fast."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mnist_tuner.search.experiment import Experiment, run_trial
from mnist_tuner.search.trial import TrialSpec
from mnist_tuner.trainer import ArrayLoader, Callback, KerasModule, ModelCheckpoint, Trainer, read_checkpoint
from mnist_tuner.trainer.compiled import CompiledLoop
from mnist_tuner.trainer.module_state import loops_of
from mnist_tuner.trainer.xla import RUNS_PER_COMPILED_OPERATION, Cost, quick_random_numbers
from tests.support.commands import python
from tests.support.nets import Quiet
from tests.trainer.conftest import assert_same_bits, weights

pytestmark = pytest.mark.slow

X = np.random.default_rng(0).normal(size=(64, 12)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("float32")


class StopAfter(Callback):
    """Ends a training of which many epochs are planned."""

    def __init__(self, epochs: int = 1) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def dense(*extra: keras.Layer, shape: tuple[int, ...] = (12,), **options: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input(shape), *extra, layers.Flatten(), layers.Dense(8, "relu"), layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"], **options)
    return model


def data(**options: Any) -> ArrayLoader:
    return ArrayLoader(X, Y, batch_size=16, **options)


def chosen(quiet: Quiet, model: keras.Model, loader: Any = None, **options: Any) -> bool | None:
    """Whether a training takes XLA; it stops after an epoch, however many are planned."""
    trainer = quiet(callbacks=StopAfter(), **options)
    trainer.fit(model, loader or data())
    return trainer.jit_compiled


# The rule.


def test_a_short_last_batch_does_not_keep_xla_away(quiet: Quiet) -> None:
    short = ArrayLoader(X[:60], Y[:60], batch_size=16)
    assert chosen(quiet, dense(), short, max_epochs=2) is False
    assert chosen(quiet, dense(), short, max_epochs=20_000) is True


def test_xla_is_taken_where_enough_steps_are_planned_to_earn_back_its_compilation(quiet: Quiet) -> None:
    assert chosen(quiet, dense(), max_epochs=2) is False
    assert chosen(quiet, dense(), max_epochs=20_000) is True
    assert (
        chosen(quiet, dense(), ArrayLoader(X[:60], Y[:60], batch_size=16), max_epochs=20_000) is True
    )  # with a short last batch
    assert chosen(quiet, dense(), max_epochs=20_000, max_steps=50) is False
    assert chosen(quiet, dense(), max_epochs=-1, max_steps=80_000) is True


def test_the_rule_weighs_operations_run_against_operations_compiled() -> None:
    cost = Cost(operations=100, runs=50, fast=True, random=False)
    assert not cost.pays(2 * RUNS_PER_COMPILED_OPERATION)
    assert cost.pays(2 * RUNS_PER_COMPILED_OPERATION + 1)
    assert not Cost(operations=100, runs=50, fast=False, random=False).pays(float("inf"))


def test_a_convolution_stays_a_plain_graph_however_many_steps_are_planned(quiet: Quiet) -> None:
    model = dense(layers.Reshape((4, 3, 1)), layers.Conv2D(4, 2))
    assert chosen(quiet, model, max_epochs=100_000) is False


def test_a_loop_within_the_step_counts_as_often_as_it_turns(quiet: Quiet) -> None:
    module = KerasModule(dense(layers.Reshape((4, 3)), layers.GRU(4)))
    quiet(callbacks=StopAfter()).fit(module, data())
    (loop,) = (loop for loop in loops_of(module).values() if isinstance(loop, CompiledLoop))
    assert loop._cost is not None
    assert loop._cost.fast
    assert loop._cost.runs > 5 * loop._cost.operations


def test_training_and_validation_choose_apart(quiet: Quiet) -> None:
    trainer = quiet(callbacks=StopAfter(), max_epochs=2000)
    trainer.fit(dense(), data(), ArrayLoader(X, Y, batch_size=64))
    assert (trainer.jit_compiled, trainer.validation_jit_compiled) == (True, False)
    trainer = quiet(callbacks=StopAfter(), max_epochs=2000)
    trainer.fit(dense(), data(), ArrayLoader(X, Y, batch_size=1))
    assert (trainer.jit_compiled, trainer.validation_jit_compiled) == (True, True)


def test_a_model_compiled_with_jit_compile_takes_xla(quiet: Quiet) -> None:
    assert chosen(quiet, dense(jit_compile=True)) is True
    assert chosen(quiet, dense(jit_compile=True), jit_compile=False) is False


def test_what_is_planned_later_is_judged_anew(quiet: Quiet) -> None:
    module = KerasModule(dense())
    assert [chosen(quiet, module, max_epochs=epochs) for epochs in (1, 20_000)] == [False, True]


# Equal trainings take equal programs.


def test_a_resumed_training_goes_on_as_it_began(tmp_path: Path, quiet: Quiet) -> None:
    for begun, resumed in ((1, 20_000), (20_000, 2)):
        folder = tmp_path / str(begun)
        trainer = quiet(max_epochs=begun, callbacks=[StopAfter(), ModelCheckpoint(folder)])
        trainer.fit(dense(), data(), data())
        (path,) = folder.glob("*.safetensors")
        header = read_checkpoint(path).header
        assert (header.jit_compiled, header.validation_jit_compiled) == (trainer.jit_compiled, trainer.validation_jit_compiled)
        again = quiet(max_epochs=resumed, callbacks=StopAfter(2))
        again.fit(dense(), data(), data(), ckpt_path=path)
        assert again.current_epoch == 2
        assert (again.jit_compiled, again.validation_jit_compiled) == (trainer.jit_compiled, trainer.validation_jit_compiled)


def test_a_rerun_takes_the_same_program_and_ends_with_the_same_bits(quiet: Quiet) -> None:
    models = []
    for _ in range(2):
        models.append(dense(layers.Dropout(0.3, seed=5)))
        assert chosen(quiet, models[-1], data(shuffle=True, seed=1), max_epochs=20_000) is True
    assert_same_bits(*models)


class Chosen(keras.callbacks.Callback):
    """Notes which program ran, in a search's trial."""

    noted: ClassVar[list[bool | None]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        module = self.model.__dict__["_mnist_tuner_module"]
        self.noted.extend(loop.jit_compiled for loop in loops_of(module).values() if isinstance(loop, CompiledLoop))

    def __deepcopy__(self, memo: Any) -> Chosen:
        return Chosen()


class Fixed(keras_tuner.HyperModel):
    def build(self, hp: Any) -> keras.Model:
        return dense()


@pytest.mark.parametrize(("planned", "expected"), [(1, False), (20_000, True)])
def test_a_trial_chooses_by_what_is_planned_for_the_whole_search(planned: int, expected: bool) -> None:
    Chosen.noted.clear()
    options = {"callbacks": [Chosen()], "batch_size": 16}
    experiment = Experiment(Fixed(), "accuracy", (X, Y), options, planned_epochs=planned)
    for epochs in (1, 2):  # as Hyperband's trials, of which some are trained on
        spec = TrialSpec("0", keras_tuner.HyperParameters().get_config(), (1,), epochs=epochs)
        assert run_trial(experiment, copy.deepcopy(spec), lambda news: None).completed
    assert Chosen.noted == [expected] * 3


# What XLA cannot do.


def test_a_step_with_an_operation_that_xla_lacks_runs_as_a_plain_graph(quiet: Quiet) -> None:
    class Numpy(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return tf.ensure_shape(tf.numpy_function(lambda values: values, [inputs], tf.float32), inputs.shape)

    def make(*extra: keras.Layer) -> keras.Model:
        model = dense(*extra)
        model.layers[-1].trainable = True
        return model

    calls, plain = make(Numpy()), make()
    assert chosen(quiet, calls, max_epochs=100_000) is False
    assert chosen(quiet, plain, jit_compile=False) is False
    assert_same_bits(weights(calls), weights(plain))


def test_what_xla_refuses_is_named_in_a_warning_and_runs_as_a_plain_graph(quiet: Quiet) -> None:
    class Counts(keras.Model):
        def train_step(self, batch: Any) -> Any:
            logs = super().train_step(batch)
            count = tf.cast(self.optimizer.iterations, tf.int32)  # XLA would have to know it when it compiles
            return logs | {"count": tf.reduce_sum(tf.range(count) * 0 + 1)}

    def make() -> keras.Model:
        inner = dense()
        model = Counts(inner.inputs, inner.outputs)
        model.compile("adam", "binary_crossentropy")
        return model

    with pytest.warns(
        UserWarning, match=r"XLA cannot compile this step: .*It runs as a plain graph.*pass jit_compile=False"
    ) as w:
        trainer = quiet(callbacks=StopAfter(), max_epochs=100_000)
        trainer.fit(make(), data())
    assert len(w) == 1
    assert trainer.jit_compiled is False
    assert trainer.callback_metrics["count"] == 4
    with pytest.raises(tf.errors.InvalidArgumentError):
        quiet(jit_compile=True).fit(make(), data())


STRINGS = """
import keras, numpy as np, tensorflow as tf
from mnist_tuner.trainer import Trainer

text = np.array(["a good day", "a bad day"] * 32)[:, None]
def make():
    words = keras.layers.TextVectorization(max_tokens=10, output_sequence_length=3)
    words.adapt(tf.constant(text))
    inputs = keras.Input((1,), dtype="string")
    hidden = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(10, 4)(words(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))
    model.compile("adam", "binary_crossentropy")
    return model

def trainer(**options):
    return Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **options)

strings = tf.data.Dataset.from_tensor_slices((text, np.array([1.0, 0.0] * 32, "float32"))).batch(16)
first = trainer(max_epochs=2)
first.fit(make(), strings)
print(first.jit_compiled)
try:
    trainer(max_epochs=1, jit_compile=True).fit(make(), strings)
except ValueError as error:
    print(error)
dense = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
dense.compile("adam", "mse")
numbers = tf.data.Dataset.from_tensor_slices((np.ones((64, 3), "float32"), np.ones((64, 1), "float32"))).batch(16)
last = trainer(max_epochs=1, jit_compile=True)
last.fit(dense, numbers)
print(last.jit_compiled)
"""


def test_xla_is_given_no_strings_after_which_it_would_abort_the_process() -> None:
    try:
        said = python(STRINGS).splitlines()
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr)
    assert said == ["False", "XLA cannot compile this step: it takes strings", "True"]


# Random numbers.


def test_random_numbers_within_xla_come_from_the_quick_algorithm_unless_another_is_asked_for() -> None:
    def drawn(**options: Any) -> Any:
        @tf.function(jit_compile=True)
        def draw() -> tf.Tensor:
            return tf.random.stateless_uniform([8], [3, 4], **options)

        return draw().numpy()

    by_default, quick, philox = drawn(), drawn(alg="threefry"), drawn(alg="philox")
    with quick_random_numbers():
        np.testing.assert_array_equal(drawn(), quick)
        np.testing.assert_array_equal(drawn(alg="philox"), philox)
    np.testing.assert_array_equal(drawn(), by_default)
    assert not np.array_equal(quick, by_default)


def test_dropout_within_xla_keeps_the_share_that_it_should_and_draws_anew_at_each_step(quiet: Quiet) -> None:
    class Kept(keras.Model):
        def train_step(self, batch: Any) -> Any:
            kept = self.layers[1](tf.ones((16, 1000)), training=True)
            self.last.assign(kept[0])
            return {"share": tf.reduce_mean(tf.cast(kept > 0, tf.float32)), "mean": tf.reduce_mean(kept)}

    inputs = keras.Input((12,))
    model = Kept(inputs, layers.Dropout(0.3, seed=1)(inputs))
    model.last = tf.Variable(tf.zeros(1000), trainable=False)
    model.compile("sgd")
    masks = []

    class Masks(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            masks.append(model.last.numpy())

    trainer = quiet(jit_compile=True, callbacks=Masks())
    trainer.fit(model, data())
    assert trainer.callback_metrics == {"share": pytest.approx(0.7, abs=0.02), "mean": pytest.approx(1.0, abs=0.03)}
    assert len({mask.tobytes() for mask in masks}) == 4
