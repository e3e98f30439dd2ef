"""The hyperboloid, with points stored by their space components only.

A point of hyperbolic space of curvature ``-c`` (``c > 0``; papers with ``K < 0`` mean ``K = -c``)
is a vector of R^(d+1) with ``<x, x>_L = |x|^2 - t^2 = -1/c`` and ``t > 0``. Only the ``d`` space
components are stored, so that every vector is a point: ``t(x) = sqrt(|x|^2 + 1/c)`` is computed
where it is needed. Tangent vectors are stored likewise; the time component of ``v`` at ``x`` is
``x.v / t(x)``, from ``<x, v>_L = 0``.

Everywhere: the last dimension is the vector's, the others broadcast; ``c`` is a positive number
or a tensor that broadcasts with the batch dimensions (those without the vector's), and may be
learned. Results have the inputs' type; the arithmetic inside is float64, whatever autocast says,
but for sums that float32 is shown to be enough for.

Notation: ``gamma(x) = sqrt(c) t(x)``, and ``q(x, y) = <x-y, x-y>_L``, the squared chord, for which
``-c <x, y>_L = cosh(sqrt(c) d(x, y)) = 1 + c q / 2``. Every formula is written in ``q``, because
``q`` is computed to full precision for close points and for far ones.

Sources: Nickel & Kiela 2018, "Learning continuous hierarchies in the Lorentz model"; Law et al.
2019, "Lorentzian distance learning" (centroid); He et al. 2025, "HELM" (residual, rescaling,
RMSNorm); Qu & Zou 2022 (concatenation).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.geometry import _analytic, _domain
from geodapt.geometry._rows import Dots, combine, dot, dots, pairwise_dots, scale, square, wide
from geodapt.geometry._whole import one_pass


@one_pass(gives=torch.float32)
def time(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch"]:
    """Time component ``sqrt(|x|^2 + 1/c)``."""
    c = _domain.curvature(c)
    _domain.vectors(x=x)
    return torch.sqrt(square(x) + 1 / c).to(x.dtype)


@one_pass(gives=torch.float32)
def inner(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch"]:
    """Minkowski product of two points, ``x.y - t(x) t(y) = -1/c - q/2``.

    The second form does not subtract two large numbers.
    """
    c = _domain.curvature(c)
    _domain.vectors(x=x, y=y)
    return (-1 / c - chord(dots(x, y), c) / 2).to(_dtype(x, y))


@one_pass(gives=torch.float32)
def distance(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch"]:
    """Geodesic distance ``2/sqrt(c) asinh(sqrt(c q) / 2)``.

    The gradient at coincident points is 0, as that of a norm is.
    """
    c = _domain.curvature(c)
    _domain.vectors(x=x, y=y)
    return chord_to_distance(chord(dots(x, y), c), c).to(_dtype(x, y))


@one_pass(gives=torch.float32, pairs=True)
def pairwise_distance(
    x: Float[Tensor, "*batch n d"], y: Float[Tensor, "*batch m d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch n m"]:
    """:func:`distance` of each row of ``x`` to each row of ``y``; ``c`` broadcasts with (n, m)."""
    c = _domain.curvature(c)
    _domain.vectors(x=x, y=y)
    return chord_to_distance(chord(pairwise_dots(x, y), c), c).to(_dtype(x, y))


@one_pass()
def exp0(v: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """Exponential map at the origin: ``sinh(sqrt(c) |v|) / (sqrt(c) |v|) v``."""
    c = _domain.curvature(c)
    _domain.vectors(v=v)
    return combine((_analytic.sinhc(c * square(v)), v))


@one_pass()
def log0(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """Logarithm at the origin: ``asinh(sqrt(c) |x|) / (sqrt(c) |x|) x``."""
    c = _domain.curvature(c)
    _domain.vectors(x=x)
    return combine((_analytic.asinhc(c * square(x)), x))


@one_pass()
def exp(
    x: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch d"]:
    """The point reached from ``x`` along ``v``: ``cosh(z) x + sinh(z)/z v`` with ``z = sqrt(c) n``.

    ``n`` is the tangent vector's length, ``n^2 = |v|^2 - (x.v)^2 / t(x)^2``.
    """
    c = _domain.curvature(c)
    _domain.vectors(x=x, v=v)
    p = dots(x, v)
    gamma2 = 1 + c * p.xx
    # By Cauchy-Schwarz n^2 is at least |v|^2 / gamma^2; rounding must not take it below.
    s = c * torch.maximum(p.yy - c * p.xy * (p.xy / gamma2), p.yy / gamma2)
    return combine((_analytic.cosh(s), x), (_analytic.sinhc(s), v))


@one_pass()
def log(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch d"]:
    """The tangent vector at ``x`` that leads to ``y``.

    ``v = sqrt(c) d / sinh(sqrt(c) d) (y + c <x, y>_L x)``, where with ``h = c q / 4`` the factor is
    ``asinh(sqrt(h)) / sqrt(h) / sqrt(1 + h)`` and the bracket ``y - x - 2 h x``.
    """
    c = _domain.curvature(c)
    _domain.vectors(x=x, y=y)
    h = c * chord(dots(x, y), c) / 4
    k = _analytic.asinhc(h) / torch.sqrt(1 + h)
    return combine((k, y), (-k * (1 + 2 * h), x))


@one_pass()
def transport(
    x: Float[Tensor, "*batch d"],
    y: Float[Tensor, "*batch d"],
    v: Float[Tensor, "*batch d"],
    c: float | Tensor = 1.0,
) -> Float[Tensor, "*batch d"]:
    """Parallel transport of ``v`` from ``x`` to ``y`` along the geodesic.

    ``v + c <y, v>_L / (1 - c <x, y>_L) (x + y)``; the denominator is ``2 + c q / 2``.
    """
    c = _domain.curvature(c)
    _domain.vectors(x=x, y=y, v=v)
    dtype = torch.promote_types(_dtype(x, y), v.dtype)
    if x.requires_grad or y.requires_grad:
        x, y, v = wide(x), wide(y), wide(v)  # parts of the gradient cancel: add, then round
    p = dots(x, y)
    gamma_x, gamma_y = torch.sqrt(1 + c * p.xx), torch.sqrt(1 + c * p.yy)
    product = dot(y, v) - gamma_y * (dot(x, v) / gamma_x)  # <y, v>_L
    k = c * product / (2 + c * chord(p, c) / 2)
    return combine((torch.ones_like(k), v), (k, x), (k, y)).to(dtype)


def centroid(
    x: Float[Tensor, "*batch n d"],
    weights: Float[Tensor, "*batch m n"] | Float[Tensor, "*batch n"] | None = None,
    c: float | Tensor = 1.0,
) -> Float[Tensor, "*batch m d"] | Float[Tensor, "*batch d"]:
    """The point that minimises the weighted sum of squared Lorentzian distances to ``x``.

    ``s / sqrt(-c <s, s>_L)`` with ``s = sum_i w_i (x_i, t(x_i))`` (Law et al. 2019, Theorem 3.3).
    Weights are 0 or more with a positive sum; they need not sum to 1. Weights of the shape
    (m, n) give m centroids of the same points. ``c`` broadcasts with the result's batch.
    """
    c = _domain.curvature(c)
    _domain.vectors(x=x)
    if weights is None:
        weights = x.new_ones(x.shape[:-1])
    _domain.nonnegative(weights=weights)
    single = weights.dim() < x.dim()
    w = wide(weights).unsqueeze(-2) if single else wide(weights)
    points = wide(x)  # once, so that the parts of the gradient meet before they are rounded
    inner_c = c.unsqueeze(-1) if isinstance(c, Tensor) and single else c
    per_point = inner_c.unsqueeze(-1) if isinstance(inner_c, Tensor) else inner_c
    gamma = torch.sqrt(1 + per_point * square(points).unsqueeze(-2))
    s, mass = w @ points, w.sum(-1)
    s_time = (w * gamma).sum(-1)
    # -c <s, s>_L is at least the squared sum of weights; rounding must not take it below.
    norm2 = torch.maximum(s_time**2 - inner_c * s.square().sum(-1), mass**2)
    out = (s / torch.sqrt(norm2).unsqueeze(-1)).to(x.dtype)
    return out.squeeze(-2) if single else out


@one_pass()
def residual(
    x: Float[Tensor, "*batch d"],
    y: Float[Tensor, "*batch d"],
    w: float | Tensor = 1.0,
    c: float | Tensor = 1.0,
) -> Float[Tensor, "*batch d"]:
    """Lorentzian residual connection: the centroid of ``x + w y``, ``w`` 0 or more.

    ``-c <s, s>_L = 1 + w^2 - 2 c w <x, y>_L = (1 + w)^2 + w c q`` never cancels.
    """
    c = _domain.curvature(c)
    _domain.vectors(x=x, y=y)
    _domain.nonnegative(w=w)
    w = wide(w) if isinstance(w, Tensor) else float(w)
    k = torch.rsqrt((1 + w) ** 2 + w * c * chord(dots(x, y), c))
    return combine((k, x), (k * w, y))


def rescale(
    x: Float[Tensor, "*batch d"], c_from: float | Tensor, c_to: float | Tensor
) -> Float[Tensor, "*batch d"]:
    """The same point on a hyperboloid of another curvature: ``sqrt(c_from / c_to) x``.

    Distances scale by the same factor, angles stay (He et al. 2025, MiCE).
    """
    ratio = _domain.curvature(c_from) / _domain.curvature(c_to)
    _domain.vectors(x=x)
    ratio = ratio if isinstance(ratio, Tensor) else wide(x.new_tensor(ratio))
    return scale(torch.sqrt(ratio), x)


@one_pass()
def to_poincare(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """The same point in the Poincare ball of radius ``1/sqrt(c)``: ``x / (1 + gamma(x))``."""
    c = _domain.curvature(c)
    _domain.vectors(x=x)
    k = 1 / (1 + torch.sqrt(1 + c * square(x)))
    return combine((k, x))


def concat(points: Sequence[Float[Tensor, "*batch d"]]) -> Float[Tensor, "*batch total"]:
    """Lorentz concatenation of points of one curvature: the space components side by side.

    The time component is then ``sqrt(sum t_i^2 - (n - 1)/c)`` (Qu & Zou 2022), which is what
    :func:`time` gives.
    """
    return torch.cat(tuple(points), dim=-1)


def rms_norm(
    x: Float[Tensor, "*batch d"], weight: Float[Tensor, "d"] | None = None, eps: float = 1e-6
) -> Float[Tensor, "*batch d"]:
    """RMSNorm of the space components; the time component follows (He et al. 2025)."""
    _domain.vectors(x=x)
    out = scale(torch.rsqrt(square(x) / x.shape[-1] + eps), x)
    return out if weight is None else out * weight.to(out.dtype)


def chord_to_distance(q: Tensor, c: float | Tensor) -> Tensor:
    """``2/sqrt(c) asinh(sqrt(c q) / 2)`` of a squared chord ``q``; near ``sqrt(q)`` for small c."""
    return _analytic.sqrt(q) * _analytic.asinhc(c * q / 4)


def chord(p: Dots, c: float | Tensor) -> Tensor:
    """``q = |x-y|^2 - (t(x) - t(y))^2``, with ``t(x) - t(y) = (x-y).(x+y) / (t(x) + t(y))``.

    On a ray through the origin ``q >= 4 |x-y|^2 / (gamma(x) + gamma(y))^2``, and elsewhere it is
    larger; far out the difference is below float64's rounding, which must not take it lower.
    """
    total2 = (torch.sqrt(1 + c * p.xx) + torch.sqrt(1 + c * p.yy)) ** 2
    return torch.maximum(p.dd - c * p.ds * (p.ds / total2), 4 * p.dd / total2)


def _dtype(x: Tensor, y: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, y.dtype)
