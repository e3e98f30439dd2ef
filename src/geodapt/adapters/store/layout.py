"""Which rows of a stack each adapter occupies."""

from weakref import WeakValueDictionary

Span = tuple[int, int]
"""Where an adapter begins, and its rank."""


class Layout:
    """Where adapters lie in a stack. A layout never changes: what comes or goes makes another.

    Stacks that see the same adapters come and go, as those of like layers do, have the very same
    layouts. So what follows from where adapters lie is worked out once, not layer by layer.
    """

    def __init__(self, spans: dict[str, Span], free: tuple[Span, ...], rows: int) -> None:
        self.spans, self.rows = spans, rows
        self._free = free
        self._next: WeakValueDictionary[tuple[str, int | None], Layout] = WeakValueDictionary()

    def put(self, name: str, rank: int) -> "Layout":
        """With an adapter of a rank, in the first gap that holds it or in rows of its own."""
        known = self._next.get((name, rank))
        if known is None:
            known = self._next[name, rank] = self._put(name, rank)
        return known

    def drop(self, name: str) -> "Layout":
        """Without an adapter, whose rows are free for others."""
        known = self._next.get((name, None))
        if known is None:
            known = self._next[name, None] = self._drop(name)
        return known

    def _put(self, name: str, rank: int) -> "Layout":
        gap = next((gap for gap in self._free if gap[1] >= rank), None)
        rows, free = self.rows, self._free
        if gap is None:
            gap, rows = (rows, max(rank, rows)), rows + max(rank, rows)
            free = (*free, gap)
        start, length = gap
        rest = ((start + rank, length - rank),) if length > rank else ()
        at = free.index(gap)
        spans = {**self.spans, name: (start, rank)}
        return Layout(spans, (*free[:at], *rest, *free[at + 1 :]), rows)

    def _drop(self, name: str) -> "Layout":
        spans = dict(self.spans)
        joined: list[Span] = []
        for start, length in sorted((*self._free, spans.pop(name))):
            if joined and sum(joined[-1]) == start:
                joined[-1] = (joined[-1][0], joined[-1][1] + length)
            else:
                joined.append((start, length))
        return Layout(spans, tuple(joined), self.rows)


EMPTY = Layout({}, (), 1)
"""Of a stack that holds nothing but the row of zeros which pads others."""
