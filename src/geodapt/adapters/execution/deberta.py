"""Blocks that project something which all rows share, and so cannot be routed row by row.

DeBERTa's attention sends its relative positions, one tensor for the whole batch, through the
layers that also project the rows. Under a route it runs once for every run of rows with the
same adapters; everything around it still runs once.
"""

from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from geodapt.adapters.execution.resolved_gate import ResolvedGate
from geodapt.adapters.execution.row_tracking import Recorder
from geodapt.adapters.gates import Mix, TopAtoms
from geodapt.errors import InputError

if TYPE_CHECKING:
    from geodapt.adapters.bank import AdapterBank

SHARING = {"DisentangledSelfAttention"}
"""Classes of such blocks."""
PER_ROW = {"hidden_states", "attention_mask", "query_states"}
"""Those of their arguments that have a row for every row of the batch."""


def shares_input(module: nn.Module) -> bool:
    """Whether a block projects something that all rows share."""
    return type(module).__name__ in SHARING


def run_by_rows(
    bank: "AdapterBank",
    path: str,
    block: nn.Module,
    base: Callable,
    hidden_states: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """The block's output, computed separately for rows under different adapters."""
    if torch.compiler.is_compiling():
        torch._dynamo.graph_break()
    plan = bank.active_plan()
    if isinstance(plan, Recorder):
        plan.record(path, hidden_states)
        with plan.pause():
            return base(hidden_states, *args, **kwargs)
    parts, rows = parts_of(plan), hidden_states.shape[0]
    entries = sum(size for _, size in parts)
    if len(parts) > 1:
        layout, count = bank.rows.place(path, hidden_states, plan)
        if layout.dim or layout.tiled or count != rows:
            raise InputError(f"block {path} does not hold the batch's rows in its first dimension")
    named = dict(zip(("attention_mask",), args, strict=False)) | kwargs
    positional = args[1:]
    results, start = [], 0
    for plan, size in parts:
        stop = start + size * (rows // entries)
        mine = {
            key: value[start:stop]
            if key in PER_ROW and isinstance(value, Tensor) and value.shape[0] == rows
            else value
            for key, value in named.items()
        }
        mask = (mine.pop("attention_mask"),) if args else ()
        with bank.under(plan), bank.rows.within(None):
            results.append(base(hidden_states[start:stop], *mask, *positional, **mine))
        start = stop
    if isinstance(results[0], Tensor):
        return torch.cat(results)
    return tuple(
        torch.cat(part) if isinstance(part[0], Tensor) else part[0]
        for part in zip(*results, strict=True)
    )


def parts_of(plan: ResolvedGate) -> list[tuple[ResolvedGate, int]]:
    """One plan for every run of equal entries of a route, with the length of the run."""
    if plan.parts is None:
        parts = []
        for terms, run in groupby(plan.gate.entries):
            mix = Mix(dict(terms))
            top = plan.gate
            gate = TopAtoms(top.keep, mix, top.per) if isinstance(top, TopAtoms) else mix
            parts.append((ResolvedGate(plan.bank, gate), len(list(run))))
        plan.parts = parts if plan.routes else [(plan, 1)]
    return plan.parts
