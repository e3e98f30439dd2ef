"""Trim, elect a sign, and average what agrees."""

from collections.abc import Sequence

from geodapt.adapters.merging.pruning import bands, keep_above, threshold, update
from geodapt.adapters.merging.registry import Merged, Part, empty, register
from geodapt.adapters.merging.signs import merge_agreeing


@register(
    "ties",
    "trims small entries, elects a sign for each, averages the updates that have it",
    "TIES, Yadav et al. 2023, arXiv:2306.01708",
    averages=True,
)
def ties(parts: Sequence[Part], *, density: float = 0.5) -> Merged:
    """Trimmed updates, merged where their signs agree."""
    limits = [threshold(part, density) for part in parts]
    weights = [part.weight for part in parts]
    result = empty(parts)
    for rows in bands(len(result)):
        trimmed = [
            keep_above(update(part, rows), limit) for part, limit in zip(parts, limits, strict=True)
        ]
        result[rows] = merge_agreeing(trimmed, weights)
    return result
