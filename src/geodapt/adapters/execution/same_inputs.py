"""Layers whose input is the same in every row: where their rows are shows in what they change.

Learned queries are such inputs, repeated for each row before a layer reads the row (BLIP-2,
Perceiver, DETR). The other sort belongs to all rows, as relative positions do.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from geodapt.adapters.execution.altered_inputs import Vocabulary
from geodapt.adapters.execution.calls import Call, main_input, tensors_of
from geodapt.adapters.execution.row_layout import RowLayout, differs, rounding, rows_hit, sketch

Key = tuple[str, int]
Sketch = tuple[Tensor, float]
Seen = dict[Key, list[Sketch]]
"""By a layer's path and its input's number of dimensions, each input's sketch and rounding."""


class Placements:
    """How many placeholders of pictures or sound the rows of a call have.

    A trial leaves pictures as they are where they take the place of tokens: which row a picture
    belongs to is up to these, and what is found holds for calls with as many in each row alone.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._ids: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()

    def of(self, call: Call, args: tuple, kwargs: Mapping[str, Any]) -> Call:
        """The call, of a kind of its own for its placeholders."""
        tensors = dict(tensors_of(call.module, args, kwargs))
        main = main_input(call.module, tensors)
        if main is None or call.single or tensors[main].is_floating_point():
            return call
        if call.module not in self._ids:
            found = Vocabulary(call.module, self._model, tensors).placeholders
            self._ids[call.module] = torch.tensor(sorted(found), dtype=torch.long, device="cpu")
        ids = self._ids[call.module]
        if not len(ids):
            return call
        counts = torch.isin(tensors[main], ids.to(tensors[main].device)).flatten(1).sum(1)
        return replace(call, kind=(*call.kind, ("placeholders", *counts.tolist())))


@dataclass(frozen=True)
class DisturbedRows:
    """Noise in some rows of what layers give, if the rows are in their first dimension."""

    keys: frozenset[Key]
    """The layers, and of inputs of how many dimensions: another input may hold the rows otherwise,
    or in an order that their content decides."""
    rows: int
    chosen: list[int]

    def fits(self, path: str, x: Tensor, y: Tensor) -> bool:
        """Whether a layer is one of these, with as many inputs and outputs as rows."""
        known = (path, x.ndim) in self.keys
        return known and x.ndim > 1 and self.rows == x.shape[0] == y.shape[0]

    def put_into(self, y: Tensor) -> Tensor:
        """What the layer gives, disturbed."""
        generator = torch.Generator().manual_seed(y.shape[-1])
        noise = torch.randn(y.shape, generator=generator, device="cpu").to(y)
        spread = y.std().nan_to_num().clamp_min(0.1)
        chosen = torch.zeros(self.rows, dtype=torch.bool, device=y.device)
        chosen[self.chosen] = True
        return torch.where(chosen.view(-1, *(1 for _ in y.shape[1:])), y + noise * spread, y)


def effects(
    plain: tuple[Seen, list[Sketch]],
    changed: tuple[Seen, list[Sketch]],
    known: Mapping[Key, RowLayout],
    rows: int,
) -> set[int] | None:
    """The rows in which two passes differ, in layers of known layout and what comes out."""
    found: set[int] = set()
    for key, layout in known.items():
        before, after = plain[0].get(key, []), changed[0].get(key, [])
        if [one.shape for one, _ in before] != [other.shape for other, _ in after]:
            return None
        for (one, tolerance), (other, _) in zip(before, after, strict=True):
            found |= rows_hit(differs(one, other, tolerance), layout, rows)
    for (one, tolerance), (other, _) in zip(plain[1], changed[1], strict=True):
        found |= set(differs(one, other, tolerance).nonzero().flatten().tolist())
    return found


def row_tensors(value: Any, rows: int | None) -> Iterator[Sketch]:
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.ndim > 1 and value.shape[0] == rows:
            yield sketch(value.flatten(1)), rounding(value.dtype)
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from row_tensors(part, rows)
