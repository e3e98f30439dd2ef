"""The outermost call of a model: which of its inputs hold the rows, and how many rows there are.

A call is outermost when no other call of the model, or of a part of it, runs around it.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from geodapt.adapters.execution.argument_flags import ArgumentFlags
from geodapt.adapters.execution.call_sizes import Size
from geodapt.adapters.execution.hooks import NotPickled
from geodapt.errors import InputError

MAIN = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds")
"""Inputs that name the rows where a model does not say which of its inputs is the main one."""
NO_ROWS = re.compile(
    r"mask|position|label|weight|bbox|size|length|seqlen|cache|past_key|thw|(^|[._])(cos|sin)$"
)
"""Names of inputs that say something about rows, but are not what a row is made of."""
AUTOCAST = ("cpu", "cuda", "mps", "xpu")
"""Devices whose automatic casts are noticed."""


@dataclass(frozen=True)
class Call:
    """What a layer needs to know about the outermost call that it runs in."""

    module: nn.Module
    rows: int | None
    """None: no input was found that holds the rows."""
    kind: tuple = ()
    """Calls of one kind send their rows through a model in the same way."""
    single: bool = False
    """Whether every row is one token, as in decoding."""
    lengths: frozenset[int] = frozenset()
    """How many positions a row may have: the second dimensions of the inputs."""
    size: Size = ()

    @property
    def name(self) -> str:
        return type(self.module).__name__


def call_of(
    module: nn.Module, args: tuple, kwargs: Mapping[str, Any], model: int, flags: ArgumentFlags
) -> Call:
    """The outermost call of a model, described.

    ``model`` numbers the state of the model's attributes.
    """
    named = dict(named_arguments(module, args, kwargs))
    tensors = dict(tensors_of(module, args, kwargs))
    main = main_input(module, tensors)
    computed = torch.is_grad_enabled(), *map(torch.is_autocast_enabled, AUTOCAST)
    ways = (model, *computed, *flags.of(named))
    if main is None or _holds_a_row_each(named, main, tensors[main].shape[0]):
        return Call(module, None, ways)
    rows = tensors[main].shape[0]
    parts = {name: t for name, t in tensors.items() if holds_rows(name, t, main, rows)}
    single = tensors[main].ndim == 2 and tensors[main].shape[1] == 1
    kind = tuple(
        # A picture's size decides how its patches are laid out; a text's length does not.
        (name, t.ndim, t.dtype, t.shape[1:] if t.ndim > 3 else None)
        for name, t in sorted(parts.items())
    )
    lengths = frozenset(t.shape[1] for t in tensors.values() if t.ndim > 1)
    # Where rows are as many as positions, shapes do not show in which dimension a layer has them.
    square = rows if tensors[main].ndim > 1 and tensors[main].shape[1] == rows else None
    size = (rows, *(parts[name].shape[1] for name in sorted(parts) if parts[name].ndim > 1))
    return Call(module, rows, (*ways, square, *kind), single, lengths, size)


def _holds_a_row_each(named: Mapping[str, Any], main: str, rows: int) -> bool:
    """Whether rows may be the tensors of a list, of which there are as many as each has places."""
    whole = named[main.partition(".")[0]] if main not in named else None
    return isinstance(whole, list | tuple) and rows > 1 and len(whole) == rows


def tensors_of(
    module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors among a call's arguments by name; ``name.key`` for those in a container."""
    for name, value in named_arguments(module, args, kwargs):
        if isinstance(value, Tensor):
            if value.ndim:
                yield name, value
        elif isinstance(value, Mapping | list | tuple):
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, part in items:
                if isinstance(part, Tensor) and part.ndim:
                    yield f"{name}.{key}", part


def named_arguments(
    module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """A call's arguments by name."""
    yield from zip(names_of_arguments(module, len(args)), args, strict=True)
    yield from kwargs.items()


def names_of_arguments(module: nn.Module, count: int) -> list[str]:
    """The names of a module's first positional arguments."""
    if not count:
        return []
    parameters = inspect.signature(module.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [names[i] if i < len(names) else f"argument {i}" for i in range(count)]


def main_input(module: nn.Module, tensors: Mapping[str, Tensor]) -> str | None:
    """The input whose first dimension is the batch."""
    for name in (getattr(module, "main_input_name", None), *MAIN):
        if isinstance(name, str) and name in tensors:
            return name
    return next((name for name in tensors if not NO_ROWS.search(name)), None)


def holds_rows(name: str, tensor: Tensor, main: str, rows: int) -> bool:
    """Whether an input is what rows are made of: the main one, tokens, pictures or sound."""
    if tensor.shape[0] != rows or tensor.dtype is torch.bool:
        return False
    if name == main:
        return True
    if NO_ROWS.search(name):
        return False
    return tensor.ndim > 1 and (tensor.is_floating_point() or name.endswith("input_ids"))


def compiling() -> bool:
    """Whether the running call is one of a model that :func:`torch.compile` made."""
    inside = getattr(torch._dynamo.eval_frame, "_is_in_optimized_module", lambda: False)
    return torch.compiler.is_compiling() or inside()


def on_calls(
    module: nn.Module,
    enter: Callable[[nn.Module, tuple, dict], None],
    leave: Callable[[nn.Module, bool], None],
    owner: nn.Module,
) -> list[Any]:
    """Call ``enter`` before and ``leave`` after every call of a module; returns the handles.

    Plain functions, so that a deep copy of the module shares them. Those of the whole model, their
    ``owner``, run outside of what :func:`torch.compile` makes of it; those of its parts are not
    compiled in.
    """

    def before(module: nn.Module, args: tuple, kwargs: dict | None = None) -> None:
        if kwargs is None:  # lost by a tool that put the hook on a module in its place
            raise InputError(
                f"a {type(module).__name__} was put in the place of a module that an AdapterBank "
                "acts on; change and quantize the model first and make a new AdapterBank"
            )
        if not torch.compiler.is_compiling():
            enter(module, args, kwargs)

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        if not torch.compiler.is_compiling():
            leave(module, output is not None)  # nothing comes out of a call that fails

    if module is owner:
        before, after = torch.compiler.disable(before), torch.compiler.disable(after)
    before.owner = after.owner = owner  # type: ignore[attr-defined]
    return [
        module.register_forward_hook(NotPickled()),
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, always_call=True),
    ]
