"""A gate resolved against a store: per layer, which factors act, and how."""

from collections.abc import Callable
from itertools import groupby

from torch import Tensor, nn

from geodapt.adapters.execution.gate_checks import check_dora
from geodapt.adapters.execution.layer_entries import LayerEntries
from geodapt.adapters.execution.layer_update import LayerUpdate
from geodapt.adapters.execution.parameters import ParameterUpdate
from geodapt.adapters.execution.row_layout import Place
from geodapt.adapters.gates import Gate, Mix, Route, Terms, TopAtoms, names_of
from geodapt.adapters.store.acting import ActingAtLayer
from geodapt.adapters.store.adapter_store import AdapterStore
from geodapt.errors import InputError


class ResolvedGate:
    """What a gate does at every layer. Prepared at the first use of a layer and then kept."""

    looks = False
    """Whether the model runs only to find out which rows its layers' inputs belong to."""

    def __init__(self, store: AdapterStore, gate: Gate) -> None:
        self.store, self.gate = store, gate
        self.names = names_of(gate)
        within = gate.of if isinstance(gate, TopAtoms) else gate
        self.routes = within if isinstance(within, Route) else None
        per_sequence = isinstance(gate, TopAtoms) and gate.per == "sequence"
        self.tells_rows_apart = len(set(gate.entries)) > 1 or per_sequence
        self._version = store.version
        self._reset()

    @property
    def stale(self) -> bool:
        """Whether something prepared is no longer valid."""
        return self._marks != self.store.versions(self.names)

    def refresh(self) -> None:
        """Drop what is no longer valid: an adapter changed, or the model moved."""
        if self._version != self.store.version:
            self._version = self.store.version
            if self.stale:
                self._reset()

    def _reset(self) -> None:
        self._marks = self.store.versions(self.names)
        self.training = self.names & self.store.training
        self._updates: dict[str, LayerUpdate | None] = {}
        self._entries: dict[ActingAtLayer, LayerEntries] = {}
        self._parameters: dict[str, ParameterUpdate] = {}
        self._runs: list[tuple[ResolvedGate, int]] | None = None
        self._alone: dict[Terms, ResolvedGate] = {}
        check_dora(self.gate, self.store)
        if self.training and isinstance(self.gate, TopAtoms):
            raise InputError(
                f"TopAtoms acts on frozen adapters, and '{min(self.training)}' is training; "
                "call train_only() first"
            )

    def run(
        self,
        path: str,
        layer: nn.Module,
        base: Callable[[Tensor], Tensor],
        x: Tensor,
        place: Place,
    ) -> Tensor:
        """The layer's output under the gate; ``base`` computes it without.

        ``place`` finds the rows in ``x`` where they have different adapters.
        """
        update = self.update(path)
        return base(x) if update is None else update.run(layer, base, x, place)

    def note(self, path: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        """Record what a layer gets, where the gate :attr:`looks`."""

    def record(self, path: str, x: Tensor) -> None:
        """The same of any module."""

    def update(self, path: str) -> LayerUpdate | None:
        """What is added at a layer; None where no adapter acts."""
        if self._version != self.store.version:
            self.refresh()
        updates = self._updates  # which another thread may replace meanwhile
        try:
            return updates[path]
        except KeyError:
            entries = self._entries_at(self.store.acting.at(path))
            update = LayerUpdate(self.store, path, entries) if entries.names else None
            updates[path] = update
            return update

    def _entries_at(self, acting: ActingAtLayer) -> LayerEntries:
        """The gate's entries at a layer: the same for all at which the same adapters act."""
        known = self._entries
        entries = known.get(acting)
        if entries is None:
            entries = LayerEntries(self.store, self.gate, self.training, acting)
            known[acting] = entries
        return entries

    def parameter(self, path: str) -> ParameterUpdate:
        """What is added to a parameter that its module uses by itself."""
        self.refresh()
        if path not in self._parameters:
            self._parameters[path] = ParameterUpdate(self.store, self.gate, path, self.training)
        return self._parameters[path]

    def alone(self, terms: Terms) -> "ResolvedGate":
        """What the gate does to rows with these terms, when they run by themselves."""
        self.refresh()
        if terms not in self._alone:
            mix, top = Mix(dict(terms)), self.gate
            gate = TopAtoms(top.keep, mix, top.per) if isinstance(top, TopAtoms) else mix
            self._alone[terms] = ResolvedGate(self.store, gate)
        return self._alone[terms]

    def runs(self) -> "list[tuple[ResolvedGate, int]]":
        """A gate for each run of equal entries of a route, with the length of the run."""
        self.refresh()
        if self._runs is None:
            if self.routes:
                runs = [(terms, len(list(run))) for terms, run in groupby(self.gate.entries)]
                self._runs = [(self.alone(terms), length) for terms, length in runs]
            else:
                self._runs = [(self, 1)]
        return self._runs

    def heads(self) -> frozenset[str]:
        """The paths of the modules that the gate's adapters bring."""
        return frozenset(p for name in self.names for p in self.store.adapters[name].heads)

    def acts_at(self, path: str) -> bool:
        """Whether the gate changes a module, one of its parameters, or puts a head there."""
        touched = {p for name in self.names for p in self.store.adapters[name].touched}
        return path in self.heads() or any(
            self.changes(p) for p in touched if path in (p, p.rpartition(".")[0])
        )

    def changes(self, path: str) -> bool:
        """Whether the gate changes a layer: an adapter acts there that trains or is not zero."""
        entries = self.store.restrict(self.gate.entries, path)
        adapters = self.store.adapters
        return any(
            name in self.store.training
            or path in adapters[name].additions
            or adapters[name].factors[path].B.any()
            for name in {name for row in entries for name, _ in row}
        )
