"""Which terms of a stack the rows of a batch are multiplied with: one table for many layers.

A new gate then costs a few look-ups a layer instead of a copy of its factors. Layers whose stacks
hold the adapters in the same places, as those of like adapters do, share a table.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.execution.costs import Work
from geodapt.adapters.execution.lora_matmul import TermTable, keep_top
from geodapt.adapters.gates import Terms, TopAtoms
from geodapt.adapters.store.layout import Layout

TermGate = Callable[[Float[Tensor, " chosen"]], Float[Tensor, " chosen"]]


class Tables:
    """What the layers share at which a gate has the same entries."""

    def __init__(self, entries: Sequence[Terms], top: TopAtoms | None = None) -> None:
        self.entries, self.top = entries, top
        self.names = frozenset(name for terms in entries for name, _ in terms)
        self.work: dict[tuple, Work] = {}
        """By layout, number of tokens, types and device."""
        self._found: dict[tuple, tuple[TermTable, TermGate | None]] = {}

    def find(
        self, layout: Layout, each: int, sequences: int | None, like: Tensor
    ) -> tuple[TermTable, TermGate | None]:
        """The table for stacks of a layout, and what happens to ``h = A x``.

        Each entry has as many rows; atoms stay or go by row, or for each of so many equal
        ``sequences`` of rows. The numbers are of the type and on the device of ``like``.
        """
        key = (layout, each, sequences, like.dtype, like.device)
        if key not in self._found:
            self._found[key] = self._make(*key)
        return self._found[key]

    def _make(
        self,
        layout: Layout,
        each: int,
        sequences: int | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[TermTable, TermGate | None]:
        spans = [[(*layout.spans[name], w) for name, w in terms] for terms in self.entries]
        sizes = [sum(rank for _, rank, _ in entry) for entry in spans]
        keep = (
            [self.top.count([rank for _, rank, _ in entry]) for entry in spans] if self.top else []
        )
        if self.top is not None:  # filled up to one length with the stack's row 0, which is zero
            widest = max(sizes)
            for entry, size in zip(spans, sizes, strict=True):
                entry += [(0, 1, 0.0)] * (widest - size)
            sizes = [widest] * len(sizes)
        parts = [part for entry in spans for _ in range(each) for part in entry]
        starts, ranks, weights = (np.array(column) for column in zip(*parts, strict=True))
        before = ranks.cumsum() - ranks
        terms = np.repeat(starts - before, ranks) + np.arange(ranks.sum())
        by_row = np.repeat(sizes, each)
        bags, owners = by_row.cumsum() - by_row, np.repeat(np.arange(len(by_row)), by_row)
        table = TermTable(*(torch.from_numpy(t).to(device) for t in (terms, bags, owners)))
        weigh: TermGate | None = None
        if any(w != 1 for row in self.entries for _, w in row):
            by_term = torch.from_numpy(np.repeat(weights, ranks)).to(device, dtype)
            weigh = lambda h: h * by_term  # noqa: E731
        if self.top is None:
            return table, weigh
        shape = (len(spans), each, -1)

        def select(h: Tensor) -> Tensor:
            weighed = h if weigh is None else weigh(h)
            return keep_top(weighed.view(shape), keep, sequences).view(h.shape)

        return table, select
