"""Which rows of the batch a layer's input belongs to: found by changing some of them.

Layers get their input batch first, sequence first, flattened, in windows, gathered by expert or
shared by all rows, and no name says which. So before a gate first treats rows differently in a kind
of call, the model runs as it is and a few times with some rows' inputs changed, without adapters
and without gradients. Where a layer's input changed shows which row it belongs to.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from geodapt.adapters.base_model.lowering import lowering_of
from geodapt.adapters.base_model.uncalled import WeightReads
from geodapt.adapters.execution.active_gate import ActiveGate
from geodapt.adapters.execution.altered_inputs import altered
from geodapt.adapters.execution.calls import Call
from geodapt.adapters.execution.resolved_gate import ResolvedGate
from geodapt.adapters.execution.row_layout import (
    SAME,
    Place,
    RowLayout,
    combine_layouts,
    differs,
    locate_rows,
    rounding,
    sketch,
    splits,
)
from geodapt.adapters.execution.same_inputs import (
    DisturbedRows,
    Key,
    Placements,
    Seen,
    effects,
    row_tensors,
)
from geodapt.adapters.gates import Off
from geodapt.adapters.store.adapter_store import AdapterStore
from geodapt.errors import InputError

INSTEAD = (
    "run rows under different adapters in batches of their own, or use adapters without this layer"
)
LARGE = 2**20
"""Buffers of more numbers than this are not kept: no running statistic is so large."""


class RowTracker:
    """What is known about the rows of the running call, and of layers in past ones."""

    def __init__(self, store: AdapterStore, active: ActiveGate) -> None:
        self._store, self._active = store, active
        self._call: ContextVar[Call | None] = ContextVar("call", default=None)
        self._layouts: dict[tuple[nn.Module, str, int], RowLayout | str] = {}
        self._proven: set[tuple] = set()
        self._failed: dict[nn.Module, str] = {}
        self.placements = Placements(store.model)
        self._watch: ContextVar[WeightReads | None] = ContextVar("watch", default=None)

    @property
    def call(self) -> Call | None:
        """The outermost call of the model that is running in this thread."""
        return self._call.get()

    def begin(self, call: Call | None) -> None:
        """The outermost call begins, or, with None, ends."""
        self._call.set(call)

    @contextmanager
    def within(self, call: Call | None) -> Iterator[None]:
        """As if inside of a call; of none, layers take the first dimension for the rows."""
        token = self._call.set(call)
        try:
            yield
        finally:
            self._call.reset(token)

    def forget(self) -> None:
        """Forget what was found, since other layers are adapted now."""
        self._proven.clear()

    # Whose weights the running call reads

    @property
    def watch(self) -> WeightReads | None:
        """What notes whose weights the running call reads, in a sort of call that is new."""
        return self._watch.get()

    @watch.setter
    def watch(self, watch: WeightReads | None) -> None:
        self._watch.set(watch)

    def called(self, path: str) -> None:
        """A module is called."""
        watch = self._watch.get()
        if watch is not None:
            watch.called.add(path)

    def compiled(self, path: str) -> None:
        """A layer is called in what was compiled."""
        watch = self._watch.get()
        if watch is not None:
            watch.compiled.add(path)

    # Rows

    def place(self, path: str, x: Tensor) -> tuple[RowLayout, int]:
        """Where a layer's input holds the rows, and how many there are.

        Raises :class:`InputError` where that is not known.
        """
        call, gate = self.call, self._active()
        if call is None:  # the layer itself was called
            alone = len(gate.gate.entries) == 1 and not gate.routes
            rows = x.shape[0] if x.ndim > 2 or not alone else 1
            check_rows(gate, rows, f"at layer {path}")
            return RowLayout(0), rows
        if call.rows == 1:
            return RowLayout(0, counts=frozenset({x.numel() // x.shape[-1]})), 1
        if call.rows is None:
            raise InputError(f"no input of {call.name} holds the batch's rows; {INSTEAD}")
        found = self._layouts.get((call.module, path, x.ndim))
        if isinstance(found, RowLayout) and found.fits(x, call.rows, call.lengths):
            return found, call.rows
        if found is None and call.module in self._failed:
            found = f"could not be seen, as other inputs do not run ({self._failed[call.module]})"
        elif not isinstance(found, str):
            self._proven.discard((call.module, call.kind, call.single))
            found = "has a shape that was not seen when the rows were traced"
        raise InputError(
            f"layer {path} of {call.name} cannot act on some rows only: its input of shape "
            f"{tuple(x.shape)} {found}; {INSTEAD}"
        )

    def known(self, call: Call) -> bool:
        """Whether calls of this kind were analysed."""
        kinds = [(call.module, call.kind, False), (call.module, call.kind, call.single)]
        return any(kind in self._proven for kind in kinds)

    @torch.compiler.disable
    @torch.no_grad()
    def prove(self, call: Call, args: tuple, kwargs: dict[str, Any]) -> None:
        """Find out where every adapted layer's input holds the rows."""
        assert call.rows is not None
        buffers = [
            (buffer, buffer.clone())
            for buffer in call.module.buffers()
            if buffer.numel() <= LARGE and buffer.device.type != "meta"
        ]
        chosen = splits(call.rows)
        runs = []
        try:
            for seed, rows in enumerate([[], *chosen]):
                inputs = altered(call.module, args, kwargs, rows, seed, self._store.model)
                try:
                    runs.append(self.look(call, *inputs))
                except Exception as error:  # which the call itself raises again if it is at fault
                    self._failed[call.module] = f"{type(error).__name__}: {error}"
                    return
        finally:
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
        for key in dict.fromkeys(key for run in runs for key in run):
            layout = _found([run.get(key, []) for run in runs], chosen, call.rows)
            at = (call.module, *key)
            self._layouts[at] = combine_layouts(self._layouts.get(at, layout), layout)
        self._proven.add((call.module, call.kind, call.single))
        self._follow_same(call, args, kwargs, chosen)

    def _follow_same(
        self, call: Call, args: tuple, kwargs: dict[str, Any], chosen: list[list[int]]
    ) -> None:
        """Where the rows are in layers whose input is the same for all, by what they change.

        Learned queries are repeated for each row before a layer reads the row. If noise in the
        output's first places changes, in all that is known of, these rows alone, they hold the
        rows.
        """
        assert call.rows is not None
        known: dict[Key, RowLayout] = {}
        same = set()
        for (module, path, ndim), layout in self._layouts.items():
            if module is call.module and isinstance(layout, RowLayout):
                known[path, ndim] = layout
            elif module is call.module and layout == SAME:
                same.add((path, ndim))
        if not same:
            return
        runs = []
        for rows in [[], *chosen]:
            recorder = Recorder(self._store, DisturbedRows(frozenset(same), call.rows, rows))
            inputs = altered(call.module, args, kwargs, [], 0, self._store.model)
            seen = self.look(call, *inputs, recorder=recorder)
            runs.append((seen, recorder.outputs))
        if all(
            effects(runs[0], run, known, call.rows) == set(rows)
            for run, rows in zip(runs[1:], chosen, strict=True)
        ):
            for path, ndim in recorder.disturbed:
                self._layouts[call.module, path, ndim] = RowLayout(0)

    def look(
        self, call: Call, args: list, kwargs: dict[str, Any], recorder: "Recorder | None" = None
    ) -> Seen:
        """What the adapted layers get from a pass of the model as it is."""
        recorder = recorder or Recorder(self._store)
        devices = {p.device.index for p in call.module.parameters() if p.device.type == "cuda"}
        with (
            torch.random.fork_rng(devices=sorted(devices)),
            self._active.under(recorder),
            self.within(call),
        ):
            recorder.outputs = list(row_tensors(call.module.forward(*args, **kwargs), call.rows))
        return recorder.seen


class Recorder(ResolvedGate):
    """A gate without adapters that records what the layers get, as sketches."""

    looks = True

    def __init__(self, store: AdapterStore, noise: DisturbedRows | None = None) -> None:
        super().__init__(store, Off())
        self.seen: Seen = {}
        self.outputs: list[tuple[Tensor, float]] = []
        """Sketches of what the call gives with a row for each of the batch's."""
        self.disturbed: set[Key] = set()
        self._noise = noise
        self.paused = False

    def run(
        self,
        path: str,
        layer: nn.Module,
        base: Callable[[Tensor], Tensor],
        x: Tensor,
        place: Place,
    ) -> Tensor:
        y = base(x)
        self.note(path, layer, x, y)
        if self._noise is None or not self._noise.fits(path, x, y) or self.paused:
            return y
        self.disturbed.add((path, x.ndim))
        return self._noise.put_into(y)

    def note(self, path: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        """Record what a layer gets when it returns ``y``."""
        lower = lowering_of(layer)
        self.record(path, x if lower is None else lower(x, y)[0])

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Record nothing inside of the block."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def record(self, path: str, x: Tensor) -> None:
        """Record what a module gets."""
        if not self.paused:
            self.seen.setdefault((path, x.ndim), []).append((sketch(x), rounding(x.dtype)))


def check_rows(gate: ResolvedGate, rows: int, where: str, runs: int = 1) -> None:
    """Raise where a route does not have an entry for each row."""
    if not gate.routes:
        return
    entries = len(gate.gate.entries)
    fine = rows % entries == 0 if gate.routes.blocks else rows in (entries, entries * runs)
    if not fine:
        raise InputError(
            f"the route has {entries} entries, the batch {where} {rows} rows; give one entry a "
            "row (None for the base alone)"
        )


def _found(
    records: list[list[tuple[Tensor, float]]], chosen: list[list[int]], rows: int
) -> RowLayout | str:
    """A layer's layout, from what it got as it is and under each change."""
    plain, *changed = records
    found: RowLayout | str | None = None
    if any(len(record) != len(plain) for record in changed):
        return "depends on the rows' content"
    for i, (before, tolerance) in enumerate(plain):
        if any(record[i][0].shape != before.shape for record in changed):
            return "has a shape that depends on the rows' content"
        places = [
            (differs(before, record[i][0], tolerance), split)
            for record, split in zip(changed, chosen, strict=True)
        ]
        layout = locate_rows(places, rows)
        found = layout if found is None else combine_layouts(found, layout)
    return found if found is not None else "was not seen when the rows were traced"
