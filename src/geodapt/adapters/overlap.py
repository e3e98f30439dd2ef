"""How much two adapters get in each other's way.

Two updates whose row spaces are orthogonal act on different inputs and can be added without
harm. Where the row spaces overlap, the sign of the agreement decides: updates that point the
same way add up, updates that point opposite ways cancel, whatever weights they get.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.lowrank import svd_of_product
from geodapt.adapters.peft_files.factors import Factors
from geodapt.errors import InputError


@dataclass(frozen=True)
class Overlap:
    """Two updates of one layer compared."""

    cosines: Float[Tensor, " min_rank"]
    """Cosines of the principal angles between the row spaces, largest first (Björck and Golub
    1973): 1 is a shared direction, 0 an orthogonal one."""
    shared: float
    """Mean squared cosine: the share of the smaller row space that lies in the other."""
    agreement: float
    """Cosine of the updates as vectors, ``<D1, D2> / (|D1| |D2|)``: 1 same, -1 opposite."""


def overlap(one: Factors, two: Factors) -> Overlap:
    """Compare two updates of one layer, in their factors.

    The inner product is ``tr((B1^T B2)(A2 A1^T))``. An all-zero update overlaps nothing.
    """
    A1, B1, _ = one._replace(A=one.A.cpu().double(), B=one.B.cpu().double()).folded()
    A2, B2, _ = two._replace(A=two.A.cpu().double(), B=two.B.cpu().double()).folded()
    inner = ((B1.T @ B2) * (A1 @ A2.T)).sum().item()
    norms = one.norm() * two.norm()
    cosines = torch.linalg.svdvals(_row_space(A1, B1).T @ _row_space(A2, B2)).clamp(max=1)
    return Overlap(
        cosines,
        cosines.square().mean().item() if len(cosines) else 0.0,
        inner / norms if norms else 0.0,
    )


def overlaps(one: Adapter, two: Adapter) -> dict[str, Overlap]:
    """The layers that both adapters touch, compared.

    Raises :class:`InputError` for a DoRA adapter, whose update is more than its factors' product.
    """
    if one.magnitudes or two.magnitudes:
        raise InputError(
            "a DoRA adapter rescales the base's weights, so its factors alone do not say how it "
            "compares; compare plain LoRA adapters"
        )
    return {
        path: overlap(factors, two.factors[path])
        for path, factors in one.factors.items()
        if path in two.factors
    }


def spectrum(factors: Factors) -> Float[Tensor, " rank"]:
    """Singular values of an update, falling."""
    A, B, _ = factors._replace(A=factors.A.float(), B=factors.B.float()).folded()
    return svd_of_product(B, A).d


def _row_space(A: Tensor, B: Tensor) -> Tensor:
    """An orthonormal basis of the row space of ``B A``, ``(in, k)``."""
    _, d, Vt = svd_of_product(B, A)
    return Vt[d > d.max() * 1e-9].T if len(d) and d.max() > 0 else Vt[:0].T
