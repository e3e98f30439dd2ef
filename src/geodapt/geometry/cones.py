"""Entailment: how far ``x`` turns away from the axis of the cone at ``apex``, and how wide it is.

The exterior angle at an apex is the angle between the ray from the root through the apex, carried
on, and the geodesic from the apex to ``x``: 0 straight behind the apex, pi back at the root. The
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

from geodapt.geometry import _analytic, _domain
from geodapt.geometry._rows import dots, square, wide
from geodapt.geometry.lorentz import chord


def exterior_angle(
    apex: Float[Tensor, "*batch d"], x: Float[Tensor, "*batch d"], root: Float[Tensor, "*batch d"]
) -> Float[Tensor, "*batch"]:
    """Euclidean ``pi - angle(root, apex, x) = arccos(sim(apex - root, x - apex))``, in radians."""
    _domain.vectors(apex=apex, x=x, root=root)
    dtype = _dtype(apex, x)
    apex, x, root = wide(apex), wide(x), wide(root)
    axis, towards = apex - root, x - apex
    return _angle(axis, towards, torch.linalg.vecdot(axis, towards)).to(dtype)


def lorentz_exterior_angle(
    apex: Float[Tensor, "*batch d"], x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch"]:
    """Exterior angle on the hyperboloid (space components), from the origin, in radians.

    MERU eq. 5: ``arccos((t(x) + t(apex) p) / (|apex| sqrt(p^2 - 1)))``, ``p = c <apex, x>_L``. The
    tangent vector ``w = x - apex - (c q / 2) apex`` towards x keeps the length of its space
    components across the axis; along it, that length is divided by ``gamma(apex)``.
    """
    c = _domain.curvature(c)
    _domain.vectors(apex=apex, x=x)
    dtype = _dtype(apex, x)
    apex, x = wide(apex), wide(x)
    p = dots(apex, x)
    turn = c * chord(p, c) / 2
    along = torch.linalg.vecdot(apex, x - apex) - turn * p.xx
    return _angle(apex, x, along / torch.sqrt(1 + c * p.xx)).to(dtype)


def poincare_exterior_angle(
    apex: Float[Tensor, "*batch d"], x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch"]:
    """Exterior angle in the ball, from the origin, in radians (Ganea et al. 2018, eq. 28).

    The model is conformal: the Euclidean angle between ``apex`` and ``-apex (+) x``.
    """
    c = _domain.curvature(c)
    _domain.in_ball(c, apex=apex, x=x)
    dtype = _dtype(apex, x)
    apex, x = wide(apex), wide(x)
    p = dots(apex, x)
    delta = 1 - c * p.xx
    along = delta * torch.linalg.vecdot(apex, x - apex) - c * p.dd * p.xx
    return _angle(apex, x, along / delta).to(dtype)


def half_aperture(
    apex: Float[Tensor, "*batch d"], root: Float[Tensor, "*batch d"], eps: float | Tensor = 0.1
) -> Float[Tensor, "*batch"]:
    """Euclidean half aperture, ``sin(theta) = eps / |apex - root|``, in radians.

    At a distance of ``eps`` the cone is a half-space (pi/2), and stays one nearer to the root.
    """
    _domain.vectors(apex=apex, root=root)
    gap = wide(apex) - wide(root)
    return _aperture(eps, _analytic.sqrt(torch.linalg.vecdot(gap, gap))).to(_dtype(apex, root))


def lorentz_half_aperture(
    apex: Float[Tensor, "*batch d"], c: float | Tensor = 1.0, eps: float | Tensor = 0.1
) -> Float[Tensor, "*batch"]:
    """Half aperture on the hyperboloid, ``sin(theta) = 2 eps / (sqrt(c) |apex|)`` (MERU eq. 4).

    Where the right side exceeds 1 the cone is a half-space, pi/2.
    """
    c = _domain.curvature(c)
    _domain.vectors(apex=apex)
    return _aperture(2 * eps, _analytic.sqrt(c * square(apex))).to(apex.dtype)


def poincare_half_aperture(
    apex: Float[Tensor, "*batch d"], c: float | Tensor = 1.0, eps: float | Tensor = 0.1
) -> Float[Tensor, "*batch"]:
    """Half aperture in the ball, ``sin(theta) = eps (1 - c|apex|^2) / (sqrt(c) |apex|)``.

    Ganea et al. 2018, eq. 22; the same cone as :func:`lorentz_half_aperture`'s. Where the right
    side exceeds 1 the cone is a half-space, pi/2.
    """
    c = _domain.curvature(c)
    _domain.in_ball(c, apex=apex)
    s = c * square(apex)
    return _aperture(eps, _analytic.sqrt(s) / (1 - s)).to(apex.dtype)


def cone_energy(
    exterior_angle: Float[Tensor, "*batch"], half_aperture: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """How far outside the cone: ``relu(exterior_angle - half_aperture)`` (Ganea et al., eq. 31)."""
    return torch.relu(exterior_angle - half_aperture)


def _angle(axis: Tensor, v: Tensor, along: Tensor) -> Tensor:
    """Angle with the axis of a vector as long as ``v`` across it, ``along / |axis|`` along it."""
    length2 = torch.linalg.vecdot(axis, axis)
    share = torch.linalg.vecdot(axis, v) / torch.where(length2 > 0, length2, 1.0)
    across = v - share.unsqueeze(-1) * axis
    opposite = _analytic.sqrt(torch.linalg.vecdot(across, across) * length2)
    undefined = (opposite == 0) & (along == 0)
    return torch.atan2(opposite, torch.where(undefined, 1.0, along))


def _aperture(sine: float | Tensor, of: Tensor) -> Tensor:
    """``arcsin(sine / of)`` as an arctangent, pi/2 where there is no such angle."""
    sine = wide(sine) if isinstance(sine, Tensor) else sine
    narrow = of > sine
    adjacent = _analytic.sqrt(torch.where(narrow, (of - sine) * (of + sine), 0.0))
    opposite = sine if isinstance(sine, Tensor) else torch.full_like(of, sine)
    return torch.where(narrow, torch.atan2(opposite, adjacent), math.pi / 2)


def _dtype(x: Tensor, y: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, y.dtype)
