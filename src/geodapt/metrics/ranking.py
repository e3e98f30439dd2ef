"""How well a model ranks: the item that a user took next among others, or what is relevant."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from geodapt.errors import Diverged, InputError

HIT_AT = (1, 3, 5, 10)
NDCG_AT = 10


def target_ranks(
    scores: Float[Tensor, "users candidates"], target_column: int | Int[Tensor, " users"] = 0
) -> Int[Tensor, " users"]:
    """The rank of each user's target, 1 for the best: 1 + the others that score as high or higher.

    The target's column is the same for all, or one per user. Ties count against the target, so a
    model that gives every candidate one score ranks last.

    Raises :class:`Diverged` when scores hold a NaN, which has no rank, and :class:`InputError` when
    they are not a table with that column.
    """
    columns = torch.as_tensor(target_column, device=scores.device).view(-1, 1)
    if (
        scores.ndim != 2
        or len(columns) not in {1, len(scores)}
        or ((columns < 0) | (columns >= scores.shape[1])).any()
    ):
        raise InputError(
            f"scores have shape {tuple(scores.shape)}, expected (users, candidates) with the "
            f"target in column {target_column}"
        )
    if scores.isnan().any():
        user = int(scores.isnan().any(1).nonzero()[0])
        raise Diverged(
            f"scores of user {user} hold NaN, which cannot be ranked; did training diverge? "
            "Lower the learning rate"
        )
    target = scores.gather(1, columns.expand(len(scores), 1))
    return (scores >= target).sum(1)  # the target itself counts as the 1


class RankingMetrics(Metric):
    """Hit rate, mean reciprocal rank and NDCG of one target per user, over batches and processes.

    With a single relevant candidate at rank r, Hit@k is 1 where r <= k, MRR the mean of 1 / r,
    and NDCG@k the mean of 1 / log2(1 + r) where r <= k (the ideal DCG is 1).
    """

    full_state_update = False
    ranks: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("ranks", default=[], dist_reduce_fx="cat")

    def update(
        self,
        scores: Float[Tensor, "users candidates"],
        target_column: int | Int[Tensor, " users"] = 0,
    ) -> None:
        self.ranks.append(target_ranks(scores, target_column))

    def compute(self) -> dict[str, float]:
        if not self.ranks:
            raise InputError("there are no scores to rank: the data set is empty")
        ranks = dim_zero_cat(self.ranks).cpu().double()
        gain = torch.where(ranks <= NDCG_AT, 1 / torch.log2(1 + ranks), 0.0)
        return {
            **{f"hit_at_{k}": (ranks <= k).double().mean().item() for k in HIT_AT},
            "mrr": (1 / ranks).mean().item(),
            f"ndcg_at_{NDCG_AT}": gain.mean().item(),
        }


def ranking_metrics(
    scores: Float[Tensor, "users candidates"], target_column: int = 0
) -> dict[str, float]:
    """``hit_at_1``, ``hit_at_3``, ``hit_at_5``, ``hit_at_10``, ``mrr`` and ``ndcg_at_10``.

    Ties count against the target. Raises :class:`InputError` for NaN, for a wrong shape, and
    where there are no users.
    """
    if scores.ndim == 2 and len(scores) == 0:
        raise InputError("there are no scores to rank: the data set is empty")
    metric = RankingMetrics()
    metric.update(scores, target_column)
    return metric.compute()


def recall_at(
    scores: Float[Tensor, "queries candidates"],
    relevant: Bool[Tensor, "queries candidates"],
    ks: Sequence[int] = (1, 5),
) -> dict[str, float]:
    """``recall_at_k``: the share of queries that find a relevant candidate among their k best.

    The field's R@k of image-text retrieval, where any of an image's captions will do, and of
    classification, where one class is right. Ties count against the relevant candidates, so a
    model that scores all alike finds nothing. A score of ``-inf`` leaves a candidate out, such
    as the query itself; what is relevant is not found then.

    Raises :class:`InputError` for NaN, unequal shapes, no queries, or one with nothing relevant.
    """
    if scores.shape != relevant.shape or scores.ndim != 2 or len(scores) == 0:
        raise InputError(
            f"scores have shape {tuple(scores.shape)} and relevant {tuple(relevant.shape)}; "
            "expected both (queries, candidates), with at least one query"
        )
    if relevant.dtype != torch.bool:
        raise InputError(f"relevant is of type {relevant.dtype}; expected one truth value each")
    if torch.isnan(scores).any():
        raise InputError("scores hold NaN, which cannot be ranked; did training diverge?")
    if not (lacking := relevant.any(1)).all():
        query = int((~lacking).nonzero()[0])
        raise InputError(f"query {query} has no relevant candidate; leave it out")
    best = scores.masked_fill(~relevant, -torch.inf).amax(1, keepdim=True)
    ranks = 1 + ((scores >= best) & ~relevant).sum(1)
    there = best.squeeze(1) > -torch.inf
    return {f"recall_at_{k}": (there & (ranks <= k)).cpu().double().mean().item() for k in ks}
