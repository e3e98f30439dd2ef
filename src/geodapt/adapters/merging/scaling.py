"""Updates of any size, merged where float32 neither overflows nor loses them.

Every method gives c times its result for c times its updates or its weights, so both are brought
near 1 by powers of two, which change no digit, and the result is brought back.
"""

import math
from collections.abc import Sequence
from functools import reduce

import torch

from geodapt.adapters.merging.registry import LowRank, Part
from geodapt.adapters.merging.truncation import Truncated
from geodapt.adapters.peft_files.factor_checks import largest
from geodapt.adapters.peft_files.factors import Factors


def normalise(touching: Sequence[tuple[Factors, float]]) -> tuple[list[Part], int]:
    """One layer's parts on the CPU in float32 (float64 if one is), and the power of two taken out.

    The largest entry of every A, and those of the largest B and weight, are between 1/2 and 1.
    """
    types = [factors.A.dtype for factors, _ in touching]
    dtype = reduce(torch.promote_types, types, torch.float32)
    sizes = [
        (_power(largest(A)), _power(largest(A)) + _power(largest(B)) + _power(scale))
        for (A, B, scale), _ in touching
    ]
    update = max(size for _, size in sizes)
    weight = max(_power(weight) for _, weight in touching)
    parts = []
    for (factors, share), (size, _) in zip(touching, sizes, strict=True):
        A, B = (factor.detach().to("cpu", dtype) for factor in (factors.A, factors.B))
        A = A * math.ldexp(1.0, -size)
        B = factors.scaled(B, size - update)
        parts.append(Part(A, B, math.ldexp(share, -weight)))
    return parts, update + weight


def restore_scale(cut: Truncated, power: int) -> Truncated:
    """``2^power`` times a merged update."""
    half = power // 2
    return cut._replace(
        A=cut.A * math.ldexp(1.0, half),
        B=cut.B * math.ldexp(1.0, power - half),
        lost=_times(cut.lost, power),
        whole=_times(cut.whole, power),
    )


def as_it_is(merged: LowRank, wanted: LowRank, exact: bool) -> Truncated:
    """Factors that are not cut, and their distance from the wanted sum."""
    whole = Factors(wanted.A, wanted.B).norm()
    lost = 0.0
    if not exact:
        A = torch.cat([merged.A, wanted.A]).double()
        B = torch.cat([merged.B, -wanted.B], 1).double()
        left, right = torch.linalg.qr(B, mode="r").R, torch.linalg.qr(A.T, mode="r").R
        lost = torch.linalg.matrix_norm(left @ right.T).item()
        # Float32's rounding of factors that are all kept is no loss.
        lost = 0.0 if lost < 8 * torch.finfo(merged.A.dtype).eps * whole else lost
    return Truncated(merged.A, merged.B, lost, whole)


def _power(value: float) -> int:
    """The exponent of the power of two above a magnitude; 0 for a zero."""
    return math.frexp(value)[1]


def _times(value: float, power: int) -> float:
    try:
        return math.ldexp(value, power)
    except OverflowError:
        return math.inf
