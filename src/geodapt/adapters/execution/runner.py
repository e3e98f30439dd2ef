"""A model whose layers act under the active gate."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.uncalled import HANDLED, calling
from geodapt.adapters.execution.active_gate import ActiveGate
from geodapt.adapters.execution.attached import AttachedModules, path_above, paths_above
from geodapt.adapters.execution.compiled import register_runner
from geodapt.adapters.execution.deberta import run_by_rows, shares_input
from geodapt.adapters.execution.heads import HeadRunner
from geodapt.adapters.execution.model_calls import ModelCalls
from geodapt.adapters.execution.parameter_rows import run_owner_by_rows
from geodapt.adapters.execution.resolved_gate import ResolvedGate
from geodapt.adapters.execution.row_tracking import RowTracker
from geodapt.adapters.execution.torch_layers import run_calling
from geodapt.adapters.gates import Off
from geodapt.adapters.peft_files.kinds import PARAMETER
from geodapt.adapters.store.adapter_store import AdapterStore
from geodapt.errors import InputError


class Runner:
    """Wraps the layers that a store's adapters touch, and adds the active gate's updates."""

    def __init__(self, store: AdapterStore) -> None:
        self.store, self.model = store, store.model
        self.active = ActiveGate(ResolvedGate(store, Off()))
        self.attached = AttachedModules(store.model, store.layers)
        self.rows = RowTracker(store, self.active)
        self.heads = HeadRunner(store, self.active, self.attached, self.rows)
        self._calls = ModelCalls(store.model, self.active, self.attached, self.rows)
        self._number = register_runner(self)

    def attach(self, adapter: Adapter) -> None:
        """Reach into what an adapter touches and brings."""
        before = self.attached.version
        self.heads.attach(adapter)
        for path in adapter.touched:
            above = path_above(path)
            site = self.store.layers[path]
            if site.kind == PARAMETER:
                if above not in self.attached:
                    paths = [each for each in self.store.parameters if path_above(each) == above]
                    run = partial(run_owner_by_rows, self.active, self.rows, paths)
                    self.attached.add(above, site.module, run)
                continue
            if path in self.attached:
                continue
            self.attached.add(path, site.module, partial(self._run, path))
            block = self.model.get_submodule(above)
            if above not in self.attached and shares_input(block):
                run = partial(run_by_rows, self.active, self.rows, above)
                self.attached.add(above, block, run)
            for holder in paths_above(path):
                block = self.model.get_submodule(holder)
                if holder not in self.attached and isinstance(block, HANDLED):
                    self.attached.add(holder, block, partial(self._run_handled, holder))
        if self.attached.version != before:
            self.rows.forget()

    def keep(self, adapters: Mapping[str, Adapter]) -> None:
        """Release the modules that none of these adapters touches."""
        touched = {path for adapter in adapters.values() for path in adapter.touched}
        around = {above for path in touched for above in paths_above(path)}
        heads = (path for adapter in adapters.values() for path in adapter.heads)
        self.attached.keep(touched | around, heads)

    def close(self) -> None:
        """Release the model."""
        self.attached.keep((), ())
        self._calls.close()

    def add_update(self, path: str, y: Tensor, x: Tensor) -> None:
        """Add the active gate's update of ``x`` at a layer into ``y``, in what was compiled."""
        self.rows.compiled(path)
        gate = self.active()
        gate.note(path, self.store.layers[path].module, x, y)
        update = gate.update(path)
        if update is None:
            return
        if update.tells_rows_apart and self.rows.call is None:
            raise InputError(
                f"layer {path} is in a part of the model that was compiled and called on its own, "
                "where its rows are not known; compile the whole model, or run this part as it is"
            )
        result = update.add(x, y, training=False, place=self.rows.place)
        if result.data_ptr() != y.data_ptr():
            y.copy_(result)

    def _run(
        self, path: str, layer: nn.Module, base: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        x, args = (args[0], args[1:]) if args else (kwargs.pop(next(iter(kwargs))), ())
        if args or kwargs:  # what a layer reads beside its input, as a Lorentz layer its time
            base = partial(_with, base, args, kwargs)
        if torch.compiler.is_compiling():
            if torch.compiler.is_exporting():
                return self._run_recorded(path, base, x)
            return self._run_compiled(path, layer, base, x)
        if torch.jit.is_tracing():
            return self._run_recorded(path, base, x)
        if self.rows.watch is None:
            return self.active().run(path, layer, base, x, self.rows.place)
        self.rows.called(path)
        with calling(path):
            return self.active().run(path, layer, base, x, self.rows.place)

    def _run_compiled(self, path: str, layer: nn.Module, base: Callable, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # factors that train are no inputs of the graph
            torch._dynamo.graph_break()
            self.rows.compiled(path)
            return self.active().run(path, layer, base, x, self.rows.place)
        y = base(x)
        torch.ops.geodapt.add_update(y, x, self._number, path)
        return y

    def _run_recorded(self, path: str, base: Callable, x: Tensor) -> Tensor:
        """In what is exported or traced, which outlives the gate."""
        if self.active().update(path) is not None:
            raise InputError(
                f"layer {path} is exported or traced while adapters act, and what comes out would "
                "know nothing of gates; merge them first (bank.merge_into_base), and export or "
                "trace under Off()"
            )
        return base(x)

    def _run_handled(
        self, path: str, module: nn.Module, base: Callable, *args: Any, **kwargs: Any
    ) -> Any:
        gate = self.active()
        if gate.looks or any(gate.update(inner) for inner in self.attached.layers_below(path)):
            return run_calling(module, base, *args, **kwargs)
        return base(*args, **kwargs)


def _with(base: Callable, args: tuple, kwargs: Mapping[str, Any], x: Tensor) -> Tensor:
    """``base`` of x and what came with it."""
    return base(x, *args, **kwargs)
