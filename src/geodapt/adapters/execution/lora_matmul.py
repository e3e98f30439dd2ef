"""The low-rank products ``y + B gate(A x)``, in the forms that a gate can take.

All take ``x`` with any leading dimensions (or row numbers of an embedding, see
:func:`shrink`), the base layer's output ``y``, and stacked factors
whose ``B`` holds one column of the update per row. ``gate`` works on ``h = A x``, seen as
``(n, m, rank)``: n equal runs of consecutive rows. Without gradients they add into ``y``: the
last matrix product accumulates onto the base's output, so that the output is written once.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

Input = Float[Tensor, "*rows in_features"]
Output = Float[Tensor, "*rows out_features"]
GateFunction = Callable[[Float[Tensor, "n m rank"]], Float[Tensor, "n m rank"]]


def masked(
    x: Input,
    y: Output,
    A: Float[Tensor, "rank in_features"],
    B: Float[Tensor, "rank out_features"],
    gate: GateFunction | None = None,
    n: int = 1,
) -> Output:
    """The same factors for every row."""
    h = shrink(x.reshape(-1, x.shape[-1]), A)
    if gate is not None:
        h = gate(h.view(n, -1, h.shape[-1])).view(-1, h.shape[-1])
    if _in_place(y, h):
        y.view(-1, y.shape[-1]).addmm_(h, B)
        return y
    return torch.addmm(y.reshape(-1, y.shape[-1]), h, B).view(y.shape)


def batched(
    x: Input,
    y: Output,
    A: Float[Tensor, "n rank in_features"],
    B: Float[Tensor, "n rank out_features"],
    gate: GateFunction | None = None,
) -> Output:
    """``n`` equal runs of consecutive rows, each with its own factors."""
    n = A.shape[0]
    h = shrink(x.reshape(n, -1, x.shape[-1]), A)
    if gate is not None:
        h = gate(h)
    if _in_place(y, h):
        y.view(n, -1, y.shape[-1]).baddbmm_(h, B)
        return y
    return torch.baddbmm(y.reshape(n, -1, y.shape[-1]), h, B).view(y.shape)


class Segment(NamedTuple):
    """The entries of a route that share their factors."""

    A: Float[Tensor, "rank in_features"]
    B: Float[Tensor, "rank out_features"]
    gate: GateFunction | None
    size: int


def segmented(
    x: Input, y: Output, groups: Sequence[Segment], order: Int[Tensor, " routed"], n: int
) -> Output:
    """Rows sorted by their factors, one product per group.

    ``order`` holds the positions of the n runs of rows, group after group; runs in no group stay as
    they are.
    """
    runs = x.reshape(n, -1, x.shape[-1]).index_select(0, order)
    updates = []
    for (A, B, gate, _), part in zip(
        groups, runs.split([group.size for group in groups]), strict=True
    ):
        h = shrink(part.reshape(-1, part.shape[-1]), A)
        if gate is not None:
            h = gate(h.view(1, -1, h.shape[-1])).view(h.shape)
        updates.append(h @ B)
    update = torch.cat(updates).view(len(order), -1, y.shape[-1])
    if _in_place(y, update):
        y.view(n, -1, y.shape[-1]).index_add_(0, order, update)
        return y
    return y.reshape(n, -1, y.shape[-1]).index_add(0, order, update).view(y.shape)


def gathered(
    x: Input,
    y: Output,
    A: Float[Tensor, "rank in_features"],
    B: Float[Tensor, "rank out_features"],
    gate: GateFunction | None,
    n: int,
    keep: int,
) -> Output:
    """The same factors for every row, but of its terms only the ``keep`` with the largest ``|h|``.

    Reads the chosen rows of B for each row of x, which for few of them is less work than the
    whole product with most of h zero.
    """
    h = shrink(x.reshape(-1, x.shape[-1]), A)
    if gate is not None:
        h = gate(h.view(n, -1, h.shape[-1])).view(-1, h.shape[-1])
    chosen = h.detach().abs().topk(keep, dim=-1, sorted=False).indices
    update = embedding_bag(chosen, B, per_sample_weights=h.gather(-1, chosen), mode="sum")
    return y.add_(update.view(y.shape)) if _in_place(y, update) else y + update.view(y.shape)


class TermTable(NamedTuple):
    """Which rows of a stack each row of x is multiplied with, one after the other."""

    terms: Int[Tensor, " chosen"]
    """Their numbers in the stack."""
    starts: Int[Tensor, " rows"]
    """Where each row of x begins in ``terms``."""
    owners: Int[Tensor, " chosen"]
    """The row of x that each of ``terms`` belongs to."""


def from_stack(
    x: Input,
    y: Output,
    A: Float[Tensor, "stack in_features"],
    B: Float[Tensor, "stack out_features"],
    table: TermTable,
    gate: Callable[[Float[Tensor, " chosen"]], Float[Tensor, " chosen"]] | None = None,
) -> Output:
    """Every row's own terms, read where they lie in the stack: nothing is copied beforehand.

    ``h_i = A_i . x_owner(i)`` and ``y_t += sum_i h_i B_i`` over the terms of row t. The first is
    what torch computes backward through an embedding bag for the weights of its rows, the second
    is the bag itself. Without gradients: there is none of the first.
    """
    rows = x.reshape(-1, x.shape[-1])
    if x.is_floating_point():
        backward = torch.ops.aten._embedding_bag_per_sample_weights_backward
        h = backward(rows.detach(), A, table.terms, table.starts, table.owners, 0)
    else:
        h = A[table.terms, rows[table.owners, 0]]
    if gate is not None:
        h = gate(h)
    # Not by way of torch.nn.functional, whose checks take as long as a small product.
    update = torch.embedding_bag(B, table.terms, table.starts, mode=0, per_sample_weights=h)[0]
    return y.add_(update.view(y.shape)) if _in_place(y, update) else y + update.view(y.shape)


def shrink(x: Float[Tensor, "*n m in"], A: Float[Tensor, "*n rank in"]) -> Tensor:
    """``A x`` for every row; whole numbers ``(*n, m, 1)`` stand for one-hot vectors."""
    if x.is_floating_point():
        return x @ A.mT
    if A.ndim == 2:
        return A.index_select(1, x[:, 0]).T
    return A.gather(2, x.mT.expand(-1, A.shape[1], -1)).mT


def weigh(g: Float[Tensor, "n rank"]) -> GateFunction:
    """Every rank-one term times its weight in every run of rows."""
    return lambda h: h * g[:, None]


def keep_top(
    h: Float[Tensor, "n m rank"], keep: Sequence[int], sequences: int | None
) -> Float[Tensor, "n m rank"]:
    """Zero all but the largest ``|h|``: ``keep[i]`` of them in every row of run i.

    With ``sequences``, the rows form that many equal sequences, and a term stays or goes for a
    whole sequence, by its mean ``|h|``. Terms that tie with the last that stays also stay.
    """
    score = h.detach().abs()
    if sequences is not None:
        score = score.view(sequences, -1, h.shape[-1]).mean(1, keepdim=True)
        h_by_score = h.view(sequences, -1, h.shape[-1])
        keep = [k for k in keep for _ in range(sequences // len(keep))]
    else:
        h_by_score = h
    most = min(max(keep), h.shape[-1])
    if most == h.shape[-1] == min(keep):
        return h
    top = score.topk(max(most, 1), dim=-1).values
    if len(set(keep)) == 1:
        threshold = top[..., -1:]
    else:
        last = torch.tensor(keep, device=h.device).clamp(1, most).sub(1).view(-1, 1, 1)
        threshold = top.gather(-1, last.expand(-1, top.shape[1], 1))
    return h_by_score.masked_fill(score < threshold, 0).view(h.shape)


def _in_place(y: Tensor, update: Tensor) -> bool:
    """Whether ``y`` may be overwritten: nothing will go backward through it."""
    return y.is_contiguous() and not (
        torch.is_grad_enabled() and (y.requires_grad or update.requires_grad)
    )
