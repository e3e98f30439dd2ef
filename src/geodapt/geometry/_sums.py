"""Sums over a vector's components, in the vector's own type.

Hyperbolic formulas lose digits in differences of nearly equal sums. Those between points are
avoided by the formulas of :mod:`~geodapt.geometry.lorentz`; the one that cannot be avoided,
``1 - c |x|^2`` near the edge of the ball, is formed exactly by :func:`one_minus_square`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

NEAR = 1 / 16  # of 1 - c |x|^2: above, float32's rounding takes 1e-6 of it at most
BLOCK = 1 << 18  # numbers of one temporary of a pairwise function: it stays in the cache


def dot(x: Tensor, y: Tensor) -> Tensor:
    """``x . y`` over the last dimension."""
    if x.numel() <= 4 * BLOCK or torch.is_grad_enabled() or x.shape != y.shape or not readable(x):
        return (x * y).sum(-1)
    # Products that stay in the cache: 2.5 ms and not 3.9 for 65,536 vectors of 64 numbers.
    rows = max(1, BLOCK // 4 // x.shape[-1])
    blocks = zip(*(a.reshape(-1, a.shape[-1]).split(rows) for a in (x, y)), strict=True)
    return torch.cat([(a * b).sum(-1) for a, b in blocks]).view(x.shape[:-1])


def norm2(x: Tensor) -> Tensor:
    """``|x|^2`` over the last dimension, for formulas that make NaN of an infinite one."""
    if torch.is_grad_enabled():
        return (x * x).sum(-1)
    # One pass over x; but its second derivative at 0 is not finite.
    return torch.linalg.vector_norm(x, dim=-1).square()


def square(x: Tensor) -> Tensor:
    """``|x|^2`` over the last dimension, NaN where it overflows."""
    return finite(norm2(x))


def finite(s: Tensor) -> Tensor:
    """A sum of squares, NaN where it has overflowed: its inverse would make 0 of a far point."""
    return s + (s - s)


def readable(x: Tensor) -> bool:
    """Whether Python may look at values without waiting for a device or breaking a graph."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def lowest(s: Tensor) -> float:
    """The smallest value, to choose a cheaper form by; NaN if any is NaN or none can be seen."""
    if not readable(s) or not s.numel():
        return math.nan
    try:
        return s.detach().amin().item()
    except RuntimeError:  # within vmap a tensor has no values to look at
        return math.nan


def scale(a: Tensor, x: Tensor) -> Tensor:
    """``a x``, a factor for each vector."""
    return once(a).unsqueeze(-1) * x


def plus(x: Tensor, a: Tensor, y: Tensor) -> Tensor:
    """``x + a y``, a factor for each vector."""
    return torch.addcmul(x, once(a).unsqueeze(-1), y)


def once(a: Tensor) -> Tensor:
    """Factors that were computed, unchanged; a CPU's compiled loop then computes each only once.

    Inlined into the loop over components, a factor would be recomputed for every 16 of them, one
    number at a time: lorentz.exp0 of 4,096 vectors of 128 numbers then takes 0.87 ms and not 0.27.
    A strided view needs its data in memory, so that the compiler must store the factor.
    """
    if a.device.type != "cpu" or not torch.compiler.is_compiling():
        return a
    return a.as_strided(a.shape, a.stride())


def one_minus_square(x: Tensor, xx: Tensor, c: float | Tensor) -> Tensor:
    """``1 - c |x|^2`` as if it were formed in twice the precision; ``xx`` is the rounded ``|x|^2``.

    Near the edge of the ball the rounded difference has no correct digit. Here ``x = h + l`` with
    the components of ``h`` multiples of a power of two, so coarse that ``|h|^2`` is summed
    without rounding, and ``1 - c |x|^2 = c (1/c - |h|^2 - l (x + h))`` (the splitting of Rump,
    Ogita & Oishi 2008, "Accurate floating-point summation"). Derivatives, of any order, are those
    of the rounded form; the difference of the two is a constant to them.

    A row that is not near the edge keeps the rounded form, whatever its neighbours are; where the
    CPU can see that none is, nothing else is computed.
    """
    rounded = 1 - c * xx
    if lowest(rounded) >= NEAR:
        return rounded
    near = rounded.detach() < NEAR
    if not isinstance(c, Tensor):
        c = math.ldexp(*math.frexp(c))  # the same; a constant to the compiler, not a variable
    with torch.no_grad():
        a = x.detach()
        digits = 11 if x.dtype == torch.float32 else 26
        reach = _power_above_radius(c)
        grain = reach * 2.0**-digits
        shift = grain * (1.5 / torch.finfo(x.dtype).eps)
        shift = shift.unsqueeze(-1) if isinstance(shift, Tensor) else shift
        high = (a + shift) - shift
        low = dot(a - high, a + high)
        inverse, rest = _inverse(c, reach * reach * 2.0**-digits, x.dtype)
        k = c.detach() if isinstance(c, Tensor) else c
        exact = k * ((inverse - dot(high, high)) + (rest - low))
        correction = torch.where(near, exact - rounded.detach(), 0.0)
    return rounded + correction


def _power_above_radius(c: float | Tensor) -> float | Tensor:
    """A power of two between the ball's radius ``1/sqrt(c)`` and twice that."""
    if isinstance(c, Tensor):
        return torch.exp2(torch.ceil(-torch.log2(c.detach()) / 2))
    _, exponent = math.frexp(c)  # c is at least half of 2^exponent
    return 2.0 ** ((2 - exponent) // 2)


def _inverse(
    c: float | Tensor, grain: float | Tensor, dtype: torch.dtype
) -> tuple[float | Tensor, float | Tensor]:
    """``1/c`` as a multiple of ``grain``, of half the digits, and the rest."""
    if isinstance(c, Tensor):
        c, digits = c.detach(), 12 if dtype == torch.float32 else 27
    else:
        digits = 27
    inverse = 1 / c
    inverse = inverse - inverse % grain
    carry = c * (2.0**digits + 1)
    high = carry - (carry - c)  # the upper half of c's digits (Veltkamp)
    rest = ((1 - high * inverse) - (c - high) * inverse) / c
    return inverse, rest


def over_pairs(
    function: Callable[[Tensor, Tensor, float | Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    c: float | Tensor,
) -> Tensor:
    """``function`` of each row of ``x (..., n, d)`` with each row of ``y (..., m, d)``.

    In blocks of rows whose temporaries stay in the cache, and are formed anew for the gradient;
    compiled, nothing of that size is formed at all.
    """
    y = y.unsqueeze(-3)
    rows = max(1, BLOCK // max(1, y.numel()))
    n = x.shape[-2]
    if n <= rows or torch.compiler.is_compiling():
        return function(x.unsqueeze(-2), y, c)
    by_row = isinstance(c, Tensor) and c.dim() > 1 and c.shape[-2] == n
    blocks = []
    for start in range(0, n, rows):
        part = x[..., start : start + rows, None, :]
        own = c[..., start : start + rows, :] if isinstance(c, Tensor) and by_row else c
        if torch.is_grad_enabled() and any(
            isinstance(t, Tensor) and t.requires_grad for t in (x, y, c)
        ):
            blocks.append(
                checkpoint(function, part, y, own, use_reentrant=False, preserve_rng_state=False)
            )
        else:
            blocks.append(function(part, y, own))
    return torch.cat(blocks, dim=-2)
