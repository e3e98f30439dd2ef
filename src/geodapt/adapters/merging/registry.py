"""The merge methods by name. A method is a pure function on one layer's factors."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.merging.tiles import Tiles
from geodapt.errors import InputError


class Part(NamedTuple):
    """One adapter at one layer: its update ``B A`` with the scale in B, and its weight."""

    A: Float[Tensor, "r in"]
    B: Float[Tensor, "out r"]
    weight: float


class LowRank(NamedTuple):
    """A merged update that is still in factors, ``B A``."""

    B: Float[Tensor, "out k"]
    A: Float[Tensor, "k in"]


Merged = LowRank | Tiles | Float[Tensor, "out in"]
"""What a method returns: factors where mathematics allows it, else the full matrix."""
Function = TypeVar("Function", bound=Callable[..., Merged])


@dataclass(frozen=True)
class MergeMethod:
    """A way to merge adapters."""

    name: str
    line: str
    """What it does, in a line."""
    source: str
    function: Callable[..., Merged]
    averages: bool
    """Whether it averages by itself, so that every weight is 1 by default; the
    weights of the others are 1 / n."""
    truncates: bool
    """Whether its result is cut to a rank, by default the largest of the adapters'."""
    exact: bool
    """Whether it is the weighted sum itself; for the others, the distance from it or the loss of
    the cut is reported."""

    @property
    def options(self) -> tuple[str, ...]:
        """The names of its options."""
        return tuple(inspect.signature(self.function).parameters)[1:]

    def __call__(self, parts: Sequence[Part], **options) -> Merged:
        return self.function(parts, **options)


METHODS: dict[str, MergeMethod] = {}


def register(
    name: str,
    line: str,
    source: str,
    averages: bool = False,
    truncates: bool = True,
    exact: bool = False,
) -> Callable[[Function], Function]:
    """Make a function on a layer's parts a merge method.

    Its keyword arguments are the method's options.
    """

    def add(function: Function) -> Function:
        METHODS[name] = MergeMethod(name, line, source, function, averages, truncates, exact)
        return function

    return add


def method(name: str) -> MergeMethod:
    """A method by name; raises :class:`InputError` for an unknown one."""
    try:
        return METHODS[name]
    except KeyError:
        raise InputError(
            f"no merge method '{name}'; there are {', '.join(METHODS)} (geodapt merge --list)"
        ) from None
