"""From a gate's entries at one layer to the cheapest of the products that compute them."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.execution import lora_matmul
from geodapt.adapters.gates import Terms, TopAtoms

if TYPE_CHECKING:
    from geodapt.adapters.bank import AdapterBank

# Costs in multiply-adds: reading a factor from memory, copying an activation, starting a
# product. Rough figures are enough, since the forms differ by factors.
READ, COPY, START = 16, 8, 400_000
FEW = 4
"""Reading the kept atoms one by one pays where they are at most one in so many."""


@dataclass(frozen=True)
class LayerFactors:
    """The factors of the adapters at one layer, in the type and on the device of ``like``."""

    bank: "AdapterBank"
    path: str
    training: Collection[str]
    like: Tensor
    atoms: bool

    def rank(self, terms: Terms) -> int:
        return sum(self.bank.rank_at(name, self.path) for name, _ in terms)

    def weights(self, terms: Terms) -> list[float]:
        """Every rank-one term's weight, adapter after adapter."""
        return [w for name, w in terms for _ in range(self.bank.rank_at(name, self.path))]

    def keep(self, top: TopAtoms, terms: Terms) -> int:
        """How many of an entry's rank-one terms stay."""
        return top.count([self.bank.rank_at(name, self.path) for name, _ in terms])

    def stacked(
        self, names: list[str]
    ) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "rank out"]]:
        """The factors of some adapters one below the other."""
        if self.training:
            parts = [self._part(name) for name in names]
            return torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts])
        stack = self.bank.stack(self.path, names, self.like, self.atoms)
        rows = stack.rows(names)
        return stack.A[rows].to(self.like.dtype), stack.B[rows].to(self.like.dtype)

    def blocks(
        self, groups: list[list[str]]
    ) -> tuple[Float[Tensor, "n rank in"], Float[Tensor, "n rank out"]]:
        """The factors of several groups of adapters, padded to the largest with zeros."""
        if self.training:
            parts = [[self._part(name) for name in group] for group in groups]
            A = _pad([[a for a, _ in group] for group in parts])
            return A, _pad([[b for _, b in group] for group in parts])
        names = [name for group in groups for name in group]
        A, B = self.bank.stack(self.path, names, self.like, self.atoms).blocks(groups)
        return A.to(self.like.dtype), B.to(self.like.dtype)

    def _part(self, name: str) -> tuple[Tensor, Tensor]:
        """One adapter's factors, through its float32 masters if it trains."""
        if name in self.training:
            A, B, scale = self.bank.masters_of(name, self.path)
            return A.to(self.like), (B.T * scale).to(self.like)
        stack = self.bank.stack(self.path, [name], self.like)
        rows = stack.rows([name])
        return stack.A[rows].to(self.like.dtype), stack.B[rows].to(self.like.dtype)


@dataclass(frozen=True)
class Strategy:
    """One way to compute a layer's update."""

    name: str
    apply: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.apply(x, y)

    @classmethod
    def cheapest(cls, source: LayerFactors, entries: list[Terms], tokens: int) -> str:
        """The name of the form with the least work for these entries; all agree to rounding.

        ``tokens`` is the number of rows of ``x`` that the entries share.
        """
        costs = cls.costs(source, entries, tokens)
        return min(costs, key=lambda form: costs[form])

    @staticmethod
    def costs(source: LayerFactors, entries: list[Terms], tokens: int) -> dict[str, int]:
        """What every form that can compute the entries costs, in multiply-adds."""
        distinct = [terms for terms in dict.fromkeys(entries) if terms]
        names = {name: None for terms in distinct for name, _ in terms}
        width = sum(source.bank.widths(source.path))
        total = source.rank(tuple((name, 1.0) for name in names))
        masked = tokens * total * width + READ * total * width
        if len(set(entries)) == 1:
            return {"masked": masked}
        largest = max(source.rank(terms) for terms in distinct)
        routed = tokens * sum(map(bool, entries)) // len(entries)
        costs = {
            "masked": masked,
            "segmented": routed * (largest + COPY) * width
            + READ * sum(source.rank(terms) for terms in distinct) * width
            + START * len(distinct),
        }
        if runs := _equal_runs(entries):
            costs["batched"] = (tokens + READ * len(runs)) * largest * width
        return costs

    @classmethod
    def make(
        cls, name: str, source: LayerFactors, entries: list[Terms], top: TopAtoms | None = None
    ) -> "Form":
        """The named form."""
        return cls(
            name,
            {"masked": _masked, "batched": _batched, "segmented": _segmented}[name](
                source, entries, top
            ),
        )


def _masked(source: LayerFactors, entries: list[Terms], top: TopAtoms | None) -> Callable:
    """All adapters for all rows, and the gate zero where a row does not want one."""
    if len(set(entries)) == 1:
        entries = entries[:1]
    names = list(dict.fromkeys(name for terms in entries for name, _ in terms))
    A, B = source.stacked(names)
    every = [tuple((name, dict(terms).get(name, 0.0)) for name in names) for terms in entries]
    n = len(entries)
    if top is not None and top.per == "token":
        keeps = {source.keep(top, terms) for terms in entries}
        keep = max(keeps)
        if len(keeps) == 1 and FEW * keep <= A.shape[0]:
            weigh = _gate(source, every, entries, A.shape[0], None)
            return lambda x, y: lora_matmul.gathered(x, y, A, B, weigh(x), n, keep)
    gate = _gate(source, every, entries, A.shape[0], top)
    return lambda x, y: lora_matmul.masked(x, y, A, B, gate(x), n)


def _batched(source: LayerFactors, entries: list[Terms], top: TopAtoms | None) -> Callable:
    """A batched product over equal runs of rows."""
    runs = _equal_runs(entries)
    A, B = source.blocks([[name for name, _ in terms] for terms in runs])
    gate = _gate(source, runs, runs, A.shape[1], top)
    return lambda x, y: lora_matmul.batched(x, y, A, B, gate(x))


def _segmented(source: LayerFactors, entries: list[Terms], top: TopAtoms | None) -> Callable:
    """Rows sorted by entry, one product for each."""
    where: dict[Terms, list[int]] = {}
    for i, terms in enumerate(entries):
        if terms:
            where.setdefault(terms, []).append(i)
    parts = []
    for terms, rows in where.items():
        A, B = source.stacked([name for name, _ in terms])
        parts.append((A, B, _gate(source, [terms], [terms], A.shape[0], top), len(rows)))
    order = torch.tensor([i for rows in where.values() for i in rows], device=source.like.device)
    n = len(entries)

    def apply(x: Tensor, y: Tensor) -> Tensor:
        each = x.shape[0] // n if x.ndim > 2 else 1  # sequences that an entry holds
        groups = [
            lora_matmul.Segment(A, B, gate(x, size * each), size) for A, B, gate, size in parts
        ]
        return lora_matmul.segmented(x, y, groups, order, n)

    return apply


def _gate(
    source: LayerFactors,
    weighed: list[Terms],
    chosen: list[Terms],
    rank: int,
    top: TopAtoms | None,
) -> Callable[..., lora_matmul.GateFunction | None]:
    """What happens to ``h = A x``, given x: weights where they are not all one, then selection.

    ``weighed`` names a weight for every row of A in order; ``chosen`` are the same entries
    without those of weight zero.
    """
    rows = [source.weights(terms) for terms in weighed]
    weigh: lora_matmul.GateFunction | None = None
    if any(weight != 1 for row in rows for weight in row):
        g = source.like.new_tensor([row + [0.0] * (rank - len(row)) for row in rows])
        weigh = lora_matmul.weigh(g)
    if top is None:
        return lambda x, sequences=None: weigh
    keep = [source.keep(top, terms) for terms in chosen]

    def select(x: Tensor, sequences: int | None = None) -> lora_matmul.GateFunction:
        if top.per == "token":
            sequences = None
        elif sequences is None:
            sequences = x.shape[0] if x.ndim > 2 else len(keep)
        return lambda h: lora_matmul.keep_top(h if weigh is None else weigh(h), keep, sequences)

    return select


def _equal_runs(entries: list[Terms]) -> list[Terms]:
    """The entries of equal runs of consecutive rows; empty when the runs differ in length."""
    runs = [(terms, len(list(run))) for terms, run in groupby(entries)]
    return [terms for terms, _ in runs] if len({length for _, length in runs}) == 1 else []


def _pad(groups: list[list[Tensor]]) -> Tensor:
    """Stack groups of rows, shorter ones filled up with zero rows."""
    some = next(part for group in groups for part in group)
    joined = [torch.cat(group) if group else some[:0] for group in groups]
    most = max(len(rows) for rows in joined)
    return torch.stack(
        [torch.nn.functional.pad(rows, (0, 0, 0, most - len(rows))) for rows in joined]
    )
