"""Modules that an adapter brings trained in full (``modules_to_save``): its heads."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

Head = Mapping[str, Tensor]
"""A module's parameters and buffers by their names in it."""


class Endings:
    """Names in which a path may end, found in the logarithm of how many there are."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = _outermost(names)
        self._last = _outermost(name.partition(".")[0][::-1] for name in self._names)

    def first_within(self, key: str) -> str:
        """The shortest path of a module above a tensor that ends in a name, else an empty one."""
        at = key.find(".")
        start = 0
        while at >= 0:
            # A path is taken apart only where its last part, which is short, may be a name's.
            if _ends(key[start:at], self._last) and _ends(key[:at], self._names):
                return key[:at]
            start, at = at + 1, key.find(".", at + 1)
        return ""


def _outermost(names: Iterable[str]) -> list[str]:
    """Names written backwards in order, without those that end in another one."""
    found: list[str] = []
    for name in sorted(name[::-1] for name in names):
        if not found or not name.startswith(found[-1]):
            found.append(name)
    return found


def _ends(path: str, backwards: list[str]) -> bool:
    """Whether a path ends in one of the names: in the last that is not after it in order."""
    path = path[::-1]
    place = bisect_right(backwards, path)
    return place > 0 and path.startswith(backwards[place - 1])


def group_heads(
    tensors: Mapping[str, Tensor], names: Iterable[str]
) -> dict[str, dict[str, Tensor]]:
    """A file's tensors by the module that ``modules_to_save`` names, as PEFT finds it.

    What belongs to no such module stands under an empty path.
    """
    ends = Endings(names)
    heads: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        path = ends.first_within(key)
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
