"""The command line: parses, calls the runner, turns errors into exit codes. No logic."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args, get_type_hints

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


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Puts a file's options in the place of the defaults: the command line wins over it, and it over the environment."""
    if path is not None:
        from mnist_tuner.config import read_options

        command = {"runs": "list_runs"}.get(str(context.info_name), str(context.info_name))
        hints = get_type_hints(globals()[command])
        named = {"format" if name == "kind" else name: name for name in hints if name not in _NOT_IN_FILES}
        values = read_options(path, {key: _kind_of(hints[name]) for key, name in named.items()})
        context.default_map = {named[key]: value for key, value in values.items()}
        for parameter in context.command.params:
            if parameter.name in context.default_map:
                parameter.envvar = None
    return path


_NOT_IN_FILES = ("context", "config_file", "return", "runs", "model", "images")


def _kind_of(hint: Any) -> type:
    """What an option is in a file: a path is a text there."""
    return next((kind for kind in (bool, int, float) if hint is kind or kind in get_args(hint)), str)


def _runs(incomplete: str) -> list[str]:
    """Completes the folder of a run."""
    parent = Path(os.environ.get("MNIST_TUNER_OUTPUT") or "runs")
    found = sorted((str(path.parent) for path in parent.glob("*/run.json")), reverse=True)
    return [path for path in found if path.startswith(incomplete)]


def _one_of(*choices: str) -> Callable[[str], list[str]]:
    """Completes one of these."""
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file of options; the command line wins.",
        callback=_read_config,
        is_eager=True,
        show_default="none",
    ),
]
DATA = "Folder of four IDX files (.gz or not), or an .npz file."
DataOption = Annotated[
    Path | None,
    typer.Option(help=DATA, show_default="the embedded MNIST", envvar="MNIST_TUNER_DATA"),
]
ClassesOption = Annotated[
    Path | None, typer.Option(help="File of the classes' names, one a line.", show_default="classes.txt in the folder, if any")
]
OutputOption = Annotated[Path, typer.Option(help="Folder in which the runs' folders are.", envvar="MNIST_TUNER_OUTPUT")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document; the report goes to stderr.")]


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise InputError(f"--hidden is {text!r}: expected widths separated by commas, such as 100,100") from None


def _thread_count(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


_MAY_CHANGE = ("resume", "epochs", "seeds", "max_time", "profile", "quiet", "json")
"""The options that a run may be resumed with."""


@app.command(epilog="Example: mnist-tuner train --hidden 256,128 --epochs 10 --val-fraction 0.1 --early-stopping 3")
def train(
    context: typer.Context,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 5,
    batch_size: Annotated[int, typer.Option(help="Images per optimizer step.")] = 32,
    hidden: Annotated[str, typer.Option(help="The hidden layers' widths, separated by commas.")] = "100,100",
    learning_rate: Annotated[float, typer.Option(help="Adam's learning rate.")] = 0.001,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and split.")] = 0,
    seeds: Annotated[int, typer.Option(help="Trainings, with seeds from --seed on; on all cores.")] = 1,
    val_fraction: Annotated[float, typer.Option(help="Share of the training images held out for validation.")] = 0.0,
    data: DataOption = None,
    classes: ClassesOption = None,
    output: OutputOption = Path("runs"),
    threads: Annotated[
        str,
        typer.Option(help="TensorFlow's threads; auto: 2 from 5 million multiply-adds a step (256-256, batch 32) on, else 1."),
    ] = "auto",
    fast_dev_run: Annotated[bool, typer.Option("--fast-dev-run", help="One batch of everything, to try it out.")] = False,
    early_stopping: Annotated[
        int | None,
        typer.Option(help="Stop after so many epochs without a better validation loss.", show_default="never"),
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(help="Stop when it has trained this long: 90s, 10m, DD:HH:MM:SS.", show_default="no limit")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="32-true, 16-mixed or bf16-mixed.", autocompletion=_one_of("32-true", "16-mixed", "bf16-mixed"))
    ] = "32-true",
    logger: Annotated[str, typer.Option(help="What to write: csv, tensorboard or both, separated by commas.")] = "csv",
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder of a run to go on with, with its own options.", show_default="a new run", autocompletion=_runs),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Print where the time of the training went.")] = False,
    config_file: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Train the baseline, test it on the test images, and report."""
    from mnist_tuner.config import TrainConfig, check_duration
    from mnist_tuner.render.run import Terminal
    from mnist_tuner.reports.report import RunReport
    from mnist_tuner.runner import training
    from mnist_tuner.runs import to_json

    if max_time is not None:
        check_duration(max_time)
    if resume is not None:
        given = [name for name in context.params if _is_given(context, name)]
        if contradicting := [name for name in given if name not in _MAY_CHANGE]:
            option = contradicting[0].removesuffix("_file").replace("_", "-")
            raise InputError(f"--resume takes the run's own options: leave out --{option}")
        config = training.resumed_config(resume, epochs if "epochs" in given else None, seeds if "seeds" in given else None)
    else:
        config = TrainConfig(
            epochs=epochs,
            batch_size=batch_size,
            hidden=_widths(hidden),
            learning_rate=learning_rate,
            seed=seed,
            seeds=seeds,
            val_fraction=val_fraction,
            data=data,
            classes=classes,
            output=output,
            threads=_thread_count(threads),
            fast_dev_run=fast_dev_run,
            early_stopping=early_stopping,
            precision=precision,
            logger=tuple(name.strip() for name in logger.split(",")),
        )

    for option, value in (("--max-time", max_time), ("--profile", profile)):
        if config.seeds > 1 and value:
            raise InputError(f"{option} is for one training: leave it or --seeds out")

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
    strategy: Annotated[
        str,
        typer.Option(
            help="random, grid, bayesian or hyperband.", autocompletion=_one_of("random", "grid", "bayesian", "hyperband")
        ),
    ] = "random",
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
    data: DataOption = None,
    classes: ClassesOption = None,
    output: OutputOption = Path("runs"),
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a search to go on with, with its own options.", show_default="a new search", autocompletion=_runs
        ),
    ] = None,
    config_file: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Search the widths of the hidden layers, compare the winner with the baseline, and report."""
    from mnist_tuner.config import SearchConfig, check_duration
    from mnist_tuner.render.run import Terminal
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
        classes=classes,
        output=output,
        workers=_worker_count(workers),
        scheduler=scheduler,
    )
    if resume is not None:
        if config_file is not None:
            raise InputError("--resume takes the search's own options: leave out --config")
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


@app.command(epilog="Example: mnist-tuner report runs/20260102-101500-train-100-100 --html report.html")
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs or searches; several are compared.", metavar="RUN...", autocompletion=_runs),
    ],
    html: Annotated[
        Path | None, typer.Option(help="Write a page, too; its figures go into a folder beside it.", show_default="none")
    ] = None,
    config_file: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Print a run's or a search's report again, or compare several."""
    from mnist_tuner.render.run import Terminal
    from mnist_tuner.runner import reporting
    from mnist_tuner.runs import to_json

    document = reporting.report(runs, Terminal(stderr=json), html=html, quiet=quiet)
    if json:
        print(to_json(document), end="", flush=True)


@app.command(name="runs", epilog="Example: mnist-tuner runs --output runs")
def list_runs(
    output: OutputOption = Path("runs"),
    config_file: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """List the runs and searches: date, net, status, test accuracy, time."""
    from mnist_tuner.render.run import Terminal
    from mnist_tuner.runner import reporting
    from mnist_tuner.runs import to_json

    document = reporting.runs(output, Terminal(stderr=json))
    if json:
        print(to_json(document), end="", flush=True)


ModelArgument = Annotated[
    Path, typer.Argument(help="A run's folder, a .keras file, or a checkpoint.", metavar="RUN|MODEL", autocompletion=_runs)
]


@app.command(epilog="Example: mnist-tuner evaluate runs/20260102-101500-train-100-100 --data my-digits")
def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path | None,
        typer.Option(help=DATA, show_default="the run's", envvar="MNIST_TUNER_DATA"),
    ] = None,
    classes: ClassesOption = None,
    config_file: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Test a saved model, on its own test images or on others."""
    from mnist_tuner.render.run import Terminal
    from mnist_tuner.runs import to_json
    from mnist_tuner.saved.evaluate import evaluate

    document = evaluate(model, Terminal(stderr=json), data=data, classes=classes, quiet=quiet)
    if json:
        print(to_json(document), end="", flush=True)


@app.command(epilog="Example: mnist-tuner predict runs/20260102-101500-train-100-100 photo.jpg scans/ 'more/*.png'")
def predict(
    model: ModelArgument,
    images: Annotated[
        list[str], typer.Argument(help="Pictures, folders of them, patterns, or - for one on stdin.", metavar="IMAGE...")
    ],
    config_file: ConfigOption = None,
    quiet: QuietOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print a table in CSV; the report goes to stderr.")] = False,
    json: JsonOption = False,
) -> None:
    """Read digits in pictures: photos, scans, drawings."""
    from mnist_tuner.render.run import Terminal
    from mnist_tuner.runs import to_json
    from mnist_tuner.saved.predict import predict

    if csv and json:
        raise InputError("--csv and --json: give one of them")
    predictions = predict(model, images, Terminal(stderr=json or csv), quiet=quiet)
    if json:
        print(to_json(predictions.to_dict()), end="", flush=True)
    if csv:
        print(predictions.to_csv(), end="", flush=True)
    if predictions.problems:
        raise typer.Exit(2)


@app.command(epilog="Example: mnist-tuner export runs/20260102-101500-train-100-100 --format onnx --output digits.onnx")
def export(
    model: ModelArgument,
    kind: Annotated[
        str,
        typer.Option(
            "--format", help="keras, savedmodel, onnx or litert.", autocompletion=_one_of("keras", "savedmodel", "onnx", "litert")
        ),
    ] = "keras",
    output: Annotated[
        Path | None, typer.Option(help="File, or of savedmodel the folder.", show_default="beside the model")
    ] = None,
    config_file: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Write a model for other programs, preprocessing included."""
    from mnist_tuner.render.run import Terminal
    from mnist_tuner.runs import to_json
    from mnist_tuner.saved.export import export

    document = export(model, Terminal(stderr=json), kind=kind, output=output, quiet=quiet)
    if json:
        print(to_json(document), end="", flush=True)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


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
    from mnist_tuner.render.run import printable

    if isinstance(error, OSError) and error.strerror:
        return printable(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    return printable(" ".join(str(error).split()))


def _print_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """A warning in one line, without a place in the code."""
    print(f"mnist-tuner: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _fail(message: str, code: int) -> NoReturn:
    if message:  # no arguments at all: the help has been printed
        print(f"mnist-tuner: error: {message}", file=sys.stderr)
    sys.exit(code)
