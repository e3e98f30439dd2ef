"""Gates: which adapters act on which rows of a batch, and how strongly.

A gate is a small immutable value. It becomes active with :meth:`AdapterBank.use` or
:meth:`AdapterBank.set`; it can be hashed, so what it needs is prepared once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from geodapt.errors import InputError

Terms = tuple[tuple[str, float], ...]
"""One weighted sum of adapters: ``((name, weight), ...)``; ``()`` is the base alone."""


@dataclass(frozen=True)
class Off:
    """The base alone."""

    entries: ClassVar[tuple[Terms, ...]] = ((),)


@dataclass(frozen=True, init=False)
class Mix:
    """A weighted sum of adapters, the same for every row: ``W0 x + sum_i w_i s_i B_i A_i x``.

    Negative weights are allowed (task arithmetic, Ilharco et al. 2023).
    """

    entries: tuple[Terms, ...]

    def __init__(self, weights: Mapping[str, float]) -> None:
        object.__setattr__(self, "entries", (terms(weights),))


@dataclass(frozen=True, init=False)
class Route:
    """One entry a batch row: an adapter's name, None (the base alone) or ``{name: weight}``.

    A batch of ``k`` times as many rows counts as runs of ``k`` consecutive rows an entry: what
    beam search makes of a batch, and what equal blocks of rows stacked along the batch are.
    """

    entries: tuple[Terms, ...]

    def __init__(self, rows: Sequence[str | None | Mapping[str, float]]) -> None:
        if isinstance(rows, str) or not isinstance(rows, Sequence) or not len(rows):
            raise InputError(
                f"Route takes a list with one entry a batch row, got {rows!r}; "
                "for one adapter on every row use Mix({name: 1.0})"
            )
        object.__setattr__(self, "entries", tuple(terms(row) for row in rows))


Gate = Off | Mix | Route


def terms(entry: str | None | Mapping[str, float]) -> Terms:
    """The weighted sum that one entry of a gate stands for.

    Raises :class:`InputError` for a weight that is not a finite number.
    """
    if entry is None:
        return ()
    if isinstance(entry, str):
        return ((entry, 1.0),)
    if not isinstance(entry, Mapping):
        raise InputError(f"a gate's entry is a name, None or {{name: weight}}, got {entry!r}")
    found = []
    for name, weight in entry.items():
        try:
            number = float(weight)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"adapter '{name}' has weight {weight!r}; give a finite number")
        if number:
            found.append((name, number))
    return tuple(found)
