"""What an attribute has learned: words, pictures and classes near it, and the tree it agrees with.

The paper leaves this open. Nearest *tokens* are meaningless, as users of CoOp found; here words
and pictures are compared in the space that they share, after their mean is taken away: all texts
lie near each other there, and so would every word to every attribute.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor, nn
from torchmetrics.functional.clustering import adjusted_mutual_info_score

from geodapt.errors import InputError


def nearest_to_attributes(
    attributes: Float[Tensor, "n d"],
    candidates: Float[Tensor, "m d"],
    count: int,
) -> Int[Tensor, "n count"]:
    """The candidates of the largest cosine with each attribute, the best first.

    The candidates' mean is taken away from both sides. Fewer candidates give fewer columns.
    """
    if not len(candidates):
        raise InputError("there is nothing to compare attributes with")
    unit = nn.functional.normalize(candidates, dim=-1)
    mean = unit.mean(0)
    ours = nn.functional.normalize(attributes, dim=-1) - mean
    theirs = nn.functional.normalize(unit - mean, dim=-1)
    cosines = nn.functional.normalize(ours, dim=-1) @ theirs.T
    return cosines.topk(min(count, len(candidates)), dim=-1).indices


def ancestor_shares(
    distances: Float[Tensor, "images n"], labels: Int[Tensor, " images"], classes: int
) -> Float[Tensor, "classes n"]:
    """For each class, the shares of its pairs of pictures by their lowest common ancestor.

    ``distances`` are those of pictures to attributes; the ancestor of a pair is the attribute from
    which the farther of the two is nearest. A class of one picture has that one's nearest
    attribute, and a class of none a row of zeros.
    """
    shares = torch.zeros(classes, distances.shape[1], dtype=torch.float64)
    for label in range(classes):
        own = distances[labels == label]
        if len(own) == 0:
            continue
        first, second = torch.triu_indices(len(own), len(own), 1)
        farther = torch.maximum(own[first], own[second]) if len(own) > 1 else own
        counts = torch.bincount(farther.argmin(-1), minlength=distances.shape[1])
        shares[label] = (counts / counts.sum()).double().cpu()
    return shares


@dataclass(frozen=True)
class TreeAgreement:
    """How well classes' attributes agree with groups that are known."""

    adjusted_mutual_information: float
    """1 where both group alike, 0 as by chance."""
    shuffled: float
    """Its mean where the known groups are dealt out anew."""
    shuffled_above: float
    """Share of the shuffles that reach as much: how likely chance alone is."""
    groups: int


def tree_agreement(
    shares: Float[Tensor, "classes n"], groups: Sequence[str], shuffles: int = 200, seed: int = 0
) -> TreeAgreement:
    """Agreement of each class's most frequent attribute with the group it is known to belong to.

    Raises :class:`InputError` for another number of groups than classes. Source: Vinh et al. 2010,
    "Information theoretic measures for clusterings comparison".
    """
    if len(groups) != len(shares):
        raise InputError(f"{len(shares)} classes have {len(groups)} groups; give one for each")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    known = torch.tensor([numbers[name] for name in groups])
    found = shares.argmax(-1)
    value = _agreement(found, known)
    generator = torch.Generator().manual_seed(seed)
    chance = [
        _agreement(found, known[torch.randperm(len(known), generator=generator)])
        for _ in range(shuffles)
    ]
    above = sum(one >= value - 1e-9 for one in chance)
    return TreeAgreement(value, float(np.mean(chance)), (above + 1) / (shuffles + 1), len(numbers))


def _agreement(one: Tensor, other: Tensor) -> float:
    """Adjusted mutual information; 0 where either side is one group, which says nothing."""
    if len(one.unique()) < 2 or len(other.unique()) < 2:
        return 0.0
    return float(adjusted_mutual_info_score(one, other))


def radius_order(
    radii: Float[Tensor, " n"], shares: Float[Tensor, "classes n"], least: float = 0.05
) -> float | None:
    """Spearman's correlation of attributes' radii with the number of classes below them.

    Below an attribute are the classes of which at least this share of pairs chose it. A hierarchy
    has general things near the origin: a negative number. None where either side is constant.
    """
    below = (shares >= least).sum(0).double().cpu().numpy()
    own = radii.detach().double().cpu().numpy()
    if len(own) < 3 or np.ptp(below) == 0 or np.ptp(own) == 0:
        return None
    return float(spearmanr(own, below).statistic)
