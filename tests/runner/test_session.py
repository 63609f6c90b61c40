"""What is written down of a command that ends early."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mnist_tuner.config import SearchConfig
from mnist_tuner.errors import InputError
from mnist_tuner.reports.search import SearchReport
from mnist_tuner.runner.session import Session, Steps, session
from mnist_tuner.search.trial import TrialSummary

TRIAL = TrialSummary("00", {"units_1": 32, "units_2": 32}, "completed", (1,), (0.9,), 1, 1000, 1.0, "here", None)


class Found(Steps):
    """Those of a search whose journal has a trial of which the report does not know yet."""

    def so_far(self) -> dict[str, Any]:
        return {"trials": (TRIAL,)}


@contextmanager
def begun(output: Path, ended: list[Any], printed: io.StringIO) -> Iterator[Session[SearchConfig, SearchReport]]:
    begin = partial(SearchReport, workers=0, space=[])
    options: dict[str, Any] = {"resume": None, "quiet": False, "began": None, "at_end": ended.append}
    with session(
        SearchConfig(output=output), begin, "random", ("tensorflow", "keras"), console=Console(file=printed), **options
    ) as run:
        yield run


def manifest(output: Path) -> dict[str, Any]:
    (path,) = output.glob("*/run.json")
    document: dict[str, Any] = json.loads(path.read_text())
    return document


@pytest.mark.parametrize(("steps", "kept"), [(Steps(), 0), (Found(), 1)])
def test_after_bad_input_a_folder_stays_where_there_are_trials_in_it(steps: Steps, kept: int, tmp_path: Path) -> None:
    ended: list[Any] = []
    with pytest.raises(InputError), begun(tmp_path, ended, io.StringIO()) as run:
        run.steps = steps
        raise InputError("the hypermodel asks for what there is not")
    assert len(list(tmp_path.iterdir())) == kept
    assert ended == []  # a bad input is no result
    if kept:
        assert (manifest(tmp_path)["status"], len(manifest(tmp_path)["trials"])) == ("failed", 1)


def test_an_interruption_before_the_first_step_is_written_down(tmp_path: Path) -> None:
    ended: list[Any] = []
    printed = io.StringIO()
    with pytest.raises(KeyboardInterrupt), begun(tmp_path, ended, printed):
        raise KeyboardInterrupt
    assert manifest(tmp_path)["status"] == "interrupted"
    assert [report.status for report in ended] == ["interrupted"]
    assert "Interrupted\n" in printed.getvalue()
    assert "--resume" in printed.getvalue()
