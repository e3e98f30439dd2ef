"""Causal attention in blocks of queries, for training on a CPU.

Keys behind a block's last query are left out, so that little more than half of all products remain,
and these are large enough for the processor's matrix library. PyTorch's own kernel, which leaves
them out only where it is given no mask, takes up to 1.4 times as long. Weights are kept for the
gradient, which is why long rows are left to that kernel, whose memory does not grow so fast.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import pad

from geodapt.helm import passes

BLOCK = 128
"""Queries that are taken together."""
LONGEST = 1024
"""Tokens of a row up to which weights are kept."""


def suits(q: Tensor, k: Tensor, mask: Tensor | None) -> bool:
    """Whether the blocks are worth while: where gradients are asked for on a CPU."""
    return (
        mask is None
        and q.device.type == "cpu"
        and q.dtype in (torch.float32, torch.float64)
        and q.shape[:3] == k.shape[:3]
        and BLOCK < q.shape[2] <= LONGEST
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def causal_attention(
    q: Float[Tensor, "rows heads n size"],
    k: Float[Tensor, "rows heads n size"],
    v: Float[Tensor, "rows heads n value"],
) -> Float[Tensor, "rows n heads value"]:
    """``softmax(q k^T) v``, where a query sees the keys up to its own.

    Source of the gradient: Dao et al. 2022, "FlashAttention", appendix B.2.
    """
    flat = [x.flatten(0, 1) for x in (q, k, v)]
    out = _formula(*flat) if torch.compiler.is_compiling() else _Attention.apply(*flat)
    return out.unflatten(0, q.shape[:2]).transpose(1, 2)


def _blocks(q: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Each block's queries, the keys that they see, and who may not see whom among themselves."""
    later = torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu(1)
    for start in range(0, q.shape[1], BLOCK):
        end = min(start + BLOCK, q.shape[1])
        yield slice(start, end), slice(end), later[: end - start, : end - start]


def _formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = []
    for rows, seen, later in _blocks(q):
        # Added, not filled in, so that no mask is kept for the gradient.
        unseen = pad(later, (rows.start, 0))
        bias = torch.where(unseen, -torch.inf, 0.0).to(q.dtype)
        out.append((q[:, rows] @ k[:, seen].mT + bias).softmax(-1) @ v[:, seen])
    return torch.cat(out, 1)


class _Attention(Function):
    @staticmethod
    def forward(ctx, q, k, v):
        out = q.new_empty(*q.shape[:2], v.shape[2])
        kept = []
        for rows, seen, later in _blocks(q):
            scores = q[:, rows] @ k[:, seen].mT
            scores[:, :, rows].masked_fill_(later, -torch.inf)
            weights = torch.softmax(scores, -1, out=scores)
            torch.bmm(weights, v[:, seen], out=out[:, rows])
            kept.append(weights)
        ctx.save_for_backward(q, k, v, out, *kept)
        return out

    @staticmethod
    def backward(ctx, g):
        q, k, v, out, *kept = ctx.saved_tensors
        if passes.creates_graph():
            return tuple(passes.gradients_by(_formula, (q, k, v), ctx.needs_input_grad, [g]))
        dq, dk, dv = torch.empty_like(q), None, None
        along = torch.linalg.vecdot(g, out).unsqueeze(-1)
        # The last queries see all keys: their share is where the others' are added.
        for (rows, seen, _), weights in reversed(list(zip(_blocks(q), kept, strict=True))):
            by_v = weights.mT @ g[:, rows]
            slope = (g[:, rows] @ v[:, seen].mT).sub_(along[:, rows]).mul_(weights)
            torch.bmm(slope, k[:, seen], out=dq[:, rows])
            by_k = slope.mT @ q[:, rows]
            if dk is None or dv is None:
                dk, dv = by_k, by_v
            else:
                dk[:, seen] += by_k
                dv[:, seen] += by_v
        return dq, dk, dv
