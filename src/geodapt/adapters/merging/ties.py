"""Trim, elect a sign, and average what agrees."""

from collections.abc import Sequence

from geodapt.adapters.merging.bands import updates
from geodapt.adapters.merging.registry import Merged, Part, empty, register, weights_of
from geodapt.adapters.merging.signs import merge_agreeing
from geodapt.adapters.merging.trimming import limits, trim


@register(
    "ties",
    "trims small entries, elects a sign for each, averages the updates that have it",
    "TIES, Yadav et al. 2023, arXiv:2306.01708",
    averages=True,
)
def ties(parts: Sequence[Part], *, density: float = 0.5) -> Merged:
    """Trimmed updates, merged where their signs agree."""
    smallest, weights, result = limits(parts, density), weights_of(parts), empty(parts)
    for rows, deltas in updates(parts):
        trim(deltas, smallest)
        result[rows] = merge_agreeing(deltas, weights)
    return result
