"""Points of hyperbolic space as a network uses them: formulas that lose nothing in float32.

:mod:`geodapt.geometry.lorentz` in float64 is the reference. A network computes in float32 or less,
so its formulas are written in the **time excess** of a point, ``u(x) = t(x) - 1/sqrt(c)``, in the
form ``|x|^2 / (t(x) + 1/sqrt(c))``, which does not subtract. Where curvature is small or a
point near the origin, ``t`` is a large constant plus a small number, and only the small number
says anything; in bfloat16 it would be lost.

Everywhere: a point is its space components ``x``, the space has curvature ``-c`` with ``c`` above
0; scalars (times, excesses, norms) are float32 or wider, whatever type the vectors have.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Curvature(NamedTuple):
    """The curvature ``-c`` of a space, with the two powers of c that its formulas are made of."""

    c: float | Tensor
    radius: float | Tensor
    """``1/sqrt(c)``, the time of the origin."""
    radius2: float | Tensor
    """``1/c``."""

    @classmethod
    def of(cls, c: float | Tensor) -> "Curvature":
        return cls(c, c**-0.5, 1 / c)


def wide(x: Tensor) -> Tensor:
    """The tensor in the type that scalars are computed in: float32 or wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def square(x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """``|x|^2``, in float32 or wider."""
    return wide(x).square().sum(-1)


def scaled(x: Float[Tensor, "*batch d"], k: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch d"]:
    """``k x`` in the type of x, without rounding k to it."""
    return (x * k.unsqueeze(-1)).to(x.dtype)


def time(x: Float[Tensor, "*batch d"], c: Curvature) -> Float[Tensor, "*batch"]:
    """``t(x) = sqrt(|x|^2 + 1/c)``."""
    return time_of(square(x), c)


def time_of(square: Float[Tensor, "*batch"], c: Curvature) -> Float[Tensor, "*batch"]:
    """Time of points with this ``|x|^2``."""
    return torch.sqrt(square + c.radius2)


def excess(square: Float[Tensor, "*batch"], c: Curvature) -> Float[Tensor, "*batch"]:
    """Time excess ``u = t - 1/sqrt(c)`` of points with this ``|x|^2``."""
    return square / (torch.sqrt(square + c.radius2) + c.radius)


def inverse_norm(
    square: Float[Tensor, "*batch"],
    excess: Float[Tensor, "*batch"],
    mass: float | Tensor,
    c: Curvature,
) -> Float[Tensor, "*batch"]:
    """``1 / sqrt(-c <s, s>_L)`` of a weighted sum of points: times ``s`` it is their centroid.

    ``square`` is ``|s|^2`` of the sum's space part, ``excess`` the weighted sum of excesses,
    ``mass`` the sum of weights, so that ``s_t = mass / sqrt(c) + excess`` and::

        -c <s, s>_L = c (s_t^2 - |s|^2) = mass^2 + c (excess (2 mass / sqrt(c) + excess) - |s|^2)

    The bracket is 0 or more (the inverse triangle inequality); rounding must not take it lower.
    """
    bracket = excess * (2 * mass * c.radius + excess) - square
    return torch.rsqrt(mass * mass + c.c * bracket.clamp_min(0))


def residual(
    x: Float[Tensor, "*batch d"],
    y: Float[Tensor, "*batch d"],
    weight: Tensor,
    scale: Tensor,
    c: Curvature,
) -> Float[Tensor, "*batch d"]:
    """Lorentzian residual connection: ``scale`` times the centroid of ``x + weight y``."""
    s = torch.addcmul(x, y.to(x.dtype), weight.to(x.dtype))
    lifted = excess(square(x), c) + weight * excess(square(y), c)
    return scaled(s, scale * inverse_norm(square(s), lifted, 1 + weight, c))


def rms_norm(
    x: Float[Tensor, "*batch d"], weight: Float[Tensor, "d"], eps: float, c: Curvature
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch"]]:
    """RMSNorm of the space components, and the time of the result."""
    h = scaled(x, torch.rsqrt(square(x) / x.shape[-1] + eps)) * weight
    return h, time(h, c)
