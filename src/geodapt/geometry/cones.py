"""Entailment: how far ``x`` turns away from the axis of the cone at ``apex``, and how wide it is.

The exterior angle at an apex is the angle between the ray from the root through the apex, carried
on, and the geodesic from the apex to ``x``: 0 straight on beyond the apex, pi back at the root. The
cone at the apex holds what has an exterior angle of at most its half aperture; apexes far from
the root (specific concepts) have narrow cones. In hyperbolic space the root is the origin.

Angles are ``atan2(|u| |v_across|, u.v)``, exact near 0 and pi, where arccos loses half its digits.
At ``x = apex`` and ``apex = root`` the angle is undefined; there it is 0, with the gradient 0.

Sources: Ganea, Becigneul & Hofmann 2018, "Hyperbolic entailment cones"; Desai et al. 2023, "MERU"
(hyperboloid); Alper & Averbuch-Elor 2024, "Emergent visual-semantic hierarchies" (Euclidean).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.geometry import _checks, _smooth
from geodapt.geometry._checks import prepare
from geodapt.geometry._chord import chord
from geodapt.geometry._edge import delta
from geodapt.geometry._sums import dot, plus, square


def exterior_angle(
    apex: Float[Tensor, "*batch d"], x: Float[Tensor, "*batch d"], root: Float[Tensor, "*batch d"]
) -> Float[Tensor, "*batch"]:
    """Euclidean ``pi - angle(root, apex, x) = arccos(sim(apex - root, x - apex))``, in radians."""
    _, (apex, x, root), dtype = prepare(1.0, apex=apex, x=x, root=root)
    axis, towards = apex - root, x - apex
    return _angle(axis, towards, dot(axis, towards)).to(dtype)


def lorentz_exterior_angle(
    apex: Float[Tensor, "*batch d"], x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch"]:
    """Exterior angle on the hyperboloid (space components), from the origin, in radians.

    MERU eq. 5: ``arccos((t(x) + t(apex) p) / (|apex| sqrt(p^2 - 1)))``, ``p = c <apex, x>_L``. The
    tangent vector ``w = x - apex - (c q / 2) apex`` towards x keeps the length of its space
    components across the axis; along it, that length is divided by ``gamma(apex)``.
    """
    c, (apex, x), dtype = prepare(c, apex=apex, x=x)
    towards, aa = x - apex, square(apex)
    along = dot(apex, towards) - c * chord(apex, x, c) / 2 * aa
    return _angle(apex, towards, along / torch.sqrt(1 + c * aa)).to(dtype)


def poincare_exterior_angle(
    apex: Float[Tensor, "*batch d"], x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch"]:
    """Exterior angle in the ball, from the origin, in radians (Ganea et al. 2018, eq. 28).

    The model is conformal: the Euclidean angle between ``apex`` and ``-apex (+) x``.
    """
    c, (apex, x), dtype = prepare(c, apex=apex, x=x)
    towards, aa = x - apex, square(apex)
    inner = delta(apex, aa, c, "apex")
    along = dot(apex, towards) - c * square(towards) * aa / inner
    along = torch.where(delta(x, square(x), c, "x") > 0, along, torch.nan)
    return _angle(apex, towards, along).to(dtype)


def half_aperture(
    apex: Float[Tensor, "*batch d"], root: Float[Tensor, "*batch d"], eps: float | Tensor = 0.1
) -> Float[Tensor, "*batch"]:
    """Euclidean half aperture, ``sin(theta) = eps / |apex - root|``, in radians.

    At a distance of ``eps`` the cone is a half-space (pi/2), and stays one nearer to the root.
    """
    _, (apex, root), dtype = prepare(1.0, apex=apex, root=root)
    return _aperture(eps, _smooth.sqrt(square(apex - root)), apex, root).to(dtype)


def lorentz_half_aperture(
    apex: Float[Tensor, "*batch d"], c: float | Tensor = 1.0, eps: float | Tensor = 0.1
) -> Float[Tensor, "*batch"]:
    """Half aperture on the hyperboloid, ``sin(theta) = 2 eps / (sqrt(c) |apex|)`` (MERU eq. 4).

    Where the right side exceeds 1 the cone is a half-space, pi/2.
    """
    c, (apex,), dtype = prepare(c, apex=apex)
    return _aperture(eps, _smooth.sqrt(c * square(apex)) / 2, apex).to(dtype)


def poincare_half_aperture(
    apex: Float[Tensor, "*batch d"], c: float | Tensor = 1.0, eps: float | Tensor = 0.1
) -> Float[Tensor, "*batch"]:
    """Half aperture in the ball, ``sin(theta) = eps (1 - c|apex|^2) / (sqrt(c) |apex|)``.

    Ganea et al. 2018, eq. 22; the same cone as :func:`lorentz_half_aperture`'s. Where the right
    side exceeds 1 the cone is a half-space, pi/2.
    """
    c, (apex,), dtype = prepare(c, apex=apex)
    aa = square(apex)
    return _aperture(eps, _smooth.sqrt(c * aa) / delta(apex, aa, c, "apex"), apex).to(dtype)


def cone_energy(
    exterior_angle: Float[Tensor, "*batch"], half_aperture: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """How far outside the cone: ``relu(exterior_angle - half_aperture)`` (Ganea et al., eq. 31)."""
    _checks.broadcast(
        {"exterior_angle": exterior_angle.shape, "half_aperture": half_aperture.shape}
    )
    return torch.relu(exterior_angle - half_aperture)


def _angle(axis: Tensor, v: Tensor, along: Tensor) -> Tensor:
    """Angle with the axis of a vector as long as ``v`` across it, ``along / |axis|`` along it."""
    # The angle is the same at any length of the two. About 1 long, their squares do not underflow.
    of_axis, of_v = _power_below_length(axis), _power_below_length(v)
    undefined = ((of_axis == 0) | (of_v == 0)) & ~torch.isnan(along)
    of_axis, of_v = (torch.where(undefined, 1.0, size) for size in (of_axis, of_v))
    axis = torch.where(undefined.unsqueeze(-1), 1.0, axis / of_axis.unsqueeze(-1))
    v, along = v / of_v.unsqueeze(-1), along / of_v / of_axis
    length2 = square(axis)
    opposite = _smooth.sqrt(square(plus(v, -dot(axis, v) / length2, axis)))
    adjacent = along * torch.rsqrt(length2)
    undefined = undefined | ((opposite == 0) & (adjacent == 0))
    return torch.where(undefined, 0.0, torch.atan2(opposite, torch.where(undefined, 1.0, adjacent)))


def _power_below_length(v: Tensor) -> Tensor:
    """A power of two, by which dividing is exact; a constant to derivatives. 0 of a zero vector."""
    return torch.exp2(torch.floor(torch.log2(torch.linalg.vector_norm(v.detach(), dim=-1))))


def _aperture(eps: float | Tensor, of: Tensor, *points: Tensor) -> Tensor:
    """``arcsin(eps / of)`` as an arctangent, pi/2 where there is no such angle."""
    eps = _checks.row_number("eps", eps, *points)
    eps = _checks.positive("eps", eps, "a positive number (the cone's opening)")
    narrow = of > eps
    adjacent = _smooth.sqrt(torch.where(narrow, (of - eps) * (of + eps), 0.0))
    opposite = eps if isinstance(eps, Tensor) else torch.full_like(of, eps)
    both = of + eps
    wide = torch.where(torch.isnan(both), both, math.pi / 2)
    return torch.where(narrow, torch.atan2(opposite, adjacent), wide)
