"""Blocks that project a tensor shared by all rows, and so cannot be routed row by row.

DeBERTa's attention sends its relative positions, one tensor for the whole batch, through the
layers that also project the rows. Under a route it runs once for every run of rows with the
same adapters; everything around it still runs once.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from geodapt.adapters.execution.active_gate import ActiveGate
from geodapt.adapters.execution.row_tracking import RowTracker
from geodapt.adapters.execution.row_trials import Recorder
from geodapt.errors import InputError

SHARING = {"DisentangledSelfAttention"}
"""Classes of such blocks."""
PER_ROW = {"hidden_states", "attention_mask", "query_states"}
"""Those of their arguments that have a row for every row of the batch."""


def shares_input(module: nn.Module) -> bool:
    """Whether a block projects something that all rows share."""
    return type(module).__name__ in SHARING


def run_by_rows(
    active: ActiveGate,
    rows: RowTracker,
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
    gate = active()
    if isinstance(gate, Recorder):
        gate.record(path, hidden_states)
        with gate.pause():
            return base(hidden_states, *args, **kwargs)
    runs, count = gate.runs(), hidden_states.shape[0]
    entries = sum(size for _, size in runs)
    if len(runs) > 1:
        layout, found = rows.place(path, hidden_states)
        if layout.dim or layout.tiled or found != count:
            raise InputError(f"block {path} does not hold the batch's rows in its first dimension")
    named = dict(zip(("attention_mask",), args, strict=False)) | kwargs
    positional = args[1:]
    results, start = [], 0
    for run, size in runs:
        stop = start + size * (count // entries)
        mine = {
            key: value[start:stop]
            if key in PER_ROW and isinstance(value, Tensor) and value.shape[0] == count
            else value
            for key, value in named.items()
        }
        mask = (mine.pop("attention_mask"),) if args else ()
        with active.under(run), rows.within(None):
            results.append(base(hidden_states[start:stop], *mask, *positional, **mine))
        start = stop
    if isinstance(results[0], Tensor):
        return torch.cat(results)
    return tuple(
        torch.cat(part) if isinstance(part[0], Tensor) else part[0]
        for part in zip(*results, strict=True)
    )
