"""A search's folder: the journal, and beside it the files from which KerasTuner opens it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mnist_tuner.errors import InputError
from mnist_tuner.search.journal import Journal, read_lines
from mnist_tuner.search.trial import TrialResult, TrialSummary, in_order
from mnist_tuner.trainer.checked import checked, what_is_wrong
from mnist_tuner.trainer.files import atomic_path, atomic_write

FORMAT_VERSION = 1
SAVING_SHARE = 0.02
"""The oracle's file is as long as the search: it is written so rarely that this share of the time goes into it."""


class Study:
    """What a search has found, on the disk.

    ``journal.jsonl`` is the truth: a result is in it or has not happened. Beside it stand the files of a KerasTuner project
    (``oracle.json``, ``tuner0.json``, ``trial_<id>/trial.json`` with ``checkpoint.weights.h5``), made from it, and made anew
    where they are missing when the search is resumed.

    Args:
        folder: is made where it does not exist.
        identity: what the search is: its space, strategy, seed, data and so on, as JSON values.

    Raises:
        InputError: the folder holds another search (the difference is named) or more trials, or its journal is damaged.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        identity = {"format_version": FORMAT_VERSION, **identity}
        path = folder / "journal.jsonl"
        if path.exists():
            self.journal = Journal(path)
            try:
                _check_same(folder, self.journal.identity, json.loads(json.dumps(identity)))
                self._check_number(identity.get("number_of_trials"))
            except InputError:
                self.journal.close()
                raise
        elif any(folder.glob("trial_*")) or (folder / "oracle.json").exists():
            raise InputError(f"{folder}: holds a project of KerasTuner's own, which has no journal: choose another folder")
        else:
            self.journal = Journal.create(path, identity)
        self._saved, self._cost = 0.0, 0.0
        self._folders: set[str] = set()

    def _check_number(self, trials: int | None) -> None:
        """A search may go on with another number of trials, as long as those that are done are among them."""
        if trials is None:
            return
        done = 1 + max((int(result.trial_id) for _, result in self.results()), default=-1)
        if done > trials:
            raise InputError(
                f"{self.folder}: {done} trials have been begun, and now the search is to have {trials}: expected at least {done}"
            )

    @staticmethod
    def remove(folder: Path) -> None:
        """Removes the search in a folder, and nothing else that may be there."""
        if not (folder / "journal.jsonl").exists():
            return
        for path in [folder / "tensorboard", *folder.glob("trial_*")]:
            shutil.rmtree(path, ignore_errors=True)
        for name in ("trials.csv", "oracle.json", "tuner0.json", "journal.jsonl"):
            (folder / name).unlink(missing_ok=True)

    def results(self) -> Iterator[tuple[dict[str, Any], TrialResult]]:
        """The hyperparameters' values and the result of each trial that has one, in the order in which they came.

        Raises:
            InputError: a line of the journal is damaged.
        """
        for number, entry in enumerate(self.journal.entries(), 2):
            try:
                yield _result(entry, str(self.journal.identity.get("objective")).rpartition(" (")[0])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InputError(f"{self.journal.path}: line {number} is damaged: {what_is_wrong(error)}") from None

    @staticmethod
    def summaries(folder: Path, objective: str) -> list[TrialSummary]:
        """What a study has found so far, by trial, read without changing anything; nothing where it cannot be read."""
        found = []
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            for entry in islice(read_lines(folder / "journal.jsonl"), 1, None):
                values, result = _result(entry, objective)
                found.append(result.summary(values, objective))
        return sorted(found, key=lambda summary: in_order(summary.trial_id))

    def record(self, values: Mapping[str, Any], result: TrialResult) -> None:
        """Puts a result on the disk: first its files, then its line in the journal.

        Raises:
            OSError: it could not be written; the journal is as it was.
        """
        if result.weights or result.states or result.traceback:
            folder = self.trial_folder(result.trial_id)
            if result.traceback:
                atomic_write(folder / "error.txt", result.traceback)
            if result.weights:
                atomic_write(folder / "checkpoint.weights.h5", result.weights)
                atomic_write(folder / "build_config.json", json.dumps(result.build_config))
            for number, state in enumerate(result.states):
                atomic_write(folder / f"replicate-{number}.safetensors", state)
        self.journal.append({**result.to_json(), "values": dict(values)})

    def states(self, trial_id: str, replicates: int) -> tuple[bytes, ...]:
        """What the replicates of a trial were at its end.

        Raises:
            InputError: a file is missing.
        """
        folder = self.folder / f"trial_{trial_id}"
        try:
            return tuple((folder / f"replicate-{number}.safetensors").read_bytes() for number in range(replicates))
        except FileNotFoundError as error:
            raise InputError(f"{error.filename}: is gone, and with it what the promoted trials go on from") from None

    def trial_folder(self, trial_id: str) -> Path:
        """The folder of a trial; it is made."""
        folder = self.folder / f"trial_{trial_id}"
        if trial_id not in self._folders:
            folder.mkdir(exist_ok=True)
            self._folders.add(trial_id)
        return folder

    def save_trial(self, trial: Any, result: TrialResult, objective: str) -> None:
        """Writes KerasTuner's file of a trial, and TensorBoard's where there is none yet."""
        path = self.trial_folder(trial.trial_id) / "trial.json"
        content = json.dumps(trial.get_state())
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            atomic_write(path, content, durable=False)
        write_trial(self.folder / "tensorboard", trial, result, objective)

    def save_oracle(self, oracle: Any, *, at_once: bool = False) -> None:
        """Writes KerasTuner's file of the oracle, if it is time to."""
        began = time.perf_counter()
        if not at_once and began - self._saved < self._cost / SAVING_SHARE:
            return
        atomic_write(self.folder / "oracle.json", json.dumps(oracle.get_state()), durable=False)
        if not (self.folder / "tuner0.json").exists():
            atomic_write(self.folder / "tuner0.json", "{}")
        self._saved = time.perf_counter()
        self._cost = self._saved - began

    def write_table(self, path: Path, objective: str) -> None:
        """Writes a CSV file: a row for every epoch of every replicate, trials in order; "scored" is yes in the row of the epoch
        whose objective is the replicate's score."""
        rows = sorted(self.results(), key=lambda row: in_order(row[1].trial_id))
        hyperparameters = list(dict.fromkeys(name for values, _ in rows for name in values))
        metrics = list(dict.fromkeys(name for _, result in rows for r in result.replicates for name in r.history))
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["trial", "status", *hyperparameters, "parameters", "replicate", "seed", "epoch", "scored", *metrics])
        for values, result in rows:
            trial = [result.trial_id, result.status, *(values.get(name, "") for name in hyperparameters)]
            trial.append("" if result.parameters is None else result.parameters)
            if not result.replicates:
                table.writerow([*trial, *[""] * (4 + len(metrics))])
            for number, replicate in enumerate(result.replicates):
                epochs = len(replicate.history[objective])
                for epoch in range(epochs):
                    columns = [replicate.history.get(name, ()) for name in metrics]
                    row = [column[epoch] if epoch < len(column) else "" for column in columns]
                    scored = "yes" if epoch == range(epochs)[replicate.place] else ""
                    table.writerow([*trial, number, replicate.seed, result.initial_epoch + epoch + 1, scored, *row])
        atomic_write(path, text.getvalue())

    def close(self) -> None:
        """Lets go of the journal."""
        self.journal.close()


def _result(entry: dict[str, Any], objective: str) -> tuple[dict[str, Any], TrialResult]:
    """A journal's entry as the hyperparameters' values and the result, which has the objective."""
    result = TrialResult.from_json(entry)
    if objective and not all(len(each.history.get(objective, ())) >= (each.scored or 1) for each in result.replicates):
        raise ValueError(f"a replicate has no {objective} of its last epoch")
    return checked(dict[str, Any], entry["values"]), result


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """A search goes on as what it began as, but for the number of its trials."""
    before, now = ({name: value for name, value in each.items() if name != "number_of_trials"} for each in (before, now))
    difference = _difference(before, now)
    if difference is not None:
        place, old, new = difference
        raise InputError(
            f"{folder}: holds a search with another {' '.join(place).replace('_', ' ')}: it began with {json.dumps(old)}, and "
            f"now it is {json.dumps(new)}; take another folder, or overwrite this one"
        )


def _difference(before: Any, now: Any) -> tuple[list[str], Any, Any] | None:
    """The first place where two JSON values differ, and what stands there."""
    if before == now:
        return None
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [("", old, new) for old, new in zip(before, now, strict=True)]
    elif isinstance(before, dict) and isinstance(now, dict):
        pairs = [(str(name), before.get(name), now.get(name)) for name in {**now, **before}]
    else:
        return [], before, now
    for name, old, new in pairs:
        found = _difference(old, new)
        if found is not None:
            return [*([name] if name else []), *found[0]], found[1], found[2]
    return None


def fingerprint(value: Any) -> Any:
    """JSON values that tell data apart: an array, a tensor or a table by a checksum of its bytes, an object by its own
    `fingerprint` method.

    What has neither, such as a `tf.data.Dataset`, a function or a class, is known by its type only.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (str, int, bool, type(None))):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): fingerprint(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [fingerprint(item) for item in value]
    if hasattr(value, "fingerprint") and not isinstance(value, type):
        return fingerprint(value.fingerprint())
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        content = repr(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).tobytes()
        return f"{array.dtype}{list(array.shape)} {hashlib.sha256(content).hexdigest()}"
    return type(value).__qualname__


def write_trial(folder: Path, trial: Any, result: TrialResult, objective: str) -> None:
    """Writes a trial's event file, unless it is there: each metric's mean over the replicates by epoch, and what the HParams
    page shows.

    Args:
        folder: of all trials' event files.
        trial: KerasTuner's.
        result: the same trial's.
        objective: the metric that trials are judged by.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import summary_v2
    from tensorboard.summary.writer.record_writer import RecordWriter

    path = folder / trial.trial_id / "events.out.tfevents.0.trial"
    if path.exists() or not result.completed:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    now = time.time()
    values: Mapping[str, Any] = {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in trial.hyperparameters.values.items()
    }
    hparams = summary_v2.hparams_pb(values, trial_id=trial.trial_id, start_time_secs=now - result.seconds)
    events = [Event(wall_time=now, file_version="brain.Event:2"), Event(wall_time=now, summary=hparams)]
    for name in result.replicates[0].history:
        series = [replicate.history[name] for replicate in result.replicates if name in replicate.history]
        for epoch, each in enumerate(zip(*series, strict=False)):
            mean = Summary(value=[Summary.Value(tag=name, simple_value=sum(each) / len(each))])
            events.append(Event(wall_time=now, step=result.initial_epoch + epoch + 1, summary=mean))
    with atomic_path(path, durable=False) as temporary, temporary.open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()
