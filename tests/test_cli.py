"""The command line: bad input, exit codes, interruption."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mnist_tuner import cli
from mnist_tuner._version import __version__
from mnist_tuner.startup import compile_cache
from mnist_tuner.trainer import read_checkpoint
from tests.support import samples
from tests.support.called import called, refused
from tests.support.commands import DEADLINE, ROOT, environment, mnist_tuner, tried
from tests.support.samples import written


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An empty folder for the runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def launched(folder: Path, output: Path) -> subprocess.Popen[str]:
    """A long training that has just begun."""
    options = ["--epochs", "100000", "--data", str(folder), "--output", str(output)]
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "mnist_tuner", "train", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def test_version_and_help() -> None:
    assert mnist_tuner("--version").stdout == f"mnist-tuner {__version__}\n"
    shown = mnist_tuner("train", "--help").stdout
    for option in ("--epochs", "--hidden", "--val-fraction", "--json", "Example: mnist-tuner train"):
        assert option in shown


def test_completion_can_be_shown() -> None:
    detection = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # of the shell above, of which there may be none
    assert "complete" in mnist_tuner("--show-completion", "bash", **detection).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "--epochs is 0: expected 1 to 100,000"),
        (["--epochs", "-3"], "--epochs is -3"),
        (["--epochs", "many"], "--epochs"),
        (["--epochs", "99999999999999"], "--epochs is 99999999999999"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--batch-size", "1.5"], "--batch-size"),
        (["--hidden", "0"], "--hidden is 0"),
        (["--hidden", "100,-1"], "--hidden is -1"),
        (["--hidden", "a,b"], "--hidden is 'a,b': expected widths separated by commas"),
        (["--hidden", ""], "--hidden is ''"),
        (["--hidden", "9999999999"], "--hidden is 9999999999"),
        (["--hidden", ",".join(["8"] * 21)], "--hidden has 21 widths"),
        (["--learning-rate", "0"], "--learning-rate is 0.0"),
        (["--learning-rate", "nan"], "--learning-rate is nan"),
        (["--learning-rate", "inf"], "--learning-rate is inf"),
        (["--learning-rate", "-0.1"], "--learning-rate is -0.1"),
        (["--learning-rate", "fast"], "--learning-rate"),
        (["--seed", "-1"], "--seed is -1"),
        (["--seed", "4294967296"], "--seed is 4294967296"),
        (["--val-fraction", "1"], "--val-fraction is 1.0"),
        (["--val-fraction", "nan"], "--val-fraction is nan"),
        (["--threads", "0"], "--threads is 0"),
        (["--threads", "100000"], "--threads is 100000"),
        (["--threads", "two"], "--threads is 'two': expected auto, or 1 to 256"),
        (["--threads", "1.5"], "--threads is '1.5'"),
        (["--threads", "9" * 5000], "--threads is '999"),
        (["--colour", "red"], "--colour"),
        (["--output", __file__], "a run's folder cannot be made there (Not a directory)"),
        (["--output", f"{__file__}/runs"], "cannot be made there"),
        (["extra"], "extra"),
    ],
)
def test_nonsense_gets_one_clear_line_and_code_2(options: list[str], message: str, output: Path) -> None:
    assert message in refused("train", "--output", output, *options)
    assert list(output.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "91"], "--batch-size is 91: expected 1 to 90, the training images"),
        (["--val-fraction", "0.999"], "--val-fraction is 0.999: of 90 images it leaves one part empty"),
        (["--hidden", "100000,100000"], "GiB"),
    ],
)
def test_options_that_do_not_fit_the_data_are_refused(
    options: list[str], message: str, small_dataset_folder: Path, output: Path
) -> None:
    assert message in refused("train", "--data", small_dataset_folder, "--output", output, *options)
    assert list(output.iterdir()) == []


@pytest.mark.slow
def test_damaged_data_is_named_in_one_line(small_dataset_folder: Path, output: Path) -> None:
    labels = small_dataset_folder / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1])
    done = mnist_tuner("train", "--data", small_dataset_folder, "--output", output, code=2)
    assert len(done.stderr.splitlines()) == 1
    assert f"{labels}: truncated" in done.stderr


@pytest.mark.slow
def test_folders_made_for_a_run_that_never_was_are_removed(small_dataset_folder: Path, output: Path) -> None:
    (small_dataset_folder / "t10k-labels-idx1-ubyte").unlink()
    refused("train", "--data", small_dataset_folder, "--output", output / "new" / "folder")
    assert list(output.iterdir()) == []


@pytest.mark.slow
def test_a_folder_may_be_called_as_it_likes(small_dataset_folder: Path, output: Path) -> None:
    odd = output / "runs [bold] of[/x] :tiger:"
    done = called("train", "--data", small_dataset_folder, "--output", odd, "--epochs", "1")
    (run,) = odd.iterdir()
    assert str(run) in done.out
    assert (run / "report.txt").exists()


def test_without_arguments_there_is_help_and_code_2() -> None:
    done = mnist_tuner(code=2)
    assert "train" in done.stdout + done.stderr
    assert "error" not in done.stderr


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_run_like_ctrl_c(small_dataset_folder: Path, output: Path) -> None:
    process = launched(small_dataset_folder, output)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=DEADLINE) == 130
    (run,) = output.iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"


def test_an_unknown_command_is_refused() -> None:
    assert "dance" in mnist_tuner("dance", code=2).stderr


@pytest.mark.slow
def test_another_keras_backend_is_refused_in_one_line(output: Path) -> None:
    done = mnist_tuner("train", "--output", output, code=2, KERAS_BACKEND="jax")
    assert len(done.stderr.splitlines()) == 1
    assert "KERAS_BACKEND is 'jax'" in done.stderr


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_in_one_line_and_keeps_the_manifest(small_dataset_folder: Path, output: Path) -> None:
    command = [sys.executable, "-m", "mnist_tuner", "train", "--data", small_dataset_folder, "--output", output]
    done = subprocess.run(
        [*command, "--hidden", "512"],
        capture_output=True,
        text=True,
        env=environment(MNIST_TUNER_COMPILE_CACHE="off"),
        timeout=DEADLINE,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "File too large" in done.stderr
    assert ".safetensors: " in done.stderr
    (run,) = output.iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    assert list((run / "checkpoints").iterdir()) == []

    # There never was a checkpoint: it begins anew, and ends as one that has not failed.
    mnist_tuner("train", "--resume", run, "--quiet")
    mnist_tuner(*map(str, command[3:]), "--hidden", "512", "--quiet")
    resumed, whole = sorted(output.iterdir(), key=lambda path: path != run)
    for name in ("test_predictions.npz", "metrics.csv"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_a_training_that_diverges_names_the_step_and_exits_with_1(small_dataset_folder: Path, output: Path) -> None:
    hidden = ",".join(["64"] * 12)
    options = ["--learning-rate", "1000", "--hidden", hidden, "--batch-size", "8"]
    done = mnist_tuner("train", "--data", small_dataset_folder, "--output", output, *options, code=1)
    assert len(done.stderr.splitlines()) == 1
    assert "diverged: the loss of step" in done.stderr
    (run,) = output.iterdir()
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["status"] == "failed"
    assert "diverged" in manifest["error"]
    again = called("train", "--json", "--data", small_dataset_folder, "--output", output, *options, code=1)
    document = json.loads(again.out)
    assert (document["status"], document["error"]) == ("failed", manifest["error"])


def started(folder: Path, output: Path) -> subprocess.Popen[str]:
    """A long training that has finished its second epoch."""
    process = launched(folder, output)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Epoch 2/"):
            return process
    raise AssertionError(process.communicate()[1])


def test_ctrl_c_while_something_is_imported_ends_with_130(tmp_path: Path) -> None:
    interrupted = "exec('import signal; signal.raise_signal(signal.SIGINT)')"  # a dataclass, say, is made by such an exec
    (tmp_path / "begun.py").write_text(f"from mnist_tuner import cli\ncli.app = lambda **_: {interrupted}\ncli.main()\n")
    command = [sys.executable, "-m", "begun"]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(command, capture_output=True, env=environment(PYTHONPATH=path), timeout=DEADLINE, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


@pytest.mark.slow
def test_ctrl_c_keeps_a_checkpoint_and_exits_with_130(small_dataset_folder: Path, output: Path) -> None:
    process = started(small_dataset_folder, output)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert errors == ""
    (run,) = output.iterdir()
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["status"] == "interrupted"
    assert len(manifest["epochs"]) >= 2
    (path,) = (run / "checkpoints").iterdir()
    assert str(path) in printed
    checkpoint = read_checkpoint(path)
    assert checkpoint.header.global_step >= 3 * len(manifest["epochs"])
    assert int(checkpoint.tensors["optimizer/0"]) == checkpoint.header.global_step  # Keras's own count of steps


@pytest.mark.slow
def test_a_killed_run_leaves_whole_files(small_dataset_folder: Path, output: Path) -> None:
    process = started(small_dataset_folder, output)
    process.kill()
    process.communicate(timeout=DEADLINE)
    (run,) = output.iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "running"
    whole = [path for path in (run / "checkpoints").iterdir() if not path.name.startswith(".")]
    assert whole
    for path in whole:
        header = read_checkpoint(path).header
        assert header.progress.batch == header.num_training_batches


@tried
@pytest.mark.slow
def test_the_cache_of_compiled_programs_is_private_and_changes_no_bit(small_dataset_folder: Path, output: Path) -> None:
    home = output.parent / "cache"
    train = ["train", "--quiet", "--epochs", "1", "--data", small_dataset_folder, "--output", output]
    mnist_tuner(*train, MNIST_TUNER_COMPILE_CACHE="off", XDG_CACHE_HOME=str(home))
    assert not (home / "mnist_tuner").exists()
    for _ in range(2):
        assert mnist_tuner(*train, XDG_CACHE_HOME=str(home)).stderr == ""
    (folder,) = (home / "mnist_tuner").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(list(folder.iterdir())) == 1
    checkpoints = [read_checkpoint(path) for path in output.glob("*/checkpoints/*")]
    assert len(checkpoints) == 3
    for checkpoint in checkpoints[1:]:
        for name, tensor in checkpoint.tensors.items():
            assert tensor.tobytes() == checkpoints[0].tensors[name].tobytes()


@tried
@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 100_000], ids=["empty", "torn"])
def test_a_damaged_compiled_program_costs_a_line_and_changes_nothing(
    length: int, small_dataset_folder: Path, output: Path
) -> None:
    home = output.parent / "cache"
    train = ["train", "--quiet", "--epochs", "1", "--data", small_dataset_folder, "--output", output]
    assert mnist_tuner(*train, XDG_CACHE_HOME=str(home)).stderr == ""
    (program,) = (home / "mnist_tuner").glob("*/*")
    program.write_bytes(program.read_bytes()[:length])
    (line,) = mnist_tuner(*train, XDG_CACHE_HOME=str(home)).stderr.splitlines()
    assert f"{program.parent}: a compiled program was damaged" in line
    assert mnist_tuner(*train, XDG_CACHE_HOME=str(home)).stderr == ""
    first, *others = [(run / "test_predictions.npz").read_bytes() for run in output.iterdir()]
    assert others == [first, first]


@tried
def test_a_cache_that_others_could_have_written_to_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MNIST_TUNER_COMPILE_CACHE", raising=False)
    folder = compile_cache()
    assert folder is not None
    assert folder.parent == tmp_path / "mnist_tuner"
    folder.chmod(0o755)
    assert compile_cache() is None


@tried
@pytest.mark.parametrize("parent", ["mnist_tuner", "."])
@pytest.mark.parametrize("mode", [0o777, 0o720])
def test_a_cache_in_whose_place_others_could_put_another_is_not_used(
    parent: str, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MNIST_TUNER_COMPILE_CACHE", raising=False)
    assert compile_cache() is not None
    (tmp_path / parent).chmod(mode)
    assert compile_cache() is None
    (tmp_path / parent).chmod(0o700)
    assert compile_cache() is not None
    if os.getuid() == 0:
        os.chown(tmp_path / parent, 65534, -1)
        assert compile_cache() is None


def folder_of(name: bytes | str, parent: Path) -> Path:
    """A run in a folder with this name."""
    return written(parent / os.fsdecode(name), replace(samples.run(), data=samples.data_summary("a\nb \x1b[31mred")))


ODD_NAMES = [b"a\nskipped: everything", b"\x1b[31mred", b"no \xff text", "schön 三".encode(), b"\xc2\x9b31m"]


@pytest.mark.parametrize("name", ODD_NAMES, ids=range(5))
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_folders_name_is_text_on_the_screen_and_comes_back_in_json(name: bytes, encoding: str, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path)
    for command in (["runs", "--output", tmp_path], ["report", folder]):
        done = subprocess.run(
            [sys.executable, "-m", "mnist_tuner", *command, "--json"],
            capture_output=True,
            env=environment(PYTHONIOENCODING=encoding),
            timeout=DEADLINE,
            check=True,
        )
        shown = done.stderr.decode(encoding)
        assert shown.replace("\n", "").isprintable()
        assert not any(line.startswith(("skipped: everything", "b ")) for line in shown.splitlines())
        document = json.loads(done.stdout.decode(encoding))
        assert done.stdout.decode(encoding).replace("\n", "").isprintable()
        assert (document["runs"][0] if command[0] == "runs" else document)["run_dir"] == str(folder)


def test_what_cannot_be_read_is_refused_on_any_terminal(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff\n\x1b[31m \xe4\xb8\x89")
    for encoding in ("utf-8", "ascii"):
        done = subprocess.run(
            [sys.executable, "-m", "mnist_tuner", "report", folder],
            capture_output=True,
            env=environment(PYTHONIOENCODING=encoding),
            timeout=DEADLINE,
            check=False,
        )
        (line,) = done.stderr.decode(encoding).splitlines()
        assert (done.returncode, line.isprintable(), "no folder of a run" in line) == (2, True, True)


def test_a_warning_is_one_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    cli._print_warning("Duplicate name: '\x1b]0;title\x07\nnext'", UserWarning)
    assert capsys.readouterr().err == "mnist-tuner: warning: Duplicate name: '\\x1b]0;title\\x07 next'\n"


@pytest.mark.parametrize("line", ["runs --json", "report run --json", "runs", "train --help", "--version"])
def test_a_reader_that_has_gone_ends_the_command_as_ctrl_c_does(line: str, tmp_path: Path) -> None:
    command = line.split()
    written(tmp_path / "run", samples.run())
    ours, theirs = os.pipe()
    os.close(ours)
    where = ["--output", "."] if command[0] == "runs" else []
    done = subprocess.run(
        [sys.executable, "-m", "mnist_tuner", *command, *where],
        stdout=theirs,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT)),
        timeout=DEADLINE,
        check=False,
    )
    os.close(theirs)
    assert done.returncode == 130
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_standard_output_that_is_full_is_named(tmp_path: Path) -> None:
    written(tmp_path / "run", samples.run())
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mnist_tuner", "report", tmp_path / "run", "--json", "--quiet"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=DEADLINE,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "mnist-tuner: error: standard output: No space left on device"
