"""Which terms of a stack the rows of a batch are multiplied with: one table for many layers.

A new gate then costs a few numbers a layer instead of a copy of its factors. Layers whose stacks
hold the adapters in the same places, as those of like adapters do, share a table.
"""

from collections.abc import Callable, Hashable
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.execution.lora_matmul import TermTable, keep_top

Spans = tuple[tuple[tuple[int, int], ...], ...]
"""For every entry of a gate, where each of its adapters begins in the stack, and its rank."""
TermGate = Callable[[Float[Tensor, "chosen"]], Float[Tensor, "chosen"]]


class Tables:
    """What the layers of one gate share, by what decides it."""

    def __init__(self) -> None:
        self.terms: dict[Hashable, tuple[TermTable, TermGate | None]] = {}
        self.forms: dict[Hashable, str] = {}
        """The name of the cheapest form."""


def term_table(
    spans: Spans,
    weights: tuple[tuple[float, ...], ...],
    keep: tuple[int, ...] | None,
    each: int,
    sequences: int | None,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[TermTable, TermGate | None]:
    """The table for entries of so many rows each, and what happens to ``h = A x``.

    With ``keep``, all entries are filled up to one length with the stack's row 0, which is zero,
    and of entry i the ``keep[i]`` largest terms stay, for each of as many equal ``sequences`` of
    rows, or for every row.
    """
    rows = [
        list(chain.from_iterable(range(start, start + rank) for start, rank in entry))
        for entry in spans
    ]
    g = [
        list(chain.from_iterable([w] * rank for w, (_, rank) in zip(ws, entry, strict=True)))
        for ws, entry in zip(weights, spans, strict=True)
    ]
    if keep is not None:
        widest = max(map(len, rows))
        rows = [row + [0] * (widest - len(row)) for row in rows]
        g = [row + [0.0] * (widest - len(row)) for row in g]
    sizes = torch.tensor([len(row) for row in rows for _ in range(each)])
    terms = torch.tensor([term for row in rows for _ in range(each) for term in row])
    owners = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    table = TermTable(*(t.to(device) for t in (terms, sizes.cumsum(0) - sizes, owners)))
    weigh: TermGate | None = None
    if any(weight != 1 for ws in weights for weight in ws):
        by_term = torch.tensor([w for row in g for _ in range(each) for w in row])
        by_term = by_term.to(device, dtype)
        weigh = lambda h: h * by_term  # noqa: E731
    if keep is None:
        return table, weigh
    shape, kept = (len(rows), each, -1), list(keep)

    def select(h: Tensor) -> Tensor:
        weighed = h if weigh is None else weigh(h)
        return keep_top(weighed.view(shape), kept, sequences).view(h.shape)

    return table, select
