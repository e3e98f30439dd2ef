"""A gate's entries at layers that the same of its adapters touch, and what follows from them."""

from geodapt.adapters.execution.term_tables import Tables
from geodapt.adapters.gates import Gate, Terms, TopAtoms
from geodapt.adapters.store.acting import ActingAtLayer
from geodapt.adapters.store.adapter_store import AdapterStore


class LayerEntries:
    """What a gate does at some layers alike, worked out once for all of them."""

    def __init__(
        self, store: AdapterStore, gate: Gate, training: frozenset[str], acting: ActingAtLayer
    ) -> None:
        self.entries: list[Terms] = acting.restrict(gate.entries)
        """Without the adapters that do not touch the layers."""
        self.factors: list[Terms] = acting.with_factors(self.entries)
        """Without those that have no factors there, too."""
        self.top = gate if isinstance(gate, TopAtoms) else None
        self.names = frozenset(name for terms in self.entries for name, _ in terms)
        self.alike = len(set(self.entries)) == 1
        self.tells_rows_apart = not self.alike or (
            self.top is not None and self.top.per == "sequence"
        )
        self.any_factors = any(self.factors)
        self.more = not self.names.isdisjoint(acting.by_more)
        """Whether adapters change more than factors do."""
        self.training = training & self.names
        self.dropouts = {n: store.adapters[n].config.lora_dropout for n in self.training}
        self.tables = Tables(self.factors, self.top)
