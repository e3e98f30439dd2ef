"""Gates: which adapters act on which rows of a batch, and how strongly.

A gate is a small immutable value. It becomes active with :meth:`AdapterBank.use` or
:meth:`AdapterBank.set`; it can be hashed, so what it needs is prepared once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from geodapt.errors import InputError

SHOWN = 8
"""How many entries of a route its ``repr`` shows."""

LARGEST_WEIGHT = 3.4e38
"""What float32 holds."""

Terms = tuple[tuple[str, float], ...]
"""One weighted sum of adapters: ``((name, weight), ...)``; ``()`` is the base alone."""


@dataclass(frozen=True)
class Off:
    """The base alone."""

    entries: ClassVar[tuple[Terms, ...]] = ((),)


@dataclass(frozen=True, init=False, repr=False)
class Mix:
    """A weighted sum of adapters, the same for every row: ``W0 x + sum_i w_i s_i B_i A_i x``.

    Negative weights are allowed (task arithmetic, Ilharco et al. 2023).
    """

    entries: tuple[Terms, ...]

    def __init__(self, weights: Mapping[str, float]) -> None:
        object.__setattr__(self, "entries", (terms(weights),))

    def __repr__(self) -> str:
        return f"Mix({dict(self.entries[0])})"


@dataclass(frozen=True, init=False, repr=False)
class Route:
    """One entry per batch row: an adapter's name, None (the base alone) or ``{name: weight}``.

    Inside ``generate``, what beam search and ``num_return_sequences`` make of a row keeps the
    row's entry. With ``blocks``, each entry acts on one of as many equal blocks of consecutive
    rows, for batches stacked along their first dimension.
    """

    entries: tuple[Terms, ...]
    blocks: bool = False

    def __init__(
        self, rows: Sequence[str | Mapping[str, float] | None], blocks: bool = False
    ) -> None:
        if isinstance(rows, str) or not isinstance(rows, Sequence) or not len(rows):
            raise InputError(
                f"Route takes a list with one entry per batch row, got {rows!r}; "
                "for one adapter on every row use Mix({name: 1.0})"
            )
        object.__setattr__(self, "entries", tuple(terms(row) for row in rows))
        object.__setattr__(self, "blocks", blocks)

    def __repr__(self) -> str:
        rows = [_written(entry) for entry in self.entries[:SHOWN]]
        more = len(self.entries) - SHOWN
        rows += [f"... {more} more"] if more > 0 else []
        return f"Route([{', '.join(rows)}]{', blocks=True' * self.blocks})"


@dataclass(frozen=True)
class TopAtoms:
    """Of the rank-one terms that a gate activates, only the largest for this input.

    With ``s B A = U diag(d) V^T``, the layer adds ``sum_i k_i u_i`` with ``k_i = w d_i v_i^T x``;
    the terms with the largest ``|k_i|`` stay, for every token, or for a whole sequence by the
    mean of ``|k_i|`` over its tokens (a row's tokens in this call, padding among them).
    """

    keep: int | float | None = None
    """A number of terms per layer (int), a share of them (float up to 1.0), or as many as one
    adapter has on average, ``(r_1 + ... + r_n) / n`` (None)."""
    of: Mix | Route | None = None
    """The gate to choose within; None is the plain sum of every adapter in the bank."""
    per: Literal["token", "sequence"] = "token"

    def __post_init__(self) -> None:
        if self.per not in ("token", "sequence"):
            raise InputError(f"TopAtoms selects per 'token' or per 'sequence', not {self.per!r}")
        if self.of is not None and not isinstance(self.of, Mix | Route):
            raise InputError(f"TopAtoms chooses within a Mix or a Route, not {self.of!r}")
        if self.keep is None:
            return
        whole = isinstance(self.keep, int) and not isinstance(self.keep, bool)
        if not (whole and self.keep >= 1) and not (
            isinstance(self.keep, float) and 0 < self.keep <= 1
        ):
            raise InputError(
                f"TopAtoms keeps {self.keep!r}; give a number of terms (1, 2, ...) or a share of "
                "them above 0.0 and up to 1.0"
            )

    @property
    def entries(self) -> tuple[Terms, ...]:
        return self.of.entries if self.of is not None else ((),)

    def count(self, ranks: Sequence[int]) -> int:
        """How many terms stay, of adapters with these ranks."""
        total = sum(ranks)
        if self.keep is None:
            return math.ceil(total / len(ranks)) if ranks else 0
        if isinstance(self.keep, int):
            return min(self.keep, total)
        return math.ceil(self.keep * total)


Gate = Off | Mix | Route | TopAtoms


def as_gate(gate: Any) -> Gate:
    """A gate, also from an adapter's name or ``{name: weight}``, which are a :class:`Mix`.

    Raises :class:`InputError` for anything else.
    """
    if isinstance(gate, Off | Mix | Route | TopAtoms):
        return gate
    if isinstance(gate, str | Mapping):
        return Mix({gate: 1.0} if isinstance(gate, str) else gate)
    raise InputError(
        f"{gate!r} is no gate; give an adapter's name, {{name: weight}}, Mix, Route (one entry a "
        "batch row), TopAtoms or Off()"
    )


def names_of(gate: Gate) -> frozenset[str]:
    """The adapters that a gate activates in some row."""
    return frozenset(name for entry in gate.entries for name, _ in entry)


def terms(entry: str | Mapping[str, float] | None) -> Terms:
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
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= LARGEST_WEIGHT:
            raise InputError(
                f"adapter '{name}' has weight {str(weight)[:40]}; give a finite number"
            )
        if number:
            found.append((name, number))
    return tuple(found)


def _written(entry: Terms) -> str:
    """An entry as one writes it."""
    if not entry:
        return "None"
    return repr(entry[0][0]) if len(entry) == 1 and entry[0][1] == 1 else str(dict(entry))
