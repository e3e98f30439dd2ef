"""What a model keeps from call to call, put back after passes that it shall not remember."""

import copy
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from geodapt.adapters.execution.model_flags import STATE
from geodapt.errors import InputError

LARGE = 2**24
"""Tensors of more numbers than this are not copied, but must not change."""
LARGE_WHOLE = 2**20
"""The same for whole numbers, which larger are a quantized model's weights."""
SAMPLED = 64
"""Numbers of a weight by which a change of it is seen."""
CONTAINERS = (list, dict, set, deque)


class KeptState:
    """Buffers and attributes of modules as they are now, in tensors and containers of their own."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._tables: list[tuple[dict[str, Any], dict[str, Any]]] = []
        """Each module's attributes, and its buffers, with their values."""
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}
        self._containers: dict[int, tuple[Any, Any]] = {}
        self._versions: list[tuple[Tensor, int]] = []
        self._parameters: list[tuple[Tensor, Tensor]] = []
        """Weights, and a few of their numbers."""
        for module in modules:
            self._parameters += [(weight, _some(weight)) for weight in module.parameters()]
            for part in module.modules():
                self._keep({name: v for name, v in vars(part).items() if name not in STATE}, part)
                self._keep(dict(part._buffers), part._buffers)

    def _keep(self, values: dict[str, Any], owner: Any) -> None:
        self._tables.append((vars(owner) if isinstance(owner, nn.Module) else owner, values))
        for value in values.values():
            self._keep_inside(value)

    def _keep_inside(self, value: Any) -> None:
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            most = LARGE if value.is_floating_point() else LARGE_WHOLE
            if value.numel() > most and not value.is_inference():
                self._versions.append((value, value._version))
            elif value.device.type != "meta":
                self._tensors.setdefault(id(value), (value, value.detach().clone()))
        elif isinstance(value, CONTAINERS) and id(value) not in self._containers:
            self._containers[id(value)] = (value, copy.copy(value))
            for part in value.values() if isinstance(value, dict) else value:
                self._keep_inside(part)

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the modules back what they had.

        An attribute that is new and true stays: it marks what was installed once, as hooks are. All
        stay where weights changed, as RWKV rescales its own once: they say what was done to these.
        Raises :class:`InputError` where a tensor changed that is too large for a copy.
        """
        rescaled = any(_differ(_some(weight), few) for weight, few in self._parameters)
        for owner, values in () if rescaled else self._tables:
            for name in [n for n in list(owner) if n not in values and n not in STATE]:
                if owner[name] is not True:
                    del owner[name]
            owner.update({n: v for n, v in values.items() if owner.get(n, self) is not v})
        for container, before in self._containers.values():
            if _same(container, before):  # which other threads may be reading
                continue
            if isinstance(container, list):
                container[:] = before
                continue
            container.clear()
            (container.extend if isinstance(container, deque) else container.update)(before)
        for tensor, before in self._tensors.values():
            if not torch.equal(tensor, before):
                tensor.copy_(before)
        for tensor, version in self._versions:
            if tensor._version != version:
                raise InputError(
                    f"the model writes to a tensor of shape {tuple(tensor.shape)} whenever it is "
                    "called, also to find out where its layers hold the rows; set it back, and run "
                    "rows under different adapters in batches of their own"
                )


def _some(weight: Tensor) -> Tensor:
    if weight.device.type == "meta" or type(weight) is not nn.Parameter:
        return torch.empty(0)
    return weight.detach().flatten()[:: max(1, weight.numel() // SAMPLED)].clone()


def _differ(some: Tensor, before: Tensor) -> bool:
    if some.device != before.device or some.shape != before.shape:  # offloaded meanwhile
        return False
    return bool(((some != before) & ~(some.isnan() & before.isnan())).any())


def _same(one: Any, other: Any) -> bool:
    """Whether two containers hold the same things."""
    if isinstance(one, set):
        return one == other
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(other[key] is part for key, part in one.items())
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
