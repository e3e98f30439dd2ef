"""The weighted sum of what is large."""

from collections.abc import Sequence

from geodapt.adapters.merging.bands import updates, weighted_sum
from geodapt.adapters.merging.registry import Merged, Part, empty, register, weights_of
from geodapt.adapters.merging.trimming import limits, trim


@register(
    "magnitude",
    "the weighted sum of each update's largest entries",
    "PEFT add_weighted_adapter, combination_type='magnitude_prune'",
)
def magnitude(parts: Sequence[Part], *, density: float = 0.5) -> Merged:
    """``sum_i w_i trim(Delta_i)``, the largest ``density`` of every update's entries."""
    smallest, weights, result = limits(parts, density), weights_of(parts), empty(parts)
    for rows, deltas in updates(parts):
        trim(deltas, smallest)
        result[rows] = weighted_sum(weights, deltas)
    return result
