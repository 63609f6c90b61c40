"""The runner of predict: a saved model reads pictures."""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.text import Text

from mnist_tuner.errors import InputError
from mnist_tuner.images import Prepared, UInt8Array, fit, prepare, read_image
from mnist_tuner.likeness import Likeness
from mnist_tuner.reports.predictions import Prediction, Predictions, Problem, sentence, summary, with_picture
from mnist_tuner.runner.evaluating import data_of
from mnist_tuner.runner.saved import Saved, find_saved
from mnist_tuner.startup import load_tensorflow
from mnist_tuner.trainer.live import status

STDIN = "-"
MOST_PICTURES = 12
"""Of so many pictures at most what the net saw is shown; of more, a line for each."""
LEAST_CONFIDENCE = 0.6


def predict(path: Path, images: Sequence[str], screen: Console | None = None, *, quiet: bool = False) -> Predictions:
    """Reads pictures with a saved model.

    Args:
        path: of the model; see `find_saved`.
        images: files, folders, patterns, or "-" for a picture on the standard input.
        screen: where the readings are shown; by default the standard output, or the notebook's cell.
        quiet: whether it is just the class of each.

    Returns:
        What was read, in the order of the pictures, and which could not be.

    Raises:
        InputError: the model cannot be used, or there are no pictures.
    """
    screen = screen or Console()
    saved = find_saved(path)
    files = list(_files(images))
    with ThreadPoolExecutor() as pool:
        references = pool.submit(_references, saved)
        with status(screen, "loading TensorFlow ..."):
            load_tensorflow(threads=1)
        from mnist_tuner.models.saved import read_images, with_preprocessing

        model = saved.load()
        shape = saved.data.image_shape if saved.data is not None else (28, 28)
        whole = with_preprocessing(model, shape)
        known = references.result()
        way = prepare if known is None or _leaves_a_margin(known) else fit
        likeness = pool.submit(Likeness, known) if known is not None else None
        prepared, problems = [], []
        for file, result in zip(files, pool.map(lambda file: _prepared(file, shape, way), files), strict=True):
            if isinstance(result, InputError):
                problems.append(Problem(file, str(result)))
                screen.print(Text(str(result), style="red"), soft_wrap=True)
            else:
                prepared.append((file, result))
    if not prepared:
        return Predictions(str(saved.path), (), tuple(problems))
    seen = np.array([each.image for _, each in prepared])
    probabilities = read_images(whole, seen)
    unlike = likeness.result().unlike(seen) if likeness is not None else np.zeros(len(seen), bool)
    names = saved.data.class_names if saved.data is not None else ()
    found = tuple(
        _prediction(file, each, row, bool(strange), names)
        for (file, each), row, strange in zip(prepared, probabilities, unlike, strict=True)
    )
    for prediction, image in zip(found, seen, strict=True):
        if quiet:
            screen.print(Text(prediction.name))
        elif len(found) <= MOST_PICTURES:
            screen.print(with_picture(prediction, image))
            screen.print()
        else:
            screen.print(Text.assemble(prediction.file, "  ", sentence(prediction)), soft_wrap=True)
    if not quiet and len(files) > 1:
        screen.print(summary(found, problems))
    return Predictions(str(saved.path), found, tuple(problems))


def _files(images: Sequence[str]) -> Iterator[str]:
    """The pictures that are meant, in order.

    Raises:
        InputError: a pattern or a folder has none.
    """
    for image in images:
        path = Path(image)
        if image == STDIN or path.is_file():
            yield image
            continue
        if path.is_dir():
            found = sorted(str(file) for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        else:
            found = sorted(file for file in glob.glob(image, recursive=True) if Path(file).is_file())  # noqa: PTH207
            if not found and not glob.has_magic(image):
                found = [image]  # what is wrong with it is said when it is opened
        if not found:
            raise InputError(f"{image}: there are no pictures")
        yield from found


def _prepared(file: str, shape: tuple[int, int], way: Callable[[UInt8Array, tuple[int, int]], Prepared]) -> Prepared | InputError:
    try:
        if file == STDIN:
            return way(read_image(sys.stdin.buffer.read(), "standard input"), shape)
        return way(read_image(Path(file)), shape)
    except InputError as error:
        return error


def _leaves_a_margin(images: UInt8Array) -> bool:
    """Whether images are framed as MNIST's: with a dark margin around the ink."""
    edge = np.concatenate([images[:, 0].ravel(), images[:, -1].ravel(), images[:, :, 0].ravel(), images[:, :, -1].ravel()])
    return bool(edge.mean() < 3)


def _references(saved: Saved) -> UInt8Array | None:
    """The images that the model was trained on; None where they are not to be had."""
    try:
        images = data_of(saved, None, None).train_images
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
