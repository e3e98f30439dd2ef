"""How a bank changes what a model computes without owning it.

Nothing here changes a module's type, its parameters or its state dict: a module gets a
``forward`` of its own that can be taken off again.
"""

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn

from geodapt.errors import InputError

MARK = "_not_pickled"
"""Where a module that is reached into holds what keeps it from being pickled."""


class NotPickled:
    """Says why a module that holds it cannot be pickled; a hook that does nothing else.

    Copies of the module share it.
    """

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        return None

    def __deepcopy__(self, memo: Any) -> "NotPickled":
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise InputError(
            "what an AdapterBank acts on cannot be pickled; write it with save_pretrained or "
            "its state_dict(), or call bank.close() first. Adapters are written by bank.save"
        )


class Attachment:
    """Lets ``run(module, base, *args)`` compute a module's output, ``base`` being its own method.

    Other libraries (accelerate, ...) wrap methods in the same way, before and after; their
    wrappers are called, and stay when this one goes.
    """

    def __init__(self, module: nn.Module, run: Callable[..., Any], method: str = "forward") -> None:
        self.module, self.method = module, method
        self.before = before = module.__dict__.get(method)  # another library's wrapper
        self.run: Callable[..., Any] | None = run
        own, attachment = getattr(type(module), method), self

        def wrapper(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            # Bound to the module that it is called on, so that a deep copy uses its own weights.
            base = partial(own, module) if before is None else before
            run = attachment.run
            return base(*args, **kwargs) if run is None else run(module, base, *args, **kwargs)

        wrapper.attachment = self  # type: ignore[attr-defined]
        self._wrapper = wrapper
        setattr(module, method, MethodType(wrapper, module))
        module.__dict__[MARK] = NotPickled()  # a method like this one is written, but not read

    @property
    def outermost(self) -> bool:
        """Whether the module's method is still this wrapper: nobody wrapped or removed it."""
        found = self.module.__dict__.get(self.method)
        return getattr(found, "__func__", None) is self._wrapper

    def detach(self) -> None:
        """Give the module its method back; under a later wrapper, pass everything through."""
        self.run = None
        if self.outermost:
            _put_back(self.module, self)

    remove = detach  # what PyTorch's own handles call it


def is_attached(module: nn.Module) -> bool:
    """Whether something runs around one of a module's methods, on a copy of the module too."""
    return any(_attachment_of(value) for value in list(module.__dict__.values()))


def strip(model: nn.Module) -> None:
    """Take wrappers and hooks off a deep copy: those that were made for the original's modules."""
    owners: dict[nn.Module, set[nn.Module]] = {}
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in list(hooks.items()):
                owner = getattr(hook, "owner", None)  # the model that a bank is on
                if owner is None:
                    continue
                if owner not in owners:
                    owners[owner] = set(owner.modules())
                if module not in owners[owner]:
                    del hooks[key]
        for value in list(module.__dict__.values()):
            attachment = _attachment_of(value)
            if attachment is not None and attachment.module is not module:
                _put_back(module, attachment)


def _put_back(module: nn.Module, attachment: Attachment) -> None:
    if attachment.before is None:
        del module.__dict__[attachment.method]
    else:  # in one step, as another thread may be calling it
        setattr(module, attachment.method, attachment.before)
    if not is_attached(module):
        module.__dict__.pop(MARK, None)


def _attachment_of(value: Any) -> Attachment | None:
    """What wrapped a method of a module."""
    return getattr(getattr(value, "__func__", None), "attachment", None)


def bind_checkpointing(model: nn.Module, bind: Callable[[Callable], Callable]) -> Any:
    """Make transformers' gradient checkpointing recompute blocks under ``bind(block)``.

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
