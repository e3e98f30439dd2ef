"""Heads that could not act, because the model reads their module's weights without calling it.

Before an adapter's head is first used in a sort of call, the model runs once as it is, without
adapters and gradients, and it is seen whether the base's weights are read elsewhere.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from geodapt.adapters.base_model.uncalled import Reads
from geodapt.adapters.execution.altered_inputs import altered
from geodapt.adapters.execution.calls import Call, call_of, on_calls
from geodapt.adapters.execution.row_tracking import Recorder
from geodapt.errors import InputError

if TYPE_CHECKING:
    from geodapt.adapters.bank import AdapterBank


class UncalledHeads:
    """What a bank knows about the heads that its model does not call."""

    def __init__(self, bank: "AdapterBank") -> None:
        self._bank = bank
        self._outermost: ContextVar[nn.Module | None] = ContextVar("outermost", default=None)
        self._found: dict[tuple, set[str]] = {}
        self.handles: list[Any] = []

    def watch(self) -> None:
        """Look into calls from now on, as there are heads."""
        if self.handles:
            return
        model = self._bank.model
        whole = [m for m in model.modules() if isinstance(m, PreTrainedModel)]
        for module in dict.fromkeys([model, *whole]):
            self.handles += on_calls(module, self._enter, self._leave, module is model)

    def close(self) -> None:
        """Look into calls no more."""
        for handle in self.handles:
            handle.remove()
        self.handles = []
        self._found.clear()

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        plan = self._bank.active_plan()
        if plan.looks or self._outermost.get() is not None:
            return
        heads = frozenset(path for name in plan.names for path in self._bank.heads_of(name))
        if not heads:
            return
        call = call_of(module, args, kwargs)
        key = (module, call.kind, call.single, heads)
        if key not in self._found:
            self._found[key] = self._look(call, args, kwargs, heads)
        for path in self._found[key]:
            raise InputError(
                f"{type(module).__name__} does not call {path} but reads its weight, so that an "
                "adapter's own (modules_to_save) would not act; merge the adapter into the base "
                "(bank.merge_into_base), or add it without its head"
            )
        self._outermost.set(module)

    def _leave(self, module: nn.Module, done: bool) -> None:
        if self._outermost.get() is module:
            self._outermost.set(None)

    @torch.compiler.disable
    @torch.no_grad()
    def _look(
        self, call: Call, args: tuple, kwargs: dict[str, Any], heads: frozenset[str]
    ) -> set[str]:
        model = self._bank.model
        if call.rows is None:
            return set()
        owners: dict[int, set[str]] = {}
        for path, module in model.named_modules():
            for parameter in module._parameters.values():
                if parameter is not None:
                    owners.setdefault(id(parameter), set()).add(path)
        watched = {
            id(parameter): path
            for path in heads
            for parameter in model.get_submodule(path).parameters()
            # A tied one may be another module's, and one that is offloaded is brought by a hook.
            if len(owners[id(parameter)]) == 1 and parameter.device.type != "meta"
        }
        before = [(buffer, buffer.clone()) for buffer in model.buffers()]
        devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
        inputs = altered(call.module, args, kwargs, [], 0, model)
        try:
            with (
                torch.random.fork_rng(devices=sorted(devices)),
                self._bank.under(Recorder(self._bank)),
                self._bank.rows.within(call),
                Reads(watched) as reads,
            ):
                call.module.forward(*inputs[0], **inputs[1])
        except Exception:  # which the call itself raises again if it is at fault
            return set()
        finally:
            for buffer, value in before:
                if buffer.device.type != "meta" and not torch.equal(buffer, value):
                    buffer.copy_(value)
        return reads.found
