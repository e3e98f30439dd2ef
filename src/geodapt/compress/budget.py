"""One budget over all layers: each byte goes where it removes the most error.

Every layer has a curve of options, each with its bytes and its error. On the lower convex hull of
a curve, each further byte removes less than the one before; so taking the steep segments of all
hulls first gives the least total error for the bytes taken (the Lagrangian argument of Everett
1963; Shoham and Gersho 1988 for the allocation of bits). For an SVD the options are the ranks,
and a segment's slope is a squared singular value per byte of its two vectors.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geodapt.compress.layer_format import LayerFormat
from geodapt.errors import InputError


@dataclass(frozen=True)
class Option:
    """One format of a layer, with its size and its error."""

    form: LayerFormat
    bytes: int
    error: float
    """Share of the layer's output energy that is lost (without moments: of its squared norm)."""


@dataclass(frozen=True)
class SizeBudget:
    """A limit on the size of all layers together, or on their mean loss; either may be unset."""

    bytes: float = float("inf")
    loss: float = 0.0
    """Mean over layers of the share lost; once it is reached no more bytes are spent."""


def hull(options: Sequence[Option]) -> list[Option]:
    """The options on the lower convex hull, from the smallest to the one with the least error."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda o: (o.bytes, o.error)):
        if kept and option.error >= kept[-1].error:
            continue
        while len(kept) > 1 and _slope(kept[-2], kept[-1]) <= _slope(kept[-2], option):
            kept.pop()
        kept.append(option)
    return kept


def _slope(small: Option, large: Option) -> float:
    """Error removed per byte."""
    return (small.error - large.error) / (large.bytes - small.bytes)


def allocate(curves: Mapping[str, Sequence[Option]], budget: SizeBudget) -> dict[str, Option]:
    """An option for every layer, within the budget and with the least total error.

    Optimal where the budget ends where a segment ends. Elsewhere less than one segment is left,
    which smaller segments of other layers fill. Raises :class:`InputError` when the budget is below
    the smallest options, or the loss cannot be reached.
    """
    hulls = {path: hull(options) for path, options in curves.items()}
    chosen = {path: options[0] for path, options in hulls.items()}
    require_room(chosen, budget)
    left = budget.bytes - sum(option.bytes for option in chosen.values())
    error = sum(option.error for option in chosen.values())
    segments = [
        (_slope(small, large), path, small, large)
        for path, options in hulls.items()
        for small, large in itertools.pairwise(options)
    ]
    for _, path, small, large in sorted(segments, key=lambda segment: -segment[0]):
        if error <= budget.loss * len(chosen):
            break
        cost = large.bytes - small.bytes
        if cost <= left and chosen[path] is small:
            chosen[path] = large
            left -= cost
            error += large.error - small.error
    _require_reached(error / len(chosen), budget)
    return chosen


def allocate_uniform(
    curves: Mapping[str, Sequence[Option]], budget: SizeBudget
) -> dict[str, Option]:
    """The same width and group for every layer: the best that the budget allows.

    Options of different layers correspond by their position in the curves; each curve's last group
    is the whole row.
    """
    paths = list(curves)
    rows = [dict(zip(paths, row, strict=True)) for row in _aligned([curves[p] for p in paths])]
    totals = [
        (sum(o.bytes for o in row.values()), sum(o.error for o in row.values()) / len(row), row)
        for row in rows
    ]
    smallest = min(totals, key=lambda total: total[0])
    require_room(smallest[2], budget)
    fitting = [total for total in totals if total[0] <= budget.bytes]
    enough = [total for total in fitting if total[1] <= budget.loss]
    if enough:
        return min(enough, key=lambda total: total[0])[2]
    best = min(fitting, key=lambda total: total[1])
    _require_reached(best[1], budget)
    return best[2]


def _aligned(curves: Sequence[Sequence[Option]]) -> list[tuple[Option, ...]]:
    """Options of all layers with the same group; a layer without it takes its whole row."""

    def key(option: Option, row: int) -> tuple[int | None, int | None]:
        return option.form.width, None if option.form.group == row else option.form.group

    tables = []
    for options in curves:
        row = max(option.form.group or 0 for option in options)
        tables.append({key(option, row): option for option in options})
    names = dict.fromkeys(name for table in tables for name in table)
    return [
        tuple(table[name] if name in table else table[name[0], None] for table in tables)
        for name in names
    ]


def require_room(smallest: Mapping[str, Option], budget: SizeBudget) -> None:
    """Raise :class:`InputError` when even the smallest options exceed the budget."""
    needed = sum(option.bytes for option in smallest.values())
    if needed > budget.bytes:
        raise InputError(
            f"the budget of {budget.bytes:,.0f} bytes for the layers' weights cannot be met: this "
            f"method takes {needed:,} at least, {needed / budget.bytes:.2f} times as much; raise "
            "the budget, or choose a method that goes lower (svd, int, lowrank_plus_int)"
        )


def _require_reached(error: float, budget: SizeBudget) -> None:
    if error > budget.loss > 0:
        raise InputError(
            f"the allowed loss of {budget.loss:g} cannot be met: the best that this method can do "
            f"loses {error:.3g} of the layers' output on average; allow more, or choose a method "
            "with more bits"
        )
