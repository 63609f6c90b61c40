"""The command line: parses, calls the runner, turns errors into exit codes. No logic."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from mnist_tuner._version import __version__
from mnist_tuner.errors import InputError

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


@app.command(epilog="Example: mnist-tuner train --hidden 256,128 --epochs 10 --val-fraction 0.1")
def train(
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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document; the report goes to stderr.")] = False,
) -> None:
    """Train the baseline, test it on the test images, and report."""
    from mnist_tuner import runner
    from mnist_tuner.reports.console import Terminal
    from mnist_tuner.reports.report import RunReport
    from mnist_tuner.runs import to_json

    config = runner.TrainConfig(
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
    )

    def print_document(report: RunReport) -> None:
        if json:
            print(to_json(report.to_dict()), end="", flush=True)

    runner.train(config, Terminal(stderr=json), quiet=quiet, began=_began, at_end=print_document)


_began = time.perf_counter()


def main() -> NoReturn:
    """Runs the command line and exits: 0 done, 2 bad input, 1 a failure, 130 interrupted."""
    try:
        code = app(standalone_mode=False)
    except _UsageProblem as error:
        _fail(error.format_message(), 2)  # type: ignore[attr-defined]
    except (InputError, OSError) as error:
        _fail(_one_line(error), 2)
    except (ArithmeticError, MemoryError) as error:
        _fail(_one_line(error) or "the memory is full", 1)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    sys.exit(code or 0)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _fail(message: str, code: int) -> NoReturn:
    if message:  # no arguments at all: the help has been printed
        print(f"mnist-tuner: error: {message}", file=sys.stderr)
    sys.exit(code)
