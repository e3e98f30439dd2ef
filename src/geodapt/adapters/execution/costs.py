"""What the ways to compute a layer's update cost."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from geodapt.adapters.gates import Terms
from geodapt.adapters.store.layer_factors import LayerFactors

# In multiply-adds: reading a factor from memory, copying an activation, starting a product. Rough
# figures are enough, since the strategies differ by factors.
READ, COPY, START = 16, 8, 400_000


class Work:
    """The multiply-adds of every strategy that can compute some entries."""

    def __init__(self, parts: Mapping[str, tuple[int, int]]) -> None:
        """``parts`` are those for each input or output of the layer, and those for the layer."""
        self._parts = parts
        self._least: dict[int, str] = {}

    def at(self, width: int) -> dict[str, int]:
        """By strategy, for a layer of so many inputs and outputs together."""
        return {name: each * width + start for name, (each, start) in self._parts.items()}

    def least(self, width: int) -> str:
        """The cheapest strategy for such a layer."""
        name = self._least.get(width)
        if name is None:
            costs = self.at(width)
            name = self._least[width] = min(costs, key=lambda each: costs[each])
        return name


def work_of(factors: LayerFactors, entries: Sequence[Terms], tokens: int) -> Work:
    """What the entries cost with the ranks that they have at a layer, whatever its width.

    ``tokens`` is the number of rows of ``x`` that the entries share.
    """
    ranks = {terms: factors.rank(terms) for terms in dict.fromkeys(entries)}
    distinct = [terms for terms in ranks if terms]
    names = {name: None for terms in distinct for name, _ in terms}
    total = factors.rank(tuple((name, 1.0) for name in names))
    parts = {"masked": ((tokens + READ) * total, 0)}
    if len(ranks) == 1:
        return Work(parts)
    largest = max(ranks.values())
    routed = tokens * sum(map(bool, entries)) // len(entries)
    segments = routed * (largest + COPY) + READ * sum(ranks.values())
    parts["segmented"] = (segments, START * len(distinct))
    if factors.like.device.type == "cpu" and factors.stacked_alike:
        each = tokens // len(entries)
        parts["indexed"] = (READ * each * sum(ranks[terms] for terms in entries), 0)
    if runs := equal_runs(entries):
        parts["batched"] = ((tokens + READ * len(runs)) * largest, 0)
    return Work(parts)


def equal_runs(entries: Sequence[Terms]) -> list[Terms]:
    """The entries of equal runs of consecutive rows; empty when the runs differ in length."""
    runs = [(terms, len(list(run))) for terms, run in groupby(entries)]
    return [terms for terms, _ in runs] if len({length for _, length in runs}) == 1 else []
