"""Around each outermost call of a model: what a gate cannot do in it is refused."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from geodapt.adapters.base_model.uncalled import WeightReads
from geodapt.adapters.execution.active_gate import ActiveGate
from geodapt.adapters.execution.altered_inputs import altered
from geodapt.adapters.execution.argument_flags import ArgumentFlags
from geodapt.adapters.execution.attached import AttachedModules
from geodapt.adapters.execution.call_sizes import Size, between
from geodapt.adapters.execution.calls import Call, call_of, compiling, on_calls
from geodapt.adapters.execution.generated_rows import expansion, rows_generated_from
from geodapt.adapters.execution.hooks import Attachment
from geodapt.adapters.execution.model_flags import ModelFlags
from geodapt.adapters.execution.replaced import ReplacedModules
from geodapt.adapters.execution.resolved_gate import ResolvedGate
from geodapt.adapters.execution.row_tracking import RowTracker, check_rows
from geodapt.adapters.execution.sorting_callers import sorted_by_caller
from geodapt.errors import InputError


class ModelCalls:
    """Refuses, before or right after a call, what a gate cannot do in it."""

    def __init__(
        self, model: nn.Module, active: ActiveGate, attached: AttachedModules, rows: RowTracker
    ) -> None:
        self._model, self._active, self._attached, self._rows = model, active, attached, rows
        self._generating: ContextVar[tuple[int, int | None]] = ContextVar(
            "generating", default=(1, None)
        )
        """How many rows ``generate`` makes of each, and how many it was given."""
        self._replaced = ReplacedModules(attached)
        self._flags, self._asked = ModelFlags(model), ArgumentFlags()
        self._passed_over: dict[tuple, dict[Size, frozenset[str]]] = {}
        """By sort and size of call, the modules whose weight it reads without calling them."""
        self._norms = {p: m for p, m in model.named_modules() if isinstance(m, _BatchNorm)}
        self._handles: list[Any] = []
        whole = [m for m in model.modules() if isinstance(m, PreTrainedModel)]
        # Parts may be called on their own too, as generate calls an encoder.
        parts = [part for module in whole for part in module.children()]
        for module in dict.fromkeys([model, *whole, *parts]):
            self._handles += on_calls(module, self._enter, self._leave, model)
        for module in whole:
            if module.can_generate():
                self._handles.append(Attachment(module, self._generate, "generate"))

    def close(self) -> None:
        """Stop checking calls."""
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        gate = self._active()
        if self._rows.call is not None or not gate.names:
            return
        self._replaced.check(gate, module)
        call = call_of(module, args, kwargs, self._flags.number(), self._asked)
        if call.rows is not None:
            check_rows(gate, call.rows, f"of {call.name}", *self._generating.get())
        if gate.tells_rows_apart and (call.rows or 0) > 1:
            self._check_norms(module)
            if sorted_by_caller():
                raise InputError(
                    "sentence-transformers sorts what it encodes by length, so that a route's "
                    "entries would act on other rows; give it the texts from the longest to the "
                    "shortest, or those of one adapter at a time"
                )
            call = self._rows.placements.of(call, args, kwargs)
            if not self._rows.known(call):
                self._rows.prove(call, args, kwargs)
        if (passed_over := self._known_reads(call)) is not None:
            self._check_called(gate, passed_over)
        elif compiling():  # what is compiled is not looked into
            self._rows.watch = watch = self._watch(module)
            try:
                with watch, torch.no_grad():
                    self._rows.look(call, *altered(module, args, kwargs, [], 0, self._model))
            finally:
                self._rows.watch = None
            self._note_reads(call, watch)
            self._check_called(gate, watch.passed_over)
        else:
            self._rows.watch = watch = self._watch(module)
            watch.__enter__()
        self._rows.begin(call)

    def _leave(self, module: nn.Module, done: bool) -> None:
        call, watch = self._rows.call, self._rows.watch
        if call is None or call.module is not module:
            return
        self._rows.begin(None)
        if watch is not None:
            watch.__exit__(None, None, None)
            self._rows.watch = None
            if done:
                self._note_reads(call, watch)
                self._check_called(self._active(), watch.passed_over)

    def _check_norms(self, module: nn.Module) -> None:
        """Raise where a norm would mix rows under different adapters, before it counts them."""
        for path, norm in self._norms.items():
            if (norm.training or norm.running_mean is None) and norm in set(module.modules()):
                raise InputError(
                    f"{path} is a {type(norm).__name__} in training mode: it would take the "
                    "statistics of rows under different adapters together; call eval() on it or on "
                    "the model, or run the rows of each adapter as a batch of their own"
                )

    def _watch(self, module: nn.Module) -> WeightReads:
        watched = self._attached.layers_in(module) | self._attached.heads_in(module)
        return WeightReads(module, watched)

    def _sort(self, call: Call) -> tuple:
        """What decides which modules a call calls."""
        grad, attached = torch.is_grad_enabled(), self._attached
        return (call.module, call.kind, call.single, grad, attached.version, attached.wrapped())

    def _note_reads(self, call: Call, watch: WeightReads) -> None:
        self._passed_over.setdefault(self._sort(call), {})[call.size] = watch.passed_over

    def _known_reads(self, call: Call) -> frozenset[str] | None:
        """The modules that are passed over in calls of this sort and size; None: not known yet."""
        by_size = self._passed_over.get(self._sort(call), {})
        if call.size in by_size:
            return by_size[call.size]
        never = not any(by_size.values()) and between(call.size, by_size)
        return frozenset() if never else None

    def _check_called(self, gate: ResolvedGate, passed_over: frozenset[str]) -> None:
        """Raise where a gate changes modules whose weight the model reads by itself."""
        for path in sorted(passed_over & gate.heads()):
            raise InputError(
                f"{type(self._model).__name__} does not call {path} but reads its weight, so that "
                "an adapter's own (modules_to_save) would not act; merge the adapter into the base "
                "(bank.merge_into_base), or add it without its head"
            )
        for path in sorted(passed_over):
            if gate.changes(path):
                raise InputError(
                    f"the weight of layer {path} is read without calling the layer: by what holds "
                    "it, or because another library took the bank's wrapper off; an adapter cannot "
                    "act there. Use one without this layer, merge it into the base, or make a new "
                    "AdapterBank"
                )

    def _generate(self, model: Any, base: Callable, *args: Any, **kwargs: Any) -> Any:
        rows = rows_generated_from(model, args, kwargs)
        if rows is not None:  # later as many beams as entries would pass for a row each
            name = f"that {type(model).__name__} generates from"
            check_rows(self._active(), rows, name, *self._generating.get())
        token = self._generating.set((expansion(model, args, kwargs), rows))
        try:
            return base(*args, **kwargs)
        finally:
            self._generating.reset(token)
