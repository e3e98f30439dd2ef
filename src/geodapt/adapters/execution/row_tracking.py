"""Which rows of the batch a layer's input belongs to: found by changing some of them.

Layers get their input batch first, sequence first, flattened, in windows, gathered by expert or
shared by all rows, and no name says which. So before a gate first treats rows differently in a kind
of call, trials find it out.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geodapt.adapters.base_model.uncalled import WeightReads
from geodapt.adapters.execution.active_gate import ActiveGate
from geodapt.adapters.execution.attached import paths_above
from geodapt.adapters.execution.call_sizes import Size, between
from geodapt.adapters.execution.calls import Call, named_arguments
from geodapt.adapters.execution.kept_state import KeptState
from geodapt.adapters.execution.resolved_gate import ResolvedGate
from geodapt.adapters.execution.row_layout import (
    SAME,
    RowLayout,
    combine_layouts,
)
from geodapt.adapters.execution.row_order import UNORDERED
from geodapt.adapters.execution.row_trials import Recorder, RowTrials
from geodapt.adapters.execution.same_inputs import (
    Key,
    Placements,
    Seen,
    row_tensors,
)
from geodapt.adapters.store.adapter_store import AdapterStore
from geodapt.errors import InputError

INSTEAD = (
    "run rows under different adapters in batches of their own, or use adapters without this layer"
)


class RowTracker:
    """What is known about the rows of the running call, and of layers in past ones."""

    def __init__(self, store: AdapterStore, active: ActiveGate) -> None:
        self._store, self._active = store, active
        self._call: ContextVar[Call | None] = ContextVar("call", default=None)
        self._layouts: dict[tuple[nn.Module, str, int], RowLayout | str] = {}
        self._proven: dict[tuple, set[Size]] = {}
        self._failed: dict[tuple, str] = {}
        self._sized: set[nn.Module] = set()
        """Whose layers hold rows in runs or tiles, as the size of a call may choose."""
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
        if call is None:
            if method := _method_around(self._store.model, path):
                raise InputError(
                    f"layer {path} runs in {method}, outside of a call of the model, where the "
                    f"rows are not known; call the model itself, or {INSTEAD}"
                )
            alone = len(gate.gate.entries) == 1 and not gate.routes
            rows = x.shape[0] if x.ndim > 2 or not alone else 1
            check_rows(gate, rows, f"at layer {path}")
            return RowLayout(0), rows
        if call.rows == 1:
            return RowLayout(0, counts=frozenset({x.numel() // x.shape[-1]})), 1
        if call.rows is None:
            raise InputError(f"no input of {call.name} holds the batch's rows; {INSTEAD}")
        found = self._layouts.get((call.module, path, x.ndim))
        failed = self._failed.get((call.module, call.kind, call.single))
        if failed is not None:
            found = f"could not be seen, as other inputs do not run ({failed})"
        elif isinstance(found, RowLayout) and found.fits(x, call.rows, call.lengths):
            return found, call.rows
        elif not isinstance(found, str):
            self._proven.pop((call.module, call.kind, call.single), None)
            found = "has a shape that was not seen when the rows were traced"
        raise InputError(
            f"layer {path} of {call.name} cannot act on some rows only: its input of shape "
            f"{tuple(x.shape)} {found}; {INSTEAD}"
        )

    def known(self, call: Call) -> bool:
        """Whether calls of this kind were analysed."""
        kinds = [(call.module, call.kind, False), (call.module, call.kind, call.single)]
        sizes = [self._proven[kind] for kind in kinds if kind in self._proven]
        if call.single or call.module not in self._sized:
            return bool(sizes)
        return any(between(call.size, each) for each in sizes)

    @torch.compiler.disable
    def prove(self, call: Call, args: tuple, kwargs: dict[str, Any]) -> None:
        """Find out where every adapted layer's input holds the rows."""
        assert call.rows is not None
        named = named_arguments(call.module, args, kwargs)
        held = KeptState([call.module, *(v for _, v in named if isinstance(v, nn.Module))])
        trials, module = RowTrials(call, args, kwargs, self._store, self.look), call.module
        kind = module, call.kind, call.single
        try:
            for key, layout in trials.layouts().items():
                at = (module, *key)
                self._layouts[at] = combine_layouts(self._layouts.get(at, layout), layout)
            for key in trials.out_of_order(self._layouts_of(module)):
                self._layouts[module, *key] = UNORDERED
            same = [
                (path, ndim)
                for of, path, ndim in self._layouts
                if of is module and self._layouts[of, path, ndim] == SAME
            ]
            for key in trials.first(same, self._layouts_of(module)):
                self._layouts[module, *key] = RowLayout(0)
            if any(layout.counts != {1} for layout in self._layouts_of(module).values()):
                self._sized.add(module)
        except Exception as error:  # which the call itself raises again if it is at fault
            self._failed[kind] = f"{type(error).__name__}: {error}"
            self._proven.pop(kind, None)
            return
        finally:
            held.put_back()
        self._failed.pop(kind, None)
        self._proven.setdefault(kind, set()).add(call.size)

    def _layouts_of(self, module: nn.Module) -> dict[Key, RowLayout]:
        """The layouts that are known of the layers in calls of a module."""
        return {
            (path, ndim): layout
            for (of, path, ndim), layout in self._layouts.items()
            if of is module and isinstance(layout, RowLayout)
        }

    def look(
        self, call: Call, args: Sequence, kwargs: dict[str, Any], recorder: Recorder | None = None
    ) -> Seen:
        """What the adapted layers get from a pass of the model as it is."""
        recorder = recorder or Recorder(self._store)
        devices = {p.device.index for p in call.module.parameters() if p.device.type == "cuda"}
        with (
            torch.random.fork_rng(devices=sorted(devices)),
            _same_noise(),
            self._active.under(recorder),
            self.within(call),
        ):
            recorder.outputs = list(row_tensors(call.module.forward(*args, **kwargs), call.rows))
        return recorder.seen


@contextmanager
def _same_noise() -> Iterator[None]:
    """What is drawn inside by numpy and Python, as masks of spectrograms are, is drawn again."""
    drawn, state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(drawn)
        random.setstate(state)


def _method_around(model: nn.Module, path: str) -> str | None:
    """The method of a module around a layer that is running; None where the layer was called."""
    above = {id(model.get_submodule(parent)) for parent in paths_above(path)}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if id(owner) in above:
            return f"{type(owner).__name__}.{code.co_name}"
        frame = frame.f_back
    return None


def check_rows(
    gate: ResolvedGate, rows: int, where: str, runs: int = 1, given: int | None = None
) -> None:
    """Raise where a route does not have an entry for each row.

    ``given`` are the rows that ``generate`` was given, of which it makes ``runs`` each.
    """
    if not gate.routes:
        return
    entries = len(gate.gate.entries)
    if not gate.routes.blocks:
        fine = rows in (entries, entries * runs)
    elif given is None:
        fine = rows % entries == 0
    else:  # of fewer nobody knows which are left
        fine = given % entries == 0 and rows in (given, given * runs)
    if not fine and given is not None and rows < given:
        raise InputError(
            f"of the {given} rows that generate was given {rows} are left {where}, and the route "
            "does not know which; generate for the rows of each adapter by themselves"
        )
    if not fine:
        raise InputError(
            f"the route has {entries} entries, the batch {where} {rows} rows; give one entry a "
            "row (None for the base alone)"
        )
