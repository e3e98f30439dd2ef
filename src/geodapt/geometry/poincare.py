"""The Poincare ball of radius ``1/sqrt(c)``: the points with ``c |x|^2 < 1``.

Curvature is ``-c`` with ``c > 0``. Everywhere: the last dimension is the vector's, the others
broadcast; ``c`` is a positive number or a tensor that broadcasts with the batch dimensions (those
without the vector's), and may be learned. Results have the inputs' type; the arithmetic inside is
float64, whatever autocast says, but for sums that float32 is shown to be enough for.

A float32 point reaches as far as ``2/sqrt(c) artanh(1 - 6e-8)``, about ``17.3/sqrt(c)``, from the
origin, bfloat16 about ``6.2/sqrt(c)``. A result beyond that is rounded to the outermost point
that its type can hold inside the ball, never onto the edge; use :mod:`geodapt.geometry.lorentz`
for what lies farther out.

Notation: ``delta(x) = 1 - c |x|^2 = 2 / conformal_factor(x)``, and
``q(x, y) = 4 |x-y|^2 / (delta(x) delta(y))``, the squared chord on the hyperboloid.

Sources: Ungar 2008, "A gyrovector space approach to hyperbolic geometry"; Ganea, Becigneul &
Hofmann 2018, "Hyperbolic neural networks" (equations given per function).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.geometry import _analytic, _domain
from geodapt.geometry._rows import Dots, combine, dots, pairwise_dots, square, wide
from geodapt.geometry._whole import one_pass
from geodapt.geometry.lorentz import chord_to_distance


@one_pass()
def mobius_add(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch d"]:
    """``x (+) y = ((1 + 2c x.y + c|y|^2) x + (1 - c|x|^2) y) / (1 + 2c x.y + c^2 |x|^2 |y|^2)``.

    Ganea et al. 2018, eq. 4. With ``p = c |x+y|^2`` the first factor is ``delta(x) + p`` and the
    denominator ``delta(x) delta(y) + p``: sums of positive numbers.
    """
    c = _domain.curvature(c)
    _domain.in_ball(c, x=x, y=y)
    p = dots(x, y)
    together = c * (p.xx + 2 * p.xy + p.yy)
    return _mobius_sum(x, 1 - c * p.xx, y, 1 - c * p.yy, together)


@one_pass()
def exp0(v: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """Exponential map at the origin: ``tanh(sqrt(c) |v|) / (sqrt(c) |v|) v`` (Ganea, eq. 13)."""
    c = _domain.curvature(c)
    _domain.vectors(v=v)
    s = c * square(v)
    return combine((_inside(_analytic.tanhc(s), _analytic.sech2(s), v.dtype), v))


@one_pass()
def log0(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """Logarithm at the origin: ``artanh(sqrt(c) |x|) / (sqrt(c) |x|) x`` (Ganea, eq. 13)."""
    c = _domain.curvature(c)
    _domain.in_ball(c, x=x)
    return combine((_artanhc(c * square(x)), x))


@one_pass()
def exp(
    x: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch d"]:
    """``x (+) tanh(sqrt(c) lambda_x |v| / 2) / (sqrt(c) |v|) v`` (Ganea, eq. 12).

    ``v`` is a tangent vector in the ball's coordinates, of length ``lambda_x |v|``.
    """
    c = _domain.curvature(c)
    _domain.in_ball(c, x=x)
    _domain.vectors(v=v)
    p = dots(x, v)
    delta = 1 - c * p.xx
    s = c * p.yy / delta**2
    k = _analytic.tanhc(s) / delta  # the second summand is k v
    together = c * (p.xx + 2 * k * p.xy + k * k * p.yy)
    return _mobius_sum(x, delta, v, _analytic.sech2(s), together, k)


@one_pass()
def log(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch d"]:
    """``2 / (sqrt(c) lambda_x) artanh(sqrt(c) |m|) m / |m|`` with ``m = -x (+) y`` (Ganea, eq. 12).

    ``m = (delta(x) (y - x) - c |x-y|^2 x) / (delta(x) delta(y) + c |x-y|^2)``, and with
    ``h = c q / 4`` the artanh is ``asinh(sqrt(h))``.
    """
    c = _domain.curvature(c)
    _domain.in_ball(c, x=x, y=y)
    p = dots(x, y)
    delta, product = 1 - c * p.xx, (1 - c * p.xx) * (1 - c * p.yy)
    h = c * p.dd / product
    k = delta * _analytic.asinhc(h) / (torch.sqrt(1 + h) * product)
    return combine((k * delta, y), (-k * (delta + c * p.dd), x))


@one_pass(gives=torch.float32)
def distance(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch"]:
    """Geodesic distance ``2/sqrt(c) asinh(sqrt(c |x-y|^2 / (delta(x) delta(y))))``.

    Equal to ``2/sqrt(c) artanh(sqrt(c) |-x (+) y|)`` (Ganea, eq. 6) without forming the sum. The
    gradient at coincident points is 0, as that of a norm is.
    """
    c = _domain.curvature(c)
    _domain.in_ball(c, x=x, y=y)
    return chord_to_distance(_chord(dots(x, y), c), c).to(torch.promote_types(x.dtype, y.dtype))


@one_pass(gives=torch.float32, pairs=True)
def pairwise_distance(
    x: Float[Tensor, "*batch n d"], y: Float[Tensor, "*batch m d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch n m"]:
    """:func:`distance` of each row of ``x`` to each row of ``y``; ``c`` broadcasts with (n, m)."""
    c = _domain.curvature(c)
    _domain.in_ball(_per_row(c), x=x, y=y)
    q = _chord(pairwise_dots(x, y), c)
    return chord_to_distance(q, c).to(torch.promote_types(x.dtype, y.dtype))


@one_pass(gives=torch.float32)
def radius(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch"]:
    """Distance from the origin, ``2/sqrt(c) artanh(sqrt(c) |x|)``."""
    c = _domain.curvature(c)
    _domain.in_ball(c, x=x)
    xx = square(x)
    return (2 * _analytic.sqrt(xx) * _artanhc(c * xx)).to(x.dtype)


def mobius_matvec(
    m: Float[Tensor, "out d"], x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch out"]:
    """``M (x) x = exp0(M log0(x))`` (Ganea, eq. 27), for one matrix and any number of points.

    The matrix multiplies the points themselves, in their own type; what log0 and exp0 do to a
    vector is a factor, and factors commute with the product. So the cost is one product.
    """
    c = _domain.curvature(c)
    _domain.in_ball(c, x=x)
    with torch.autocast(x.device.type, enabled=False):
        image = x @ m.to(x.dtype).mT
    return _mobius_image(image, square(x), c)


@one_pass()
def _mobius_image(
    x: Float[Tensor, "*batch d"], w: Float[Tensor, "*batch"], c: float | Tensor
) -> Float[Tensor, "*batch d"]:
    """``M (x) p`` of ``x = M p`` and ``w = |p|^2``."""
    k = _artanhc(c * w)
    s = c * k * k * square(x)
    return combine((k * _inside(_analytic.tanhc(s), _analytic.sech2(s), x.dtype), x))


@one_pass()
def mobius_scalar(
    r: float | Tensor, x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch d"]:
    """``r (x) x = tanh(r artanh(sqrt(c) |x|)) / (sqrt(c) |x|) x`` (Ganea, eq. 5).

    The point on the ray through ``x`` at ``r`` times its distance from the origin.
    """
    c = _domain.curvature(c)
    _domain.in_ball(c, x=x)
    r = wide(r) if isinstance(r, Tensor) else float(r)
    xx = square(x)
    k = r * _artanhc(c * xx)
    s = c * k * k * xx
    return combine((k * _inside(_analytic.tanhc(s), _analytic.sech2(s), x.dtype), x))


@one_pass(gives=torch.float32)
def conformal_factor(
    x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch"]:
    """``lambda_x = 2 / (1 - c |x|^2)``: lengths at ``x`` are ``lambda_x`` times the Euclidean."""
    c = _domain.curvature(c)
    _domain.in_ball(c, x=x)
    return (2 / (1 - c * square(x))).to(x.dtype)


@one_pass()
def project(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """Any vector, brought radially to the nearest point that its type holds inside the ball.

    For vectors that an optimiser's step or a file may have put outside; points inside stay
    exactly as they are.
    """
    c = _domain.curvature(c)
    _domain.vectors(x=x)
    s = c * square(x)
    outside = ~(s < 1)
    k = (1 - _margin(x.dtype)) * torch.rsqrt(torch.where(outside, s, 1.0))
    k = torch.where(outside, k, 1.0)
    return combine((k, x))


@one_pass()
def to_lorentz(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """The space components of the same point on the hyperboloid: ``2 x / (1 - c |x|^2)``."""
    c = _domain.curvature(c)
    _domain.in_ball(c, x=x)
    return combine((2 / (1 - c * square(x)), x))


def _chord(p: Dots, c: float | Tensor) -> Tensor:
    return 4 * p.dd / ((1 - c * p.xx) * (1 - c * p.yy))


def _artanhc(s: Tensor) -> Tensor:
    """``artanh(z) / z`` of ``s = z^2 < 1``: ``artanh(z) = asinh(z / sqrt(1 - z^2))``."""
    return _analytic.asinhc(s / (1 - s)) * torch.rsqrt(1 - s)


def _mobius_sum(
    x: Tensor,
    delta_x: Tensor,
    y: Tensor,
    delta_y: Tensor,
    together: Tensor,
    k: Tensor | None = None,
) -> Tensor:
    """``x (+) k y`` from ``delta(x)``, ``delta(k y)`` and ``c |x + k y|^2``."""
    product = delta_x * delta_y
    inverse = _inside(1 / (product + together), product / (product + together), x.dtype)
    along = delta_x if k is None else delta_x * k
    return combine(((delta_x + together) * inverse, x), (along * inverse, y))


def _inside(factor: Tensor, delta: Tensor, dtype: torch.dtype) -> Tensor:
    """The factor that gives a point with ``1 - c |x|^2 = delta``, lowered where rounding to the
    result's type could put that point onto the edge of the ball or beyond."""
    margin = _margin(dtype)
    least = margin * (2 - margin)  # delta of sqrt(c) |x| = 1 - margin
    near = delta < least
    lower = math.sqrt(1 - least) * torch.rsqrt(1 - torch.where(near, delta, 0.0))
    return torch.where(near, factor * lower, factor)


def _margin(dtype: torch.dtype) -> float:
    """Rounding the components moves the norm by at most half of eps; keep a whole one.

    In float64 the sums round as well.
    """
    return torch.finfo(dtype).eps * (16 if dtype == torch.float64 else 1)


def _per_row(c: float | Tensor) -> float | Tensor:
    """Curvature for a row, from one that broadcasts with pairs of rows."""
    return c[..., 0] if isinstance(c, Tensor) and c.dim() else c
