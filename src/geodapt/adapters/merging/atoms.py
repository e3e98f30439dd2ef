"""Choose among all adapters' rank-one terms."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.lowrank import svd_of_product
from geodapt.adapters.merging.registry import LowRank, Part, register


@register(
    "atoms",
    "keeps the rank-one terms of all adapters that act most strongly on calibration inputs, or, "
    "without these, have the largest weighted singular values",
    "static form of selecting rank-one terms by |k_i| = |d_i v_i^T x|",
    truncates=False,
)
def atoms(
    parts: Sequence[Part],
    *,
    rank: int | None = None,
    calibration: Float[Tensor, "tokens in"] | None = None,
) -> LowRank:
    """Of all terms ``d_j u_j v_j^T`` of the updates, those with the largest mean ``|k_j|``.

    ``k_j = w_i d_j v_j^T x`` is what a term adds to the layer's output for the input x. Keeps
    ``rank`` terms, or as many as one adapter has on average. Without calibration inputs the
    score is ``w_i d_j``: the root mean square of k over inputs without a preferred direction.
    """
    left, right, scores = [], [], []
    for A, B, weight in parts:
        U, d, Vt = svd_of_product(B, A)
        d = d * weight
        left.append(U * d)
        right.append(Vt)
        if calibration is None:
            scores.append(d.abs())
        else:
            scores.append((calibration.to(Vt) @ Vt.T).abs().mean(0) * d.abs())
    score = torch.cat(scores)
    keep = rank or math.ceil(sum(part.A.shape[0] for part in parts) / len(parts))
    chosen = score.topk(min(keep, len(score))).indices.sort().values
    return LowRank(torch.cat(left, 1)[:, chosen], torch.cat(right)[chosen])
