"""From a gate's entries at one layer to the cheapest of the products that compute them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from geodapt.adapters.execution import lora_matmul
from geodapt.adapters.execution.costs import equal_runs, work_of
from geodapt.adapters.execution.term_tables import Tables
from geodapt.adapters.gates import Terms, TopAtoms
from geodapt.adapters.store.factors import Stack
from geodapt.adapters.store.layer_factors import LayerFactors

FEW = 4
"""Gathering the kept atoms pays where they are at most one in this many."""


class Strategy(NamedTuple):
    """One way to compute a layer's update."""

    name: str
    apply: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.apply(x, y)

    @classmethod
    def cheapest(cls, factors: LayerFactors, entries: list[Terms], tokens: int) -> str:
        """The name of the strategy with the least work for these entries; all agree to rounding.

        ``tokens`` is the number of rows of ``x`` that the entries share.
        """
        return work_of(factors, entries, tokens).least(factors.width)

    @staticmethod
    def costs(factors: LayerFactors, entries: list[Terms], tokens: int) -> dict[str, int]:
        """What every strategy that can compute the entries costs, in multiply-adds."""
        return work_of(factors, entries, tokens).at(factors.width)

    @classmethod
    def make(
        cls, name: str, factors: LayerFactors, entries: list[Terms], top: TopAtoms | None = None
    ) -> "Strategy":
        """The named strategy."""
        if name == "indexed":
            tables = Tables(entries, top)
            return cls.indexed(factors.stack(tables.names), tables, lambda: factors)
        made = {"masked": _masked, "batched": _batched, "segmented": _segmented}[name]
        return cls(name, made(factors, entries, top))

    @classmethod
    def indexed(
        cls, stack: Stack, tables: Tables, source: Callable[[], LayerFactors]
    ) -> "Strategy":
        """Every row's terms where they lie in the stack; with gradients, rows sorted by entry.

        ``tables`` are what a gate's layers share; ``source`` gives the factors for gradients.
        """
        A, B, layout, top = stack.A, stack.B, stack.layout, tables.top
        count = len(tables.entries)
        per_sequence = top is not None and top.per == "sequence"
        otherwise: list[Callable] = []

        def apply(x: Tensor, y: Tensor) -> Tensor:
            if (x.requires_grad or y.requires_grad) and torch.is_grad_enabled():
                if not otherwise:
                    otherwise.append(_segmented(source(), list(tables.entries), top))
                return otherwise[0](x, y)
            each = x.numel() // x.shape[-1] // count
            sequences = (x.shape[0] if x.ndim > 2 else count) if per_sequence else None
            return lora_matmul.from_stack(x, y, A, B, *tables.find(layout, each, sequences, A))

        return cls("indexed", apply)


def _masked(factors: LayerFactors, entries: list[Terms], top: TopAtoms | None) -> Callable:
    """All adapters for all rows, and the gate zero where a row does not want one."""
    if len(set(entries)) == 1:
        entries = entries[:1]
    names = list(dict.fromkeys(name for terms in entries for name, _ in terms))
    A, B = factors.stacked(names)
    every = [tuple((name, dict(terms).get(name, 0.0)) for name in names) for terms in entries]
    n = len(entries)
    if top is not None and top.per == "token":
        keeps = {_keep(factors, top, terms) for terms in entries}
        keep = max(keeps)
        if len(keeps) == 1 and FEW * keep <= A.shape[0]:
            weigh = _gate(factors, every, entries, A.shape[0], None)
            return lambda x, y: lora_matmul.gathered(x, y, A, B, weigh(x), n, keep)
    gate = _gate(factors, every, entries, A.shape[0], top)
    return lambda x, y: lora_matmul.masked(x, y, A, B, gate(x), n)


def _batched(factors: LayerFactors, entries: list[Terms], top: TopAtoms | None) -> Callable:
    """A batched product over equal runs of rows."""
    runs = equal_runs(entries)
    A, B = factors.batched([[name for name, _ in terms] for terms in runs])
    gate = _gate(factors, runs, runs, A.shape[1], top)
    return lambda x, y: lora_matmul.batched(x, y, A, B, gate(x))


def _segmented(factors: LayerFactors, entries: list[Terms], top: TopAtoms | None) -> Callable:
    """Rows sorted by entry, one product for each."""
    where: dict[Terms, list[int]] = {}
    for i, terms in enumerate(entries):
        if terms:
            where.setdefault(terms, []).append(i)
    parts = []
    for terms, rows in where.items():
        A, B = factors.stacked([name for name, _ in terms])
        parts.append((A, B, _gate(factors, [terms], [terms], A.shape[0], top), len(rows)))
    order = torch.tensor([i for rows in where.values() for i in rows], device=factors.like.device)
    n = len(entries)

    def apply(x: Tensor, y: Tensor) -> Tensor:
        each = x.shape[0] // n if x.ndim > 2 else 1  # sequences that an entry holds
        groups = [
            lora_matmul.Segment(A, B, gate(x, size * each), size) for A, B, gate, size in parts
        ]
        return lora_matmul.segmented(x, y, groups, order, n)

    return apply


def _gate(
    factors: LayerFactors,
    weighed: list[Terms],
    chosen: list[Terms],
    rank: int,
    top: TopAtoms | None,
) -> Callable[..., lora_matmul.GateFunction | None]:
    """What happens to ``h = A x``, given x: weights where they are not all one, then selection.

    ``weighed`` names a weight for every row of A in order; ``chosen`` are the same entries
    without those of weight zero.
    """
    rows = [factors.weights(terms) for terms in weighed]
    weigh: lora_matmul.GateFunction | None = None
    if any(weight != 1 for row in rows for weight in row):
        g = factors.like.new_tensor([row + [0.0] * (rank - len(row)) for row in rows])
        weigh = lora_matmul.weigh(g)
    if top is None:
        return lambda x, sequences=None: weigh
    keep = [_keep(factors, top, terms) for terms in chosen]

    def select(x: Tensor, sequences: int | None = None) -> lora_matmul.GateFunction:
        if top.per == "token":
            sequences = None
        elif sequences is None:
            sequences = x.shape[0] if x.ndim > 2 else len(keep)
        return lambda h: lora_matmul.keep_top(h if weigh is None else weigh(h), keep, sequences)

    return select


def _keep(factors: LayerFactors, top: TopAtoms, terms: Terms) -> int:
    """How many of an entry's rank-one terms stay."""
    return top.count(factors.ranks(terms))
