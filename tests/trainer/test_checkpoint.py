"""Checkpoints: the whole state, there and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save

from mnist_tuner.trainer import Checkpoint, KerasModule, read_checkpoint
from mnist_tuner.trainer.checkpoint import FORMAT_VERSION, CheckpointError, CheckpointHeader
from mnist_tuner.trainer.progress import Progress

HEADER = CheckpointHeader(
    progress=Progress(epoch=2, global_step=341, batch=1, validation={"val_loss": 0.5}),
    num_training_batches=3,
    jit_compiled=True,
    threads=1,
    metrics={"loss": 0.1, "val_accuracy": 1 / 3},
    versions={"keras": "3.15.1"},
)
X = np.random.default_rng(0).random((8, 6), np.float32)


def fitted(*units: int, seed: int = 0, named: bool = True, optimizer: bool = True) -> KerasModule:
    """A compiled model of dense layers, after one step; without an optimizer in the module if so wished."""
    keras.utils.set_random_seed(seed)
    names = [f"dense_{chr(ord('a') + i)}" if named else None for i in range(len(units))]
    layers = [keras.layers.Dense(width, name=name) for width, name in zip(units, names, strict=True)]
    model = keras.Sequential([keras.Input((6,)), *layers], name="net" if named else None)
    model.compile("adam", "mse", jit_compile=False)
    model.train_on_batch(X, np.ones((8, units[-1]), np.float32))
    module = KerasModule(model)
    if optimizer:
        module.optimizer = module.configure_optimizers()
    return module


def state(module: KerasModule) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every variable as type, shape and bytes."""
    tensors = Checkpoint.of(module, HEADER).tensors
    return {name: (str(tensor.dtype), tensor.shape, tensor.tobytes()) for name, tensor in tensors.items()}


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[[str | None], Path]:
    """Gives ``foreign(text)``: it writes a sound safetensors file with this text in our header's place."""

    def write(text: str | None) -> Path:
        path = tmp_path / "foreign.safetensors"
        path.write_bytes(save({"a": X}, metadata=None if text is None else {"mnist_tuner": text}))
        return path

    return write


@pytest.mark.slow
def test_a_fitted_model_and_its_optimizer_come_back_bit_for_bit(tmp_path: Path) -> None:
    module = fitted(5, 3)
    Checkpoint.of(module, HEADER).save(tmp_path / "a.safetensors")
    other = fitted(5, 3, seed=1)
    assert state(other) != state(module)
    checkpoint = read_checkpoint(tmp_path / "a.safetensors")
    checkpoint.restore(other)
    assert checkpoint.header == HEADER
    assert state(other) == state(module)
    assert any(name.startswith("optimizer/") for name in checkpoint.tensors)
    np.testing.assert_array_equal(other.model(X), module.model(X))
    assert checkpoint.tensors["optimizer/0"] == 1  # its steps


@pytest.mark.slow
def test_a_restored_model_goes_on_training_as_the_saved_one_would(tmp_path: Path) -> None:
    module, other = fitted(5, 3), fitted(5, 3, seed=1)
    Checkpoint.of(module, HEADER).save(tmp_path / "a")
    read_checkpoint(tmp_path / "a").restore(other)
    for each in (module, other):
        each.model.train_on_batch(X, np.zeros((8, 3), np.float32))
    assert state(other) == state(module)


@pytest.mark.slow
def test_a_model_whose_layers_keras_named_can_be_restored_into_its_like(tmp_path: Path) -> None:
    module = fitted(4, named=False)
    Checkpoint.of(module, HEADER).save(tmp_path / "a")
    other = fitted(4, seed=1, named=False)
    read_checkpoint(tmp_path / "a").restore(other)
    assert [bits for _, bits in sorted(state(other).items())] == [bits for _, bits in sorted(state(module).items())]


def test_special_values_and_negative_zeros_keep_their_bits(tmp_path: Path) -> None:
    module = fitted(1, optimizer=False)
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, np.finfo(np.float32).max], np.float32)
    module.model.set_weights([values[:, None], np.zeros(1)])
    Checkpoint.of(module, HEADER).save(tmp_path / "a")
    assert read_checkpoint(tmp_path / "a").tensors["model/0"].tobytes() == values.tobytes()


def test_a_checkpoint_holds_the_state_of_its_moment() -> None:
    module = fitted(3)
    checkpoint = Checkpoint.of(module, HEADER)
    before, taken = state(module), {name: tensor.tobytes() for name, tensor in checkpoint.tensors.items()}
    module.model.train_on_batch(X, np.zeros((8, 3), np.float32))
    assert state(module) != before
    assert {name: tensor.tobytes() for name, tensor in checkpoint.tensors.items()} == taken


@pytest.mark.slow
def test_a_model_without_an_optimizer_takes_the_weights_alone(tmp_path: Path) -> None:
    module = fitted(3)
    Checkpoint.of(module, HEADER).save(tmp_path / "a")
    other = fitted(3, seed=1, optimizer=False)
    read_checkpoint(tmp_path / "a").restore(other)
    np.testing.assert_array_equal(other.model(X), module.model(X))


def test_saving_replaces_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_text("old")
    Checkpoint.of(fitted(3), HEADER).save(path)
    assert read_checkpoint(path).header == HEADER
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("units", [(4,), (3, 3)])
@pytest.mark.parametrize("optimizer", [False, True])
def test_a_model_of_another_shape_is_refused_without_a_change(units: tuple[int, ...], optimizer: bool) -> None:
    checkpoint = Checkpoint.of(fitted(3), HEADER)
    other = fitted(*units, seed=1, optimizer=optimizer)
    before = state(other)
    with pytest.raises(CheckpointError, match="the checkpoint does not fit the model"):
        checkpoint.restore(other)
    assert state(other) == before


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [False, True])
def test_a_checkpoint_of_a_deeper_model_is_refused_without_a_change(optimizer: bool) -> None:
    checkpoint = Checkpoint.of(fitted(6, 6), HEADER)
    shallow = fitted(6, seed=1, optimizer=optimizer)
    before = state(shallow)
    with pytest.raises(CheckpointError, match="the checkpoint does not fit the model"):
        checkpoint.restore(shallow)
    assert state(shallow) == before


@pytest.mark.slow
def test_a_refused_model_is_told_which_variable_differs() -> None:
    with pytest.raises(CheckpointError, match=r"model/0 has shape \(6, 3\) in the checkpoint and \(6, 4\)"):
        Checkpoint.of(fitted(3, optimizer=False), HEADER).restore(fitted(4, optimizer=False))


def test_a_missing_checkpoint_is_a_file_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match="no such checkpoint"):
            read_checkpoint(path)


def test_a_file_torn_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    Checkpoint.of(fitted(3), HEADER).save(path)
    whole = path.read_bytes()
    for length in (*range(0, len(whole), 53), 7, 8, 9, len(whole) - 4, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "not a whole checkpoint" in refusal(path)
    path.write_bytes(whole + b"\x00")
    assert "not a whole checkpoint" in refusal(path)


@pytest.mark.parametrize("content", [b"weights: none\n" * 9, bytes(500), b"\xff" * 500, b"PK\x03\x04" + bytes(99)])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    assert "not a whole checkpoint" in refusal(path)


def test_a_file_of_an_earlier_format_is_read(foreign: Callable[[str | None], Path]) -> None:
    header = asdict(HEADER)
    progress = header.pop("progress")
    progress["batches_in_epoch"] = progress.pop("batch")
    text = json.dumps({"format_version": 2, **header, **progress})
    assert read_checkpoint(foreign(text)).header == HEADER


def test_a_safetensors_file_without_our_header_is_refused(foreign: Callable[[str | None], Path]) -> None:
    assert "not a checkpoint of mnist_tuner" in refusal(foreign(None))


def test_a_newer_format_is_refused_with_the_advice_to_upgrade(foreign: Callable[[str | None], Path]) -> None:
    newer = {"format_version": FORMAT_VERSION + 1, **asdict(HEADER), "something": "new"}
    message = refusal(foreign(json.dumps(newer)))
    assert f"format {FORMAT_VERSION + 1}" in message
    assert "upgrade" in message


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "3", "[]", "{}", '{"format_version": 1}', '{"format_version": "one"}', "[" * 100_000],
    ids=["empty", "torn", "null", "number", "list", "no-version", "no-fields", "odd-version", "deep"],
)
def test_a_damaged_header_is_refused(foreign: Callable[[str | None], Path], text: str) -> None:
    assert "its header is damaged" in refusal(foreign(text))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("callbacks", {"__array__": "state/9"}),
        ("callbacks", {"__array__": "a"}),
        ("callbacks", {"Timer": {"__array__": "state/9"}}),
        ("callbacks", "x"),
        ("extra", None),
        ("extra", {"__array__": "a"}),
        ("datamodule", [1]),
        ("hyper_parameters", "x"),
        ("metrics", {"loss": "low"}),
        ("progress", {"epoch": {}}),
        ("progress", None),
        ("versions", 3),
        ("loggers", {}),
        ("threads", "two" * 10_000),
        ("logs", {"\ud800": {}}),
    ],
)
def test_a_header_in_which_something_is_not_as_it_should_be_is_refused(
    name: str, value: object, foreign: Callable[[str | None], Path]
) -> None:
    header = {"format_version": FORMAT_VERSION, **asdict(HEADER)}
    read_checkpoint(foreign(json.dumps(header)))  # as it is, it is read
    path = foreign(json.dumps(header | {name: value}))
    message = refusal(path)
    assert "its header is damaged" in message
    assert message.isprintable()
    assert len(message) < 400 + len(str(path))
