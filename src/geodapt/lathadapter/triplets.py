"""Which points belong together: reciprocal nearest neighbours, and triplets of them.

Source: Kim et al. 2023, "HIER: Metric learning beyond class labels via hierarchical regularization"
(section 3.2), whose regulariser LatHAdapter takes over. Its public code takes an anchor as its own
negative, which is left out here.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def reciprocal_neighbours(
    distances: Float[Tensor, "n n"], k: int, labels: Int[Tensor, " n"] | None = None
) -> Bool[Tensor, "n n"]:
    """Whether two points are each among the ``k`` nearest of the other.

    A point counts among its own ``k``: in a batch of four ``k = 3`` would else make neighbours of
    all. Nearness is ``exp(-d)``, with 1 added between points of one label. The diagonal is False.
    """
    near = torch.exp(-distances.detach())
    if labels is not None:
        near = near + (labels.unsqueeze(0) == labels.unsqueeze(1))
    near.fill_diagonal_(torch.inf)  # also where others are as near
    chosen = torch.zeros_like(near, dtype=torch.bool)
    chosen.scatter_(1, near.topk(min(k, len(near)), dim=1).indices, True)
    return (chosen & chosen.T).fill_diagonal_(False)


def draw_triplets(neighbours: Bool[Tensor, "n n"], most: int) -> Int[Tensor, "m 3"]:
    """Triplets ``(i, j, k)`` in which j is a neighbour of i, and k neither one nor i itself.

    All of them where a point i has at most ``most``, else as many, drawn by torch's generator.
    """
    positives = neighbours.nonzero()
    negative = ~neighbours
    negative.fill_diagonal_(False)
    pair, third = negative[positives[:, 0]].nonzero(as_tuple=True)
    triplets = torch.cat([positives[pair], third.unsqueeze(-1)], dim=1)
    counts = torch.bincount(triplets[:, 0], minlength=len(neighbours))
    if not len(triplets) or int(counts.max()) <= most:
        return triplets
    triplets = triplets[torch.randperm(len(triplets), device=triplets.device)]
    triplets = triplets[triplets[:, 0].argsort(stable=True)]
    first = counts.cumsum(0) - counts
    place = torch.arange(len(triplets), device=triplets.device) - first[triplets[:, 0]]
    return triplets[place < most]
