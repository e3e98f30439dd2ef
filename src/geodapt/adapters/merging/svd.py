"""The best approximation of the weighted sum at a given rank."""

from collections.abc import Sequence

from geodapt.adapters.merging.cat import cat
from geodapt.adapters.merging.registry import Merged, Part, register


@register(
    "svd",
    "the closest update of a given rank (or energy share) to the weighted sum",
    "Eckart and Young 1936; computed in the factors",
)
def svd(parts: Sequence[Part]) -> Merged:
    """The sum in factors; what follows every method cuts it by its singular values."""
    return cat(parts)
