"""Options from the command line, the environment and TOML files; what a terminal is like; completion; help."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import typer
from PIL import Image, ImageDraw
from rich.cells import cell_len

from mnist_tuner.cli import Json, command
from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.errors import InputError
from mnist_tuner.options import RUN, Option, options_of, read_options, write_options
from mnist_tuner.runner import train, training
from mnist_tuner.runner.trainings import training_key
from tests.support.called import Made, called, refused, write_shades
from tests.support.commands import DEADLINE, environment, on_a_terminal

COMMANDS = ("train", "search", "report", "runs", "evaluate", "predict", "export")
ODD = 'a "quoted" \\ back\tslash, # no comment, = [é] \N{SNOWMAN}'
"""A name of a folder with all that TOML might stumble over."""
SMALL_SEARCH = ["--trials", 1, "--epochs", 1, "--replicates", 1, "--final-seeds", 1, "--workers", 0, "--widths", "8:16:8"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Finished runs."""
    return Made(tmp_path_factory)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "options.toml"


def trained(*arguments: str | Path | int, **changes: str) -> dict[str, Any]:
    """The document of a training that is over at once."""
    done = called("train", "--fast-dev-run", "--json", *arguments, **changes)
    document: dict[str, Any] = json.loads(done.out)
    return document


def predictions(folder: Path) -> Mapping[str, Any]:
    with np.load(folder / "test_predictions.npz") as arrays:
        return {name: arrays[name] for name in arrays}


def check_same(first: Path, second: Path) -> None:
    """Two runs are different ones with the same results."""
    assert first != second
    before, after = predictions(first), predictions(second)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.slow
def test_a_training_does_the_same_again_from_its_own_file(made: Made, tmp_path: Path) -> None:
    data = tmp_path / ODD
    data.mkdir()
    write_shades(data / "data.npz")
    names = tmp_path / f"names {ODD}.txt"
    names.write_text("one\ntwo\nthree\n")
    options = ["--hidden", "12,7", "--epochs", 3, "--seed", 5, "--batch-size", 16, "--learning-rate", "0.0123", "--val-fraction"]
    more = [0.25, "--early-stopping", 2, "--precision", "bf16-mixed", "--logger", "csv,tensorboard", "--classes", names]
    output = tmp_path / f"runs {ODD}"
    first = json.loads(called("train", "--data", data, *options, *more, "--output", output, "--json").out)
    kept = Path(first["run_dir"]) / "config.toml"
    second = json.loads(called("train", "--config", kept, "--json").out)
    assert first["config"] == second["config"]
    assert first["config"]["hidden"] == [12, 7]
    assert Path(second["run_dir"]).parent == output
    check_same(Path(first["run_dir"]), Path(second["run_dir"]))
    assert (Path(second["run_dir"]) / "config.toml").read_text() == kept.read_text()
    assert "--seed is -1" in refused("train", "--config", kept, "--seed", -1)


@pytest.mark.slow
def test_a_search_does_the_same_again_from_its_own_file(made: Made, tmp_path: Path) -> None:
    options = ["--strategy", "grid", "--seed", 3, *SMALL_SEARCH, "--data", made.shades(), "--output", tmp_path / "runs"]
    first = json.loads(called("search", *options, "--json").out)
    kept = Path(first["run_dir"]) / "config.toml"
    second = json.loads(called("search", "--config", kept, "--json").out)
    assert first["config"] == second["config"]
    assert first["config"]["widths"] == [8, 16, 8]
    check_same(Path(first["run_dir"]), Path(second["run_dir"]))
    assert [trial["units"] for trial in first["trials"]] == [trial["units"] for trial in second["trials"]]
    assert "--strategy is 'none'" in refused("search", "--config", kept, "--strategy", "none")


@pytest.mark.slow
def test_a_run_that_was_called_from_python_writes_the_same_file(made: Made, tmp_path: Path) -> None:
    data = made.shades()
    config = TrainConfig(hidden=(8,), epochs=1, data=data, output=tmp_path, logger=("csv",))
    folder = Path(train(config, quiet=True).run_dir)
    values = tomllib.loads((folder / "config.toml").read_text())
    assert TrainConfig.from_dict(values) == replace(config, data=data.resolve())


@pytest.mark.parametrize("text", [ODD, "line\nbreak", "delete\x7f", "bell\x07", "\\", '"""', "\N{SNOWMAN}", ""])
def test_any_text_comes_back_from_a_file(text: str, file: Path) -> None:
    file.write_text(write_options("train", {"name": text, "absent": None, "list": [1, 2], "small": 1e-12, "large": 1e22}))
    found = tomllib.loads(file.read_text())
    assert found == {"name": text, "list": [1, 2], "small": 1e-12, "large": 1e22}
    kinds = {"name": str, "small": float, "large": float}
    known = {name: Option(name=name, hint=hint) for name, hint in kinds.items()}
    assert read_options(file, {**known, "list": Option(name="list", separator=",")})["name"] == text


def test_a_list_is_refused_where_one_text_is_wanted(file: Path) -> None:
    file.write_text('data = ["a", "b"]\n')
    with pytest.raises(InputError, match=r"line 1: data is \['a', 'b'\]: expected a text"):
        read_options(file, options_of(TrainConfig))


@pytest.mark.slow
def test_the_command_line_goes_before_the_file_that_before_the_environment_and_that_before_the_default(
    made: Made, file: Path, tmp_path: Path
) -> None:
    for name in ("one", "two", "three"):
        write_shades(tmp_path / f"{name}.npz")
    one, two, three = (tmp_path / f"{name}.npz" for name in ("one", "two", "three"))
    lines = [f"data = {json.dumps(str(one))}", f"output = {json.dumps(str(tmp_path / 'file'))}", "hidden = [9]", "epochs = 7"]
    file.write_text("\n".join(lines))
    found = trained("--config", file)
    assert (found["data"]["name"], found["config"]["hidden"], found["config"]["epochs"]) == ("one", [9], 7)
    assert Path(found["run_dir"]).parent == tmp_path / "file"
    assert found["config"]["batch_size"] == 32  # of which nothing says anything
    surroundings = {"MNIST_TUNER_DATA": str(two), "MNIST_TUNER_OUTPUT": str(tmp_path / "environment")}
    found = trained("--config", file, **surroundings)
    assert (found["data"]["name"], found["config"]["hidden"]) == ("one", [9])
    assert Path(found["run_dir"]).parent == tmp_path / "file"
    found = trained("--epochs", 1, **surroundings)
    assert found["data"]["name"] == "two"
    assert Path(found["run_dir"]).parent == tmp_path / "environment"
    found = trained("--data", three, "--config", file, "--hidden", 11, "--output", tmp_path / "line", **surroundings)
    assert (found["data"]["name"], found["config"]["hidden"]) == ("three", [11])
    assert Path(found["run_dir"]).parent == tmp_path / "line"


@pytest.mark.slow
def test_runs_are_listed_where_the_environment_or_a_file_says(made: Made, file: Path) -> None:
    output = made.named().parent
    for done in (
        called("runs", "--json", MNIST_TUNER_OUTPUT=str(output)),
        called("runs", "--json", "--output", output, MNIST_TUNER_OUTPUT="/nowhere"),
    ):
        assert made.named().name in done.out
    file.write_text(f"output = {json.dumps(str(output))}\njson = true\n")
    document = json.loads(called("runs", "--config", file).out)
    assert made.named().name in json.dumps(document)


@pytest.mark.slow
def test_an_empty_variable_is_as_none(made: Made, tmp_path: Path) -> None:
    found = trained("--output", tmp_path, MNIST_TUNER_DATA="", MNIST_TUNER_OUTPUT="")
    assert found["data"]["name"] == "MNIST"


@pytest.mark.slow
def test_other_commands_take_files_too(made: Made, file: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("left\nmiddle\nright\n")
    file.write_text(f"classes = {json.dumps(str(names))}\njson = true")
    document = json.loads(called("evaluate", "--config", file, made.named()).out)
    assert document["class_names"] == ["left", "middle", "right"]
    file.write_text(f'format = "keras"\noutput = {json.dumps(str(tmp_path / "out.keras"))}\nquiet = true')
    assert called("export", made.named(), "--config", file).out == f"{tmp_path / 'out.keras'}\n"
    file.write_text("quiet = true")
    assert len(called("report", made.named(), "--config", file).out.splitlines()) == 1
    Image.new("L", (30, 30)).save(tmp_path / "black.png")
    file.write_text("csv = true")
    assert called("predict", made.named(), tmp_path / "black.png", "--config", file).out.startswith("file,label,name")


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        'batch-size = 17\nval-fraction = 0.5\nlearning-rate = 1\nhidden = "9,8"\nlogger = "csv,tensorboard"',
        "batch_size = 17\nval_fraction = 0.5\nlearning_rate = 1.0\nhidden = [9, 8]\nlogger = ['csv', 'tensorboard']",
        '#\n\n"batch-size" = 17\n"val_fraction" = 5e-1\nlearning_rate = 1\nhidden = ["9", "8"]\nlogger = [\n"csv","tensorboard"]',
    ],
)
def test_names_have_hyphens_or_underscores_and_lists_are_as_on_the_command_line(
    text: str, made: Made, file: Path, tmp_path: Path
) -> None:
    file.write_text(text)
    config = trained("--config", file, "--data", made.shades(), "--output", tmp_path)["config"]
    assert (config["batch_size"], config["val_fraction"], config["learning_rate"]) == (17, 0.5, 1.0)
    assert (config["hidden"], config["logger"]) == ([9, 8], ["csv", "tensorboard"])


def test_a_search_takes_its_widths_as_a_list_or_as_on_the_command_line(file: Path) -> None:
    for widths in ("[16, 8, 4]", '"16:8:4"', "['16', '8', '4']"):
        file.write_text(f"workers = 0\nwidths = {widths}")
        assert "--widths is 16:8:4: the greatest width is below the least" in refused("search", "--config", file)
    file.write_text("workers = -1\nwidths = [8, 16, 8]")
    assert "--workers is -1" in refused("search", "--config", file)


@pytest.mark.slow
def test_threads_are_a_number_or_auto(file: Path, tmp_path: Path) -> None:
    write_shades(tmp_path / "data.npz")
    for text, wanted, taken in (("2", 2, 2), ('"2"', 2, 2), ('"auto"', "auto", 1)):
        file.write_text(f"threads = {text}")
        document = trained("--config", file, "--data", tmp_path / "data.npz", "--output", tmp_path / "runs")
        assert (document["config"]["threads"], document["threads"]) == (wanted, taken)
    file.write_text('threads = "many"')
    assert "--threads is 'many': expected auto, or 1 to 256" in refused("train", "--config", file)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("epochs = 2\nepoch = 3", 2, "epoch is no option of this command: expected one of "),
        ("# config\n\n[train]\nepochs = 2", 3, "train is no option of this command"),
        ("epochs = 2\ntrain.epochs = 3", 2, "train is no option"),
        ("epochs = 2\nwidths = [1, 2, 3]", 2, "widths is no option"),
        ("epochs = 2\nconfig = 'other.toml'", 2, "config is no option"),
        ("epochs = true", 1, "epochs is True: expected an integer"),
        ("seed = 1\nepochs = 'five'", 2, "epochs is 'five': expected an integer"),
        ("seed = 1\n\n\nepochs = 2.5", 4, "epochs is 2.5: expected an integer"),
        ("learning-rate = true", 1, "learning-rate is True: expected a number"),
        ("learning_rate = '0.1'", 1, "learning_rate is '0.1': expected a number"),
        ("fast-dev-run = 1", 1, "fast-dev-run is 1: expected true or false"),
        ("quiet = 'yes'", 1, "quiet is 'yes': expected true or false"),
        ("seed = 1\nhidden = [[100], [100]]", 2, "hidden is [[100], [100]]: expected a text, or a list"),
        ("hidden = [true]", 1, "hidden is [True]"),
        ("hidden = []", 1, "hidden is []"),
        ("hidden = 2.5", 1, "hidden is 2.5"),
        ("data = true", 1, "data is True: expected a text"),
        ("data = 1979-05-27", 1, "data is datetime.date(1979, 5, 27)"),
        ("seed = 1\n  hidden  = {a = 1}", 2, "hidden is {'a': 1}"),
        ("seed = 1\n'epochs' = true", 2, "epochs is True"),
        ("seed = 1\nepochs = ", 2, "not TOML"),
        ("seed = 1\nseed = 2", 2, "not TOML"),
        ("epochs 2", 1, "not TOML"),
        ("epochs = 2 3", 1, "not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(text: str, line: int, message: str, file: Path) -> None:
    file.write_text(text)
    said = refused("train", "--config", file)
    assert message in said
    assert str(file) in said
    assert f"line {line}" in said


@pytest.mark.parametrize("text", ["epochs = 0", "hidden = 'wide'", "logger = ['paper']", "val-fraction = nan"])
def test_a_value_out_of_its_range_is_refused_as_on_the_command_line(text: str, file: Path) -> None:
    file.write_text(text)
    assert f"--{text.partition(' ')[0]}" in refused("train", "--config", file)


def test_a_file_that_cannot_be_read_is_refused_in_one_line(file: Path, tmp_path: Path) -> None:
    assert f"--config {file}: No such file" in refused("train", "--config", file)
    assert f"--config {tmp_path}: Is a directory" in refused("runs", "--config", tmp_path)
    for content in (b"\xff\xfe", b"epochs = 1\x00", b"a = " + b"[" * 100_000, b"\x89PNG\r\n"):
        file.write_bytes(content)
        assert f"--config {file}: not TOML" in refused("train", "--config", file)


def test_one_option_under_two_names_is_refused(file: Path) -> None:
    """Which one counts, nobody could tell."""
    file.write_text("batch-size = 16\nbatch_size = 64")
    said = refused("train", "--config", file, "--fast-dev-run", "--output", file.parent)
    assert "line 2" in said
    assert "batch_size" in said


@pytest.mark.slow
def test_a_run_or_a_search_goes_on_with_its_own_options_and_takes_no_file(made: Made) -> None:
    kept = made.digits() / "config.toml"
    assert "leave out --config" in refused("train", "--resume", made.digits(), "--config", kept)
    assert "leave out --config" in refused("search", "--resume", made.digits(), "--config", file_of_a_search(kept.parent))


def file_of_a_search(folder: Path) -> Path:
    """A file of one option of search."""
    path = folder / "search.toml"
    path.write_text("trials = 2")
    return path


# What a terminal is like.


COLOURS = re.compile(r"\x1b\[[0-9;]*(38|48|3[0-7]|4[0-7]|9[0-7])[;m]")


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of something like a seven."""
    path = tmp_path_factory.mktemp("seven") / "seven.png"
    picture = Image.new("L", (140, 140), 255)
    ImageDraw.Draw(picture).line([(40, 30), (100, 30), (60, 110)], fill=0, width=12, joint="curve")
    picture.save(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("command", ["report", "predict"])
def test_a_terminal_without_colours_gets_none(command: str, made: Made, seven: Path) -> None:
    arguments = [command, made.named(), *([seven] if command == "predict" else [])]
    coloured = called(*arguments, COLUMNS="90", FORCE_COLOR="1", COLORTERM="truecolor").out
    assert COLOURS.search(coloured)  # else the rest would say little
    plain = called(*arguments, COLUMNS="90", FORCE_COLOR="1", NO_COLOR="1").out
    assert not COLOURS.search(plain)
    dumb = on_a_terminal(*arguments, columns=90, TERM="dumb").replace("\r\n", "\n")
    assert "\x1b" not in dumb
    if command == "predict":
        assert "\N{UPPER HALF BLOCK}" in coloured
        for text in (plain, dumb):
            assert "\N{UPPER HALF BLOCK}" not in text
            assert re.search(r"[-:=+*#%@]{2}", text)


@pytest.mark.slow
def test_no_line_is_longer_than_the_terminal(made: Made, seven: Path) -> None:
    """But for the paths, which stay in one piece so that they can be copied."""
    folder = str(made.named())
    for arguments in (["report", folder], ["evaluate", folder], ["predict", folder, seven], ["runs", "--output", folder]):
        done = called(*arguments, COLUMNS="60")
        assert "\x1b" not in done.out  # it is no terminal
        assert [line for line in done.out.splitlines() if cell_len(line.rstrip()) > 60 and "/" not in line] == []
        assert done.out.count("\n") > 3 or arguments[0] == "runs"


# Help and completion.


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_has_an_example_that_it_takes(command: str) -> None:
    shown = called(command, "--help", COLUMNS="200").out
    (example,) = re.findall(r"Example: (mnist-tuner .*?)\s*$", shown, re.MULTILINE)
    words = example.split()
    assert words[1] == command
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", shown.replace(example, ""))
    assert "--config" in shown


@pytest.mark.slow
def test_the_help_names_the_variables() -> None:
    shown = called("train", "--help", COLUMNS="200").out
    assert "MNIST_TUNER_DATA" in shown
    assert "MNIST_TUNER_OUTPUT" in shown


SCRIPT = Path(sys.executable).with_name("mnist-tuner")


def completed(line: str, shell: str = "bash", **changes: str) -> list[str]:
    """What a shell is offered for the last word of a line."""
    words = line.split(" ")
    if shell == "bash":
        protocol = {"_MNIST_TUNER_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    else:
        protocol = {
            "_MNIST_TUNER_COMPLETE": f"complete_{shell}",
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
    done = subprocess.run(
        [SCRIPT], env=environment(**protocol, **changes), capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def completed_all(*lines: str, **changes: str) -> list[list[str]]:
    """The same of several lines, in this process: as often as one likes."""
    found = []
    for line in lines:
        protocol = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        done = called(_MNIST_TUNER_COMPLETE="complete_bash", **protocol, **changes)
        found.append(done.out.split("\n")[:-1] if done.out.strip() else [])
    return found


@pytest.mark.slow
def test_what_the_shells_are_told_to_do_is_what_completes() -> None:
    shown = subprocess.run(
        [SCRIPT, "--show-completion", "bash"], env=environment(), capture_output=True, text=True, check=True
    ).stdout
    assert "_MNIST_TUNER_COMPLETE=complete_bash" in shown
    assert "COMP_WORDS" in shown
    assert sorted(completed("mnist-tuner ")) == sorted(COMMANDS)
    assert completed("mnist-tuner export --format o") == ["onnx"]
    for shell in ("zsh", "fish"):
        assert any("onnx" in line for line in completed("mnist-tuner export --format o", shell))


@pytest.mark.slow
def test_commands_options_and_choices_are_completed() -> None:
    lines = {
        "mnist-tuner pre": ["predict"],
        "mnist-tuner train --hid": ["--hidden"],
        "mnist-tuner train --precision b": ["bf16-mixed"],
        "mnist-tuner search --strategy ": ["random", "grid", "bayesian", "hyperband"],
        "mnist-tuner search --strategy h": ["hyperband"],
        "mnist-tuner export --format ": ["keras", "savedmodel", "onnx", "litert"],
        "mnist-tuner evaluate --cl": ["--classes"],
    }
    assert completed_all(*lines) == list(lines.values())


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "predict", "export", "report", "train --resume", "search --resume"])
def test_folders_of_runs_are_completed(command: str, tmp_path: Path) -> None:
    output = tmp_path / "my_runs"
    for name in ("20260101-train", "20260102-search", "no run"):
        (output / name).mkdir(parents=True)
        if name != "no run":
            (output / name / "run.json").write_text("{}")
    first, second = str(output / "20260101-train"), str(output / "20260102-search")
    for typed, wanted in (("", [second, first]), (f"{output}/20260101", [first]), ("elsewhere", [])):
        (found,) = completed_all(f"mnist-tuner {command} {typed}", MNIST_TUNER_OUTPUT=str(output))
        assert found == wanted


@pytest.mark.slow
def test_completion_works_before_there_are_runs_and_beside_a_wrong_file(tmp_path: Path) -> None:
    none, formats = completed_all(
        "mnist-tuner evaluate ",
        f"mnist-tuner export --config {tmp_path / 'none.toml'} --format k",
        MNIST_TUNER_OUTPUT=str(tmp_path / "nowhere"),
    )
    assert none == []
    assert formats == ["keras"]


def test_reading_a_file_needs_no_command(file: Path) -> None:
    file.write_text("a-b = 1\nc = [1, 2]\nwidths = [1, 2]\nd = 1\ne = 'x'\nf = false")
    kinds = {"a_b": int, "c": tuple[int, ...], "widths": tuple[int, ...], "d": float, "e": str, "f": bool}
    separators = {"c": ",", "widths": ":"}
    known = {name: Option(name=name, hint=hint, separator=separators.get(name, "")) for name, hint in kinds.items()}
    assert read_options(file, known) == {"a_b": 1, "c": "1,2", "widths": "1:2", "d": 1, "e": "x", "f": False}
    with pytest.raises(InputError, match="line 2"):
        read_options(file, {"a_b": known["a_b"]})


# One more option, declared once.


@dataclass(frozen=True)
class Decaying(TrainConfig):
    """The options of train, and two more."""

    weight_decay: Annotated[float, Option("How fast weights fade.", (0.0, 0.5))] = 0.0
    pause: Annotated[int, Option("Seconds between epochs.", (0, 60), panel=RUN, shapes_result=False, may_change=True)] = 0


def decaying(*arguments: str | Path) -> Decaying:
    """The configuration that a command line makes."""
    app, made = typer.Typer(), []

    @command(app, "fade --weight-decay 0.1", Decaying)
    def fade(asked: dict[str, Any], given: dict[str, Any], json: Json = False) -> None:
        """Fade."""
        made.append(Decaying(**asked))

    app([str(argument) for argument in arguments], standalone_mode=False)
    (config,) = made or [Decaying()]
    return config


def test_one_more_option_is_on_the_command_line_and_in_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    decaying("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"--weight-decay <?float>? .*How fast weights fade. *\[default: 0.0\]", shown, re.IGNORECASE)
    assert re.search(r"How it runs.*--pause", shown)
    assert "weight_decay: How fast weights fade." in (Decaying.__doc__ or "")
    assert decaying("--weight-decay", "0.25", "--hidden", "7").weight_decay == 0.25
    with pytest.raises(InputError, match=r"--weight-decay is 0\.6: expected 0 to 0\.5"):
        decaying("--weight-decay", "0.6")


def test_what_takes_no_value_is_shown_without_a_type() -> None:
    for arguments in ([], ["train"], ["predict"]):
        assert "bool" not in called(*arguments, "--help", COLUMNS="100").out.lower()


def test_one_more_option_is_in_files_and_documents(file: Path) -> None:
    config = Decaying(weight_decay=0.1, hidden=(7,))
    assert config.to_dict() == TrainConfig(hidden=(7,)).to_dict() | {"weight_decay": 0.1, "pause": 0}
    assert Decaying.from_dict(json.loads(json.dumps(config.to_dict()))) == replace(config, output=Path("runs"))
    assert config.command == "mnist-tuner train --hidden 7 --weight-decay 0.1"
    file.write_text(write_options("train", config.to_dict()))
    assert decaying("--config", file) == config
    assert decaying("--config", file, "--weight-decay", "0.2").weight_decay == 0.2
    file.write_text("seed = 1\nweight-decay = 'much'")
    with pytest.raises(InputError, match="line 2: weight-decay is 'much': expected a number"):
        decaying("--config", file)
    with pytest.raises(InputError, match="the configuration's weight_decay is 'much': expected float"):
        Decaying.from_dict({"weight_decay": "much"})


def test_one_more_option_is_kept_when_a_run_goes_on_and_tells_trainings_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "TrainConfig", Decaying)
    manifest = {"schema_version": 1, "command": "train", "config": Decaying(weight_decay=0.1).to_dict()}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="--resume takes the run's own options: leave out --weight-decay"):
        training.resumed_config(tmp_path, {"weight_decay": 0.1})
    resumed = training.resumed_config(tmp_path, {"pause": 2})
    assert resumed == Decaying(weight_decay=0.1, pause=2)
    assert training_key(resumed) == training_key(Decaying(weight_decay=0.1)) != training_key(Decaying())
    assert json.loads(training_key(TrainConfig())).keys() == {
        *("batch_size", "early_stopping", "epochs", "fast_dev_run", "hidden", "learning_rate", "precision", "seed"),
        "val_fraction",
    }


def test_a_search_tells_which_options_it_may_go_on_with() -> None:
    assert [name for name, option in options_of(TrainConfig).items() if option.may_change] == ["epochs", "seeds"]
    assert [name for name, option in options_of(SearchConfig).items() if option.may_change] == [
        *("trials", "trial_time", "workers", "scheduler")
    ]
