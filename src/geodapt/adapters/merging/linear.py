"""The weighted sum of the updates, in as few terms as it has."""

from collections.abc import Sequence

import torch

from geodapt.adapters.lowrank import svd_of_product
from geodapt.adapters.merging.cat import cat
from geodapt.adapters.merging.registry import LowRank, Part, register


@register(
    "linear",
    "the exact weighted sum of the updates (not of the factors), in the fewest terms",
    "task arithmetic, Ilharco et al. 2023, arXiv:2212.04089",
    truncates=False,
    exact=True,
)
def linear(parts: Sequence[Part]) -> LowRank:
    """``sum_i w_i s_i B_i A_i``, without the terms that rounding alone makes non-zero."""
    U, d, Vt = svd_of_product(*cat(parts))
    floor = d[0] * max(U.shape[0], Vt.shape[1]) * torch.finfo(d.dtype).eps
    kept = max(int((d > floor).sum()), 1)
    root = d[:kept].sqrt()
    return LowRank(U[:, :kept] * root, root[:, None] * Vt[:kept])
