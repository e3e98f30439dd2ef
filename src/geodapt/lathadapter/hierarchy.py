"""Which points belong together, and the loss that puts these below nearer common ancestors.

Source: Kim et al. 2023, "HIER: Metric learning beyond class labels via hierarchical regularization"
(section 3.2, equations 4 to 7), which LatHAdapter (Zhao et al. 2025) takes over as L_va and L_at.
HIER's public code takes an anchor as its own negative, which is left out here.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


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


def choose_ancestors(
    farthest: Float[Tensor, "m a"], kind: Literal["gumbel", "argmax"], temperature: float
) -> Float[Tensor, "m a"]:
    """A one-hot choice per row of the ancestor from which the farther of some points is nearest.

    ``farthest`` is the maximum over the points of their distances to each ancestor. ``gumbel``
    draws from ``softmax(-farthest / temperature)``, straight through: the value is one-hot, the
    gradient that of the softmax. ``argmax`` takes the nearest, without a gradient of the choice.
    """
    if kind == "argmax":
        nearest = farthest.argmin(-1)
        return nn.functional.one_hot(nearest, farthest.shape[-1]).to(farthest.dtype)
    return nn.functional.gumbel_softmax(-farthest / temperature, hard=True)


def hierarchy_loss(
    distances: Float[Tensor, "n a"],
    triplets: Int[Tensor, "m 3"],
    margin: float,
    kind: Literal["gumbel", "argmax"] = "gumbel",
    temperature: float = 0.1,
) -> tuple[Float[Tensor, ""], Float[Tensor, " a"]]:
    """The mean over triplets, and how often each ancestor was chosen.

    With ``a_ij`` the ancestor of the pair and ``a_ijk`` that of all three::

        relu(d(i, a_ij) - d(i, a_ijk) + s) + relu(d(j, a_ij) - d(j, a_ijk) + s)
            + relu(d(k, a_ijk) - d(k, a_ij) + s)        and 0 where a_ij is a_ijk

    ``distances`` are those of the points to the possible ancestors. 0 where there is no triplet.
    """
    if not len(triplets):
        return distances.new_zeros(()), distances.new_zeros(distances.shape[1])
    i, j, k = (distances[triplets[:, place]] for place in range(3))
    pair = torch.maximum(i, j)
    of_pair = choose_ancestors(pair, kind, temperature)
    of_all = choose_ancestors(torch.maximum(pair, k), kind, temperature)
    closer = of_pair - of_all
    terms = (
        torch.relu((i * closer).sum(-1) + margin)
        + torch.relu((j * closer).sum(-1) + margin)
        + torch.relu(margin - (k * closer).sum(-1))
    )
    differ = of_pair.argmax(-1) != of_all.argmax(-1)
    return (terms * differ).mean(), (of_pair + of_all).detach().sum(0)
