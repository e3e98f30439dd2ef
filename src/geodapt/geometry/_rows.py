"""The two things that every function here does with vectors: dot products and combinations.

Hyperbolic formulas lose digits in differences of nearly equal sums, such as ``|x-y|^2 - dt^2``
between points far out, or ``1 - c|x|^2`` near the ball's edge. Both operations therefore sum in
float64 and take float32 only as what the user stores. They are closed under differentiation (the
gradient of a dot product is a combination, that of a combination is a dot product), so a
gradient of any order has the same accuracy, and the graph keeps nothing but the points.

They are PyTorch operators, of which the functions' definitions are made; float32 on the CPU takes
the kernels of :mod:`geodapt.geometry._whole` instead, and for :func:`square` and :func:`scale` too.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from geodapt.geometry._domain import wide
from geodapt.geometry._whole import one_pass

BLOCK = 1 << 24  # numbers that one block of a pairwise product may widen to float64 at once


class Dots(NamedTuple):
    """The dot products of two vectors, in float64 (float32 where the device has no float64)."""

    xx: Tensor  # |x|^2
    yy: Tensor  # |y|^2
    xy: Tensor  # x . y
    dd: Tensor  # |x - y|^2, exact for close points
    ds: Tensor  # (x - y) . (x + y) = |x|^2 - |y|^2, exact for close points


def dot(x: Tensor, y: Tensor) -> Tensor:
    """``x . y`` over the last dimension, in float64."""
    if torch.compiler.is_compiling():  # the compiler fuses and differentiates the plain sums
        return _dot(x, y)
    return _Dot.apply(*torch.broadcast_tensors(x, y))


def square(x: Tensor) -> Tensor:
    """``|x|^2`` over the last dimension, in float64."""
    return _square(x, 1.0)


def scale(w: Tensor, x: Tensor) -> Tensor:
    """``w x``, a factor for each vector."""
    return _scale(w, x, 1.0)


@one_pass(gives=torch.float64)
def _square(x: Tensor, c: float) -> Tensor:
    return dot(x, x)


@one_pass()
def _scale(w: Tensor, x: Tensor, c: float) -> Tensor:
    return combine((w, x))


def dots(x: Tensor, y: Tensor) -> Dots:
    """All dot products of two vectors over the last dimension."""
    if torch.compiler.is_compiling():
        return _dots(x, y)
    return Dots(*_Dots.apply(*torch.broadcast_tensors(x, y)).unbind())


def pairwise_dots(x: Tensor, y: Tensor) -> Dots:
    """All dot products of each row of ``x (..., n, d)`` with each row of ``y (..., m, d)``."""
    batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = x.expand(*batch, *x.shape[-2:]), y.expand(*batch, *y.shape[-2:])
    if torch.compiler.is_compiling():
        return _dots(x.unsqueeze(-2), y.unsqueeze(-3))
    return Dots(*_PairwiseDots.apply(x, y).unbind())


def combine(*terms: tuple[Tensor, Tensor]) -> Tensor:
    """``sum of coefficient * vector``: summed in float64, returned in the vectors' type."""
    shape = torch.broadcast_shapes(*(x.shape for _, x in terms), *((*a.shape, 1) for a, _ in terms))
    if torch.compiler.is_compiling():
        return _combine([a for a, _ in terms], [x for _, x in terms])
    coefficients = torch.stack([a.expand(shape[:-1]) for a, _ in terms])
    return _Combine.apply(coefficients, *(x.expand(shape) for _, x in terms))


class _OfInputs(Function):
    """A function whose derivatives, of either mode, need its inputs and nothing else."""

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)


class _Dot(_OfInputs):
    @staticmethod
    def forward(x, y):
        return _dot(x, y)

    @staticmethod
    def backward(ctx, grad):
        x, y = ctx.saved_tensors
        grads = ctx.needs_input_grad
        return (
            combine((grad, y)).to(x.dtype) if grads[0] else None,
            combine((grad, x)).to(y.dtype) if grads[1] else None,
        )

    @staticmethod
    def jvp(ctx, dx, dy):
        x, y = ctx.saved_tensors
        return dot(dx, y) + dot(x, dy)

    @staticmethod
    def vmap(info, in_dims, x, y):
        return _Dot.apply(*_batched(info.batch_size, in_dims, x, y)), 0


class _Dots(_OfInputs):
    @staticmethod
    def forward(x, y):
        return torch.stack(_dots(x, y))

    @staticmethod
    def backward(ctx, grad):
        x, y = ctx.saved_tensors
        xx, yy, xy, dd, ds = grad.unbind()
        across = xy - 2 * dd
        grads = ctx.needs_input_grad
        return (
            combine((2 * (xx + dd + ds), x), (across, y)).to(x.dtype) if grads[0] else None,
            combine((2 * (yy + dd - ds), y), (across, x)).to(y.dtype) if grads[1] else None,
        )

    @staticmethod
    def jvp(ctx, dx, dy):
        x, y = ctx.saved_tensors
        xdx, ydy, xdy, ydx = dot(x, dx), dot(y, dy), dot(x, dy), dot(y, dx)
        return torch.stack(
            [2 * xdx, 2 * ydy, xdy + ydx, 2 * (xdx + ydy - xdy - ydx), 2 * (xdx - ydy)]
        )

    @staticmethod
    def vmap(info, in_dims, x, y):
        return _Dots.apply(*_batched(info.batch_size, in_dims, x, y)), 1


class _PairwiseDots(_OfInputs):
    @staticmethod
    def forward(x, y):
        rows = max(1, BLOCK // max(1, y.numel()))
        columns = y.unsqueeze(-3)
        split = x.split(rows, dim=-2)
        blocks = [torch.stack(_dots(block.unsqueeze(-2), columns)) for block in split]
        return torch.cat(blocks, dim=-2)

    @staticmethod
    def backward(ctx, grad):
        x, y = ctx.saved_tensors
        xx, yy, xy, dd, ds = grad.unbind()
        across = xy - 2 * dd
        grad_x = 2 * (xx + dd + ds).sum(-1, keepdim=True) * wide(x) + across @ wide(y)
        grad_y = 2 * (yy + dd - ds).sum(-2).unsqueeze(-1) * wide(y) + across.mT @ wide(x)
        return grad_x.to(x.dtype), grad_y.to(y.dtype)

    @staticmethod
    def jvp(ctx, dx, dy):
        x, y, dx, dy = (wide(t) for t in (*ctx.saved_tensors, dx, dy))
        xdx = torch.linalg.vecdot(x, dx).unsqueeze(-1)
        ydy = torch.linalg.vecdot(y, dy).unsqueeze(-2)
        cross = dx @ y.mT + x @ dy.mT
        zero = torch.zeros_like(cross)
        return torch.stack(
            [2 * xdx + zero, 2 * ydy + zero, cross, 2 * (xdx + ydy - cross), 2 * (xdx - ydy)]
        )

    @staticmethod
    def vmap(info, in_dims, x, y):
        return _PairwiseDots.apply(*_batched(info.batch_size, in_dims, x, y)), 1


class _Combine(_OfInputs):
    @staticmethod
    def forward(coefficients, *xs):
        return _combine(coefficients, xs)

    @staticmethod
    def backward(ctx, grad):
        coefficients, *xs = ctx.saved_tensors
        needed = ctx.needs_input_grad
        by_coefficient = (
            torch.stack([dot(grad, x) for x in xs]).to(coefficients.dtype) if needed[0] else None
        )
        by_vector = (
            combine((a, grad)).to(x.dtype) if need else None
            for a, x, need in zip(coefficients, xs, needed[1:], strict=True)
        )
        return (by_coefficient, *by_vector)

    @staticmethod
    def jvp(ctx, d_coefficients, *dxs):
        coefficients, *xs = ctx.saved_tensors
        terms = [(a, dx) for a, dx in zip(coefficients, dxs, strict=True)]
        terms += [(da, x) for da, x in zip(d_coefficients, xs, strict=True)]
        return combine(*terms)

    @staticmethod
    def vmap(info, in_dims, coefficients, *xs):
        size, (first, *rest) = info.batch_size, in_dims
        coefficients = (
            coefficients.movedim(first, 1)
            if first is not None
            else (coefficients.unsqueeze(1).expand(-1, size, *coefficients.shape[1:]))
        )
        return _Combine.apply(coefficients, *_batched(size, rest, *xs)), 0


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (wide(x) * wide(y)).sum(-1)


def _dots(x: Tensor, y: Tensor) -> Dots:
    x, y = torch.broadcast_tensors(wide(x), wide(y))
    difference = x - y
    pairs = ((x, x), (y, y), (x, y), (difference, difference), (difference, x + y))
    return Dots(*((a * b).sum(-1) for a, b in pairs))


def _combine(coefficients: Sequence[Tensor] | Tensor, xs: Sequence[Tensor]) -> Tensor:
    dtype = reduce(torch.promote_types, (x.dtype for x in xs))
    terms = [a.unsqueeze(-1) * wide(x) for a, x in zip(coefficients, xs, strict=True)]
    return reduce(torch.add, terms).to(dtype)


def _batched(size: int, in_dims, *tensors: Tensor) -> list[Tensor]:
    """The tensors with vmap's dimension in front of each."""
    return [
        t.movedim(dim, 0) if dim is not None else t.expand(size, *t.shape)
        for t, dim in zip(tensors, in_dims, strict=True)
    ]
