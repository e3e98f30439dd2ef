"""A layer's update as one opaque operator, for ``torch.compile``.

The gate is looked up when the operator runs, not when the graph is traced: another gate, other
weights or another route need no new graph, and threads keep their own gates.
"""

from typing import Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor


class AddsUpdates(Protocol):
    """What computes the updates of a model's layers."""

    def add_update(self, path: str, y: Tensor, x: Tensor) -> None:
        """Add the active gate's update of ``x`` at a layer into the base's output ``y``."""


_runners: "WeakValueDictionary[int, AddsUpdates]" = WeakValueDictionary()


def register_runner(runner: AddsUpdates) -> int:
    """A number by which a compiled graph finds what computes its updates."""
    _runners[id(runner)] = runner
    return id(runner)


@torch.library.custom_op("geodapt::add_update", mutates_args=("y",))
def add_update(y: Tensor, x: Tensor, runner: int, path: str) -> None:
    """Add the active gate's update of ``x`` at a layer into the base's output ``y``."""
    _runners[runner].add_update(path, y, x)


@add_update.register_fake
def _(y: Tensor, x: Tensor, runner: int, path: str) -> None:
    return None
