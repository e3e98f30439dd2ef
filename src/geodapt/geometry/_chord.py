"""Products of the hyperboloid that would cancel in their plain form, in forms that do not.

The plain form of ``-c <x, y>_L = cosh(sqrt(c) d(x, y))`` is ``gamma(x) gamma(y) - c x.y``. It loses
no more than two bits where it is at least a quarter of ``gamma(x) gamma(y)``, as it is for most
pairs. Close points and those far out on one ray need the chord in :func:`split_chord`: there the
part along the points is split off. It is known in closed form, and what is left is a difference of
vectors, formed component by component. In float32 the relative error is then about ``eps`` times
``sqrt(c) |x|`` at worst (that of the input's own rounding), not its square.

On a CPU the plain form is taken, and the pairs that need the other are computed anew; which form
a pair has does not depend on its neighbours. Elsewhere looking would wait for the device, and
compiled one form costs no more than the other: there all have the split form.

Arguments are prepared ones (:func:`geodapt.geometry._checks.prepare`).
"""

import torch
from torch import Tensor

from geodapt.geometry import _smooth
from geodapt.geometry._sums import dot, finite, lowest, norm2, over_pairs, plus, readable, square

LEAST = 0.25  # the share of gamma(x) gamma(y) that the plain form's result must reach


def chord(x: Tensor, y: Tensor, c: float | Tensor) -> Tensor:
    """``q = |x-y|^2 - (t(x) - t(y))^2``, the squared chord between two points."""
    return 2 / c * _cosh_minus_1(x, y, c) if _plain_will_do(x, c) else split_chord(x, y, c)


def chord_distance(x: Tensor, y: Tensor, c: float | Tensor) -> Tensor:
    """``arcosh(-c <x, y>_L) / sqrt(c) = 2/sqrt(c) asinh(sqrt(c q) / 2)``."""
    if not _plain_will_do(x, c):
        return chord_to_distance(split_chord(x, y, c), c)
    return _arcosh_1_plus(_cosh_minus_1(x, y, c), c)


def pairwise_chord_distance(x: Tensor, y: Tensor, c: float | Tensor) -> Tensor:
    """:func:`chord_distance` of each row of ``x (..., n, d)`` with each of ``y (..., m, d)``.

    The plain form takes its products from one matrix product, where that has all digits.
    """
    if not _plain_will_do(x, c) or torch.get_float32_matmul_precision() != "highest":
        return chord_to_distance(over_pairs(split_chord, x, y, c), c)
    rows, columns = norm2(x).unsqueeze(-1), norm2(y).unsqueeze(-2)
    gammas = torch.sqrt(1 + c * rows) * torch.sqrt(1 + c * columns)
    with torch.autocast(x.device.type, enabled=False):
        products = x @ y.mT
    plain = _minus(gammas, products, c) - 1
    return _arcosh_1_plus(_kept(plain, gammas, x, y, c, pairs=True), c)


def _cosh_minus_1(x: Tensor, y: Tensor, c: float | Tensor) -> Tensor:
    """``gamma(x) gamma(y) - c x.y - 1 = c q / 2``."""
    gammas = torch.sqrt((1 + c * norm2(x)) * (1 + c * norm2(y)))
    return _kept(_minus(gammas, dot(x, y), c) - 1, gammas, x, y, c)


def _plain_will_do(x: Tensor, c: float | Tensor) -> bool:
    """Not for a learned curvature, by which a distance's derivative cancels once more."""
    return readable(x) and not (isinstance(c, Tensor) and c.requires_grad)


def _minus(gammas: Tensor, product: Tensor, c: float | Tensor) -> Tensor:
    """``gammas - c product``, in one operator where c is a number."""
    if isinstance(c, Tensor):
        return gammas - c * product
    return torch.sub(gammas, product, alpha=c)


def _kept(
    plain: Tensor,
    gammas: Tensor,
    x: Tensor,
    y: Tensor,
    c: float | Tensor,
    pairs: bool = False,
) -> Tensor:
    """``plain`` where it has kept its digits; elsewhere ``c q / 2`` by the split chord."""
    spare = torch.sub(plain.detach(), gammas.detach(), alpha=LEAST)
    if lowest(spare) >= 0:
        return plain
    lost = ~(spare >= 0)  # also where it is NaN, since the squares overflow
    try:
        count = int(lost.sum())
    except RuntimeError:  # within vmap a tensor has no values to look at
        count = lost.numel()
    if 8 * count > lost.numel():
        split = c / 2 * (over_pairs(split_chord, x, y, c) if pairs else split_chord(x, y, c))
        return torch.where(lost, split, plain)
    if pairs:
        x, y = x.unsqueeze(-2), y.unsqueeze(-3)
    shape = (*lost.shape, x.shape[-1])
    of_lost = c.expand(lost.shape)[lost] if isinstance(c, Tensor) else c
    split = of_lost / 2 * split_chord(x.expand(shape)[lost], y.expand(shape)[lost], of_lost)
    return plain.index_put((lost,), split)


def split_chord(x: Tensor, y: Tensor, c: float | Tensor) -> Tensor:
    """The squared chord of any two points, without cancellation.

    With ``n`` that of the two that is nearer to the origin, ``f`` the other, and
    ``b = gamma(x) - gamma(y) = c (x-y).(x+y) / (gamma(x) + gamma(y))``, a sum of positive terms::

        q = (gamma(n) |(x-y) - b / gamma(n) n|^2 + b^2 / (c gamma(n))) / gamma(f)
    """
    difference = x - y
    gamma_x, gamma_y = torch.sqrt(1 + c * square(x)), torch.sqrt(1 + c * square(y))
    b = c * dot(difference, x + y) / (gamma_x + gamma_y)
    first = gamma_x <= gamma_y
    near = torch.where(first.unsqueeze(-1), x, y)
    of_near = torch.where(first, gamma_x, gamma_y)
    of_far = torch.where(first, gamma_y, gamma_x)
    rest = plus(difference, -b / of_near, near)
    return finite(of_near / of_far * square(rest) + b / of_far * (b / of_near) / c)


def _arcosh_1_plus(u: Tensor, c: float | Tensor) -> Tensor:
    """``arcosh(1 + u) / sqrt(c)``, the distance whose ``cosh(sqrt(c) d) - 1`` is ``u``."""
    if torch.is_grad_enabled():
        return chord_to_distance(2 * u / c, c)
    return torch.log1p(u + torch.sqrt(u) * torch.sqrt(u + 2)) / c**0.5


def chord_to_distance(q: Tensor, c: float | Tensor) -> Tensor:
    """``2/sqrt(c) asinh(sqrt(c q) / 2)`` of a squared chord ``q``; near ``sqrt(q)`` for small c."""
    return _smooth.sqrt(q) * _smooth.asinhc(c * q / 4)


def tangent_inner(x: Tensor, u: Tensor, v: Tensor, c: float | Tensor) -> Tensor:
    """``<u, v>_L = u.v - (x.u) (x.v) / t(x)^2`` of two tangent vectors at ``x``.

    With ``a' = a - c (x.a) / gamma(x)^2 x`` it is ``u'.v' + c (x.u) (x.v) / gamma(x)^4``.
    """
    gamma2 = 1 + c * square(x)
    along_u = dot(x, u) / gamma2
    along_v = along_u if u is v else dot(x, v) / gamma2
    rest_u = plus(u, -c * along_u, x)
    rest_v = rest_u if u is v else plus(v, -c * along_v, x)
    return dot(rest_u, rest_v) + c * along_u * along_v
