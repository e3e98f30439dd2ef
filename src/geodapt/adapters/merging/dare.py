"""Drop entries at random and rescale the rest."""

from collections.abc import Sequence

from geodapt.adapters.merging.full_matrix import merge_agreeing, merge_random, weighted_sum
from geodapt.adapters.merging.registry import Merged, Part, register


@register(
    "dare",
    "drops entries at random, rescales the rest, adds the updates",
    "DARE, Yu et al. 2024, arXiv:2311.03099",
)
def dare(parts: Sequence[Part], *, density: float = 0.5, seed: int = 0) -> Merged:
    """``sum_i w_i drop(Delta_i) / density``."""
    return merge_random(parts, density, seed, weighted_sum)


@register(
    "dare_ties",
    "drops entries at random, rescales, then elects signs and averages as ties does",
    "DARE and TIES, arXiv:2311.03099 and arXiv:2306.01708",
    averages=True,
)
def dare_ties(parts: Sequence[Part], *, density: float = 0.5, seed: int = 0) -> Merged:
    """Randomly thinned updates, merged where their signs agree."""
    return merge_random(parts, density, seed, merge_agreeing)
