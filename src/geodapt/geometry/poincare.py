"""The Poincare ball of radius ``1/sqrt(c)``: the points with ``c |x|^2 < 1``.

Curvature is ``-c`` with ``c > 0``. Everywhere: the last dimension is the vector's and has one width
in all arguments, the others broadcast; ``c`` is a positive number or a tensor that broadcasts into
the batch dimensions (those without the vector's), and may be learned. Shapes and plain numbers that
do not fit raise :class:`~geodapt.errors.InputError`; tensors with values outside the domain, such
as points on the edge of the ball or outside, give NaN. Results have the inputs' type, which is also
that of the arithmetic, but for bfloat16 and float16, which are computed in float32.

No result lies on the edge: what would come within four ``eps`` of it (of the radius; one ``eps`` in
bfloat16 and float16) is put there. So float32 results reach 15 radii of curvature from the origin,
bfloat16 ones about 5.5. Float32 arguments may lie up to the last float32 number below the radius,
17 from the origin. Use :mod:`geodapt.geometry.lorentz` for what lies farther out.

Notation: ``delta(x) = 1 - c |x|^2 = 2 / conformal_factor(x)``, and
``q(x, y) = 4 |x-y|^2 / (delta(x) delta(y))``, the squared chord on the hyperboloid.

Sources: Ungar 2008, "A gyrovector space approach to hyperbolic geometry"; Ganea, Becigneul &
Hofmann 2018, "Hyperbolic neural networks" (equations given per function).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.errors import InputError
from geodapt.geometry import _smooth
from geodapt.geometry._checks import prepare, row_number
from geodapt.geometry._chord import chord_to_distance
from geodapt.geometry._edge import delta, held_inside, inside, margin
from geodapt.geometry._sums import (
    NEAR,
    finite,
    lowest,
    norm2,
    one_minus_square,
    over_pairs,
    plus,
    scale,
)


def mobius_add(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch d"]:
    """``x (+) y = ((1 + 2c x.y + c|y|^2) x + (1 - c|x|^2) y) / (1 + 2c x.y + c^2 |x|^2 |y|^2)``.

    Ganea et al. 2018, eq. 4. With ``p = c |x+y|^2`` the numerator is ``delta(x) (x + y) + p x`` and
    the denominator ``delta(x) delta(y) + p``, in which nothing large cancels.
    """
    c, (x, y), dtype = prepare(c, x=x, y=y)
    delta_x, delta_y = delta(x, norm2(x), c, "x"), delta(y, norm2(y), c, "y")
    return _mobius_sum(x, delta_x, y, delta_y, c, dtype).to(dtype)


def exp0(v: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """Exponential map at the origin: ``tanh(sqrt(c) |v|) / (sqrt(c) |v|) v`` (Ganea, eq. 13)."""
    c, (v,), dtype = prepare(c, v=v)
    s = c * norm2(v)
    return scale(held_inside(_smooth.tanhc(s), s, dtype), v).to(dtype)


def log0(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """Logarithm at the origin: ``artanh(sqrt(c) |x|) / (sqrt(c) |x|) x`` (Ganea, eq. 13)."""
    c, (x,), dtype = prepare(c, x=x)
    return scale(_artanhc(x, norm2(x), c), x).to(dtype)


def exp(
    x: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch d"]:
    """``x (+) tanh(sqrt(c) lambda_x |v| / 2) / (sqrt(c) |v|) v`` (Ganea, eq. 12).

    ``v`` is a tangent vector in the ball's coordinates, of length ``lambda_x |v|``.
    """
    c, (x, v), dtype = prepare(c, x=x, v=v)
    delta_x = delta(x, norm2(x), c, "x")
    s = c * norm2(scale(1 / delta_x, v))
    step = scale(_smooth.tanhc(s) / delta_x, v)
    return _mobius_sum(x, delta_x, step, _smooth.sech2(s), c, dtype).to(dtype)


def log(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch d"]:
    """``2 / (sqrt(c) lambda_x) artanh(sqrt(c) |m|) m / |m|`` with ``m = -x (+) y`` (Ganea, eq. 12).

    ``m = (delta(x) (y - x) - c |x-y|^2 x) / (delta(x) delta(y) + c |x-y|^2)``, and with
    ``h = c q / 4`` the artanh is ``asinh(sqrt(h))``.
    """
    c, (x, y), dtype = prepare(c, x=x, y=y)
    delta_x, delta_y = delta(x, norm2(x), c, "x"), delta(y, norm2(y), c, "y")
    towards = y - x
    gap = c * norm2(towards)
    h = gap / (delta_x * delta_y)
    k = _smooth.asinhc(h) / (torch.sqrt(1 + h) * delta_y)
    return scale(k, plus(scale(delta_x, towards), -gap, x)).to(dtype)


def distance(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch"]:
    """Geodesic distance ``2/sqrt(c) asinh(sqrt(c |x-y|^2 / (delta(x) delta(y))))``.

    Equal to ``2/sqrt(c) artanh(sqrt(c) |-x (+) y|)`` (Ganea, eq. 6) without forming the sum. The
    gradient at coincident points is 0, as that of a norm is.
    """
    c, (x, y), dtype = prepare(c, x=x, y=y)
    q = _chord(norm2(x - y), delta(x, norm2(x), c, "x"), delta(y, norm2(y), c, "y"))
    return chord_to_distance(q, c).to(dtype)


def pairwise_distance(
    x: Float[Tensor, "*batch n d"], y: Float[Tensor, "*batch m d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch n m"]:
    """:func:`distance` of each row of ``x`` to each row of ``y``; ``c`` broadcasts into (n, m)."""
    c, (x, y), dtype = prepare(c, pairs=True, x=x, y=y)
    rows, columns = x.unsqueeze(-2), y.unsqueeze(-3)
    delta_x, delta_y = delta(rows, norm2(rows), c, "x"), delta(columns, norm2(columns), c, "y")
    gap = over_pairs(lambda x, y, c: norm2(x - y), x, y, c)
    return chord_to_distance(_chord(gap, delta_x, delta_y), c).to(dtype)


def radius(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch"]:
    """Distance from the origin, ``2/sqrt(c) artanh(sqrt(c) |x|)``."""
    c, (x,), dtype = prepare(c, x=x)
    if not torch.is_grad_enabled():  # a third of the operators
        z = c**0.5 * torch.linalg.vector_norm(x, dim=-1)
        if lowest(1 - z) >= NEAR:
            return (2 / c**0.5 * torch.atanh(z)).to(dtype)
    xx = norm2(x)
    return (2 * _smooth.sqrt(xx) * _artanhc(x, xx, c)).to(dtype)


def mobius_matvec(
    m: Float[Tensor, "out d"], x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch out"]:
    """``M (x) x = exp0(M log0(x))`` (Ganea, eq. 27), for one matrix and any number of points.

    The matrix multiplies the points themselves; what log0 and exp0 do to a vector is a factor,
    and factors commute with the product. So the cost is one product.
    """
    c, (x,), dtype = prepare(c, x=x)
    if not isinstance(m, Tensor) or m.dim() != 2 or m.shape[1] != x.shape[-1]:
        raise InputError(
            f"m has shape {tuple(getattr(m, 'shape', ()))}; expected a matrix (out, d) for points "
            f"that are d = {x.shape[-1]} wide"
        )
    with torch.autocast(x.device.type, enabled=False):
        image = x @ m.to(x.dtype).mT
    k = _artanhc(x, norm2(x), c)
    s = c * norm2(image)
    return scale(held_inside(k * _smooth.tanhc(k * k * s), s, dtype), image).to(dtype)


def mobius_scalar(
    r: float | Tensor, x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch d"]:
    """``r (x) x = tanh(r artanh(sqrt(c) |x|)) / (sqrt(c) |x|) x`` (Ganea, eq. 5).

    The point on the ray through ``x`` at ``r`` times its distance from the origin.
    """
    c, (x,), dtype = prepare(c, x=x)
    r = row_number("r", r, x)
    xx = norm2(x)
    k = r * _artanhc(x, xx, c)
    s = c * xx
    return scale(held_inside(k * _smooth.tanhc(k * k * s), s, dtype), x).to(dtype)


def conformal_factor(
    x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0
) -> Float[Tensor, "*batch"]:
    """``lambda_x = 2 / (1 - c |x|^2)``: lengths at ``x`` are ``lambda_x`` times the Euclidean."""
    c, (x,), dtype = prepare(c, x=x)
    return (2 / delta(x, norm2(x), c, "x")).to(dtype)


def project(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """Any vector, brought radially into the ball if it is not inside.

    For vectors that an optimiser's step or a file may have put outside; points inside stay
    exactly as they are.
    """
    c, (x,), dtype = prepare(c, x=x)
    xx = norm2(x)
    outside = ~(one_minus_square(x, xx, c) > 0)
    k = (1 - margin(dtype)) * torch.rsqrt(torch.where(outside, finite(c * xx), 1.0))
    return torch.where(outside.unsqueeze(-1), scale(k, x), x).to(dtype)


def to_lorentz(x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0) -> Float[Tensor, "*batch d"]:
    """The space components of the same point on the hyperboloid: ``2 x / (1 - c |x|^2)``."""
    c, (x,), dtype = prepare(c, x=x)
    return scale(2 / delta(x, norm2(x), c, "x"), x).to(dtype)


def _chord(gap: Tensor, delta_x: Tensor, delta_y: Tensor) -> Tensor:
    return 4 * gap / (delta_x * delta_y)


def _artanhc(x: Tensor, xx: Tensor, c: float | Tensor) -> Tensor:
    """``artanh(z) / z`` of ``z = sqrt(c) |x| < 1``: ``artanh(z) = asinh(z / sqrt(1 - z^2))``."""
    inner = delta(x, xx, c, "x")
    if not torch.is_grad_enabled() and lowest(inner) >= NEAR:
        z = torch.sqrt(c * xx).clamp_min(_smooth.TINY)
        return torch.atanh(z) / z
    return _smooth.asinhc(c * xx / inner) * torch.rsqrt(inner)


def _mobius_sum(
    x: Tensor, delta_x: Tensor, y: Tensor, delta_y: Tensor, c: float | Tensor, dtype: torch.dtype
) -> Tensor:
    """``x (+) y``, whose ``delta`` is ``delta(x) delta(y) / (delta(x) delta(y) + c |x+y|^2)``."""
    total = x + y
    together, product = c * norm2(total), delta_x * delta_y
    inverse = 1 / (product + together)
    sum_ = plus(scale(delta_x * inverse, total), together * inverse, x)
    return inside(sum_, product * inverse, c, dtype)
