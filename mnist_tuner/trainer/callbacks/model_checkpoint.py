"""Keeps checkpoints on the disk: the newest, or the best."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mnist_tuner.trainer.callbacks.monitor import MonitorCallback
from mnist_tuner.trainer.checked import checked
from mnist_tuner.trainer.files import atomic_path
from mnist_tuner.trainer.progress import TrainerFn

if TYPE_CHECKING:
    from mnist_tuner.trainer.base import TrainerBase
    from mnist_tuner.trainer.module import Module

SUFFIX = ".safetensors"


@dataclass
class _State:
    """What a checkpoint keeps; the files' names are those within the folder."""

    best_k_models: dict[str, float]
    best_model_path: str
    current_score: float | None
    last_model_path: str
    leaving: str = ""


class ModelCheckpoint(MonitorCallback):
    """Saves the training's state, by default after each epoch and when it is interrupted, and keeps the newest.

    A file that is no longer wanted goes when the new one is safely on the disk, so there is always a whole one. It saves after
    each epoch; where validation runs several times an epoch or not after each one, after each validation.

    Args:
        dirpath: the folder; by default ``checkpoints`` in the trainer's default_root_dir, and then the final model is also
            saved beside it as ``model.keras``.
        filename: a template of the files' names; names of metrics in braces, with a format if wanted, become
            ``name=value``: "{epoch}-{val_loss:.2f}" gives ``epoch=4-val_loss=0.12.safetensors``. Epochs count from 0.
        monitor: the metric by which checkpoints are ranked; None keeps the newest.
        save_last: also keep the newest as ``last.safetensors``.
        save_top_k: how many to keep, the best ones; 0 none, -1 all.
        mode: "min" or "max": what is better. What is not a number is never the best.
        every_n_epochs: save after so many epochs (or, see above, validations of every so many epochs).
        every_n_train_steps: save after so many optimizer steps instead.
        save_on_train_epoch_end: True or False to say when to save; None as above.
        auto_insert_metric_name: False leaves out "name=" in the files' names.

    Attributes:
        best_model_path: the best checkpoint, without monitor the newest; "" while there is none.
        best_model_score: its metric.
        best_k_models: the metric of each checkpoint that is kept.
        kth_best_model_path: the worst of them.
        current_score: the metric of the newest.
        last_model_path: the path of ``last.safetensors``, once it is there.

    Raises:
        ValueError: an argument is out of its range, or two contradict each other.
        RuntimeError: there is no such metric.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        save_last: bool = False,
        save_top_k: int = 1,
        mode: Literal["min", "max"] = "min",
        every_n_epochs: int | None = None,
        every_n_train_steps: int | None = None,
        save_on_train_epoch_end: bool | None = None,
        auto_insert_metric_name: bool = True,
    ) -> None:
        super().__init__(monitor, mode)
        if save_top_k < -1:
            raise ValueError(f"save_top_k is {save_top_k}: expected -1 (all), 0 (none) or more")
        if monitor is None and save_top_k > 1:
            raise ValueError(f"save_top_k is {save_top_k} without monitor: name the metric by which they are ranked")
        if every_n_epochs is not None and every_n_train_steps is not None:
            raise ValueError("every_n_epochs and every_n_train_steps were both given: give one of them")
        for name, number in (("every_n_epochs", every_n_epochs), ("every_n_train_steps", every_n_train_steps)):
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}: expected 1 or more")
        self.dirpath = None if dirpath is None else Path(dirpath)
        self.filename = filename or "{epoch}-{step}"
        self.save_last = save_last
        self.save_top_k = save_top_k
        self.every_n_epochs = None if every_n_train_steps else every_n_epochs or 1
        self.every_n_train_steps = every_n_train_steps
        self.save_on_train_epoch_end = save_on_train_epoch_end
        self.auto_insert_metric_name = auto_insert_metric_name
        self.best_model_path = ""
        self.best_model_score: float | None = None
        self.best_k_models: dict[str, float] = {}
        self.kth_best_model_path = ""
        self.current_score: float | None = None
        self.last_model_path = ""
        self._saved_batch = 0
        self._loaded: _State | None = None
        self._leaving = ""
        self._folder = Path()

    @property
    def state_key(self) -> str:
        """One for each metric, mode and rhythm."""
        return f"ModelCheckpoint({self.monitor}, {self.mode}, {self.every_n_epochs}, {self.every_n_train_steps})"

    def folder(self, trainer: TrainerBase) -> Path:
        """Where the checkpoints lie."""
        return self.dirpath or trainer.default_root_dir / "checkpoints"

    def state_dict(self) -> dict[str, Any]:
        """What is kept, by the files' names, and how good it is."""
        return {
            "best_k_models": {self._name(path): score for path, score in self.best_k_models.items()},
            "best_model_path": self._name(self.best_model_path),
            "current_score": self.current_score,
            "last_model_path": self._name(self.last_model_path),
            "leaving": self._name(self._leaving),
        }

    def _name(self, path: str) -> str:
        """A path within the folder, which may be another one when the training is resumed."""
        return Path(path).relative_to(self._folder).as_posix() if path else ""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with those of these files that are there."""
        self._loaded = checked(_State, state_dict)

    def on_fit_start(self, trainer: TrainerBase, module: Module) -> None:
        """Makes the files' names paths again."""
        state, self._loaded = self._loaded, None
        self._saved_batch = trainer.progress.total_batches
        self._folder = folder = self.folder(trainer)
        if state is None:
            return

        def there(name: str) -> str:
            path = folder / name
            own = path.suffix == SUFFIX and path.resolve().is_relative_to(folder.resolve())
            return str(path) if own and path.is_file() else ""

        self.best_k_models = {there(name): score for name, score in state.best_k_models.items() if there(name)}
        self.best_model_path = there(state.best_model_path)
        self.last_model_path = there(state.last_model_path)
        self.current_score = state.current_score
        self._rank()
        self._leaving = there(state.leaving)
        if self._leaving not in (kept := {self.best_model_path, self.last_model_path, *self.best_k_models} - {""}) and kept:
            self._leave(max(map(Path, kept), key=lambda path: path.stat().st_mtime_ns))  # killed before the older file had gone

    def on_train_steps_end(self, trainer: TrainerBase, module: Module) -> None:
        """Saves at every so many steps."""
        if self.every_n_train_steps and trainer.global_step % self.every_n_train_steps == 0:
            self._save(trainer, strict=False)

    def on_validation_end(self, trainer: TrainerBase, module: Module) -> None:
        """Saves, where it is the validation that decides."""
        if self.judges_validation(trainer, self.save_on_train_epoch_end) and self._epoch_due(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: TrainerBase, module: Module) -> None:
        """Saves; also a training that is stopped between two savings, to be resumed there."""
        if self.judges_epochs(trainer, self.save_on_train_epoch_end) and self._epoch_due(trainer):
            self._save(trainer)
        if not trainer.progress.ended:
            self._save_unmeasured(trainer)

    def on_train_end(self, trainer: TrainerBase, module: Module) -> None:
        """Saves the final model for any Keras user."""
        if self.dirpath is None and self.save_top_k != 0 and module.model is not None:
            trainer.default_root_dir.mkdir(parents=True, exist_ok=True)
            try:
                with atomic_path(trainer.default_root_dir / "model.keras") as path, warnings.catch_warnings():
                    # Keras 3.15 converts its variables in a way that NumPy 2 is to give up.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    module.model.save(path)
            except (NotImplementedError, ValueError, TypeError) as error:  # what cannot be serialized
                warnings.warn(f"the model could not be saved as model.keras: {error}", stacklevel=2)

    def on_exception(self, trainer: TrainerBase, module: Module, exception: BaseException) -> None:
        """Saves what was trained up to a Ctrl-C; after an error the state is not to be trusted."""
        fitting = trainer.state.fn is TrainerFn.FITTING and trainer.global_step > 0
        # A second, impatient Ctrl-C may come within a call of the loop: then the steps' count is not known.
        if isinstance(exception, KeyboardInterrupt) and fitting and not trainer.in_call:
            self._save_unmeasured(trainer)

    def _epoch_due(self, trainer: TrainerBase) -> bool:
        return self.every_n_epochs is not None and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _save(self, trainer: TrainerBase, strict: bool = True) -> None:
        if trainer.progress.total_batches == self._saved_batch:
            return
        metrics = {**trainer.callback_metrics, "epoch": trainer.current_epoch, "step": trainer.global_step}
        if self.save_top_k == 0:
            pass
        elif self.monitor is None:
            self._save_newest(trainer, metrics)
        elif self.monitor in metrics:
            self._save_best(trainer, metrics, float(metrics[self.monitor]))
        else:
            if strict:
                raise RuntimeError(self.no_such_metric(trainer))
            warnings.warn(f"{self.no_such_metric(trainer)} yet; nothing is saved at step {trainer.global_step}", stacklevel=2)
            return
        if self.save_last:
            self._save_last(trainer)

    def _save_unmeasured(self, trainer: TrainerBase) -> None:
        """Saves what has perhaps not been measured, and so cannot be ranked."""
        if self.monitor is None:
            self._save(trainer)
        elif self._saved_batch != trainer.progress.total_batches and self.save_top_k != 0:
            self._save_last(trainer)

    def _save_newest(self, trainer: TrainerBase, metrics: dict[str, float]) -> None:
        previous, path = self.best_model_path, str(self._path(trainer, metrics, self.best_model_path))
        self._leaving = previous if self.save_top_k == 1 and previous != path else ""
        self.best_model_path = path
        try:
            self._write(trainer, path)
        except BaseException:
            self.best_model_path = previous
            raise
        self._leave(Path(path))

    def _save_best(self, trainer: TrainerBase, metrics: dict[str, float], score: float) -> None:
        self.current_score = score
        score = self.sign * math.inf if math.isnan(score) else score
        full = len(self.best_k_models) >= self.save_top_k > 0
        if full and self.sign * score >= self.sign * self.best_k_models[self.kth_best_model_path]:
            return
        leaving = self.kth_best_model_path if full else ""
        path = str(self._path(trainer, metrics, leaving))
        self._leaving = leaving if leaving != path else ""
        self.best_k_models.pop(leaving, None)
        self.best_k_models[path] = score
        self._rank()
        self._write(trainer, path)
        self._leave(Path(path))

    def _leave(self, newer: Path) -> None:
        """Removes the file in whose place a newer one has come."""
        old = Path(self._leaving)
        if self._leaving and old.is_file() and old.stat().st_mtime_ns <= newer.stat().st_mtime_ns:
            old.unlink()
        self._leaving = ""

    def _save_last(self, trainer: TrainerBase) -> None:
        self.last_model_path = str(self.folder(trainer) / f"last{SUFFIX}")
        self._write(trainer, self.last_model_path)

    def _write(self, trainer: TrainerBase, path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(path)
        self._saved_batch = trainer.progress.total_batches

    def _rank(self) -> None:
        if self.best_k_models:
            best, worst = (min, max) if self.mode == "min" else (max, min)  # of equals the older one
            self.best_model_path = best(self.best_k_models, key=lambda path: self.best_k_models[path])
            self.kth_best_model_path = worst(self.best_k_models, key=lambda path: self.best_k_models[path])
            self.best_model_score = self.best_k_models[self.best_model_path]

    def _path(self, trainer: TrainerBase, metrics: dict[str, float], leaving: str) -> Path:
        """The next file's path: not one that is there already, but for that which is to go."""
        name = self.format_checkpoint_name(metrics)
        path, version = self.folder(trainer) / f"{name}{SUFFIX}", 1
        while path.exists() and str(path) != leaving:
            path, version = self.folder(trainer) / f"{name}-v{version}{SUFFIX}", version + 1
        return path

    def format_checkpoint_name(self, metrics: dict[str, float]) -> str:
        """The file's name, without its suffix, for these metrics; a metric that is not there counts as 0."""

        def insert(match: re.Match[str]) -> str:
            name, spec = match[1], match[2] or ""
            value = metrics.get(name, 0)
            text = format(int(value) if spec.endswith("d") else value, spec)
            return f"{name}={text}" if self.auto_insert_metric_name else text

        return re.sub(r"\{([^{}:]*)(?::([^{}]*))?\}", insert, self.filename)
