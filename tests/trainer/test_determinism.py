"""Same seed, same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from mnist_tuner import build_baseline, seed_everything
from mnist_tuner.trainer import Trainer
from tests.trainer.conftest import Digits, Reused, assert_same_bits, weights

pytestmark = pytest.mark.slow


def dropping_net() -> keras.Model:
    """A net whose training draws random numbers."""
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("jit_compile", [True, False])
def test_a_rerun_with_the_same_seed_is_bit_identical(jit_compile: bool, digits: Digits, quiet: Callable[..., Trainer]) -> None:
    models = []
    for _ in range(2):
        seed_everything(5)
        models.append(dropping_net())
        quiet(max_epochs=2, jit_compile=jit_compile).fit(models[-1], digits(1000, shuffle=True))
    assert_same_bits(*models)


def test_the_length_of_the_calls_changes_no_bit(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    models, metrics = [], []
    options: list[dict[str, Any]] = [{"steps_per_call": "auto"}, {"steps_per_call": 1}, {"steps_per_call": 7}]
    for option in options:
        seed_everything(5)
        models.append(dropping_net())
        trainer = quiet(**option)
        trainer.fit(models[-1], digits(960, shuffle=True))
        metrics.append(trainer.callback_metrics)
    assert_same_bits(models[0], models[1])
    assert_same_bits(models[0], models[2])
    assert metrics[0] == metrics[1] == metrics[2]


def test_dropout_drops_other_units_at_each_step(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    seed_everything(5)
    model = dropping_net()
    state = next(v for v in model.variables if "seed" in v.name)
    before = np.array(state.numpy())
    quiet(jit_compile=False).fit(model, digits(320))
    assert (np.array(state.numpy()) != before).any()


def test_another_seed_takes_the_data_in_another_order(digits: Digits, quiet: Callable[..., Trainer]) -> None:
    net, trained = Reused(lambda: build_baseline(seed=0)), []
    for seed in (0, 1):
        module = net()
        quiet(jit_compile=False).fit(module, digits(960, shuffle=True, seed=seed))
        trained.append(weights(module.model))
    assert np.abs(trained[0][0] - trained[1][0]).max() > 0


def test_the_baselines_seed_fixes_its_weights() -> None:
    assert_same_bits(build_baseline(seed=3), build_baseline(seed=3))
    assert np.abs(weights(build_baseline(seed=3))[0] - weights(build_baseline(seed=4))[0]).max() > 0


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 4294967295"):
        seed_everything(seed)
