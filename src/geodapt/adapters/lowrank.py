"""Linear algebra of low-rank products, in their factors: nothing of size out x in is formed."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class SVD(NamedTuple):
    """``U diag(d) V^T`` with orthonormal columns of U and V, and d falling."""

    U: Float[Tensor, "out rank"]
    d: Float[Tensor, " rank"]
    Vt: Float[Tensor, "rank in"]


def svd_of_product(B: Float[Tensor, "out r"], A: Float[Tensor, "r in"]) -> SVD:
    """The singular value decomposition of ``B A``: QR of both factors, SVD of the small core.

    ``B = Q_B R_B``, ``A^T = Q_A R_A``, and ``R_B R_A^T`` is at most r x r, so that the cost is
    ``O((out + in) r^2)``. The result has ``min(out, r, in)`` terms. Works in A's float type, in
    float32 at least.
    """
    dtype = torch.promote_types(A.dtype, torch.float32)
    Qb, Rb = torch.linalg.qr(B.to(dtype))
    Qa, Ra = torch.linalg.qr(A.to(dtype).T)
    U, d, Vt = torch.linalg.svd(Rb @ Ra.T, full_matrices=False)
    return SVD(Qb @ U, d, Vt @ Qa.T)


def effective_rank(d: Float[Tensor, " n"]) -> float:
    """``exp(-sum p log p)`` of singular values with ``p = d^2 / sum d^2``; 0 where all are zero.

    Between 1 and n. Source: Roy and Vetterli 2007.
    """
    energy = d.double().square()
    total = energy.sum()
    return float(torch.special.entr(energy / total).sum().exp()) if total > 0 else 0.0


def rank_one_terms(
    B: Float[Tensor, "out r"], A: Float[Tensor, "r in"]
) -> tuple[Float[Tensor, "k in"], Float[Tensor, "k out"]]:
    """The rank-one terms of ``B A``: ``A' = diag(d) V^T`` and, one row per term, ``B' = U^T``.

    So ``A' x`` is the coefficient of every unit vector ``u_i`` in the update.
    """
    U, d, Vt = svd_of_product(B, A)
    return d[:, None] * Vt, U.T
