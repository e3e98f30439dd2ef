"""Which rows of the batch a layer's input belongs to: found by changing some of them.

Layers get their input batch first, sequence first, flattened, in windows, gathered by expert or
shared by all rows, and no name says which. So before a gate first treats rows differently in a
sort of call, the model runs as it is and a few times with some rows' inputs changed, without
adapters and without gradients. Where a layer's input changed tells whose it is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from geodapt.adapters.base_model.lowering import lowering_of
from geodapt.adapters.base_model.uncalled import WeightReads
from geodapt.adapters.execution.altered_inputs import altered
from geodapt.adapters.execution.calls import Call, call_of, compiling, expansion, on_calls
from geodapt.adapters.execution.hooks import Attachment
from geodapt.adapters.execution.resolved_gate import ResolvedGate
from geodapt.adapters.execution.row_layout import (
    Layout,
    combine_layouts,
    differs,
    locate_rows,
    rounding,
    sketch,
    splits,
)
from geodapt.adapters.gates import Off
from geodapt.errors import InputError

if TYPE_CHECKING:
    from geodapt.adapters.bank import AdapterBank

INSTEAD = (
    "run rows under different adapters in batches of their own, or use adapters without this layer"
)
LARGE = 2**20
"""Buffers of more numbers than this are not kept: no running statistic is so large."""


class RowTracker:
    """What a bank knows about the rows of the running call, and of layers in past ones."""

    def __init__(self, bank: "AdapterBank") -> None:
        self._bank = bank
        self._call: ContextVar[Call | None] = ContextVar("call", default=None)
        self._runs: ContextVar[int] = ContextVar("runs", default=1)
        self._layouts: dict[tuple[nn.Module, str, int], Layout | str] = {}
        self._proven: set[tuple] = set()
        self._failed: dict[nn.Module, str] = {}
        self._watch: ContextVar[WeightReads | None] = ContextVar("watch", default=None)
        self._passed_over: dict[tuple, frozenset[str]] = {}
        self.handles: list[Any] = []
        whole = [m for m in bank.model.modules() if isinstance(m, PreTrainedModel)]
        # Parts may be called on their own too, as generate calls an encoder.
        parts = [part for module in whole for part in module.children()]
        for module in dict.fromkeys([bank.model, *whole, *parts]):
            self.handles += on_calls(module, self._enter, self._leave, module is bank.model)
        for module in whole:
            if module.can_generate():
                self.handles.append(Attachment(module, self._generate, "generate"))

    @property
    def call(self) -> Call | None:
        """The outermost call of the model that is running in this thread."""
        return self._call.get()

    @property
    def looking(self) -> bool:
        """Whether the model runs only to see whose a layer's input is."""
        return self._bank.active_plan().looks

    @contextmanager
    def within(self, call: Call | None) -> Iterator[None]:
        """As if inside of a call; of none, layers take the first dimension for the rows."""
        token = self._call.set(call)
        try:
            yield
        finally:
            self._call.reset(token)

    def forget(self) -> None:
        """Look again: layers were adapted that were not before."""
        self._proven.clear()
        self._passed_over.clear()

    def called(self, path: str) -> None:
        """A layer is called."""
        watch = self._watch.get()
        if watch is not None:
            watch.called.add(path)

    def compiled(self, path: str) -> None:
        """A layer is called in what was compiled."""
        watch = self._watch.get()
        if watch is not None:
            watch.compiled.add(path)

    @property
    def watching(self) -> bool:
        """Whether it is seen whose weights the running call reads."""
        return self._watch.get() is not None

    def place(self, path: str, x: Tensor, plan: ResolvedGate) -> tuple[Layout, int]:
        """Where a layer's input holds the rows, and how many there are.

        Raises :class:`InputError` where that is not known.
        """
        call, entries = self.call, len(plan.gate.entries)
        if call is None:  # the layer itself was called
            alone = entries == 1 and not plan.routes
            rows = x.shape[0] if x.ndim > 2 or not alone else 1
            check_rows(plan, rows, f"at layer {path}")
            return Layout(0), rows
        if call.rows == 1:
            return Layout(0, counts=frozenset({x.numel() // x.shape[-1]})), 1
        if call.rows is None:
            raise InputError(f"no input of {call.name} holds the batch's rows; {INSTEAD}")
        found = self._layouts.get((call.module, path, x.ndim))
        if isinstance(found, Layout) and found.fits(x, call.rows, call.lengths):
            return found, call.rows
        if found is None and call.module in self._failed:
            found = f"could not be seen, as other inputs do not run ({self._failed[call.module]})"
        elif not isinstance(found, str):
            self._proven.discard((call.module, call.kind, call.single))
            found = "has a shape that it did not have when the rows were looked for"
        raise InputError(
            f"layer {path} of {call.name} cannot act on some rows only: its input of shape "
            f"{tuple(x.shape)} {found}; {INSTEAD}"
        )

    # Calls

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        plan = self._bank.active_plan()
        if self.call is not None or not plan.names:
            return
        self._bank.replaced.check(plan)
        call = call_of(module, args, kwargs)
        if call.rows is not None:
            check_rows(plan, call.rows, f"of {call.name}", self._runs.get())
        if plan.tells_rows_apart and (call.rows or 0) > 1 and not self._known(call):
            self._prove(call, args, kwargs)
        sort = self._sort(call)
        if sort in self._passed_over:
            self._check_called(plan, sort)
        elif compiling():  # what is compiled is not looked into
            watch = WeightReads(module, self._bank.layers_in(module))
            with self._watching(watch):
                self._seen(call, *altered(module, args, kwargs, [], 0, self._bank.model))
            self._passed_over[sort] = watch.passed_over
            self._check_called(plan, sort)
        else:
            watch = WeightReads(module, self._bank.layers_in(module))
            watch.__enter__()
            self._watch.set(watch)
        self._call.set(call)

    def _leave(self, module: nn.Module, done: bool) -> None:
        call, watch = self.call, self._watch.get()
        if call is None or call.module is not module:
            return
        self._call.set(None)
        if watch is not None:
            watch.__exit__(None, None, None)
            self._watch.set(None)
            if done:
                sort = self._sort(call)
                self._passed_over[sort] = watch.passed_over
                self._check_called(self._bank.active_plan(), sort)

    @contextmanager
    def _watching(self, watch: WeightReads) -> Iterator[None]:
        token = self._watch.set(watch)
        try:
            with watch, torch.no_grad():
                yield
        finally:
            self._watch.reset(token)

    def _sort(self, call: Call) -> tuple:
        """What decides which layers a call calls."""
        grad = torch.is_grad_enabled()
        return (call.module, call.kind, call.single, grad, self._bank.wrapped())

    def _check_called(self, plan: ResolvedGate, sort: tuple) -> None:
        """Raise where a gate changes layers whose weight the model reads by itself."""
        for path in sorted(self._passed_over[sort]):
            if self._bank.changes(plan, path):
                raise InputError(
                    f"the weight of layer {path} is read without calling the layer: by what holds "
                    "it, or because another library took the bank's wrapper off; an adapter cannot "
                    "act there. Use one without this layer, merge it into the base, or make a new "
                    "AdapterBank"
                )

    def _generate(self, model: Any, base: Callable, *args: Any, **kwargs: Any) -> Any:
        token = self._runs.set(expansion(model, args, kwargs))
        try:
            return base(*args, **kwargs)
        finally:
            self._runs.reset(token)

    # Proofs

    def _known(self, call: Call) -> bool:
        kinds = [(call.module, call.kind, False), (call.module, call.kind, call.single)]
        return any(kind in self._proven for kind in kinds)

    @torch.compiler.disable
    @torch.no_grad()
    def _prove(self, call: Call, args: tuple, kwargs: dict[str, Any]) -> None:
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
                inputs = altered(call.module, args, kwargs, rows, seed, self._bank.model)
                try:
                    runs.append(self._seen(call, *inputs))
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

    def _seen(
        self, call: Call, args: list, kwargs: dict[str, Any]
    ) -> "dict[tuple[str, int], list[tuple[Tensor, float]]]":
        """What the adapted layers get from a pass."""
        recorder = Recorder(self._bank)
        devices = {p.device.index for p in call.module.parameters() if p.device.type == "cuda"}
        with (
            torch.random.fork_rng(devices=sorted(devices)),
            self._bank.under(recorder),
            self.within(call),
        ):
            call.module.forward(*args, **kwargs)
        return recorder.seen


class Recorder(ResolvedGate):
    """No adapter acts; what the layers get is written down, as a sketch."""

    looks = True

    def __init__(self, bank: "AdapterBank") -> None:
        super().__init__(bank, Off())
        self.seen: dict[tuple[str, int], list[tuple[Tensor, float]]] = {}
        self.paused = False

    def run(self, path: str, layer: nn.Module, base: Callable[..., Tensor], x: Tensor) -> Tensor:
        y = base(x)
        self.note(path, layer, x, y)
        return y

    def note(self, path: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        """Write down what a layer gets that gives ``y``."""
        lower = lowering_of(layer)
        self.record(path, x if lower is None else lower(x, y)[0])

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Write nothing down inside of the block."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def record(self, path: str, x: Tensor) -> None:
        """Write down what something gets."""
        if not self.paused:
            self.seen.setdefault((path, x.ndim), []).append((sketch(x), rounding(x.dtype)))


def check_rows(plan: ResolvedGate, rows: int, where: str, runs: int = 1) -> None:
    """Raise where a route does not have an entry for each row."""
    if not plan.routes:
        return
    entries = len(plan.gate.entries)
    fine = rows % entries == 0 if plan.routes.blocks else rows in (entries, entries * runs)
    if not fine:
        raise InputError(
            f"the route has {entries} entries, the batch {where} {rows} rows; give one entry a "
            "row (None for the base alone)"
        )


def _found(
    records: list[list[tuple[Tensor, float]]], chosen: list[list[int]], rows: int
) -> Layout | str:
    """A layer's layout, from what it got as it is and under each change."""
    plain, *changed = records
    found: Layout | str | None = None
    if any(len(record) != len(plain) for record in changed):
        return "depends on what the rows say"
    for i, (before, tolerance) in enumerate(plain):
        if any(record[i][0].shape != before.shape for record in changed):
            return "depends in its shape on what the rows say"
        places = [
            (differs(before, record[i][0], tolerance), split)
            for record, split in zip(changed, chosen, strict=True)
        ]
        layout = locate_rows(places, rows)
        found = layout if found is None else combine_layouts(found, layout)
    return found if found is not None else "was not there when the rows were looked for"
