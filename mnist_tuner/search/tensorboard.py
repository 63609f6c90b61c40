"""A trial's curves and hyperparameters for TensorBoard, written without TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_tuner.search.trial import TrialResult
from mnist_tuner.trainer.atomic import atomic_path


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
