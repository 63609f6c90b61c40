"""The list of the runs in a folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mnist_tuner.errors import InputError
from mnist_tuner.reports.runs import ListedRun, SkippedFolder, list_runs
from mnist_tuner.runs import lock_folder
from tests.support import samples
from tests.support.samples import written


def test_the_list_names_and_skips_what_is_no_run(tmp_path: Path) -> None:
    written(tmp_path / "20260102-101500-train-100-100", samples.run())
    written(tmp_path / "20260103-101500-search-random", samples.search(5))
    written(tmp_path / "named by somebody", samples.seeds(3))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text('{"schema_version": 1, "comm')
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text('{"schema_version": 99, "command": "train"}')
    (tmp_path / "twisted" / "run.json").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "a file").touch()
    entries = list(list_runs(tmp_path))
    runs = {Path(run.run_dir).name: run for run in entries if isinstance(run, ListedRun)}
    skipped = {Path(each.path).name: each for each in entries if isinstance(each, SkippedFolder)}
    assert set(runs) == {"20260102-101500-train-100-100", "20260103-101500-search-random", "named by somebody"}
    assert set(skipped) == {"foreign", "torn", "other", "twisted"}
    for name, each in skipped.items():
        assert str(tmp_path / name) in each.reason
        assert len(each.reason.splitlines()) == 1
    dates = [runs[name].date for name in ("20260102-101500-train-100-100", "named by somebody")]
    assert dates == ["2026-01-02 10:15", None]
    numbered = [name for name in runs if name.startswith("2026")]
    assert numbered == ["20260103-101500-search-random", "20260102-101500-train-100-100"]  # the newest first


def statuses(folder: Path) -> dict[str, str]:
    """Those of the listed runs, by their folders' names."""
    return {Path(run.run_dir).name: run.status for run in list_runs(folder) if isinstance(run, ListedRun)}


def test_a_run_without_a_process_is_listed_as_killed_and_one_with_a_process_as_running(tmp_path: Path) -> None:
    running = replace(samples.run(), status="running", test=None, timing=None)
    killed, alive = written(tmp_path / "killed", running), written(tmp_path / "alive", running)
    written(tmp_path / "failed", replace(running, status="failed"))
    descriptor = lock_folder(alive)
    try:
        assert statuses(tmp_path) == {"killed": "killed", "alive": "running", "failed": "failed"}
    finally:
        os.close(descriptor)
    assert set(statuses(tmp_path).values()) == {"killed", "failed"}
    os.close(lock_folder(killed))  # to look left no lock behind


def test_a_list_of_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: No such file or directory"):
        list(list_runs(tmp_path / "nowhere"))


def test_a_pipe_among_the_runs_stops_nothing(tmp_path: Path) -> None:
    written(tmp_path / "20260102-101500-train-100-100", samples.run())
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "run.json")
    skipped, run = list_runs(tmp_path)
    assert isinstance(run, ListedRun)
    assert isinstance(skipped, SkippedFolder)
    assert "expected a file, and it is a pipe" in skipped.reason
