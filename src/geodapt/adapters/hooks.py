"""How a bank reaches into a model that it does not own.

Nothing here changes a module's type, its parameters or its state dict: a module gets a
``forward`` of its own that can be taken off again.
"""

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn


def attach(module: nn.Module, run: Callable[..., Any]) -> Callable[[], None]:
    """Let ``run(module, base, *args)`` compute a module's output, ``base`` being its own forward.

    Returns what takes it off again.
    """
    before = module.__dict__.get("forward")  # another library's wrapper, such as accelerate's
    own = type(module).forward

    def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        # Bound to the module that it is called on, so that a deep copy uses its own weights.
        base = partial(own, module) if before is None else before
        return run(module, base, *args, **kwargs)

    module.forward = MethodType(forward, module)

    def detach() -> None:
        del module.__dict__["forward"]
        if before is not None:
            module.__dict__["forward"] = before

    return detach


def bind_checkpointing(model: nn.Module, bind: Callable[[Callable], Callable]) -> Any:
    """Make transformers' gradient checkpointing recompute a block under ``bind(block)``.

    transformers sets the checkpointing function when checkpointing is switched on, so each
    forward of the model looks whether it is there. Returns the handle of that hook.
    """

    def checkpoint(original: Callable, function: Callable, *args: Any, **kwargs: Any) -> Any:
        return original(bind(function), *args, **kwargs)

    def before(model: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        for part in model.modules():
            run = part.__dict__.get("_gradient_checkpointing_func")
            if run is not None and not _wrapped_by(checkpoint, run):
                part._gradient_checkpointing_func = partial(checkpoint, run)  # type: ignore[assignment]

    return model.register_forward_pre_hook(before)


def _wrapped_by(wrapper: Callable, run: Any) -> bool:
    """Whether a wrapper is somewhere around a function (each bank has its own)."""
    while isinstance(run, partial):
        if run.func is wrapper:
            return True
        run = run.args[0] if run.args else None
    return False
