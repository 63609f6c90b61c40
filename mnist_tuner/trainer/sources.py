"""Where the data of each stage comes from: loaders that were given, a data module, or the module itself."""

from __future__ import annotations

import warnings
from typing import Any

from mnist_tuner.trainer.data import DataModule, Loader
from mnist_tuner.trainer.hooks import ModuleHooks
from mnist_tuner.trainer.progress import Limits, RunningStage
from mnist_tuner.trainer.streams import StreamLoader, as_loader

_HOOKS = {"train": "train_dataloader", "validate": "val_dataloader", "test": "test_dataloader", "predict": "predict_dataloader"}


class Sources:
    """The loaders of a verb, each asked for when it is first needed.

    Args:
        module: is asked for the stages that were given no data, where there is no datamodule.
        given: by stage, what was passed as data; None where nothing was.
        datamodule: instead of that.
        limits: of the batches of each stage.
        overfit: whether the same batches of training and validation are taken at each epoch.
        validates: whether the module can validate; where not, validation data is no reason to.
    """

    def __init__(
        self,
        module: ModuleHooks,
        given: dict[RunningStage, Any],
        datamodule: DataModule | None,
        limits: Limits,
        overfit: bool,
        validates: bool,
    ) -> None:
        self._given, self._limits, self._overfit, self._validates = given, limits, overfit, validates
        self._owner: DataModule | ModuleHooks = module if datamodule is None else datamodule
        self._loaders: dict[RunningStage, list[Loader]] = {}

    def has(self, stage: RunningStage) -> bool:
        """Whether there is data for a stage that its limit does not switch off."""
        if self._limits.shares[stage] == 0:
            return False
        if stage in self._loaders:
            return bool(self._loaders[stage])
        if self._given.get(stage) is None and not self._offers(_HOOKS[stage]):
            return False
        if stage is RunningStage.VALIDATING and not self._validates:
            self._loaders[stage] = []
            if self._data(stage)[0] is not None:
                warnings.warn(
                    "there is validation data, but the module has no validation_step: it is not validated", stacklevel=5
                )
            return False
        return True

    def _offers(self, hook: str) -> bool:
        """Whether the data module, or without one the module, overrides a hook, in its class or in itself."""
        base = DataModule if isinstance(self._owner, DataModule) else ModuleHooks
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

    def batches(self, stage: RunningStage, loader: Loader) -> float:
        """How many of a loader's batches a stage takes; infinite where nobody knows."""
        if self._overfit and isinstance(loader, StreamLoader):
            return loader.num_batches  # already cut to these
        return self._limits.batches(stage, loader.num_batches)

    def _fixed(self, loader: Loader, stage: RunningStage) -> Loader:
        if not self._overfit or stage not in (RunningStage.TRAINING, RunningStage.VALIDATING):
            return loader
        return loader.fixed(int(self._limits.batches(stage, loader.num_batches)))
