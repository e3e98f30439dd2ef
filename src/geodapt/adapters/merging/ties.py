"""Trim, elect a sign, and average what agrees."""

from collections.abc import Sequence

from geodapt.adapters.merging.full_matrix import merge_agreeing, merge_largest
from geodapt.adapters.merging.registry import Merged, Part, register


@register(
    "ties",
    "trims small entries, elects a sign for each, averages the updates that have it",
    "TIES, Yadav et al. 2023, arXiv:2306.01708",
    averages=True,
)
def ties(parts: Sequence[Part], *, density: float = 0.5) -> Merged:
    """Trimmed updates, merged where their signs agree."""
    return merge_largest(parts, density, merge_agreeing)
