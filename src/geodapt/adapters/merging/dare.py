"""Drop entries at random and rescale the rest."""

from collections.abc import Sequence

import torch

from geodapt.adapters.merging.pruning import bands, keep_random, update
from geodapt.adapters.merging.registry import Merged, Part, empty, register
from geodapt.adapters.merging.signs import merge_agreeing


@register(
    "dare",
    "drops entries at random, rescales the rest, adds the updates",
    "DARE, Yu et al. 2024, arXiv:2311.03099",
)
def dare(parts: Sequence[Part], *, density: float = 0.5, seed: int = 0) -> Merged:
    """``sum_i w_i drop(Delta_i) / density``."""
    generator = torch.Generator().manual_seed(seed)
    result = empty(parts)
    for rows in bands(len(result)):
        result[rows] = sum(
            part.weight * keep_random(update(part, rows), density, generator) for part in parts
        )
    return result


@register(
    "dare_ties",
    "drops entries at random, rescales, then elects signs and averages as ties does",
    "DARE and TIES, arXiv:2311.03099 and arXiv:2306.01708",
    averages=True,
)
def dare_ties(parts: Sequence[Part], *, density: float = 0.5, seed: int = 0) -> Merged:
    """Randomly thinned updates, merged where their signs agree."""
    generator = torch.Generator().manual_seed(seed)
    weights = [part.weight for part in parts]
    result = empty(parts)
    for rows in bands(len(result)):
        thinned = [keep_random(update(part, rows), density, generator) for part in parts]
        result[rows] = merge_agreeing(thinned, weights)
    return result
