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
    if torch.compiler.is_compiling():
        blocks = [weights @ flat[2][:, :end] for _, end, weights in _weights(*flat[:2])]
        out = torch.cat(blocks, 1)
    else:
        out = _Attention.apply(*flat)
    return out.unflatten(0, q.shape[:2]).transpose(1, 2)


def _weights(q: Tensor, k: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Where each block begins and ends, and its queries' weights of the keys up to there."""
    later = torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu(1)
    for start in range(0, q.shape[1], BLOCK):
        end = min(start + BLOCK, q.shape[1])
        unseen = pad(later[: end - start, : end - start], (start, 0))
        scores = (q[:, start:end] @ k[:, :end].mT).masked_fill(unseen, -torch.inf)
        yield start, end, scores.softmax(-1)


class _Attention(Function):
    @staticmethod
    def forward(ctx, q, k, v):
        out = q.new_empty(*q.shape[:2], v.shape[2])
        kept = []
        for start, end, weights in _weights(q, k):
            torch.bmm(weights, v[:, :end], out=out[:, start:end])
            kept.append(weights)
        ctx.save_for_backward(q, k, v, out, *kept)
        return out

    @staticmethod
    def backward(ctx, g):
        q, k, v, out, *kept = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        along = torch.linalg.vecdot(g, out).unsqueeze(-1)
        for start, weights in zip(range(0, q.shape[1], BLOCK), kept, strict=True):
            seen = slice(weights.shape[2])
            rows = slice(start, seen.stop)
            dv[:, seen].baddbmm_(weights.mT, g[:, rows])
            slope = (g[:, rows] @ v[:, seen].mT).sub_(along[:, rows]).mul_(weights)
            torch.bmm(slope, k[:, seen], out=dq[:, rows])
            dk[:, seen].baddbmm_(slope.mT, q[:, rows])
        return dq, dk, dv
