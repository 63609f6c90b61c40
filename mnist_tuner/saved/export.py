"""Export: a trained model becomes a file that other programs load, preprocessing included."""

from __future__ import annotations

import io
import json
import logging
import os
import shlex
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from mnist_tuner._version import __version__
from mnist_tuner.errors import InputError, RunError
from mnist_tuner.render.run import line
from mnist_tuner.reports.report import SCHEMA_VERSION
from mnist_tuner.saved.model import METADATA, SavedModel, find_model
from mnist_tuner.trainer.files import TEMPORARY, atomic_write

if TYPE_CHECKING:
    import keras

FORMATS = ("keras", "savedmodel", "onnx", "litert")
_ENDINGS = {"keras": ".keras", "savedmodel": "", "onnx": ".onnx", "litert": ".tflite"}
_NEEDS = {"onnx": ("onnx", "tf2onnx"), "litert": ("ai_edge_litert",)}


def export(
    path: Path, screen: Console | None = None, *, kind: str = "keras", output: Path | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Writes a model for other programs: it takes grey values, uint8 ``(n, height, width)``, and gives probabilities, float32
    ``(n, classes)``, that sum to one. What is known of it (classes, seed, accuracy with its interval, versions) is within it.

    Args:
        path: of the model; see `find_model`.
        screen: where it is said; by default the standard output, or the notebook's cell.
        kind: one of `FORMATS`.
        output: the file, or of savedmodel the folder; by default beside the model, named after the format.
        quiet: whether nothing but the place is said.

    Returns:
        The JSON document: the metadata, and where it is.

    Raises:
        InputError: the model cannot be used, a package is missing, or the file cannot be written or exists.
        RunError: the format cannot hold the model.
    """
    if kind not in FORMATS:
        raise InputError(f"--format is {kind!r}: expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    missing = [name for name in _NEEDS.get(kind, ()) if find_spec(name) is None]
    if missing:
        packages = " ".join(name.replace("_", "-") for name in _NEEDS[kind])
        raise InputError(f"--format {kind} needs further packages: {shlex.quote(sys.executable)} -m pip install {packages}")
    screen = screen or Console()
    saved = find_model(path)
    target = output or saved.path.with_name(f"export-{kind}{_ENDINGS[kind]}")
    if target.exists():
        raise InputError(f"{target}: exists already: remove it, or choose another place with --output")
    model = saved.load(screen)
    from mnist_tuner.saved.network import read_images, with_preprocessing

    image_shape = saved.image_shape(model)
    whole = with_preprocessing(model, image_shape)
    try:
        read_images(whole, np.zeros((1, *image_shape), np.uint8))  # Keras exports no model that has not been called
    except ArithmeticError as error:
        raise InputError(f"{saved.path}: {error}") from None
    metadata = _metadata(saved, image_shape, int(whole.outputs[0].shape[-1]))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[kind](whole, target, json.dumps(metadata, indent=2, ensure_ascii=False))
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from None
    except Exception as error:  # whatever the converters raise
        raise RunError(f"the model cannot be written as {kind}: {type(error).__name__}: {error}") from error
    if quiet:
        screen.print(line(str(target)), soft_wrap=True)
    else:
        height, width = image_shape
        screen.print(
            line(f"{target}: {kind}, uint8 (n, {height}, {width}) to {metadata['classes']} probabilities"), soft_wrap=True
        )
    return {"schema_version": SCHEMA_VERSION, "command": "export", "format": kind, "path": str(target), "metadata": metadata}


def _metadata(saved: SavedModel, image_shape: tuple[int, int], classes: int) -> dict[str, Any]:
    accuracy = saved.accuracy
    return {
        "classes": classes,
        "class_names": list(saved.class_names) or [str(label) for label in range(classes)],
        "input": f"uint8 (n, {image_shape[0]}, {image_shape[1]}), grey values from 0 to 255",
        "output": f"float32 (n, {classes}), probabilities",
        "data": None if saved.data is None else saved.data.name,
        "seed": saved.seed,
        "accuracy": None if accuracy is None else accuracy.value,
        "interval95": None if accuracy is None else [accuracy.low, accuracy.high],
        "mnist_tuner": __version__,
    }


def _write_keras(model: keras.Model, target: Path, metadata: str) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=TEMPORARY) as folder:
        model.save(path := Path(folder, "model.keras"))
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(METADATA, metadata)
        atomic_write(target, path.read_bytes())


def _write_savedmodel(model: keras.Model, target: Path, metadata: str) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=TEMPORARY) as folder:
        path = Path(folder, "model")
        with _silence():
            model.export(path, format="tf_saved_model", verbose=False)
        (path / "assets.extra").mkdir()
        (path / "assets.extra" / METADATA).write_text(metadata, encoding="utf-8")
        path.rename(target)


def _write_onnx(model: keras.Model, target: Path, metadata: str) -> None:
    with tempfile.TemporaryDirectory() as folder, _silence():
        path = Path(folder, "model.onnx")
        model.export(path, format="onnx", verbose=False)
        import onnx

        graph = onnx.load(path)
        onnx.helper.set_model_props(graph, {METADATA.removesuffix(".json"): metadata})
        content = graph.SerializeToString()
    atomic_write(target, content)


def _write_litert(model: keras.Model, target: Path, metadata: str) -> None:
    with tempfile.TemporaryDirectory() as folder, _silence():
        path = Path(folder, "model.tflite")
        model.export(path, format="litert", verbose=False)
        content = io.BytesIO(path.read_bytes())
        content.seek(0, os.SEEK_END)
        with zipfile.ZipFile(content, "a") as file:  # TensorFlow Lite's own place for files that belong to a model
            file.writestr(METADATA, metadata)
    atomic_write(target, content.getvalue())


_WRITERS: dict[str, Callable[[Any, Path, str], None]] = {
    "keras": _write_keras,
    "savedmodel": _write_savedmodel,
    "onnx": _write_onnx,
    "litert": _write_litert,
}


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps what the converters have to say off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
