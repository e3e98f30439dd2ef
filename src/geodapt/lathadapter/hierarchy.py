"""Lowest common ancestors of points, and the loss that puts nearer ones below nearer ancestors.

Source: Kim et al. 2023, "HIER" (equations 4 to 7); Zhao et al. 2025, "LatHAdapter", L_va and L_at.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


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
