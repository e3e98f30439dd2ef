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
ROUNDING = 1e-6
"""Share of all energy that a subspace may miss which was found in bfloat16."""


def leading_terms(
    delta: Float[Tensor, "out in"] | Tiles, total: float, rank: int, near: LowRank
) -> SVD:
    """The largest terms of a matrix's SVD, by block subspace iteration.

    Starts in the column space of ``near``, a product that resembles the matrix M. A step turns the
    basis Q of a subspace into that of ``(M M^T - shift) Q``, with half the least energy that a
    direction of ``M^T Q`` holds as the shift: directions outside of the subspace have hardly more
    energy, so they shrink faster than the wanted ones. The same ratio predicts from the last step
    what the next one would add. The steps end once it is a negligible share of what the cut loses.
    ``total`` is the matrix's energy, its squared norm. The first steps only turn the subspace in
    the right direction, so that they are taken in bfloat16 where the processor multiplies it
    faster.

    Source: Halko, Martinsson and Tropp 2011, algorithm 4.4; the shift: Feng, Yu, Xie and Tang
    2024, arXiv:2404.09276, section 3.
    """
    width = rank + SPARE
    if 3 * width >= min(delta.shape):
        whole = delta.dense() if isinstance(delta, Tiles) else delta
        U, d, Vt = torch.linalg.svd(whole, full_matrices=False)
        return SVD(U[:, :rank], d[:rank], Vt[:rank])
    rough = delta
    if isinstance(delta, Tensor) and delta.dtype == torch.float32:
        rough = delta.to(default_dtype("cpu"))
    left = torch.linalg.qr(_times(rough, _transposed(rough, _start(near, width)))).Q
    held, noise = 0.0, torch.finfo(left.dtype).eps * total
    for step in range(20):
        matrix = rough if step == 0 else delta
        span = _transposed(matrix, left)
        energy, turn = torch.linalg.eigh(span.T @ span)
        # Columns in the order of their energy, so that bfloat16 rounds each by its own size.
        left, span, energy = left @ turn, span @ turn, energy.double()
        before, held = held, energy[-rank:].sum().item()
        shift = energy[0].clamp_min(0).item() / 2
        wanted = energy[-rank].item() - shift
        shrinks = (shift / wanted) ** 2 if wanted > 0 else 0.0
        gain, bearable = held - before, TOLERANCE * (total - held)
        settled = gain * shrinks <= bearable * (1 - shrinks) or gain <= noise
        if settled and step > (1 if bearable < ROUNDING * total else 0):
            break
        left = torch.linalg.qr(_times(matrix, span).sub_(left, alpha=shift)).Q
    U, span = left[:, -rank:].flip(1), span[:, -rank:].flip(1)
    d = torch.linalg.vector_norm(span, dim=0)
    return SVD(U, d, (span / d.clamp_min(torch.finfo(d.dtype).tiny)).T)


def _start(near: LowRank, width: int) -> Float[Tensor, "out width"]:
    """``B G`` with random G, and random columns where ``near`` has too few."""
    generator = torch.Generator().manual_seed(0)

    def noise(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator, device="cpu").to(near.B)

    mix = noise(len(near.A), min(width, len(near.A)))
    more = noise(len(near.B), width - mix.shape[1])
    return torch.cat([near.B @ mix, more], 1)


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
