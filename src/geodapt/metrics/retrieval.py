"""Plain retrieval: is a relevant candidate among the first k?"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geodapt.errors import InputError


def recall_at(
    scores: Float[Tensor, "queries candidates"],
    relevant: Bool[Tensor, "queries candidates"],
    ks: Sequence[int] = (1, 5),
) -> dict[str, float]:
    """``recall_at_k``: the share of queries that find a relevant candidate among their k best.

    The field's R@k of image-text retrieval, where any of an image's captions will do, and of
    classification, where one class is right. Ties count against the relevant candidates, so a
    model that scores all alike finds nothing. A score of ``-inf`` leaves a candidate out, such
    as the query itself.

    Raises :class:`InputError` for NaN, unequal shapes, no queries, or one with nothing relevant.
    """
    if scores.shape != relevant.shape or scores.ndim != 2 or len(scores) == 0:
        raise InputError(
            f"scores have shape {tuple(scores.shape)} and relevant {tuple(relevant.shape)}; "
            "expected both (queries, candidates), with at least one query"
        )
    if torch.isnan(scores).any():
        raise InputError("scores hold NaN, which cannot be ranked; did training diverge?")
    if not (lacking := relevant.any(1)).all():
        query = int((~lacking).nonzero()[0])
        raise InputError(f"query {query} has no relevant candidate; leave it out")
    best = scores.masked_fill(~relevant, -torch.inf).amax(1, keepdim=True)
    ranks = 1 + ((scores >= best) & ~relevant).sum(1)
    return {f"recall_at_{k}": (ranks <= k).cpu().double().mean().item() for k in ks}
