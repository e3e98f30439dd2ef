"""The experts' linear maps: a matrix for each run of rows."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from transformers.integrations.moe import _grouped_mm

from geodapt.helm import passes, products
from geodapt.helm.rows import member


def grouped_linear(
    x: Float[Tensor, "rows d_in"],
    time: Float[Tensor, "rows"],
    weight: Float[Tensor, "e d_out d_in"],
    time_weight: Float[Tensor, "e d_out"],
    expert: Int[Tensor, "rows"],
    ends: Int[Tensor, "e"],
) -> Float[Tensor, "rows d_out"]:
    """``W_e x + w_e t``: each row by its expert's weights.

    Rows come sorted by expert; ``ends`` says where each expert's end.
    """
    inputs = (x, time, weight, time_weight, expert, ends)
    return _Grouped.apply(*inputs) if products.suits(x, weight) else _formula(*inputs)


def _formula(
    x: Tensor, time: Tensor, weight: Tensor, time_weight: Tensor, expert: Tensor, ends: Tensor
) -> Tensor:
    if torch.is_autocast_enabled(x.device.type):  # which does not know grouped products
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    aligned = all(size * x.element_size() % 16 == 0 for size in weight.shape[1:])
    if x.dtype != torch.float64 and aligned:  # PyTorch's own kernels take nothing else
        y = _grouped_mm(x, weight.mT, ends)
    elif torch.compiler.is_compiling():
        y = torch.ops.transformers.grouped_mm_fallback(x, weight.mT, ends)
    else:  # whose gradient, unlike that operator's, has one
        y = torch.cat([x[rows] @ weight[e].mT for e, rows in _runs(ends)])
    return add_times(y, time, expert, time_weight)


def add_times(
    y: Float[Tensor, "rows d"],
    time: Float[Tensor, "rows"],
    expert: Int[Tensor, "rows"],
    weight: Float[Tensor, "e d"],
) -> Float[Tensor, "rows d"]:
    """``y + t w_e``; y is spent."""
    return _AddTimes.apply(y, time.to(y.dtype), expert, weight.to(y.dtype))


class _AddTimes(Function):
    """A product with few columns: no ``w_e`` is copied for each row. A compiler need not copy it
    either, but its gradient of the choice would be slow."""

    @staticmethod
    def forward(ctx, y, time, expert, weight):
        of_e = member(expert, len(weight), y.dtype)
        ctx.save_for_backward(time, of_e, weight)
        if torch.compiler.is_compiling():
            return torch.addcmul(y, time.unsqueeze(-1), weight.index_select(0, expert))
        ctx.mark_dirty(y)
        return y.addmm_(of_e * time.unsqueeze(-1), weight)

    @staticmethod
    def backward(ctx, g):
        time, of_e, weight = ctx.saved_tensors
        return g, ((g @ weight.mT) * of_e).sum(-1), None, (of_e * time.unsqueeze(-1)).mT @ g


class _Grouped(Function):
    @staticmethod
    def forward(ctx, *inputs):
        ctx.save_for_backward(*inputs)
        return torch.ops.geodapt.grouped_linear(*inputs)

    @staticmethod
    def backward(ctx, g):
        wanted, inputs = ctx.needs_input_grad, ctx.saved_tensors
        if passes.creates_graph():
            return tuple(passes.gradients_by(_formula, inputs, wanted, [g]))
        found = iter(torch.ops.geodapt.grouped_linear_gradients(g, *inputs, wanted))
        return tuple(next(found) if want else None for want in wanted)


INPUTS = "Tensor x, Tensor time, Tensor weight, Tensor time_weight, Tensor expert, Tensor ends"
products.OPERATORS.define(f"grouped_linear({INPUTS}) -> Tensor")
products.OPERATORS.define(
    f"grouped_linear_gradients(Tensor g, {INPUTS}, bool[] wanted) -> Tensor[]"
)


@torch.library.impl(products.OPERATORS, "grouped_linear", "CPU")
def _(x: Tensor, time: Tensor, weight: Tensor, time_weight: Tensor, _, ends: Tensor) -> Tensor:
    """Expert by expert, so that the time is added to what the cache still holds."""
    y = x.new_empty(len(x), weight.shape[1])
    for e, rows in _runs(ends):
        of_space = products.linear(x[rows], weight[e])
        torch.addcmul(of_space, time[rows, None], time_weight[e], out=y[rows])
    return y


@torch.library.impl(products.OPERATORS, "grouped_linear_gradients", "CPU")
def _(g: Tensor, *inputs_and_wanted: Any) -> list[Tensor]:
    *inputs, wanted = inputs_and_wanted
    x, time, weight, time_weight, _, ends = inputs
    found = [torch.empty_like(x) if want else None for x, want in zip(inputs, wanted, strict=True)]
    dx, d_time, d_weight, d_time_weight, *_ = found
    for e, rows in _runs(ends):
        slope = g[rows]
        if dx is not None:
            dx[rows] = products.linear(slope, weight[e].mT)
        if d_time is not None:
            torch.mv(slope, time_weight[e], out=d_time[rows])
        if d_weight is not None:
            d_weight[e] = products.linear_gradient(slope, x[rows])
        if d_time_weight is not None:
            torch.mv(slope.mT, time[rows], out=d_time_weight[e])
    return [part for part in found if part is not None]


@torch.library.register_fake("geodapt::grouped_linear", lib=products.OPERATORS)
def _(x: Tensor, time: Tensor, weight: Tensor, *_: Tensor) -> Tensor:
    return x.new_empty(len(x), weight.shape[1])


@torch.library.register_fake("geodapt::grouped_linear_gradients", lib=products.OPERATORS)
def _(g: Tensor, *inputs_and_wanted: Any) -> list[Tensor]:
    *inputs, wanted = inputs_and_wanted
    return [torch.empty_like(x) for x, want in zip(inputs, wanted, strict=True) if want]


def _runs(ends: Int[Tensor, "e"]) -> Iterator[tuple[int, slice]]:
    start = 0
    for e, end in enumerate(ends.tolist()):
        yield e, slice(start, end)
        start = end
