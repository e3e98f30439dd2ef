"""Functions of a square that are smooth where the square is zero.

``sinh(z) / z`` is an analytic function of ``s = z^2``. Written so, the exponential map needs no
norm, has no special case at the origin, and its gradients of every order are finite there. Near
zero the derivatives come from the Taylor series, since the closed form divides 0 by 0.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geodapt.geometry._sums import finite

NEAR = 1e-3  # below, six terms of the series are exact in float64
TINY = 1e-30  # where sinh, tanh and asinh are the identity in every type, and that is not 0


def _smooth(s: Tensor, function: Callable[[Tensor], Tensor], series: Sequence[float]) -> Tensor:
    if not torch.is_grad_enabled():
        return function(torch.sqrt(s).clamp_min(TINY))
    near = s.abs() < NEAR
    far = function(torch.sqrt(torch.where(near, 1.0, s)))
    below = torch.where(near, s, 0.0)
    polynomial = torch.full_like(s, series[-1])
    for coefficient in series[-2::-1]:
        polynomial = polynomial * below + coefficient
    return torch.where(near, polynomial, far)


def sqrt(s: Tensor) -> Tensor:
    """``sqrt(s)`` with the gradient 0 at 0, the mean of its subgradients as a norm."""
    if not torch.is_grad_enabled():
        return torch.sqrt(s)
    zero = s == 0
    return torch.where(zero, 0.0, torch.sqrt(torch.where(zero, 1.0, s)))


def sinhc(s: Tensor) -> Tensor:
    """``sinh(z) / z`` of ``s = z^2``."""
    series = [1, 1 / 6, 1 / 120, 1 / 5040, 1 / 362880, 1 / 39916800]
    return _smooth(s, lambda z: torch.sinh(z) / z, series)


def cosh(s: Tensor) -> Tensor:
    """``cosh(z)`` of ``s = z^2``."""
    return _smooth(s, torch.cosh, [1, 1 / 2, 1 / 24, 1 / 720, 1 / 40320, 1 / 3628800])


def tanhc(s: Tensor) -> Tensor:
    """``tanh(z) / z`` of ``s = z^2``; NaN, not 0, where ``s`` has overflowed."""
    series = [1, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925]
    return _smooth(finite(s), lambda z: torch.tanh(z) / z, series)


def asinhc(s: Tensor) -> Tensor:
    """``asinh(z) / z`` of ``s = z^2``."""
    series = [1, -1 / 6, 3 / 40, -5 / 112, 35 / 1152, -63 / 2816]
    return _smooth(s, lambda z: torch.asinh(z) / z, series)


def sech2(s: Tensor) -> Tensor:
    """``1 / cosh(z)^2 = 1 - tanh(z)^2`` of ``s = z^2``, without cancellation or overflow."""

    def function(z: Tensor) -> Tensor:
        e = torch.exp(-2 * z)
        return 4 * e / (1 + e) ** 2

    return _smooth(s, function, [1, -1, 2 / 3, -17 / 45, 62 / 315, -1382 / 14175])
