"""The command line: parses, calls the runner, turns errors into exit codes. No logic."""

from __future__ import annotations

import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from mnist_tuner._version import __version__
from mnist_tuner.errors import InputError, RunError

# The base of every usage error; typer's own name for it differs between releases, its place does not.
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="mnist-tuner",
    help="Train, tune and judge a small network: fast, and with honest numbers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mnist-tuner {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train, tune and judge a small network: fast, and with honest numbers."""


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise InputError(f"--hidden is {text!r}: expected widths separated by commas, such as 100,100") from None


_MAY_CHANGE = ("resume", "epochs", "max_time", "profile", "quiet", "json")
"""The options that a run may be resumed with."""


@app.command(epilog="Example: mnist-tuner train --hidden 256,128 --epochs 10 --val-fraction 0.1 --early-stopping 3")
def train(
    context: typer.Context,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 5,
    batch_size: Annotated[int, typer.Option(help="Images per optimizer step.")] = 32,
    hidden: Annotated[str, typer.Option(help="The hidden layers' widths, separated by commas.")] = "100,100",
    learning_rate: Annotated[float, typer.Option(help="Adam's learning rate.")] = 0.001,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and split.")] = 0,
    val_fraction: Annotated[float, typer.Option(help="Share of the training images held out for validation.")] = 0.0,
    data: Annotated[
        Path | None, typer.Option(help="Folder of four IDX files (.gz or not).", show_default="the embedded MNIST")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder in which the run's folder is made.")] = Path("runs"),
    threads: Annotated[int, typer.Option(help="TensorFlow's threads; more than 1 pays for wide nets.")] = 1,
    fast_dev_run: Annotated[bool, typer.Option("--fast-dev-run", help="One batch of everything, to try it out.")] = False,
    early_stopping: Annotated[
        int | None,
        typer.Option(help="Stop after so many epochs without a better validation loss.", show_default="never"),
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(help="Stop when it has trained this long: 90s, 10m, DD:HH:MM:SS.", show_default="no limit")
    ] = None,
    precision: Annotated[str, typer.Option(help="32-true, 16-mixed or bf16-mixed.")] = "32-true",
    logger: Annotated[str, typer.Option(help="What to write: csv, tensorboard or both, separated by commas.")] = "csv",
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a run to go on with, with its own options.", show_default="a new run")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Print where the time of the training went.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document; the report goes to stderr.")] = False,
) -> None:
    """Train the baseline, test it on the test images, and report."""
    from mnist_tuner.config import TrainConfig, check_duration
    from mnist_tuner.reports.console import Terminal
    from mnist_tuner.reports.report import RunReport
    from mnist_tuner.runner import training
    from mnist_tuner.runs import to_json

    if max_time is not None:
        check_duration(max_time)
    if resume is not None:
        given = [name for name in context.params if _is_given(context, name)]
        if contradicting := [name for name in given if name not in _MAY_CHANGE]:
            raise InputError(f"--resume takes the run's own options: leave out --{contradicting[0].replace('_', '-')}")
        config = training.resumed_config(resume, epochs if "epochs" in given else None)
    else:
        config = TrainConfig(
            epochs=epochs,
            batch_size=batch_size,
            hidden=_widths(hidden),
            learning_rate=learning_rate,
            seed=seed,
            val_fraction=val_fraction,
            data=data,
            output=output,
            threads=threads,
            fast_dev_run=fast_dev_run,
            early_stopping=early_stopping,
            precision=precision,
            logger=tuple(name.strip() for name in logger.split(",")),
        )

    def print_document(report: RunReport) -> None:
        if json:
            print(to_json(report.to_dict()), end="", flush=True)

    training.train(
        config,
        Terminal(stderr=json),
        resume=resume,
        max_time=max_time,
        profile=profile,
        quiet=quiet,
        began=_began,
        at_end=print_document,
    )


def _width_range(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(":"))
    except ValueError:
        raise InputError(f"--widths is {text!r}: expected least:greatest:step, such as 32:512:32") from None


def _worker_count(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--workers is {text!r}: expected auto, or a number of processes such as 2, or 0") from None


@app.command(epilog="Example: mnist-tuner search --strategy bayesian --trials 30 --replicates 3 --max-time 10m")
def search(
    context: typer.Context,
    strategy: Annotated[str, typer.Option(help="random, grid, bayesian or hyperband.")] = "random",
    trials: Annotated[
        int | None, typer.Option(help="At most so many trials.", show_default="16; grid and hyperband: all")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images; Hyperband's most.")] = 5,
    replicates: Annotated[int, typer.Option(help="Trainings of each trial, each with a seed of its own.")] = 3,
    widths: Annotated[str, typer.Option(help="Widths of the hidden layers, least:greatest:step.")] = "32:512:32",
    seed: Annotated[int, typer.Option(help="Seed of all that is random.")] = 0,
    final_seeds: Annotated[int, typer.Option(help="Trainings of winner and baseline in the comparison.")] = 5,
    workers: Annotated[str, typer.Option(help="Processes; auto: one per core; 0: none, for debugging.")] = "auto",
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask cluster, such as tcp://host:8786.", show_default="this machine")
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(help="Begin no trial after this long: 90s, 10m, DD:HH:MM:SS.", show_default="no limit")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of four IDX files (.gz or not).", show_default="the embedded MNIST")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder in which the search's folder is made.")] = Path("runs"),
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a search to go on with, with its own options.", show_default="a new search")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document; the report goes to stderr.")] = False,
) -> None:
    """Search the widths of the hidden layers, compare the winner with the baseline, and report."""
    from mnist_tuner.config import SearchConfig, check_duration
    from mnist_tuner.reports.console import Terminal
    from mnist_tuner.reports.search import SearchReport
    from mnist_tuner.runner import searching
    from mnist_tuner.runs import to_json

    if max_time is not None:
        check_duration(max_time)
    config = SearchConfig(
        strategy=strategy,
        trials=trials,
        epochs=epochs,
        replicates=replicates,
        widths=_width_range(widths),
        seed=seed,
        final_seeds=final_seeds,
        data=data,
        output=output,
        workers=_worker_count(workers),
        scheduler=scheduler,
    )
    if resume is not None:
        given = [name for name in context.params if _is_given(context, name)]
        config = searching.resumed_config(resume, config, given)

    def print_document(report: SearchReport) -> None:
        if json:
            print(to_json(report.to_dict()), end="", flush=True)

    searching.search(
        config,
        Terminal(stderr=json),
        resume=resume,
        max_time=max_time,
        quiet=quiet,
        began=_began,
        at_end=print_document,
    )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


_began = time.perf_counter()


def main() -> NoReturn:
    """Runs the command line and exits: 0 done, 2 bad input, 1 a failure, 130 interrupted."""
    warnings.showwarning = _print_warning
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False)
    except _UsageProblem as error:
        _fail(error.format_message(), 2)  # type: ignore[attr-defined]
    except (InputError, OSError) as error:
        _fail(_one_line(error), 2)
    except (ArithmeticError, MemoryError, RunError) as error:
        _fail(_one_line(error) or "the memory is full", 1)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    sys.exit(code or 0)


def _interrupt(number: int, frame: object) -> None:
    """To be ended is to be interrupted, also where Ctrl-C is ignored, as in the background of a script."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _print_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """A warning in one line, without a place in the code."""
    print(f"mnist-tuner: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _fail(message: str, code: int) -> NoReturn:
    if message:  # no arguments at all: the help has been printed
        print(f"mnist-tuner: error: {message}", file=sys.stderr)
    sys.exit(code)
