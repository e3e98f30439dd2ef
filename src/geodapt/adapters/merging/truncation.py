"""Cutting a merged update to a rank, and saying what was cut off."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.lowrank import SVD, svd_of_product
from geodapt.adapters.merging.registry import LowRank, Merged


class Truncated(NamedTuple):
    """``B A``, with the singular values' roots on both sides, and what is missing."""

    A: Float[Tensor, "k in"]
    B: Float[Tensor, "out k"]
    error: float
    """Frobenius norm of what was cut off, relative to the norm of the whole."""


def truncate(
    merged: Merged, rank: int, energy: float | None, start: Float[Tensor, "k in"]
) -> Truncated:
    """The closest update with at most ``rank`` terms, or the fewest that hold an energy share.

    Factors are cut exactly. A full matrix is cut by subspace iteration from ``start``, rows
    near its row space (the adapters' own), which converges in a few steps.
    """
    if isinstance(merged, LowRank):
        svd = svd_of_product(*merged)
        total = svd.d.square().sum().item()
    else:
        total = merged.square().sum().item()
        wanted = min(merged.shape) if energy is not None else rank
        svd = leading_terms(merged, min(wanted, *merged.shape), start)
    held = svd.d.double().square().cumsum(0)
    if energy is not None:
        rank = int((held < energy * total * (1 - 1e-12)).sum()) + 1
    rank = max(min(rank, len(svd.d)), 1)
    cut = max(1 - held[rank - 1].item() / total, 0.0) if total else 0.0
    root = svd.d[:rank].sqrt()
    return Truncated(root[:, None] * svd.Vt[:rank], svd.U[:, :rank] * root, math.sqrt(cut))


def leading_terms(delta: Float[Tensor, "out in"], rank: int, start: Float[Tensor, "k in"]) -> SVD:
    """The largest terms of a matrix's SVD, by block subspace iteration.

    Source: Halko, Martinsson and Tropp 2011, algorithm 4.4, with a start better than random
    and iterated until the energy that it holds no longer grows.
    """
    small = min(delta.shape)
    width = max(rank + 16, start.shape[0])
    if 3 * width >= small:
        U, d, Vt = torch.linalg.svd(delta, full_matrices=False)
        return SVD(U[:, :rank], d[:rank], Vt[:rank])
    if start.shape[0] < width:
        generator = torch.Generator().manual_seed(0)
        extra = torch.randn(width - start.shape[0], start.shape[1], generator=generator)
        start = torch.cat([start, extra.to(start)])
    Q = torch.linalg.qr(delta @ start.T.to(delta)).Q
    before = 0.0
    for _ in range(20):
        P, R = torch.linalg.qr((Q.T @ delta).T)  # Q^T delta = R^T P^T
        d = torch.linalg.svdvals(R)[:rank]
        now = d.double().square().sum().item()
        if now - before <= 1e-5 * now:
            break
        before = now
        Q = torch.linalg.qr(delta @ P).Q
    U, d, Vt = torch.linalg.svd(R.T, full_matrices=False)
    return SVD((Q @ U)[:, :rank], d[:rank], (Vt @ P.T)[:rank])
