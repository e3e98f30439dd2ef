"""The rows that experts compute: one for each choice of a token, sorted by expert.

A token is spread to its rows, and rows are gathered into their tokens; each is the other's
gradient. PyTorch's gradient of a selection adds row after row to zeros instead, which takes longer.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function


class Rows(NamedTuple):
    """Which token's which choice every row is."""

    expert: Int[Tensor, "rows"]  # ascending
    order: Int[Tensor, "rows"]  # k times the token, and which of its k choices
    place: Int[Tensor, "tokens k"]  # where the rows of a token are
    ends: Int[Tensor, "e"]  # where the rows of an expert end

    @classmethod
    def of(cls, chosen: Int[Tensor, "tokens k"], experts: int) -> "Rows":
        """The rows of each token's k chosen experts, out of so many."""
        expert, order = torch.sort(chosen.flatten(), stable=True)
        ordinals = torch.arange(len(order), device=order.device)
        place = torch.empty_like(order).scatter(0, order, ordinals)  # no need to sort again
        ends = load(expert, experts).cumsum(0).to(torch.int32)
        return cls(expert, order, place.view(chosen.shape), ends)

    @property
    def token(self) -> Int[Tensor, "rows"]:
        return self.order // self.place.shape[1]


def load(chosen: Int[Tensor, "*batch"], experts: int) -> Float[Tensor, "e"]:
    """How many tokens went to each expert."""
    return torch.histc(chosen.float(), bins=experts, min=0, max=experts - 1)


def member(
    expert: Int[Tensor, "rows"], experts: int, dtype: torch.dtype
) -> Float[Tensor, "rows e"]:
    """One-hot: 1 where a row is the expert's."""
    return (expert.unsqueeze(-1) == torch.arange(experts, device=expert.device)).to(dtype)


def spread(
    x: Float[Tensor, "tokens *d"], token: Int[Tensor, "rows"], place: Int[Tensor, "tokens k"]
) -> Float[Tensor, "rows *d"]:
    """Each row its token."""
    return _Spread.apply(x, token, place)


def gather(
    y: Float[Tensor, "rows *d"], token: Int[Tensor, "rows"], place: Int[Tensor, "tokens k"]
) -> Float[Tensor, "tokens *d"]:
    """Each token the sum of its rows."""
    return _Gather.apply(y, token, place)


class _Spread(Function):
    @staticmethod
    def forward(ctx, x, token, place):
        ctx.save_for_backward(token, place)
        return x.index_select(0, token)

    @staticmethod
    def backward(ctx, g):
        return gather(g, *ctx.saved_tensors), None, None


class _Gather(Function):
    @staticmethod
    def forward(ctx, y, token, place):
        ctx.save_for_backward(token, place)
        return y.index_select(0, place.flatten()).view(*place.shape, *y.shape[1:]).sum(1)

    @staticmethod
    def backward(ctx, g):
        return spread(g, *ctx.saved_tensors), None, None
