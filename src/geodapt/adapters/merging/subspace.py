"""The leading terms of a matrix that is nearly low-rank."""

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.lowrank import SVD
from geodapt.adapters.merging.registry import LowRank
from geodapt.adapters.merging.tiles import Tiles
from geodapt.models import default_dtype

SPARE = 16
"""Directions beyond those wanted, which make the wanted ones converge faster."""
TOLERANCE = 1e-4
"""Share of the lost energy that more steps might save."""
ROUGH, ROUNDING = 2, 1e-6
"""First steps, which may be taken in bfloat16, and the share of all energy that they miss."""


def leading_terms(
    delta: Float[Tensor, "out in"] | Tiles, total: float, rank: int, near: LowRank
) -> SVD:
    """The largest terms of a matrix's SVD, by block subspace iteration.

    Starts from the column space of ``near``, a product that resembles the matrix, and multiplies
    with the matrix and its transpose in turn. Each product gives the energy that its subspace
    holds; the steps end once what is still to come, as a geometric series of the last two
    gains, is a negligible share of the energy that the cut loses. ``total`` is that of the
    whole matrix, its squared norm. The first steps only turn the subspace in the right direction,
    so that they are taken in bfloat16 where the processor multiplies it faster.

    Source: Halko, Martinsson and Tropp 2011, algorithm 4.4, with a start better than random.
    """
    width = rank + SPARE
    if 3 * width >= min(delta.shape):
        whole = delta.dense() if isinstance(delta, Tiles) else delta
        U, d, Vt = torch.linalg.svd(whole, full_matrices=False)
        return SVD(U[:, :rank], d[:rank], Vt[:rank])
    rough = delta
    if isinstance(delta, Tensor) and delta.dtype == torch.float32:
        rough = delta.to(default_dtype("cpu"))
    left = right = torch.linalg.qr(_start(near, width)).Q
    held, gain, eps = 0.0, float("inf"), torch.finfo(near.A.dtype).eps
    for step in range(40):
        matrix = rough if step < ROUGH else delta
        if step % 2:
            left, core = torch.linalg.qr(_times(matrix, right))  # delta ~ left core right^T
        else:
            right, core = torch.linalg.qr(_transposed(matrix, left))  # delta ~ left core^T right^T
        before, last = held, gain
        held = torch.linalg.svdvals(core)[:rank].double().square().sum().item()
        gain, bearable = held - before, TOLERANCE * (total - held)
        settled = gain * gain <= bearable * (last - gain) or gain <= eps * total
        if settled and step > (ROUGH if bearable < ROUNDING * total else 1):
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


def _times(delta: Float[Tensor, "out in"] | Tiles, right: Float[Tensor, "in k"]) -> Tensor:
    """``delta right`` in the type of ``right``."""
    if isinstance(delta, Tiles):
        return delta @ right
    return (delta @ right.to(delta.dtype)).to(right.dtype)


def _transposed(delta: Float[Tensor, "out in"] | Tiles, left: Float[Tensor, "out k"]) -> Tensor:
    """``delta^T left``; a matrix is read along its rows."""
    if isinstance(delta, Tiles):
        return delta.T @ left
    return (left.T.to(delta.dtype) @ delta).T.to(left.dtype)
