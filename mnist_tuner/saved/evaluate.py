"""Evaluate: a saved model is tested, on its own data or on other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from mnist_tuner.errors import InputError
from mnist_tuner.render import run as rendering
from mnist_tuner.reports.report import Evaluation, classification_report
from mnist_tuner.saved.model import SavedModel, find_model

if TYPE_CHECKING:
    import keras

    from mnist_tuner.mnist.data import Dataset


def evaluate(
    path: Path,
    screen: Console | None = None,
    *,
    data: Path | None = None,
    classes: Path | None = None,
    split: str | None = None,
    transpose: bool | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Tests a saved model and reports.

    Args:
        path: a run's folder, a ``.keras`` file, or a checkpoint.
        screen: where the report goes; by default the standard output, or the notebook's cell.
        data: see `load_dataset`; by default what the run had, or the embedded MNIST.
        classes: a file of the classes' names.
        split, transpose: see `load_dataset`; by default as in the run, where the data is its own.
        quiet: whether it is just the result.

    Returns:
        The JSON document.

    Raises:
        InputError: the model or the data cannot be used, or they do not fit each other.
    """
    from mnist_tuner.mnist.data import MNISTDataModule

    screen = screen or Console()
    saved = find_model(path)
    dataset = saved.load_data(data, classes, split, transpose)
    model = saved.load(screen)
    try:
        predicted, probabilities, loss = _judge(saved, model, MNISTDataModule(dataset), dataset)
    except ArithmeticError as error:
        raise InputError(f"{saved.path}: {error}") from None
    classes_in_all = max(dataset.classes, probabilities.shape[1])
    test = classification_report(dataset.test_labels, predicted, probabilities.max(axis=1), classes_in_all, loss)
    names = next((names for names in (dataset.class_names, saved.class_names) if len(names) == classes_in_all), ())
    evaluation = Evaluation(str(saved.path), dataset.name, names, test, dataset.held_out, dataset.notes)
    images = dataset.test_images[[mistake.index for mistake in test.mistakes]]
    accuracy = rendering.accuracy_text(evaluation.accuracy, test, held_out=dataset.held_out)
    if quiet:
        screen.print(accuracy, soft_wrap=True)
        return evaluation.to_dict()
    screen.print(rendering.line(f"Model  {saved.path}"), soft_wrap=True)
    screen.print(rendering.line(f"Data   {dataset.name}: {len(dataset.test_labels):,} test images"))
    for note in dataset.notes:
        screen.print(rendering.line(f"       {note}", "yellow"))
    screen.print()
    screen.print(accuracy)
    screen.print(Text(f"Test loss {loss:.4f}"))
    screen.print()
    screen.print(rendering.class_report(test, images if screen.is_terminal else None, names))
    return evaluation.to_dict()


def _judge(
    saved: SavedModel, model: keras.Model, data: Any, dataset: Dataset
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], float]:
    """What the model makes of the test images: classes, probabilities, mean loss."""
    from mnist_tuner.mnist.baseline import judge, judging_module
    from mnist_tuner.saved.network import read_images, with_preprocessing
    from mnist_tuner.trainer import Trainer

    whole = with_preprocessing(model, dataset.image_shape)
    classes = int(whole.outputs[0].shape[-1])
    if dataset.test_labels.max() >= classes:
        raise InputError(f"the model knows {classes} classes, and the data has labels up to {dataset.test_labels.max()}")
    if saved.report is not None and model.compiled and tuple(model.inputs[0].shape[1:]) == dataset.image_shape:
        trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        predicted, probabilities, loss = judge(trainer, judging_module(model), data)
    else:
        probabilities = read_images(whole, dataset.test_images)
        predicted = probabilities.argmax(axis=1).astype(np.uint8)
        chosen = probabilities[np.arange(len(predicted)), dataset.test_labels].astype(np.float64)
        loss = float(-np.log(np.maximum(chosen, 1e-45)).mean())
    return predicted, probabilities, loss
