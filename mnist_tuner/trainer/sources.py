"""Where the data of each stage comes from: loaders that were given, a data module, or the module itself."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from mnist_tuner.trainer.data import DataModule, Loader
from mnist_tuner.trainer.module import Module
from mnist_tuner.trainer.progress import RunningStage, TrainerFn
from mnist_tuner.trainer.streams import as_loader

if TYPE_CHECKING:
    from mnist_tuner.trainer.trainer import Trainer

_HOOKS = {"train": "train_dataloader", "validate": "val_dataloader", "test": "test_dataloader", "predict": "predict_dataloader"}


class Sources:
    """The loaders of a run, each asked for when it is first needed.

    Args:
        trainer: the trainer.
        module: its module, which is asked for the stages that were given no data, where there is no datamodule.
        given: by stage, what was passed as data; None where nothing was.
        datamodule: instead of that.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: Module,
        given: dict[RunningStage, Any],
        datamodule: DataModule | None,
    ) -> None:
        self._trainer, self._module, self._given = trainer, module, given
        self._owner: DataModule | Module = module if datamodule is None else datamodule
        self._loaders: dict[RunningStage, list[Loader]] = {}

    def has(self, stage: RunningStage) -> bool:
        """Whether there is data for a stage that its limit does not switch off."""
        if self._trainer.limits.shares[stage] == 0:
            return False
        if stage in self._loaders:
            return bool(self._loaders[stage])
        if self._given.get(stage) is None and not self._offers(_HOOKS[stage]):
            return False
        fitting = self._trainer.state.fn is TrainerFn.FITTING
        if fitting and stage is RunningStage.VALIDATING and type(self._module).validation_step is Module.validation_step:
            self._loaders[stage] = []
            if self._data(stage)[0] is not None:
                warnings.warn(
                    "there is validation data, but the module has no validation_step: it is not validated", stacklevel=5
                )
            return False
        return True

    def _offers(self, hook: str) -> bool:
        """Whether the data module, or without one the module, overrides a hook, in its class or in itself."""
        base = DataModule if isinstance(self._owner, DataModule) else Module
        return hook in vars(self._owner) or getattr(type(self._owner), hook) is not getattr(base, hook)

    def _data(self, stage: RunningStage) -> tuple[Any, str]:
        """The data of a stage, and what to call it."""
        if self._given.get(stage) is not None:
            return self._given[stage], f"the data to {stage}"
        hook = _HOOKS[stage]
        return getattr(self._owner, hook)(), f"{type(self._owner).__name__}.{hook}()"

    def loaders(self, stage: RunningStage) -> list[Loader]:
        """The loaders of a stage; none where there is no data.

        Raises:
            TypeError: what is there is no data.
        """
        if stage not in self._loaders:
            data, name = self._data(stage)
            several = isinstance(data, (list, tuple)) and stage is not RunningStage.TRAINING
            loaders = [as_loader(part, name) for part in (data if several else [data])] if data is not None else []
            self._loaders[stage] = [self._fixed(loader, stage) for loader in loaders]
        return self._loaders[stage]

    def _fixed(self, loader: Loader, stage: RunningStage) -> Loader:
        if not self._trainer.overfit_batches or stage not in (RunningStage.TRAINING, RunningStage.VALIDATING):
            return loader
        return loader.fixed(int(self._trainer.limits.batches(stage, loader.num_batches)))
