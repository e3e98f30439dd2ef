"""The leading terms of a matrix that is nearly low-rank."""

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.lowrank import SVD
from geodapt.adapters.merging.registry import LowRank
from geodapt.adapters.merging.tiles import Tiles

SPARE = 16
"""Directions beyond those wanted, which make the wanted ones converge faster."""
TOLERANCE = 5e-5
"""Share of the lost energy that more steps might save."""


def leading_terms(
    delta: Float[Tensor, "out in"] | Tiles, total: float, rank: int, near: LowRank
) -> SVD:
    """The largest terms of a matrix's SVD, by block subspace iteration.

    Starts from the column space of ``near``, a product that resembles the matrix, and multiplies
    with the matrix and its transpose in turn. Each product gives the energy that its subspace
    holds; the steps end once what is still to come, as a geometric series of the last two
    gains, is a negligible share of the energy that the cut loses. ``total`` is that of the
    whole matrix, its squared norm.

    Source: Halko, Martinsson and Tropp 2011, algorithm 4.4, with a start better than random.
    """
    width = rank + SPARE
    if 3 * width >= min(delta.shape):
        whole = delta.dense() if isinstance(delta, Tiles) else delta
        U, d, Vt = torch.linalg.svd(whole, full_matrices=False)
        return SVD(U[:, :rank], d[:rank], Vt[:rank])
    left = right = torch.linalg.qr(_start(near, width)).Q
    held, gain = 0.0, float("inf")
    for step in range(40):
        if step % 2:
            left, core = torch.linalg.qr(delta @ right)  # delta ~ left core right^T
        else:
            right, core = torch.linalg.qr(_transposed(delta, left))  # delta ~ left core^T right^T
        before, last = held, gain
        held = torch.linalg.svdvals(core)[:rank].double().square().sum().item()
        gain = held - before
        settled = gain * gain <= TOLERANCE * (last - gain) * (total - held)
        if step > 1 and (settled or gain <= torch.finfo(core.dtype).eps * total):
            break
    U, d, Vt = torch.linalg.svd(core if step % 2 else core.T, full_matrices=False)
    return SVD((left @ U)[:, :rank], d[:rank], (Vt @ right.T)[:rank])


def _start(near: LowRank, width: int) -> Float[Tensor, "out width"]:
    """``B A A^T G`` with random G: mostly the strongest directions of ``B A``."""
    B, A = near
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(len(A), min(width, len(A)), generator=generator).to(A)
    start = B @ ((A @ A.T) @ mix)
    more = torch.randn(len(B), width - mix.shape[1], generator=generator).to(A)
    return torch.cat([start, more], 1)


def _transposed(
    delta: Float[Tensor, "out in"] | Tiles, left: Float[Tensor, "out k"]
) -> Float[Tensor, "in k"]:
    """``delta^T left``; a matrix is read along its rows."""
    return delta.T @ left if isinstance(delta, Tiles) else (left.T @ delta).T
