"""Which of a bank's adapters act at a layer: noted as adapters come and go."""

from collections.abc import Sequence
from weakref import WeakValueDictionary

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.gates import Terms

Names = frozenset[str]


class ActingAtLayer:
    """The adapters that act at a layer. What comes or goes makes another of these.

    Layers that the same adapters touch have the very same one, so that what a gate does there is
    worked out once, not layer by layer.
    """

    def __init__(self, touching: Names, by_factors: Names, by_more: Names) -> None:
        self.touching, self.by_factors = touching, by_factors
        self.by_more = by_more
        """By DoRA's magnitudes, biases or rows of tokens."""
        self._next: WeakValueDictionary[tuple, ActingAtLayer] = WeakValueDictionary()

    def put(self, name: str, by_factors: bool, by_more: bool) -> "ActingAtLayer":
        """With one more adapter."""
        change = (name, by_factors, by_more)
        known = self._next.get(change)
        if known is None:
            one = Names([name])
            factors = self.by_factors | one if by_factors else self.by_factors
            more = self.by_more | one if by_more else self.by_more
            known = self._next[change] = ActingAtLayer(self.touching | one, factors, more)
        return known

    def drop(self, name: str) -> "ActingAtLayer":
        """Without an adapter."""
        known = self._next.get((name,))
        if known is None:
            one, sets = Names([name]), (self.touching, self.by_factors, self.by_more)
            known = self._next[(name,)] = ActingAtLayer(*(names - one for names in sets))
        return known

    def restrict(self, entries: Sequence[Terms]) -> list[Terms]:
        """A gate's entries without the adapters that do not touch the layer."""
        return _within(entries, self.touching)

    def with_factors(self, entries: Sequence[Terms]) -> list[Terms]:
        """A gate's entries without the adapters that have no factors at the layer."""
        return _within(entries, self.by_factors)


NOBODY = ActingAtLayer(Names(), Names(), Names())


class Acting:
    """The adapters that act, by layer."""

    def __init__(self) -> None:
        self._layers: dict[str, ActingAtLayer] = {}

    def at(self, path: str) -> ActingAtLayer:
        """The adapters that act at a layer."""
        return self._layers.get(path, NOBODY)

    def put(self, name: str, adapter: Adapter) -> None:
        """Note what an adapter touches."""
        for path in adapter.touched:
            more = path in adapter.magnitudes or path in adapter.additions
            self._layers[path] = self.at(path).put(name, path in adapter.factors, more)

    def drop(self, name: str, adapter: Adapter) -> None:
        """Forget it."""
        for path in adapter.touched:
            left = self._layers[path].drop(name)
            if left.touching:  # in one step, as other threads' gates look without a lock
                self._layers[path] = left
            else:
                del self._layers[path]


def _within(entries: Sequence[Terms], names: Names) -> list[Terms]:
    if all(name in names for terms in entries for name, _ in terms):
        return list(entries)
    return [tuple((n, w) for n, w in terms if n in names) for terms in entries]
