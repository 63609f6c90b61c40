"""What a trainer's arguments ask of model and optimizer: precision, gradient clipping, gradient accumulation."""

from __future__ import annotations

from contextlib import ExitStack

import keras

from mnist_tuner.trainer.keras_module import KerasModule
from mnist_tuner.trainer.module import Module, make_model, model_of
from mnist_tuner.trainer.module_state import state_of

POLICIES = {"32-true": "float32", "16-mixed": "mixed_float16", "bf16-mixed": "mixed_bfloat16"}
CLIPPING = {"norm": "global_clipnorm", "value": "clipvalue"}


def configure_model(module: Module, precision: str | None) -> None:
    """Calls configure_model, once, with the precision's dtype policy in force.

    Raises:
        TypeError: it did not return a model.
        ValueError: the model was made before, with another policy.
    """
    policy = None if precision is None else POLICIES[precision]
    state = state_of(module)
    if not state.configured:
        before = keras.config.dtype_policy()
        if policy is not None:
            keras.config.set_dtype_policy(policy)
        try:
            make_model(module)
        finally:
            keras.config.set_dtype_policy(before)
        state.configured = True
    made_with = model_of(module).dtype_policy.name
    if policy is not None and made_with != policy:
        raise ValueError(
            f"precision is {precision!r}, but the model was made with the dtype policy {made_with!r}: call "
            f"keras.config.set_dtype_policy({policy!r}) before making it, or make it in configure_model()"
        )


def configure_optimizer(
    module: Module, *, precision: str | None, clipping: tuple[str, float] | None, accumulate: int, undo: ExitStack
) -> int:
    """Calls configure_optimizers and gives the optimizer the trainer's clipping and accumulation.

    Args:
        module: gets the optimizer.
        precision: with "16-mixed" the loss is scaled.
        clipping: an attribute of Keras's optimizers and its value, for the time of the fit; None for what the optimizer has.
        accumulate: batches per optimizer step; stays in the optimizer.
        undo: takes what is to be done at the fit's end.

    Returns:
        The batches per step that the optimizer takes.

    Raises:
        TypeError: configure_optimizers did not return an optimizer.
        ValueError: the optimizer already has another clipping or accumulation.
    """
    optimizer = module.configure_optimizers()
    compiled = isinstance(module, KerasModule)  # its train_step takes the model's optimizer, in whose place there is no other
    if isinstance(module, KerasModule):
        module.optimizer = optimizer
        if module.has_own_optimizers and (clipping is not None or accumulate != 1):
            raise ValueError(
                f"gradient_clip_val and accumulate_grad_batches do not reach the optimizers of {type(module.model).__name__}'s "
                "own train_step: make these with clipnorm, global_clipnorm, clipvalue or gradient_accumulation_steps"
            )
        if optimizer is None and module.has_own_train_step:
            return 1
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            f"{type(module).__name__}.configure_optimizers returned {optimizer!r}: expected one keras.optimizers.Optimizer; "
            "for a schedule give it as the optimizer's learning_rate"
        )
    scaling = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if precision == "16-mixed" and not scaling and not compiled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        scaling = True
    inner = optimizer.inner_optimizer if scaling else optimizer
    _set_accumulation(inner, accumulate)
    if not compiled:
        module.optimizer = optimizer = _reset_or_new(module.optimizer, optimizer, module)
    inner = optimizer.inner_optimizer if scaling else optimizer
    if clipping is not None:
        _set_clipping(inner, clipping, undo)
    return inner.gradient_accumulation_steps or 1


def _set_accumulation(optimizer: keras.optimizers.Optimizer, steps: int) -> None:
    own = optimizer.gradient_accumulation_steps
    if steps in (1, own or 1):
        return
    if optimizer.built or own:
        has = f"has gradient_accumulation_steps={own}" if own else "has been built without accumulation"
        raise ValueError(
            f"accumulate_grad_batches is {steps}, but the optimizer {has}: make it with gradient_accumulation_steps={steps}, "
            "or leave the argument out"
        )
    optimizer.gradient_accumulation_steps = steps


def _set_clipping(optimizer: keras.optimizers.Optimizer, clipping: tuple[str, float], undo: ExitStack) -> None:
    name, value = clipping
    own = {key: getattr(optimizer, key) for key in ("clipnorm", "global_clipnorm", "clipvalue") if getattr(optimizer, key)}
    if own and own != {name: value}:
        raise ValueError(f"gradient_clip_val asks for {name}={value}, but the optimizer has {own}: leave one of them out")
    setattr(optimizer, name, value)
    undo.callback(setattr, optimizer, name, own.get(name))


def _reset_or_new(
    known: keras.optimizers.Optimizer | None, new: keras.optimizers.Optimizer, module: Module
) -> keras.optimizers.Optimizer:
    """A new optimizer that is like the one known: then that one as if new, with which the module's loops are compiled."""
    if known is None or known is new or not known.built or new.built or type(known) is not type(new):
        return new
    configs = [{key: value for key, value in each.get_config().items() if key != "name"} for each in (known, new)]
    if configs[0] != configs[1]:
        return new
    new.build(model_of(module).trainable_variables)
    if [v.shape for v in new.variables] != [v.shape for v in known.variables]:
        return new
    for variable, initial in zip(known.variables, new.variables, strict=True):
        variable.assign(initial)
    return known
