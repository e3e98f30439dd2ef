"""Whole passes of a layer in one go: the kernels, wherever they can stand for the operators.

A residual connection or a norm is two passes over a few vectors, and a dozen small formulas of
their norms. Operator by operator, forwards and backwards, those are fifty calls, which take longer
than the passes do. Here a kernel of ``kernels/`` runs instead, and another one for the gradients,
when the vectors are ordinary float32 tensors on a CPU. In every other case the operators do it,
which are the definition: compiled, in other types, for gradients of gradients.
"""

import math
import struct
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

from geodapt import native

SOURCE = Path(__file__).parent / "kernels" / "kernels.cpp"
ARGUMENTS = struct.Struct("10P5d5n")  # ``arguments`` of kernels.cpp
ALONE = 1 << 14
"""Numbers up to which one thread is faster than waking others."""

Number = float | Tensor
Inputs = Sequence[Any]
Definition = Callable[..., Any]


@cache
def library() -> Any:
    """The loaded kernels, or None where they cannot be had."""
    return native.library(SOURCE)


def suit(*vectors: Tensor) -> bool:
    """Whether the kernels can take these."""
    # Neither a compiler nor torch.func can look into a kernel.
    seen_through = torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack()
    return not seen_through and plain(*vectors) and library() is not None


def plain(*tensors: Tensor) -> bool:
    """Whether these are ordinary float32 tensors on a CPU."""
    return all(
        type(x) in (Tensor, nn.Parameter) and x.dtype == torch.float32 and x.device.type == "cpu"
        for x in tensors
    )


def creates_graph() -> bool:
    """Whether a backward pass is to be differentiated itself (autograd's ``create_graph``)."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def residual(definition: Definition, x: Tensor, y: Tensor, *scalars: Number) -> Tensor:
    """``definition(x, y, weight, scale, *c)``, which is that of :func:`points.residual`."""
    if x.shape != y.shape:
        return definition(x, y, *scalars)
    return _apply(RESIDUAL, definition, (x, y, *scalars))


def rms_norm(definition: Definition, *inputs: Number) -> tuple[Tensor, Tensor]:
    """``definition(x, weight, eps, radius2)``, which is that of :func:`points.rms_norm`."""
    return _apply(RMS_NORM, definition, inputs)


def swiglu(definition: Definition, *gate_up: Tensor) -> tuple[Tensor, Tensor]:
    """``definition(gate, up)``, or of both side by side: ``h = silu(gate) up`` and ``|h|^2``."""
    return _apply(SWIGLU, definition, gate_up)


def dispatch(definition: Definition, *inputs: Tensor) -> Tensor:
    """``definition(x, factor, token, place)``, which is that of :func:`experts.dispatch`."""
    return _apply(DISPATCH, definition, inputs)


def combine(definition: Definition, *inputs: Number) -> tuple[Tensor, Tensor]:
    """``definition(y, back, weights, order, place, *c)``, that of :func:`experts.combine`."""
    return _apply(COMBINE, definition, inputs)


def _apply(kernels: "Kernels", definition: Definition, inputs: Inputs) -> Any:
    if not suit(*inputs[: kernels.vectors]):
        return definition(*inputs)
    dense = (x.contiguous() if isinstance(x, Tensor) else x for x in inputs)
    return _Pass.apply(kernels, definition, *dense)


class _Pass(Function):
    @staticmethod
    def forward(ctx, kernels, definition, *inputs):
        ctx.kernels, ctx.definition = kernels, definition
        ctx.numbers = [None if isinstance(x, Tensor) else x for x in inputs]
        ctx.save_for_backward(*(x if isinstance(x, Tensor) else None for x in inputs))
        return kernels.values(*inputs)

    @staticmethod
    def backward(ctx, *grads):
        given = zip(ctx.saved_tensors, ctx.numbers, strict=True)
        inputs = [number if tensor is None else tensor for tensor, number in given]
        wanted = ctx.needs_input_grad[2:]
        if creates_graph():
            return None, None, *gradients_by(ctx.definition, inputs, wanted, grads)
        dense = [g.contiguous() for g in grads]
        return None, None, *ctx.kernels.gradients(inputs, dense, wanted)


def gradients_by(
    definition: Definition, inputs: Inputs, wanted: Sequence[bool], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients that are wanted, themselves differentiable."""
    # Views: an input may be made of another, as the powers of c are, whose slope is its own.
    inputs = [x.view_as(x) if isinstance(x, Tensor) else x for x in inputs]
    those = [x for x, want in zip(inputs, wanted, strict=True) if want]
    found = iter(
        torch.autograd.grad(definition(*inputs), those, grads, create_graph=True, allow_unused=True)
    )
    return [next(found) if want else None for want in wanted]


class Kernels(NamedTuple):
    """A pass's two kernels."""

    values: Callable[..., Any]
    gradients: Callable[[Inputs, Sequence[Tensor], Sequence[bool]], Sequence[Tensor | None]]
    """Of the inputs, the gradients of the outputs, and which inputs want theirs."""
    vectors: int = 2
    """How many inputs, the first, are to be ordinary vectors."""


def _residual(x: Tensor, y: Tensor, *scalars: Number) -> Tensor:
    out = torch.empty_like(x)
    _run("residual", (x, y), [out], scalars)
    return out


def _residual_gradients(inputs, grads, wanted):
    x, y, *scalars = inputs
    dx, dy, by = torch.empty_like(x), torch.empty_like(y), _by_row(x, wanted[2:])
    _run("residual_gradient", (x, y), [dx, dy], scalars, grads, by)
    return dx, dy, *_sums(by, scalars, wanted[2:])


def _rms_norm(x: Tensor, weight: Tensor, *scalars: Number) -> tuple[Tensor, Tensor]:
    h, time = torch.empty_like(x), x.new_empty(x.shape[:-1])
    _run("norm", (x, weight), [h, time], scalars)
    return h, time


def _rms_norm_gradients(inputs, grads, wanted):
    x, weight, *scalars = inputs
    dx, d_weight, by = torch.empty_like(x), torch.zeros_like(weight), _by_row(x, wanted[3:])
    _run("norm_gradient", (x, weight), [dx, d_weight], scalars, grads, by)
    return dx, d_weight, None, *_sums(by, scalars[1:], wanted[3:])


def _swiglu(*gate_up: Tensor) -> tuple[Tensor, Tensor]:
    gate, up = _halves(gate_up)
    h, square = gate.new_empty(gate.shape), gate.new_empty(gate.shape[:-1])
    _run("swiglu", (gate, up), [h, square], stride=gate_up[0].shape[-1])
    return h, square


def _swiglu_gradients(inputs, grads, wanted):
    found = [torch.empty_like(x) for x in inputs]
    stride = inputs[0].shape[-1]
    _run("swiglu_gradient", _halves(inputs), _halves(found), grads=grads, stride=stride)
    return found


def _halves(gate_up: Inputs) -> Inputs:
    return gate_up if len(gate_up) == 2 else gate_up[0].chunk(2, dim=-1)


def _dispatch(x: Tensor, factor: Tensor, token: Tensor, place: Tensor) -> Tensor:
    out = x.new_empty(len(token), x.shape[1])
    _run("dispatch", (x, factor), [out], place=place, tokens=len(x))
    return out


def _dispatch_gradients(inputs, grads, wanted):
    x, factor, _, place = inputs
    found = [torch.empty_like(x), torch.empty_like(factor)]
    _run("dispatch_gradient", (x, factor), found, grads=grads, place=place, tokens=len(x))
    return *found, None, None


def _combine(y: Tensor, back: Tensor, weights: Tensor, _: Tensor, place: Tensor, *c: Number):
    s, u = y.new_empty(len(weights), y.shape[1]), y.new_empty(len(weights))
    _run("combine", (y, back, weights), [s, u], c[1:], place=place, tokens=len(weights))
    return s, u


def _combine_gradients(inputs, grads, wanted):
    *vectors, _, place, _, radius, radius2 = inputs
    found, by = [torch.empty_like(x) for x in vectors], _by_row(vectors[0], wanted[6:])
    scalars, tokens = (radius, radius2), len(vectors[2])
    _run("combine_gradient", vectors, found, scalars, grads, by, place=place, tokens=tokens)
    return *found, None, None, None, *_sums(by, scalars, wanted[6:])


def _by_row(x: Tensor, wanted: Sequence[bool]) -> Tensor | None:
    """Where the gradients of scalars go, row by row."""
    return x.new_empty(len(wanted), math.prod(x.shape[:-1])) if any(wanted) else None


def _sums(by: Tensor | None, scalars: Inputs, wanted: Sequence[bool]) -> list[Tensor | None]:
    if by is None:
        return [None] * len(scalars)
    return [
        total.to(scalar.dtype) if want else None
        for total, scalar, want in zip(by.sum(1).unbind(), scalars, wanted, strict=True)
    ]


def _run(
    name: str,
    inputs: Inputs,
    out: Sequence[Tensor],
    scalars: Sequence[Number] = (),
    grads: Sequence[Tensor] = (),
    by: Tensor | None = None,
    stride: int = 0,
    place: Tensor | None = None,
    tokens: int | None = None,
) -> None:
    """Run a kernel over all rows of the first result, or so many tokens."""
    *batch, d = out[0].shape
    rows = math.prod(batch) if tokens is None else tokens
    getattr(library(), name)(
        ARGUMENTS.pack(
            *_addresses(inputs, 3),
            *_addresses(grads, 2),
            *_addresses(out, 3),
            *_addresses([] if place is None else [place], 1),
            *_addresses([] if by is None else [by], 1),
            *scalars,
            *[0.0] * (5 - len(scalars)),
            rows,
            d,
            stride,
            0 if place is None else place.numel() // max(1, rows),
            1 if rows * d < ALONE else torch.get_num_threads(),
        )
    )


def _addresses(tensors: Sequence[Tensor], most: int) -> list[int]:
    return [t.data_ptr() for t in tensors] + [0] * (most - len(tensors))


RESIDUAL = Kernels(_residual, _residual_gradients)
RMS_NORM = Kernels(_rms_norm, _rms_norm_gradients)
SWIGLU = Kernels(_swiglu, _swiglu_gradients)
DISPATCH = Kernels(_dispatch, _dispatch_gradients)
COMBINE = Kernels(_combine, _combine_gradients, vectors=3)
