"""What a trainer's arguments ask of model and optimizer: precision, gradient clipping, gradient accumulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from mnist_tuner.trainer.module import KerasModule, Module

if TYPE_CHECKING:
    from mnist_tuner.trainer.trainer import Trainer

POLICIES = {"32-true": "float32", "16-mixed": "mixed_float16", "bf16-mixed": "mixed_bfloat16"}
CLIPPING = {"norm": "global_clipnorm", "value": "clipvalue"}


def configure_model(trainer: Trainer, module: Module) -> None:
    """Calls configure_model, once, with the precision's dtype policy in force.

    Raises:
        ValueError: the model was made before, with another policy.
    """
    policy = None if trainer.precision is None else POLICIES[trainer.precision]
    if not module.__dict__.get("_configured"):
        before = keras.config.dtype_policy()
        if policy is not None:
            keras.config.set_dtype_policy(policy)
        try:
            module.model = module.configure_model()
        finally:
            keras.config.set_dtype_policy(before)
        if not isinstance(module.model, keras.Model):
            raise TypeError(f"{type(module).__name__}.configure_model returned {module.model!r}: expected a keras.Model")
        module.__dict__["_configured"] = True
    assert module.model is not None
    made_with = module.model.dtype_policy.name
    if policy is not None and made_with != policy:
        raise ValueError(
            f"precision is {trainer.precision!r}, but the model was made with the dtype policy {made_with!r}: call "
            f"keras.config.set_dtype_policy({policy!r}) before making it, or make it in configure_model()"
        )


def configure_optimizer(trainer: Trainer, module: Module) -> None:
    """Calls configure_optimizers and gives the optimizer the trainer's clipping and accumulation.

    Raises:
        TypeError: it did not return an optimizer.
        ValueError: the optimizer already has others.
    """
    optimizer = module.configure_optimizers()
    compiled = isinstance(module, KerasModule)  # its train_step takes the model's optimizer, in whose place there is no other
    if isinstance(module, KerasModule):
        module.optimizer = optimizer
        if module.has_own_optimizers and (trainer.gradient_clipping is not None or trainer.accumulate_grad_batches != 1):
            raise ValueError(
                f"gradient_clip_val and accumulate_grad_batches do not reach the optimizers of {type(module.model).__name__}'s "
                "own train_step: make these with clipnorm, global_clipnorm, clipvalue or gradient_accumulation_steps"
            )
        if optimizer is None and module.has_own_train_step:
            trainer.accumulation = 1
            return
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            f"{type(module).__name__}.configure_optimizers returned {optimizer!r}: expected one keras.optimizers.Optimizer; "
            "for a schedule give it as the optimizer's learning_rate"
        )
    scaling = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if trainer.precision == "16-mixed" and not scaling and not compiled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        scaling = True
    inner = optimizer.inner_optimizer if scaling else optimizer
    steps = trainer.accumulate_grad_batches
    if steps != (inner.gradient_accumulation_steps or 1) and steps != 1:
        if inner.built or inner.gradient_accumulation_steps:
            own = inner.gradient_accumulation_steps
            has = f"has gradient_accumulation_steps={own}" if own else "has been built without accumulation"
            raise ValueError(
                f"accumulate_grad_batches is {steps}, but the optimizer {has}: make it with gradient_accumulation_steps={steps}, "
                "or leave the argument out"
            )
        inner.gradient_accumulation_steps = steps
    if not compiled:
        module.optimizer = optimizer = _reset_or_new(module.optimizer, optimizer, module)
    inner = optimizer.inner_optimizer if scaling else optimizer
    trainer.accumulation = inner.gradient_accumulation_steps or 1
    if trainer.gradient_clipping is not None:
        name, value = trainer.gradient_clipping
        own = {key: getattr(inner, key) for key in ("clipnorm", "global_clipnorm", "clipvalue") if getattr(inner, key)}
        if own and own != {name: value}:
            raise ValueError(f"gradient_clip_val asks for {name}={value}, but the optimizer has {own}: leave one of them out")
        setattr(inner, name, value)
        trainer.undo.append(lambda: setattr(inner, name, own.get(name)))


def _reset_or_new(
    known: keras.optimizers.Optimizer | None, new: keras.optimizers.Optimizer, module: Module
) -> keras.optimizers.Optimizer:
    """A new optimizer that is like the one known: then that one as if new, with which the module's loops are compiled."""
    assert module.model is not None
    if known is None or known is new or not known.built or new.built or type(known) is not type(new):
        return new
    configs = [{key: value for key, value in each.get_config().items() if key != "name"} for each in (known, new)]
    if configs[0] != configs[1]:
        return new
    new.build(module.model.trainable_variables)
    if [v.shape for v in new.variables] != [v.shape for v in known.variables]:
        return new
    for variable, initial in zip(known.variables, new.variables, strict=True):
        variable.assign(initial)
    return known


def needs_xla(module: Module) -> bool:
    """On a CPU TensorFlow's own float16 products are a hundred times slower than XLA's."""
    assert module.model is not None
    return module.model.compute_dtype == "float16" and not tf.config.list_physical_devices("GPU")
