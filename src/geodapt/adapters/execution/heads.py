"""Modules that an adapter brings trained in full (``modules_to_save``) at work.

A classifier, a norm, an embedding or any other module. A row runs through its own adapter's copy
of the module and through the base's where its adapters bring none; nothing is copied but what
the adapters bring.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.uncalled import calling
from geodapt.adapters.execution.active_gate import ActiveGate
from geodapt.adapters.execution.attached import AttachedModules
from geodapt.adapters.execution.row_tracking import RowTracker
from geodapt.adapters.gates import Terms
from geodapt.adapters.peft_files.saved_modules import Head
from geodapt.adapters.store.adapter_store import AdapterStore
from geodapt.adapters.store.heads import swap
from geodapt.errors import InputError


class HeadRunner:
    """Runs the modules that adapters bring, each row through its own adapter's."""

    def __init__(
        self, store: AdapterStore, active: ActiveGate, attached: AttachedModules, rows: RowTracker
    ) -> None:
        self.store, self.active, self.attached, self.rows = store, active, attached, rows
        self._before: dict[str, Head] = {}
        """What the base's modules held before a merge."""

    def attach(self, adapter: Adapter) -> None:
        """Reach into the modules that an adapter brings."""
        for path in adapter.heads:
            self.attached.add_head(path, partial(self.run, path))

    @contextmanager
    def merged(self, adapters: Iterable[Adapter]) -> Iterator[None]:
        """Put adapters' heads into the base's own modules, unless the block fails."""
        heads = {path: head for adapter in adapters for path, head in adapter.heads.items()}
        self._before = swap(self.store.model, heads)
        try:
            yield
        except BaseException:
            self.unmerge()
            raise

    def merged_names(self) -> list[str]:
        """The names of the base's tensors whose place merged heads took."""
        return [f"{path}.{key}" for path, head in self._before.items() for key in head]

    def unmerge(self, there: Collection[str] | None = None) -> None:
        """Give the base's modules the very tensors that they had; only those still ``there``."""
        before = {
            path: {k: t for k, t in head.items() if there is None or f"{path}.{k}" in there}
            for path, head in self._before.items()
        }
        swap(self.store.model, {path: head for path, head in before.items() if head})
        self._before = {}

    def run(self, path: str, module: nn.Module, base: Any, *args: Any, **kwargs: Any) -> Any:
        """A module's output, each row by the module that its adapters bring; ``base`` else."""
        if torch.compiler.is_compiling():
            torch._dynamo.graph_break()
        gate = self.active()
        self.rows.called(path)
        if gate.looks:
            with suppress(InputError):  # which a route with unlike heads raises
                gate.record(path, _as_vectors(_only_tensor(path, args, kwargs)))
            with calling(path):
                return base(*args, **kwargs)
        owners = [self._owner(path, terms) for terms in gate.gate.entries]
        if len(set(owners)) == 1:
            return self._through(owners[0], path, module, base, args, kwargs)
        # Where adapters change layers of the base's module, its rows run adapter by adapter.
        touched = self.attached.touches(path)
        x = _only_tensor(path, args, kwargs)
        if not x.shape[0]:
            return self._through(None, path, module, base, args, kwargs)
        layout, rows = self.rows.place(path, _as_vectors(x))
        if layout.dim or layout.tiled or x.shape[0] % rows:
            raise InputError(
                f"{path} does not get the batch's rows first, so that they cannot run through "
                "different adapters' heads; use one adapter for the whole batch"
            )
        each = x.shape[0] // len(owners)
        where: dict[tuple[str | None, Terms], list[int]] = {}
        for entry, (owner, terms) in enumerate(zip(owners, gate.gate.entries, strict=True)):
            alone = terms if owner is None and touched else ()
            where.setdefault((owner, alone), []).append(entry)
        order: list[int] = []
        outputs = []
        for (owner, terms), mine in where.items():
            index = [entry * each + i for entry in mine for i in range(each)]
            order += index
            part = x[torch.tensor(index, device=x.device)]
            some = [part if value is x else value for value in args]
            named = {key: part if value is x else value for key, value in kwargs.items()}
            with self.active.under(gate.alone(terms)), self.rows.within(None):
                outputs.append(self._through(owner, path, module, base, some, named))
        return _joined(path, outputs, torch.tensor(order, device=x.device).argsort())

    def _owner(self, path: str, terms: Terms) -> str | None:
        heads = ((name, self.store.adapters[name].heads) for name, _ in terms)
        return next((name for name, brought in heads if path in brought), None)

    def _through(
        self,
        owner: str | None,
        path: str,
        module: nn.Module,
        base: Any,
        args: Collection[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        if owner is None:
            with calling(path):
                return base(*args, **kwargs)
        device = next(chain(module.parameters(), module.buffers())).device
        if device.type == "meta":  # offloaded in the meantime
            device = _only_tensor(path, args, kwargs).device
        with self.store.lock:
            head = self.store.adapters[owner].heads[path]
            copy = self.store.heads.get(owner, path, module, head, device)
        copy.train(module.training)
        if owner not in self.store.training:
            return copy(*args, **kwargs)
        masters = self.store.masters_of(owner).head(path)
        now = {key: masters[key].to(tensor.dtype) for key, tensor in copy.state_dict().items()}
        return functional_call(copy, now, tuple(args), dict(kwargs))


def _only_tensor(path: str, args: Collection[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """The one tensor among a module's arguments."""
    values = [*args, *kwargs.values()]
    tensors = [value for value in values if isinstance(value, Tensor)]
    simple = (Tensor, str, int, float, type(None))
    other = next((value for value in values if not isinstance(value, simple)), None)
    if len(tensors) != 1 or other is not None:
        what = f"{len(tensors)} tensors" if other is None else f"a {type(other).__name__}"
        raise InputError(
            f"{path} takes {what}, so that its rows cannot be told apart and each run through "
            "its own adapter's head; use one adapter for the whole batch"
        )
    return tensors[0]


def _as_vectors(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.unsqueeze(-1)  # ids


def _joined(path: str, outputs: list[Any], order: Tensor) -> Any:
    """The rows' outputs in the batch's order."""
    tensors = all(isinstance(output, Tensor) for output in outputs)
    if tensors and sum(output.shape[0] for output in outputs) == len(order):
        return torch.cat(outputs)[order]
    raise InputError(
        f"{path} gives no tensor with one row for each row that it takes, so that rows cannot run "
        "through different adapters' heads; use one adapter for the whole batch"
    )
