"""A run of a command while it is at work: its folder, what is known of it so far, and how it ends."""

from __future__ import annotations

import io
import os
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from rich.console import Console, RenderableType
from rich.text import Text

from mnist_tuner._version import __version__
from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.errors import InputError
from mnist_tuner.mnist.data import Dataset, check_data
from mnist_tuner.options import write_options
from mnist_tuner.render import run as rendering
from mnist_tuner.render.page import keep_page
from mnist_tuner.render.run import as_text, headline
from mnist_tuner.reports.report import ClassificationReport, DataSummary, RunReport
from mnist_tuner.reports.search import SearchReport
from mnist_tuner.reports.stored import load_report, save_predictions
from mnist_tuner.runs import RunDirectory
from mnist_tuner.trainer.backend import installed_version
from mnist_tuner.trainer.files import atomic_write

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Config = TypeVar("Config", TrainConfig, SearchConfig)
Report = TypeVar("Report", RunReport, SearchReport)


class Steps:
    """What a command does in its session, as far as an early end asks for it; override what is wanted."""

    goes_on_after_failure: ClassVar[bool] = False
    """Whether it is worth going on after a failure, as after an interruption: then it is said how."""

    def so_far(self) -> dict[str, Any]:
        """The report's fields that are known only in part."""
        return {}

    def kept(self) -> str:
        """What can be gone on with: the end of a sentence."""
        return ""


@dataclass
class Session(Generic[Config, Report]):
    """A run at work; see `session`.

    Attributes:
        command: "train" or "search".
        config: the options.
        folder: the run's.
        before: its manifest as it was, where the run is resumed; else empty.
        earlier: the report in that.
        report: what is known so far.
        screen: the person's.
        quiet: whether just the result is wanted there.
        console: where all else is told; where that is not wanted, nowhere.
        began: when the process began, by ``time.perf_counter()``.
        steps: of the command; by default those of one that keeps nothing.
        seconds: what has been measured, by its name in the report's timing.
        mistakes: the images of the report's mistakes, uint8 ``(mistakes, height, width)``, once it has been tested.
        stack: of what is to be closed at the end.
    """

    command: str
    config: Config
    folder: RunDirectory
    before: dict[str, Any]
    earlier: Report | None
    report: Report
    screen: Console
    quiet: bool
    began: float
    steps: Steps = field(default_factory=Steps)
    seconds: dict[str, float] = field(default_factory=dict)
    mistakes: npt.NDArray[np.uint8] | None = None
    stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.console = Console(file=io.StringIO(), force_jupyter=False) if self.quiet else self.screen

    def know(self, **fields: Any) -> None:
        """Puts something into the report."""
        self.report = replace(self.report, **fields)

    def write_manifest(self) -> None:
        """Writes ``run.json``: the report as it is."""
        self.folder.write_manifest(self.report.to_dict())

    def write_options(self) -> None:
        """Writes ``config.toml``."""
        atomic_write(self.folder / "config.toml", write_options(self.command, self.config.to_dict()))

    def check_same_data(self, data: DataSummary) -> None:
        """A run goes on with the data that it began with.

        Raises:
            InputError: it has changed.
        """
        before = None if self.earlier is None else self.earlier.data
        if before is None:
            return
        for name, digest in before.sha256.items():
            if data.sha256.get(name) != digest:
                raise InputError(f"{self.folder.path}: the run began with other data: {name} has changed")
        if before.classes != data.classes:
            raise InputError(f"{self.folder.path}: the run began with {before.classes} classes, and now there are {data.classes}")

    def keep_predictions(self, dataset: Dataset, test: ClassificationReport, **arrays: Any) -> None:
        """Writes ``test_predictions.npz``: these arrays, and the images of the mistakes."""
        self.mistakes = dataset.test_images[[mistake.index for mistake in test.mistakes]]
        save_predictions(self.folder, **arrays, mistakes=self.mistakes)

    def finish(
        self, report: Report, shown: Sequence[RenderableType], line: Text, whole: Sequence[RenderableType], width: int = 80
    ) -> None:
        """Reports; what is kept with the run is written when it stands on the screen. Only then is the run finished.

        Args:
            report: the whole of it, with the status "finished".
            shown: what is printed.
            line: all that is printed if it is quiet.
            whole: what is kept as ``report.txt``.
            width: its columns.
        """
        for part in shown:
            self.console.print(part)
        self.console.print(rendering.line(f"Run  {self.folder.path}"), soft_wrap=True)
        if self.quiet:
            self.screen.print(line, soft_wrap=True)
        atomic_write(self.folder / "report.txt", as_text(whole, width))
        keep_page(report, self.mistakes, self.config.command)
        self.folder.write_manifest(report.to_dict())
        self.report = report

    def give_up(self, error: BaseException) -> None:
        """Writes down how the run ended; after bad input there is nothing to keep, but for trials. A full disk hides nothing."""
        known = self.steps.so_far()
        if isinstance(error, InputError):
            if self.before:
                self.folder.write_manifest(self.before)
                return
            if not known.get("trials"):
                self.folder.discard()
                return
        if self.report.status == "finished":  # all is written
            return
        interrupted = isinstance(error, KeyboardInterrupt)
        self.know(
            **known,
            status="interrupted" if interrupted else "failed",
            error=None if interrupted else f"{error}" or type(error).__name__,
        )
        with suppress(OSError):
            self.write_manifest()
        if interrupted or self.steps.goes_on_after_failure:
            self.screen.print(rendering.line(f"{'Interrupted' if interrupted else 'Stopped'}{self.steps.kept()}"), soft_wrap=True)
            if not getattr(self.config, "fast_dev_run", False):
                script = os.environ.get("MNIST_TUNER_SCRIPT")  # that was started, where it was one
                command = shlex.quote(script) if script else f"mnist-tuner {self.command}"
                go_on = f"Go on with: {command} --resume {shlex.quote(str(self.folder.path))}"
                self.screen.print(rendering.line(go_on), soft_wrap=True)


@contextmanager
def session(
    config: Config,
    begin: Callable[..., Report],
    name: str,
    packages: Sequence[str],
    *,
    console: Console | None,
    resume: Path | None,
    quiet: bool,
    began: float | None,
    at_end: Callable[[Report], None],
) -> Iterator[Session[Config, Report]]:
    """Opens a run's folder, locked, for the block; writes down how the block ended.

    Args:
        config: the options.
        begin: makes the first report of what all reports have: status, folder, seed, options, device, versions.
        name: of the run, in its folder's name.
        packages: whose versions are reported, besides the project's and Python's.
        console, resume, quiet, began, at_end: as in `train`.

    Raises:
        InputError: the data does not exist, or the folder cannot be made, is no run's, or has another process at work in it.
    """
    began = time.perf_counter() if began is None else began
    check_data(config)
    command = "train" if isinstance(config, TrainConfig) else "search"
    known = {package.replace("-", "_"): installed_version(package) for package in packages}
    versions = {"mnist_tuner": __version__, **known, "python": platform.python_version()}
    before: dict[str, Any] = {}
    earlier: Any = None
    screen = console or Console()
    if not quiet:
        screen.print(headline(versions))
    if resume is None:
        folder = RunDirectory.create(config.output, command, name)
    else:
        folder, before = RunDirectory.open(resume)
        earlier = load_report(resume)
    try:
        folder.lock()
        report = begin(
            status="running",
            run_dir=str(folder.path),
            seed=config.seed,
            config=config.to_dict(),
            device=f"CPU ({os.cpu_count()} cores)",
            versions=versions,
        )
        folder.write_manifest(before | {"status": "running", "config": config.to_dict()} if before else report.to_dict())
    except BaseException:  # ended in its first moment: there is nothing in it
        if resume is None:
            folder.discard()
        raise
    run = Session(command, config, folder, before, earlier, report, screen, quiet, began)
    try:
        yield run
    except BaseException as error:
        run.give_up(error)
        if not isinstance(error, InputError):
            at_end(run.report)
        raise
    finally:
        run.stack.close()
        folder.unlock()
    at_end(run.report)
