"""The command line: parses, calls the runner, turns errors into exit codes. No logic."""

import inspect
import io
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from mnist_tuner._version import __version__
from mnist_tuner.config import CLASSES, DATA, OUTPUT, SPLIT, TRANSPOSE, SearchConfig, TrainConfig
from mnist_tuner.errors import InputError, RunError, printable
from mnist_tuner.options import COMMON, RUN, Option, options_of, read_options

# The base of every usage error; typer's own name for it differs between releases, its place does not.
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]


class _Flags:
    """What takes no value is shown without a type, where typer 0.29 says <bool>."""

    def get_params(self, context: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(context)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
        return parameters


class _Group(_Flags, TyperGroup): ...


class _Command(_Flags, TyperCommand): ...


app = typer.Typer(
    name="mnist-tuner",
    cls=_Group,
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


_FILE = Option("TOML file of options; the command line wins.", unset="none", panel=COMMON, name="config", hint=Path | None)


def command(app: typer.Typer, example: str, config: Callable[..., Any] | None = None) -> Callable[[Callable[..., Any]], None]:
    """Makes a command of a function.

    Its options are those that the function's parameters declare, those of a configuration, and ``--config``, a file of options:
    the command line goes before it, and it before the environment. Parameters that declare none are arguments, but for `asked`,
    the configuration's options, and `given`, those of them that stand on the command line. ``--json`` prints the document that
    the function returns.

    Args:
        app: whose command it becomes, with the function's name.
        example: what a person may type.
        config: the configuration's class.
    """

    def register(function: Callable[..., Any]) -> None:
        own, configured = options_of(function), options_of(config) if config else {}
        known = {**configured, **own}

        @wraps(function)
        def call(context: typer.Context, **values: Any) -> None:
            sources = {name: context.get_parameter_source(name) for name in known}
            given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
            if (file := values.pop("config")) is not None:
                values |= {name: value for name, value in read_options(file, known).items() if name not in given}
                if values.get("resume") is not None:
                    owner = "search" if config is SearchConfig else "run"
                    raise InputError(f"--resume takes the {owner}'s own options: leave out --config")
            values |= {name: option.read(values[name]) for name, option in known.items()}
            if config:
                values["asked"] = {name: values.pop(name) for name in configured}
                values["given"] = {name: value for name, value in values["asked"].items() if name in given}
            document = function(**values)
            if document is not None and values["json"]:
                _print_json(document)

        signature = inspect.signature(function, eval_str=True)
        arguments = [each for name, each in signature.parameters.items() if name not in (*own, "asked", "given")]
        parameters = [
            inspect.Parameter("context", _NAMED, annotation=typer.Context),
            *(each.replace(kind=_NAMED) for each in arguments),
            *map(_parameter, sorted((*configured.values(), _FILE, *own.values()), key=lambda option: option.panel == COMMON)),
        ]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        app.command(cls=_Command, epilog=f"Example: mnist-tuner {example}")(call)

    return register


_NAMED = inspect.Parameter.KEYWORD_ONLY


def _parameter(option: Option) -> inspect.Parameter:
    """A declared option, as typer understands it."""

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in option.choices if choice.startswith(incomplete)]

    told = typer.Option(
        *filter(None, (option.flag, option.short)),
        help=option.help or f"{option.allowed}.",
        show_default=option.unset or True,
        envvar=option.variable,
        autocompletion=option.complete or (complete if option.choices else None),
        rich_help_panel=option.panel,
    )
    default, hint = (option.text(option.default), str) if option.is_text else (option.default, option.hint)
    return inspect.Parameter(option.name, _NAMED, default=default, annotation=Annotated[hint, told])


def _runs(incomplete: str) -> list[str]:
    """Completes the folder of a run."""
    parent = Path(os.environ.get("MNIST_TUNER_OUTPUT") or "runs")
    found = sorted((str(path.parent) for path in parent.glob("*/run.json")), reverse=True)
    return [path for path in found if path.startswith(incomplete)]


def _print_json(document: dict[str, Any]) -> None:
    from mnist_tuner.runs import to_json

    text = to_json(document)
    _print(text if _takes(text) else to_json(document, ascii=True))


def _takes(text: str) -> bool:
    """Whether the standard output's encoding has all of a text, and it nothing that a terminal obeys."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return printable(text, kept="\n") == text


def _print(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except OSError as error:
        error.filename = "standard output"
        raise


def _check_duration(text: str | None, option: str = "--max-time") -> None:
    if text is None:
        return
    from mnist_tuner.trainer.duration import parse_duration

    try:
        parse_duration(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


Model = Annotated[
    Path, typer.Argument(help="A run's folder, a .keras file, or a checkpoint.", metavar="RUN|MODEL", autocompletion=_runs)
]
Quiet = Annotated[bool, Option("Print the result only.", short="-q", panel=COMMON)]
Json = Annotated[bool, Option("Print one JSON document; the report goes to stderr.", panel=COMMON)]


@command(app, "train --hidden 256,128 --epochs 10 --val-fraction 0.1 --early-stopping 3", TrainConfig)
def train(
    asked: dict[str, Any],
    given: dict[str, Any],
    max_time: Annotated[
        str | None, Option("Stop when it has trained this long: 90s, 10m, DD:HH:MM:SS.", unset="no limit", panel=RUN)
    ] = None,
    resume: Annotated[
        Path | None, Option("Folder of a run to go on with, with its own options.", unset="a new run", complete=_runs, panel=RUN)
    ] = None,
    profile: Annotated[bool, Option("Print where the time of the training went.", panel=RUN)] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train the baseline, test it on the test images, and report."""
    from mnist_tuner.render.run import Terminal
    from mnist_tuner.runner import training

    _check_duration(max_time)
    config = training.resumed_config(resume, given) if resume else TrainConfig(**asked)
    for option, value in (("--max-time", max_time), ("--profile", profile)):
        if config.seeds > 1 and value:
            raise InputError(f"{option} is for one training: leave it or --seeds out")
    training.train(
        config,
        Terminal(stderr=json),
        resume=resume,
        max_time=max_time,
        profile=profile,
        quiet=quiet,
        began=_began,
        at_end=lambda report: _print_json(report.to_dict()) if json else None,
    )


@command(app, "search --strategy bayesian --trials 30 --replicates 3 --max-time 10m", SearchConfig)
def search(
    asked: dict[str, Any],
    given: dict[str, Any],
    max_time: Annotated[
        str | None, Option("Begin no trial after this long: 90s, 10m, DD:HH:MM:SS.", unset="no limit", panel=RUN)
    ] = None,
    workers_wait: Annotated[
        str | None, Option("How long a cluster may be without workers: 90s, 10m, DD:HH:MM:SS.", unset="30s", panel=RUN)
    ] = None,
    resume: Annotated[
        Path | None,
        Option("Folder of a search to go on with, with its own options.", unset="a new search", complete=_runs, panel=RUN),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Search the widths of the hidden layers, compare the winner with the baseline, and report."""
    from mnist_tuner.render.run import Terminal
    from mnist_tuner.runner import searching

    _check_duration(max_time)
    _check_duration(workers_wait, "--workers-wait")
    config = searching.resumed_config(resume, given) if resume else SearchConfig(**asked)
    searching.search(
        config,
        Terminal(stderr=json),
        resume=resume,
        max_time=max_time,
        workers_wait=workers_wait,
        quiet=quiet,
        began=_began,
        at_end=lambda report: _print_json(report.to_dict()) if json else None,
    )


@command(app, "report runs/20260102-101500-train-100-100 --html report.html")
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs or searches; several are compared.", metavar="RUN...", autocompletion=_runs),
    ],
    html: Annotated[Path | None, Option("Write a page, too; its figures go into a folder beside it.", unset="none")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> dict[str, Any]:
    """Print a run's or a search's report again, or compare several."""
    from mnist_tuner.render.run import Terminal
    from mnist_tuner.runner import reporting

    return reporting.report(runs, Terminal(stderr=json), html=html, quiet=quiet)


@command(app, "runs --output runs")
def runs(output: Annotated[Path, OUTPUT] = Path("runs"), json: Json = False) -> dict[str, Any]:
    """List the runs and searches: date, net, status, test accuracy, time."""
    from mnist_tuner.render.run import Terminal
    from mnist_tuner.runner import reporting

    return reporting.runs(output, Terminal(stderr=json))


@command(app, "evaluate runs/20260102-101500-train-100-100 --data my-digits")
def evaluate(
    model: Model,
    data: Annotated[Path | None, replace(DATA, unset="the run's")] = None,
    classes: Annotated[Path | None, CLASSES] = None,
    split: Annotated[str | None, SPLIT] = None,
    transpose: Annotated[bool, TRANSPOSE] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> dict[str, Any]:
    """Test a saved model, on its own test images or on others."""
    from mnist_tuner.render.run import Terminal
    from mnist_tuner.saved.evaluate import evaluate

    return evaluate(
        model, Terminal(stderr=json), data=data, classes=classes, split=split, transpose=transpose or None, quiet=quiet
    )


@command(app, "predict runs/20260102-101500-train-100-100 photo.jpg scans/ 'more/*.png'")
def predict(
    model: Model,
    images: Annotated[
        list[str], typer.Argument(help="Pictures, folders of them, patterns, or - for one on stdin.", metavar="IMAGE...")
    ],
    quiet: Quiet = False,
    csv: Annotated[bool, Option("Print a table in CSV; the report goes to stderr.")] = False,
    json: Json = False,
) -> None:
    """Read digits in pictures: photos, scans, drawings."""
    from mnist_tuner.render.run import Terminal
    from mnist_tuner.saved.predict import predict

    if csv and json:
        raise InputError("--csv and --json: give one of them")
    predictions = predict(model, images, Terminal(stderr=json or csv), quiet=quiet)
    if json:
        _print_json(predictions.to_dict())
    if csv:
        _print(predictions.to_csv())
    if predictions.problems:
        raise typer.Exit(2)


@command(app, "export runs/20260102-101500-train-100-100 --format onnx --output digits.onnx")
def export(
    model: Model,
    format: Annotated[str, Option(choices=("keras", "savedmodel", "onnx", "litert"))] = "keras",
    output: Annotated[Path | None, Option("File, or of savedmodel the folder.", unset="beside the model")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> dict[str, Any]:
    """Write a model for other programs, preprocessing included."""
    from mnist_tuner.render.run import Terminal
    from mnist_tuner.saved.export import export

    return export(model, Terminal(stderr=json), kind=format, output=output, quiet=quiet)


_began = time.perf_counter()


def main() -> NoReturn:
    """Runs the command line and exits: 0 done, 2 bad input, 1 a failure, 130 interrupted."""
    warnings.showwarning = _print_warning
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may have what the terminal's encoding has not
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except _UsageProblem as error:
        _fail(printable(error.format_message()), 2)  # type: ignore[attr-defined]
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # the reader has gone (``| head``), for which typer has another code
            _let_go()
            sys.exit(130)
        raise
    except BrokenPipeError:
        _let_go()
        sys.exit(130)
    except (InputError, OSError) as error:
        _fail(_one_line(error), 2)
    except (ArithmeticError, MemoryError, RunError) as error:
        _fail(_one_line(error) or "the memory is full", 1)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    finally:
        exec("")  # interrupted in the exec of a text, as imports do it, Python would end with -2: the next exec makes good
    sys.exit(code or 0)


def _interrupt(number: int, frame: object) -> None:
    """To be ended is to be interrupted, also where Ctrl-C is ignored, as in the background of a script."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return printable(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    return printable(" ".join(str(error).split()))


def _print_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """A warning in one line, without a place in the code."""
    print(f"mnist-tuner: warning: {printable(' '.join(str(message).split()))}", file=sys.stderr)


def _let_go() -> None:
    """What a stream has not taken by now it will not take at the process's end either."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except AttributeError:  # there is none
            pass


def _fail(message: str, code: int) -> NoReturn:
    _let_go()
    if message:  # no arguments at all: the help has been printed
        print(f"mnist-tuner: error: {message}", file=sys.stderr)
    sys.exit(code)
