"""Drop entries at random and rescale the rest."""

from collections.abc import Sequence

from geodapt.adapters.merging.bands import updates, weighted_sum
from geodapt.adapters.merging.dropping import dropper
from geodapt.adapters.merging.registry import Merged, Part, empty, register, weights_of
from geodapt.adapters.merging.signs import merge_agreeing


@register(
    "dare",
    "drops entries at random, rescales the rest, adds the updates",
    "DARE, Yu et al. 2024, arXiv:2311.03099",
)
def dare(parts: Sequence[Part], *, density: float = 0.5, seed: int = 0) -> Merged:
    """``sum_i w_i drop(Delta_i) / density``."""
    drop, weights, result = dropper(density, seed), weights_of(parts), empty(parts)
    for rows, deltas in updates(parts):
        drop(deltas)
        result[rows] = weighted_sum(weights, deltas)
    return result


@register(
    "dare_ties",
    "drops entries at random, rescales, then elects signs and averages as ties does",
    "DARE and TIES, arXiv:2311.03099 and arXiv:2306.01708",
    averages=True,
)
def dare_ties(parts: Sequence[Part], *, density: float = 0.5, seed: int = 0) -> Merged:
    """Randomly thinned updates, merged where their signs agree."""
    drop, weights, result = dropper(density, seed), weights_of(parts), empty(parts)
    for rows, deltas in updates(parts):
        drop(deltas)
        result[rows] = merge_agreeing(deltas, weights)
    return result
