"""Near the edge of the ball: how far inside a point lies, and results that must stay inside.

A result lies at most ``1 - margin`` of the radius from the origin, so that what is computed from it
afterwards is finite and agrees with it. In float32 and float64 the margin is four times ``eps``,
which is more than the rounding of a result's sums and components; bfloat16 and float16 results are
computed in float32 and rounded once, for which one ``eps`` is enough.
"""

import torch
from torch import Tensor

from geodapt.geometry import _checks
from geodapt.geometry._sums import NEAR, finite, lowest, one_minus_square, scale, square


def margin(dtype: torch.dtype) -> float:
    """Share of the radius that results of this type keep from the edge."""
    return torch.finfo(dtype).eps * (4 if dtype in (torch.float32, torch.float64) else 1)


def delta(x: Tensor, xx: Tensor, c: float | Tensor, name: str) -> Tensor:
    """``1 - c |x|^2`` of a point, NaN on the edge and outside; ``xx`` is ``|x|^2``."""
    rounded = 1 - c * xx
    if lowest(rounded) >= NEAR:
        return rounded
    delta = one_minus_square(x, xx, c)
    if _checks.checking():
        _checks.require_values(delta > 0, name, "inside the ball, c |x|^2 < 1", x)
    return torch.where(delta > 0, delta, torch.nan)


def held_inside(factor: Tensor, s: Tensor, dtype: torch.dtype) -> Tensor:
    """A factor of vectors with ``c |v|^2 = s``, lowered where the product would be too far out."""
    most = 1 - margin(dtype)
    if not torch.is_grad_enabled():  # the bound is infinite at the origin, and so its derivatives
        outermost = most * torch.rsqrt(s)
        return torch.clamp(factor, -outermost, outermost)
    beyond = factor.square() * s > most**2
    outermost = torch.copysign(most * torch.rsqrt(torch.where(beyond, s, 1.0)), factor)
    return torch.where(beyond, outermost, factor)


def inside(x: Tensor, delta: Tensor, c: float | Tensor, dtype: torch.dtype) -> Tensor:
    """A point that was summed, with the norm that its ``1 - c |x|^2 = delta`` says, held inside.

    Near the edge ``delta`` is more accurate than the sum. To derivatives the factor is the constant
    1 that it would be without rounding, except where the point is held.
    """
    if lowest(delta) >= 0.5:
        return x
    s = finite(c * square(x))
    right = torch.sqrt((1 - delta.detach()) / s.detach())
    return scale(held_inside(torch.where(delta < 0.5, right, 1.0), s, dtype), x)
