"""What a call's arguments may choose another way through a model by."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from geodapt.adapters.execution.model_flags import MANY, is_carried, is_flag

COUNTS = {"num_items_in_batch", "logits_to_keep", "num_logits_to_keep"}
"""Numbers that transformers hands to its models, of another value in each call."""
DEEPEST = 3
"""Containers in one another that are looked into."""
_VALUES = (bytes, complex, range, slice, np.generic)


class ArgumentFlags:
    """The flags among the arguments of a model's calls, without those that count something."""

    def __init__(self) -> None:
        self._taken: dict[str, set[Any]] = {}
        """The values of each flag."""

    def of(self, named: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        """A call's flags: equal in calls that differ in tensors of the same names alone."""
        found = []
        for name, value in sorted(named.items()):
            if value is None or name in COUNTS or is_carried(name, value):
                continue
            for key, flag in _flags_in(name, value):
                taken = self._taken.setdefault(key, set())
                if len(taken) <= MANY:
                    taken.add(flag)
                if len(taken) <= MANY:
                    found.append((key, flag))
        return tuple(found)


def _flags_in(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor):
        if depth <= 1:
            yield name, ("tensor", value.ndim)
    elif is_flag(value) or (callable(value) and isinstance(value, Hashable)):
        yield name, value
    elif isinstance(value, _VALUES):
        yield name, (type(value).__name__, repr(value))
    elif isinstance(value, list) and all(map(is_flag, value)):
        yield name, ("list", *value)
    elif isinstance(value, set | frozenset) and all(map(is_flag, value)):
        yield name, ("set", frozenset(value))
    elif depth < DEEPEST:
        yield f"{name}()", type(value).__name__
        parts = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
        if isinstance(value, list | tuple):
            parts = dict(enumerate(value))
        for key, part in list(parts.items()):
            if part is None or is_carried(key, part):
                continue
            yield from _flags_in(f"{name}.{key}", part, depth + 1)
