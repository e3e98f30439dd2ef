"""Products of the hyperboloid that would cancel in their plain form, in forms that do not.

Written for points that lie far out, where the time components carry nearly all of a sum. In each
form the part along the points is split off: it is known in closed form, and what is left is a
difference of vectors, formed component by component. In float32 the relative error is then about
``eps`` times ``sqrt(c) |x|`` at worst (that of the input's own rounding), not its square.

Arguments are prepared ones (:func:`geodapt.geometry._checks.prepare`).
"""

import torch
from torch import Tensor

from geodapt.geometry import _smooth
from geodapt.geometry._sums import dot, finite, plus, square


def chord(x: Tensor, y: Tensor, c: float | Tensor) -> Tensor:
    """``q = |x-y|^2 - (t(x) - t(y))^2``, the squared chord between two points.

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
