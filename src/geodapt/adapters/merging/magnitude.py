"""The weighted sum of what is large."""

from collections.abc import Sequence

from geodapt.adapters.merging.full_matrix import merge_largest, weighted_sum
from geodapt.adapters.merging.registry import Merged, Part, register


@register(
    "magnitude",
    "the weighted sum of each update's largest entries",
    "PEFT add_weighted_adapter, combination_type='magnitude_prune'",
)
def magnitude(parts: Sequence[Part], *, density: float = 0.5) -> Merged:
    """``sum_i w_i trim(Delta_i)``, the largest ``density`` of every update's entries."""
    return merge_largest(parts, density, weighted_sum)
