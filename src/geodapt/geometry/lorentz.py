"""The hyperboloid, with points stored by their space components only.

A point of hyperbolic space of curvature ``-c`` (``c > 0``; papers with ``K < 0`` mean ``K = -c``)
is a vector of R^(d+1) with ``<x, x>_L = |x|^2 - t^2 = -1/c`` and ``t > 0``. Only the ``d`` space
components are stored, so that every vector is a point: ``t(x) = sqrt(|x|^2 + 1/c)`` is computed
where it is needed. Tangent vectors are stored likewise; the time component of ``v`` at ``x`` is
``x.v / t(x)``, from ``<x, v>_L = 0``.

Everywhere: the last dimension is the vector's and has one width in all arguments, the others
broadcast; ``c`` is a positive number or a tensor that broadcasts into the batch dimensions (those
without the vector's), and may be learned. Shapes and plain numbers that do not fit raise
:class:`~geodapt.errors.InputError`; tensors with values outside the domain give NaN. Results have
the inputs' type, which is also that of the arithmetic, but for bfloat16 and float16, which are
computed in float32. Autocast changes nothing.

Notation: ``gamma(x) = sqrt(c) t(x)``, and ``q(x, y) = <x-y, x-y>_L``, the squared chord, for which
``-c <x, y>_L = cosh(sqrt(c) d(x, y)) = 1 + c q / 2``. Every formula is written in ``q``, because it
is computed without cancellation for close points and for far ones.

Sources: Nickel & Kiela 2018, "Learning continuous hierarchies in the Lorentz model"; Law et al.
2019, "Lorentzian distance learning" (centroid); He et al. 2025, "HELM" (residual, rescaling,
RMSNorm); Qu & Zou 2022 (concatenation).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.errors import InputError
from geodapt.geometry import _checks, _smooth
from geodapt.geometry._checks import prepare
from geodapt.geometry._chord import (
    chord,
    chord_distance,
    pairwise_chord_distance,
    tangent_inner,
)
from geodapt.geometry._edge import held_inside
from geodapt.geometry._sums import dot, finite, norm2, over_pairs, plus, scale, square


def time(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch"]:
    """Time component ``sqrt(|x|^2 + 1/c)``."""
    c, (x,), dtype = prepare(c, x=x)
    return torch.sqrt(square(x) + 1 / c).to(dtype)


def inner(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch"]:
    """Minkowski product of two points, ``x.y - t(x) t(y) = -1/c - q/2``.

    The second form does not subtract two large numbers.
    """
    c, (x, y), dtype = prepare(c, x=x, y=y)
    return (-1 / c - chord(x, y, c) / 2).to(dtype)


def distance(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch"]:
    """Geodesic distance ``2/sqrt(c) asinh(sqrt(c q) / 2)``.

    The gradient at coincident points is 0, as that of a norm is.
    """
    c, (x, y), dtype = prepare(c, x=x, y=y)
    return chord_distance(x, y, c).to(dtype)


def pairwise_distance(
    x: Float[Tensor, "*batch n d"], y: Float[Tensor, "*batch m d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch n m"]:
    """:func:`distance` of each row of ``x`` to each row of ``y``; ``c`` broadcasts into (n, m)."""
    c, (x, y), dtype = prepare(c, pairs=True, x=x, y=y)
    return pairwise_chord_distance(x, y, c).to(dtype)


def exp0(v: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """Exponential map at the origin: ``sinh(sqrt(c) |v|) / (sqrt(c) |v|) v``."""
    c, (v,), dtype = prepare(c, v=v)
    return scale(_smooth.sinhc(c * norm2(v)), v).to(dtype)


def log0(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """Logarithm at the origin: ``asinh(sqrt(c) |x|) / (sqrt(c) |x|) x``."""
    c, (x,), dtype = prepare(c, x=x)
    return scale(_smooth.asinhc(c * norm2(x)), x).to(dtype)


def exp(
    x: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch d"]:
    """The point reached from ``x`` along ``v``: ``cosh(z) x + sinh(z)/z v`` with ``z = sqrt(c) n``.

    ``n`` is the tangent vector's length, ``n^2 = |v|^2 - (x.v)^2 / t(x)^2``.
    """
    c, (x, v), dtype = prepare(c, x=x, v=v)
    s = c * tangent_inner(x, v, v, c)
    return plus(scale(_smooth.cosh(s), x), _smooth.sinhc(s), v).to(dtype)


def log(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch d"]:
    """The tangent vector at ``x`` that leads to ``y``.

    ``v = sqrt(c) d / sinh(sqrt(c) d) (y + c <x, y>_L x)``, where with ``h = c q / 4`` the factor is
    ``asinh(sqrt(h)) / sqrt(h) / sqrt(1 + h)`` and the bracket ``(y - x) - 2 h x``.
    """
    c, (x, y), dtype = prepare(c, x=x, y=y)
    h = c * chord(x, y, c) / 4
    k = _smooth.asinhc(h) / torch.sqrt(1 + h)
    return plus(scale(k, y - x), -2 * h * k, x).to(dtype)


def transport(
    x: Float[Tensor, "*batch d"],
    y: Float[Tensor, "*batch d"],
    v: Float[Tensor, "*batch d"],
    c: float | Tensor = 1.0,
) -> Float[Tensor, "*batch d"]:
    """Parallel transport of ``v`` from ``x`` to ``y`` along the geodesic.

    ``v + c <y, v>_L / (1 - c <x, y>_L) (x + y)``; the denominator is ``2 + c q / 2``. With
    ``u = y - x``, and ``a' = a - c (x.a) / gamma(x)^2 x`` what is left of a vector after most of
    its part along x, ``<y, v>_L = u'.v' + (x.v) (c (x.u) / gamma(x)^2 - c q / 2) / gamma(x)^2``,
    which loses no digits where y lies beyond x.
    """
    c, (x, y, v), dtype = prepare(c, x=x, y=y, v=v)
    u = y - x
    half = c * chord(x, y, c) / 2
    gamma2 = 1 + c * square(x)
    along_u, along_v = c * dot(x, u) / gamma2, c * dot(x, v) / gamma2
    product = dot(plus(u, -along_u, x), plus(v, -along_v, x)) + along_v * (along_u - half) / c
    return plus(v, c * product / (2 + half), x + y).to(dtype)


def centroid(
    x: Float[Tensor, "*batch n d"],
    weights: Float[Tensor, "*batch m n"] | Float[Tensor, "*batch n"] | None = None,
    c: float | Tensor = 1.0,
) -> Float[Tensor, "*batch m d"] | Float[Tensor, "*batch d"]:
    """The point that minimises the weighted sum of squared Lorentzian distances to ``x``.

    ``s / sqrt(-c <s, s>_L)`` with ``s = sum_i w_i (x_i, t(x_i))`` (Law et al. 2019, Theorem 3.3).
    Weights are 0 or more with a positive sum; they need not sum to 1. Weights of the shape
    (m, n) give m centroids of the same points. ``c`` broadcasts into the result's batch.

    With the Euclidean mean ``m`` of the points and ``Q`` the weighted mean of ``q(x_i, m)``, it is
    ``m / sqrt(1 + c Q + (c Q / (2 gamma(m)))^2)``, a sum of positive numbers.
    """
    if isinstance(x, Tensor) and x.dim() < 2:
        raise InputError(f"x has shape {tuple(x.shape)}; expected points to be averaged, (n, d)")
    _, (points,), dtype = prepare(1.0, x=x)
    w = points.new_ones(x.shape[:-1]) if weights is None else weights
    if not isinstance(w, Tensor) or w.dim() == 0 or w.shape[-1] != x.shape[-2]:
        raise InputError(
            f"weights have shape {tuple(getattr(w, 'shape', ()))}; expected one for each of the "
            f"{x.shape[-2]} points, (n) or (m, n)"
        )
    single = w.dim() < x.dim()
    w = w.unsqueeze(-2) if single else w
    batch = _checks.broadcast({"x": x.shape[:-2], "weights": w.shape[:-2]})
    result = batch if single else torch.Size((*batch, w.shape[-2]))
    c = _checks.positive("c", c, _checks.POSITIVE)
    _checks.fits("c", c, result, "the centroids'")
    w = torch.as_tensor(_checks.nonnegative("weights", w)).to(points.dtype)
    if isinstance(c, Tensor):
        c = c.to(points.dtype)
        c = c.unsqueeze(-1) if single else c
    with torch.autocast(x.device.type, enabled=False):
        mass = w.sum(-1)
        mean = (w @ points) / mass.unsqueeze(-1)
    each = over_pairs(chord, mean, points, c.unsqueeze(-1) if isinstance(c, Tensor) else c)
    spread = c * (w * each).sum(-1) / mass
    gamma = torch.sqrt(1 + c * square(mean))
    norm2 = finite(1 + spread + (spread / (2 * gamma)).square())
    out = scale(torch.rsqrt(norm2), mean).to(dtype)
    return out.squeeze(-2) if single else out


def residual(
    x: Float[Tensor, "*batch d"],
    y: Float[Tensor, "*batch d"],
    w: float | Tensor = 1.0,
    c: float | Tensor = 1.0,
) -> Float[Tensor, "*batch d"]:
    """Lorentzian residual connection: the centroid of ``x + w y``, ``w`` 0 or more.

    ``-c <s, s>_L = 1 + w^2 - 2 c w <x, y>_L = (1 + w)^2 + w c q`` never cancels.
    """
    c, (x, y), dtype = prepare(c, x=x, y=y)
    w = _checks.row_number("w", w, x, y)
    w = _checks.nonnegative("w", w)
    k = torch.rsqrt(finite((1 + w) ** 2 + w * c * chord(x, y, c)))
    return scale(k, x + (scale(w, y) if isinstance(w, Tensor) else w * y)).to(dtype)


def rescale(
    x: Float[Tensor, "*batch d"], c_from: float | Tensor, c_to: float | Tensor
) -> Float[Tensor, "*batch d"]:
    """The same point on a hyperboloid of another curvature: ``sqrt(c_from / c_to) x``.

    Distances scale by the same factor, angles stay (He et al. 2025, MiCE).
    """
    c_from, (x,), dtype = prepare(c_from, x=x)
    c_to, (x,), _ = prepare(c_to, x=x)
    ratio = (c_from / c_to) ** 0.5
    return (scale(ratio, x) if isinstance(ratio, Tensor) else ratio * x).to(dtype)


def to_poincare(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """The same point in the Poincare ball of radius ``1/sqrt(c)``: ``x / (1 + gamma(x))``.

    Points too far out for their type go to the outermost radius that it holds safely
    (:mod:`geodapt.geometry.poincare`), never onto the edge.
    """
    c, (x,), dtype = prepare(c, x=x)
    s = finite(c * square(x))
    return scale(held_inside(1 / (1 + torch.sqrt(1 + s)), s, dtype), x).to(dtype)


def concat(points: Sequence[Float[Tensor, "*batch d"]]) -> Float[Tensor, "*batch total"]:
    """Lorentz concatenation of points of one curvature: the space components side by side.

    The time component is then ``sqrt(sum t_i^2 - (n - 1)/c)`` (Qu & Zou 2022), which is what
    :func:`time` gives.
    """
    points = tuple(points)
    if not points:
        raise InputError("there are no points to concatenate; expected at least one")
    for number, x in enumerate(points):
        _checks.vector(f"points[{number}]", x)
    shapes = {tuple(x.shape[:-1]) for x in points}
    if len(shapes) > 1:
        raise InputError(
            f"points have the batches {' and '.join(map(str, sorted(shapes)))}; expected one"
        )
    return torch.cat(points, dim=-1)


def rms_norm(
    x: Float[Tensor, "*batch d"], weight: Float[Tensor, " d"] | None = None, eps: float = 1e-6
) -> Float[Tensor, "*batch d"]:
    """RMSNorm of the space components; the time component follows (He et al. 2025)."""
    _, (wide,), dtype = prepare(1.0, x=x)
    if weight is not None and tuple(weight.shape) != (x.shape[-1],):
        raise InputError(
            f"weight has shape {tuple(weight.shape)}; expected ({x.shape[-1]},), one for each "
            "component"
        )
    if not 0 <= eps < math.inf:
        raise InputError(f"eps is {eps}; expected a number of 0 or more")
    out = scale(torch.rsqrt(square(wide) / x.shape[-1] + eps), wide).to(dtype)
    return out if weight is None else out * weight.to(dtype)
