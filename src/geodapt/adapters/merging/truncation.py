"""Cutting a merged update to a rank, and saying what was cut off."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.lowrank import svd_of_product
from geodapt.adapters.merging.registry import LowRank, Merged
from geodapt.adapters.merging.subspace import leading_terms
from geodapt.adapters.merging.tiles import Tiles


class Truncated(NamedTuple):
    """``B A``, with the singular values' roots on both sides, and what is missing."""

    A: Float[Tensor, "k in"]
    B: Float[Tensor, "out k"]
    lost: float
    """Frobenius norm of what was cut off."""
    whole: float
    """Frobenius norm of the whole."""


def relative(lost: float, whole: float) -> float:
    """What is lost as a share of the whole; infinite where something of nothing is lost."""
    return lost / whole if whole else math.inf if lost else 0.0


def cut_to_rank(merged: Merged, rank: int, energy: float | None, near: LowRank) -> Truncated:
    """The closest update with at most ``rank`` terms, or the fewest that hold an energy share.

    Factors are cut exactly. A full matrix is cut by subspace iteration from the column space of
    ``near``, the adapters' plain sum, which converges in a few steps.
    """
    if isinstance(merged, LowRank):
        svd = svd_of_product(*merged)
        total = svd.d.double().square().sum().item()
    else:
        total = merged.energy if isinstance(merged, Tiles) else _energy(merged)
        wanted = min(merged.shape) if energy is not None else rank
        svd = leading_terms(merged, total, min(wanted, *merged.shape), near)
    held = svd.d.double().square().cumsum(0)
    if energy is not None:
        rank = int((held < energy * total * (1 - 1e-12)).sum()) + 1
    rank = max(min(rank, len(svd.d)), 1)
    cut = max(1 - held[rank - 1].item() / total, 0.0) if total else 0.0
    root = svd.d[:rank].sqrt()
    A, B = root[:, None] * svd.Vt[:rank], svd.U[:, :rank] * root
    return Truncated(A, B, math.sqrt(cut * total), math.sqrt(total))


def _energy(matrix: Float[Tensor, "out in"]) -> float:
    by_row = torch.linalg.vector_norm(matrix, dim=1)  # first, for float32 to be exact enough
    return by_row.double().square().sum().item()
