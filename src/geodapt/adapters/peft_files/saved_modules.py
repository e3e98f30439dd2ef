"""Modules that an adapter brings trained in full (``modules_to_save``): its heads."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

Head = Mapping[str, Tensor]
"""A module's parameters and buffers by their names in it."""


def group_heads(
    tensors: Mapping[str, Tensor], names: Iterable[str]
) -> dict[str, dict[str, Tensor]]:
    """A file's tensors by the module that ``modules_to_save`` names, as PEFT finds it.

    What belongs to no such module stands under an empty path.
    """
    endings = tuple(names)
    heads: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        parts = key.split(".")
        paths = (".".join(parts[:i]) for i in range(1, len(parts)))
        path = next((path for path in paths if path.endswith(endings)), "") if endings else ""
        heads.setdefault(path, {})[key.removeprefix(f"{path}.") if path else key] = tensor
    return heads


def find_modules(
    model: nn.Module, names: Iterable[str], called: Callable[[str], str] = str
) -> list[str]:
    """The modules of a model that ``modules_to_save`` names, as PEFT finds them: by their endings.

    Only the outermost of nested ones, and only those that hold something. By the names that
    ``called`` gives the model's paths.
    """
    endings = tuple(names)
    found: list[str] = []
    for path, module in model.named_modules(remove_duplicate=False):
        name = called(path)
        ends = bool(endings and path and name.endswith(endings))
        if ends and not holder_of(name, found) and module.state_dict():
            found.append(name)
    return found


def holder_of(path: str, modules: Iterable[str]) -> str | None:
    """The one of some modules that is, or holds, what a path names."""
    return next((m for m in modules if path == m or path.startswith(f"{m}.")), None)


def same_head(one: Head, other: Head) -> bool:
    """Whether two heads are one."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
