"""The sizes of calls: a model may choose another way by them, where shapes do not show it."""

from collections.abc import Collection

from geodapt.adapters.execution.model_flags import MANY

Size = tuple[int, ...]
"""How many rows, and how many positions a row has in each input."""


def between(size: Size, seen: Collection[Size]) -> bool:
    """Whether a size lies between sizes that were looked at, of which there are many, or is one.

    What holds for short and for long rows is taken to hold for those between.
    """
    if size in seen or len(seen) < MANY:
        return size in seen
    pairs = zip(size, zip(*seen, strict=True), strict=True)
    return all(min(others) <= own <= max(others) for own, others in pairs)
