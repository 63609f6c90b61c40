"""A run's page: report.html and the figures beside it."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_tuner.reports.comparison import ComparisonReport
from mnist_tuner.reports.report import RunReport
from mnist_tuner.reports.search import SearchReport
from mnist_tuner.trainer.files import atomic_write

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PAGE = "report.html"
FIGURES = "figures"


_loading: threading.Thread | None = None


def load_drawing() -> None:
    """Imports what draws the page, in a thread: while a training computes, there is time.

    A process that ends meanwhile waits for it: the interpreter crashes if it ends within an import.
    """
    global _loading
    if _loading is None:
        _loading = threading.Thread(target=_import)
        _loading.start()


def _import() -> None:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it has to say when it makes its list of fonts
    with _undocumented():
        from mnist_tuner.render import drawing, html

    html.warm_up()
    drawing.warm_up()


@contextmanager
def _undocumented() -> Iterator[None]:
    """Leaves out the docstrings that matplotlib (3.10) composes for its artists: nearly half of its import.

    In a notebook, or where it has been imported before, somebody may read them.
    """
    if "IPython" in sys.modules or "matplotlib" in sys.modules:
        yield
        return
    from matplotlib import artist

    compose, describe = "_update_set_signature_and_docstring", artist.kwdoc
    composing = vars(artist.Artist).get(compose)
    if composing is None:
        yield
        return
    setattr(artist.Artist, compose, classmethod(lambda cls: None))
    artist.kwdoc = lambda artist: ""
    try:
        yield
    finally:
        setattr(artist.Artist, compose, composing)
        artist.kwdoc = describe


def write_page(
    report: RunReport | SearchReport | ComparisonReport,
    mistakes: npt.NDArray[np.uint8] | None,
    command: str,
    path: Path,
    figures: Path,
) -> None:
    """Writes the page of a report, and its figures as PNG and SVG.

    Args:
        report: what is shown.
        mistakes: the images of its mistakes, uint8 ``(mistakes, height, width)``.
        command: the command line that does the same again.
        path: of the page.
        figures: the folder of the figures; it is made.

    Raises:
        OSError: a file could not be written.
    """
    from mnist_tuner.render.drawing import save
    from mnist_tuner.render.figures import draw
    from mnist_tuner.render.html import page

    load_drawing()
    if _loading is not None:
        _loading.join()  # figures are drawn by one thread at a time
    drawings = draw(report)
    atomic_write(path, page(report, mistakes=mistakes, drawings=drawings, command=command))
    figures.mkdir(exist_ok=True)
    save(drawings, figures)


def keep_page(report: RunReport | SearchReport, mistakes: npt.NDArray[np.uint8] | None, command: str) -> None:
    """Writes a run's own page into its folder.

    Raises:
        OSError: a file could not be written.
    """
    folder = Path(report.run_dir)
    write_page(report, mistakes, command, folder / PAGE, folder / FIGURES)
