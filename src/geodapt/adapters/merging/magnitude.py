"""The weighted sum of what is large."""

from collections.abc import Sequence

from geodapt.adapters.merging.pruning import bands, keep_above, threshold, update
from geodapt.adapters.merging.registry import Merged, Part, empty, register


@register(
    "magnitude",
    "the weighted sum of each update's largest entries",
    "PEFT add_weighted_adapter, combination_type='magnitude_prune'",
)
def magnitude(parts: Sequence[Part], *, density: float = 0.5) -> Merged:
    """``sum_i w_i trim(Delta_i)``, the largest ``density`` of every update's entries."""
    limits = [threshold(part, density) for part in parts]
    result = empty(parts)
    for rows in bands(len(result)):
        result[rows] = sum(
            part.weight * keep_above(update(part, rows), limit)
            for part, limit in zip(parts, limits, strict=True)
        )
    return result
