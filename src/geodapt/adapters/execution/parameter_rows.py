"""Rows under different adapters at a module's own parameters: fused experts, routers.

The module runs once for each kind of rows, on their vectors and on whatever else it gets for each
of these, as the experts that a router chose. That is right where a vector's output depends only on
what the module gets for it, as in all of transformers' fused experts.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geodapt.adapters.execution.active_gate import ActiveGate
from geodapt.adapters.execution.parameters import run_owner
from geodapt.adapters.execution.resolved_gate import ResolvedGate
from geodapt.adapters.execution.row_tracking import RowTracker
from geodapt.adapters.gates import Terms, TopAtoms
from geodapt.errors import InputError

INSTEAD = "run the rows of each adapter as a batch of their own"


def run_owner_by_rows(
    active: ActiveGate,
    rows: RowTracker,
    paths: Sequence[str],
    module: nn.Module,
    base: Callable,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """A module's output under the active gate, of which adapters change the parameters ``paths``.

    Raises :class:`InputError` where its vectors do not lie in the order of the batch's rows and
    those have different adapters.
    """
    if torch.compiler.is_compiling():
        torch._dynamo.graph_break()
    gate, owner = active(), paths[0].rpartition(".")[0]
    if gate.looks:
        x = _vectors(args, kwargs)
        if x is not None:
            gate.record(owner, x)
        return base(*args, **kwargs)
    if _alike(gate, paths):
        updates = {path: gate.parameter(path) for path in paths}
        return run_owner(updates, module, base, *args, **kwargs)
    x = _vectors(args, kwargs)
    if x is None:
        raise InputError(
            f"{owner} gets no input that holds the batch's rows, which have different adapters at "
            f"its parameters; {INSTEAD}"
        )
    layout, count = rows.place(owner, x)
    if layout.dim or layout.tiled or x.shape[0] % count:
        raise InputError(
            f"{owner} does not get the batch's rows first, and they have different adapters at its "
            f"parameters; {INSTEAD}"
        )
    each = x.shape[0] // len(gate.gate.entries)
    where: dict[Terms, list[int]] = {}
    for entry, terms in enumerate(gate.gate.entries):
        where.setdefault(terms, []).extend(range(entry * each, (entry + 1) * each))
    outputs = []
    for terms, mine in where.items():
        index, alone = torch.tensor(mine, device=x.device), gate.alone(terms)
        some = [_part(value, index, len(x)) for value in args]
        named = {key: _part(value, index, len(x)) for key, value in kwargs.items()}
        updates = {path: alone.parameter(path) for path in paths}
        with active.under(alone), rows.within(None):
            outputs.append(run_owner(updates, module, base, *some, **named))
    order = torch.tensor([i for mine in where.values() for i in mine], device=x.device).argsort()
    return _in_order(owner, outputs, order)


def _alike(gate: ResolvedGate, paths: Collection[str]) -> bool:
    """Whether all rows have the same adapters at a module's parameters."""
    if isinstance(gate.gate, TopAtoms):  # which is refused at parameters
        return True
    store = gate.store
    matrices = [path if store.parameters[path].count is None else f"{path}[0]" for path in paths]
    return all(len(set(store.restrict(gate.gate.entries, path))) == 1 for path in matrices)


def _vectors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The first floating-point tensor that a module gets: what its parameters multiply."""
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    return next((tensor for tensor in tensors if tensor.is_floating_point()), None)


def _part(value: Any, index: Tensor, count: int) -> Any:
    """An argument's part for some of the vectors, where it has as many entries as there are."""
    if isinstance(value, Tensor) and value.ndim and len(value) == count:
        return value.index_select(0, index.to(value.device))
    return value


def _in_order(owner: str, outputs: Sequence[Any], order: Tensor) -> Any:
    """The outputs of some vectors each, in the batch's order; tensors, or tuples of them."""
    first = outputs[0]
    if isinstance(first, tuple | list):
        parts = zip(*outputs, strict=True)
        return type(first)(_in_order(owner, part, order) for part in parts)
    tensors = [value for value in outputs if isinstance(value, Tensor) and value.ndim]
    if len(tensors) == len(outputs) and sum(map(len, tensors)) == len(order):
        return torch.cat(tensors).index_select(0, order.to(first.device))
    raise InputError(
        f"{owner}'s output does not have one entry for each vector that it gets, so that rows "
        f"under different adapters cannot run apart; {INSTEAD}"
    )
