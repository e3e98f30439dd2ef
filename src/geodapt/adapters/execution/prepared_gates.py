"""A cache of resolved gates."""

from geodapt.adapters.execution.gate_checks import check_terms
from geodapt.adapters.execution.resolved_gate import ResolvedGate
from geodapt.adapters.gates import Gate, Mix, TopAtoms, names_of
from geodapt.adapters.store.adapter_store import AdapterStore

PREPARED = 8
"""How many gates stay prepared; a prepared gate may hold copies of the factors that it uses."""


class PreparedGates:
    """Resolves gates against a store, and keeps those resolved last."""

    def __init__(self, store: AdapterStore) -> None:
        self.store = store
        self._prepared: dict[Gate, ResolvedGate] = {}

    def hold(self, gate: Gate, wait: bool, beside: frozenset[str] = frozenset()) -> ResolvedGate:
        """The gate, resolved, with its adapters on the device until they are released.

        ``wait`` and ``beside`` as in :meth:`DeviceCache.hold`.
        """
        store = self.store
        if isinstance(gate, TopAtoms) and gate.of is None:
            gate = TopAtoms(gate.keep, Mix(dict.fromkeys(store.names, 1.0)), gate.per)
        names = names_of(gate)
        store.require(names)
        for row in dict.fromkeys(gate.entries):
            check_terms(store.adapters, row, store.training)
        store.take_over_changes(names)
        store.cache.hold(names, store.training, wait, beside)
        try:
            with store.lock:
                resolved = self._prepared.pop(gate, None) or ResolvedGate(store, gate)
                resolved.refresh()
                for other in [g for g, prepared in self._prepared.items() if prepared.stale]:
                    del self._prepared[other]  # it may hold factors that left the device
                self._prepared[gate] = resolved  # most recently used last
                while len(self._prepared) > PREPARED:
                    self._prepared.pop(next(iter(self._prepared)))
        except BaseException:
            store.cache.release(names)
            raise
        return resolved

    def forget(self, name: str) -> None:
        """Drop the gates that use an adapter."""
        for gate in [gate for gate in self._prepared if name in names_of(gate)]:
            del self._prepared[gate]
