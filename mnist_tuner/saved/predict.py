"""Predict: a saved model reads pictures."""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.text import Text

from mnist_tuner.errors import InputError
from mnist_tuner.render.predictions import sentence, summary, with_picture
from mnist_tuner.render.run import Terminal, line
from mnist_tuner.reports.predictions import Prediction, Predictions, Problem
from mnist_tuner.saved.likeness import Likeness
from mnist_tuner.saved.model import SavedModel, find_model
from mnist_tuner.saved.pictures import Prepared, UInt8Array, fit, prepare, read_image

STDIN = "-"
MOST_PICTURES = 12
"""Of so many pictures at most what the net saw is shown; of more, a line for each."""
MOST_BYTES = 500_000_000
LEAST_CONFIDENCE = 0.7


def predict(path: Path, images: Sequence[str], screen: Console | None = None, *, quiet: bool = False) -> Predictions:
    """Reads pictures with a saved model.

    Args:
        path: of the model; see `find_model`.
        images: files, folders, patterns, or "-" for a picture on the standard input.
        screen: where the readings are shown; by default the standard output, or the notebook's cell.
        quiet: whether it is just the class of each, and its doubt.

    Returns:
        What was read, in the order of the pictures, and which could not be.

    Raises:
        InputError: the model cannot be used, or there are no pictures.
    """
    screen = screen or Console()
    saved = find_model(path)
    if list(images).count(STDIN) > 1:
        raise InputError("- is given twice: there is one picture on the standard input")
    found_files = [found for image in images for found in _files(image)]
    with ThreadPoolExecutor(2) as pool:
        references = pool.submit(_references, saved)
        model = saved.load(screen)
        from mnist_tuner.saved.network import read_images, with_preprocessing

        shape = saved.image_shape(model)
        whole = with_preprocessing(model, shape)
        known = references.result()
        way = prepare if known is None or _leaves_a_margin(known) else fit
        likeness = pool.submit(Likeness, known) if known is not None and min(shape) > 1 else None
        prepared: list[tuple[str, Prepared]] = []
        problems: list[Problem] = []
        for file in found_files:
            result = file if isinstance(file, Problem) else _prepared(file, shape, way)
            if isinstance(result, Problem):
                problems.append(result)
                (Terminal(stderr=True) if quiet else screen).print(line(result.error, "red"), soft_wrap=True)
            else:
                prepared.append((str(file), result))
    if not prepared:
        return Predictions(str(saved.path), (), tuple(problems))
    seen = np.array([each.image for _, each in prepared])
    try:
        probabilities = read_images(whole, seen)
    except ArithmeticError as error:
        raise InputError(f"{saved.path}: {error}") from None
    unlike = likeness.result().unlike(seen) if likeness is not None else np.zeros(len(seen), bool)
    names = saved.class_names if len(saved.class_names) == probabilities.shape[1] else ()
    found = tuple(
        _prediction(file, each, row, bool(strange), names)
        for (file, each), row, strange in zip(prepared, probabilities, unlike, strict=True)
    )
    _show(screen, found, seen, quiet)
    if not quiet and len(found_files) > 1:
        screen.print(summary(found, problems))
    return Predictions(str(saved.path), found, tuple(problems))


def _show(screen: Console, found: Sequence[Prediction], seen: UInt8Array, quiet: bool) -> None:
    for prediction, image in zip(found, seen, strict=True):
        if quiet:
            doubt = "" if prediction.doubt is None else f"  doubtful: {prediction.doubt}"
            screen.print(line(f"{prediction.name}{doubt}"), soft_wrap=True)
        elif len(found) <= MOST_PICTURES:
            screen.print(with_picture(prediction, image))
            screen.print()
        else:
            screen.print(Text.assemble(line(prediction.file), "  ", sentence(prediction)), soft_wrap=True)


def _files(image: str) -> list[str | Problem]:
    """The pictures that are meant, in order."""
    path = Path(image)
    try:
        if image == STDIN or path.is_file():
            return [image]
        if path.is_dir():
            found = sorted(str(file) for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        else:
            found = sorted(file for file in glob.glob(image, recursive=True) if Path(file).is_file())  # noqa: PTH207
            if not found and not glob.has_magic(image):
                return [image]  # what is wrong with it is said when it is opened
    except (OSError, ValueError) as error:
        return [Problem(image, f"{image}: {getattr(error, 'strerror', None) or error}")]
    return [*found] if found else [Problem(image, f"{image}: there are no pictures")]


def _prepared(file: str, shape: tuple[int, int], way: Callable[[UInt8Array, tuple[int, int]], Prepared]) -> Prepared | Problem:
    try:
        if file != STDIN:
            return way(read_image(Path(file)), shape)
        content = sys.stdin.buffer.read(MOST_BYTES + 1) if sys.stdin is not None else b""
        if len(content) > MOST_BYTES:
            raise InputError(f"standard input: more than {MOST_BYTES:,} bytes")
        return way(read_image(content, "standard input"), shape)
    except (InputError, OSError, ValueError) as error:
        return Problem(file, str(error))


def _leaves_a_margin(images: UInt8Array) -> bool:
    """Whether images are framed as MNIST's: with a dark margin around the ink."""
    edge = np.concatenate([images[:, 0].ravel(), images[:, -1].ravel(), images[:, :, 0].ravel(), images[:, :, -1].ravel()])
    return bool(edge.mean() < 3)


def _references(saved: SavedModel) -> UInt8Array | None:
    """The images that the model was trained on; None where they are not to be had."""
    if saved.report is None:
        return None
    try:
        images = saved.load_data().train_images
    except InputError:
        return None
    if saved.data is not None and images.shape[1:] != saved.data.image_shape:
        return None
    return images


def _prediction(
    file: str, prepared: Prepared, probabilities: npt.NDArray[np.float32], strange: bool, names: Sequence[str]
) -> Prediction:
    second, first = (int(label) for label in np.argsort(probabilities, kind="stable")[-2:])
    confidence = float(probabilities[first])
    doubt = prepared.doubt
    if doubt is None and strange:
        doubt = "unlike anything that the net was trained on"
    if doubt is None and confidence < LEAST_CONFIDENCE:
        doubt = "the net is not sure"
    return Prediction(
        file,
        first,
        names[first] if names else str(first),
        confidence,
        second,
        names[second] if names else str(second),
        float(probabilities[second]),
        doubt,
    )
