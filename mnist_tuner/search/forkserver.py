"""Imported by the process that workers are forked from, before it forks any: they find everything loaded."""

from __future__ import annotations

import importlib
import os

from mnist_tuner.search import loading

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would not survive a fork; trials have one each
loading.load_now(woken=False)
for _name in ("distributed", "mnist_tuner.search.worker", "mnist_tuner.trainer.keras_fit", "mnist_tuner.mnist.hypermodel"):
    importlib.import_module(_name)
