"""The target of a compression: a size, or an allowed loss."""

import math
from dataclasses import dataclass

from geodapt.checks import check_count, number
from geodapt.compress.budget import SizeBudget
from geodapt.compress.layer_format import CompressionMethod
from geodapt.errors import InputError


@dataclass(frozen=True)
class Target:
    """A size or an allowed loss. Each field may be unset, but an SVD needs one of them."""

    bits_per_weight: float | None = None
    """Of the compressed layers' weights, scales and factors counted in."""
    megabytes: float | None = None
    """Of the same, all layers together (2^20 bytes)."""
    loss: float | None = None
    """Mean over layers of the share of the output energy lost."""
    rank: int | None = None
    """The same rank for every layer, in place of a budget."""
    group: int | None = None
    """Inputs that share a scale, where the method has integers."""

    def check(self, method: CompressionMethod) -> None:
        """Raise :class:`InputError` for what is no size, contradicts itself or says nothing."""
        for name in ("bits_per_weight", "megabytes", "loss"):
            value, most = getattr(self, name), 1 if name == "loss" else math.inf
            expected = "a number above 0" + (" and below 1" if name == "loss" else "")
            if value is not None and not 0 < number(name, value, expected) < most:
                raise InputError(f"{name} is {value}; expected {expected}")
        for name in ("rank", "group"):
            if (value := getattr(self, name)) is not None:
                check_count(name, value)
        sizes = [self.bits_per_weight, self.megabytes, self.loss, self.rank]
        given = sum(value is not None for value in sizes)
        if given > 1:
            raise InputError("give one of bits per weight, megabytes, loss and rank, not several")
        if not given and not method.uniform:
            raise InputError(
                f"method {method.name} needs to know how small: give bits per weight, megabytes, "
                "an allowed loss or a rank"
            )
        if self.rank is not None and not method.lowrank:
            raise InputError(f"method {method.name} has no rank; give bits per weight")
        if self.rank is not None and method.integers and method.width is None:
            raise InputError(
                "with a rank in place of a budget the width must be given: lowrank_plus_int4"
            )
        if self.group is not None and not method.integers:
            raise InputError(f"method {method.name} has no groups; leave the group out")

    def budget(self, weights: int) -> SizeBudget | None:
        """The budget for layers with so many weights; none where the forms are given."""
        if self.bits_per_weight is not None:
            return SizeBudget(bytes=self.bits_per_weight * weights / 8)
        if self.megabytes is not None:
            return SizeBudget(bytes=self.megabytes * 2**20)
        return None if self.loss is None else SizeBudget(loss=self.loss)
