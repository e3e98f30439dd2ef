"""The low-rank products ``y + B (g * (A x))``, in the forms that a gate can take.

All take ``x`` with any leading dimensions, the base layer's output ``y``, and stacked factors
whose ``B`` holds one column of the update a row. Without gradients they add into ``y``: the last
matrix product accumulates onto the base's output, so that the output is written once.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Input = Float[Tensor, "*rows in_features"]
Output = Float[Tensor, "*rows out_features"]


def shared(
    x: Input,
    y: Output,
    A: Float[Tensor, "rank in_features"],
    B: Float[Tensor, "rank out_features"],
    g: Float[Tensor, "rank"] | None = None,
) -> Output:
    """One set of factors for every row; ``g`` weighs the rank-one terms."""
    h = x.reshape(-1, x.shape[-1]) @ A.T
    return _add(y, h if g is None else h * g, B)


def blocks(
    x: Input,
    y: Output,
    A: Float[Tensor, "n rank in_features"],
    B: Float[Tensor, "n rank out_features"],
    g: Float[Tensor, "n rank"] | None = None,
) -> Output:
    """``n`` equal blocks of consecutive rows, each with its own factors."""
    n = A.shape[0]
    h = torch.bmm(x.reshape(n, -1, x.shape[-1]), A.mT)
    if g is not None:
        h = h * g[:, None]
    if _in_place(y, h):
        y.view(n, -1, y.shape[-1]).baddbmm_(h, B)
        return y
    return torch.baddbmm(y.reshape(n, -1, y.shape[-1]), h, B).view(y.shape)


def masked(
    x: Input,
    y: Output,
    A: Float[Tensor, "rank in_features"],
    B: Float[Tensor, "rank out_features"],
    g: Float[Tensor, "n rank"],
) -> Output:
    """All factors for every row, and a gate for each of ``n`` equal blocks of rows."""
    h = x.reshape(-1, x.shape[-1]) @ A.T
    h = h.view(g.shape[0], -1, h.shape[-1]) * g[:, None]
    return _add(y, h.view(-1, h.shape[-1]), B)


def _add(y: Output, h: Float[Tensor, "m rank"], B: Float[Tensor, "rank out"]) -> Output:
    if _in_place(y, h):
        y.view(-1, y.shape[-1]).addmm_(h, B)
        return y
    return torch.addmm(y.reshape(-1, y.shape[-1]), h, B).view(y.shape)


def _in_place(y: Tensor, h: Tensor) -> bool:
    """Whether ``y`` may be overwritten: nothing will go backward through it."""
    return not (torch.is_grad_enabled() and (y.requires_grad or h.requires_grad)) and (
        y.is_contiguous()
    )
