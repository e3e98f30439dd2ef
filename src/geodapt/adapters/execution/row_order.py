"""Whether layers keep the rows in order, which models that sort them by their lengths do not.

Lengths stand in masks, which other trials leave as they are: a batch that is
sorted already looks like one that nothing sorts. So the model runs once with every row longer than
the one before, and once with the same rows in the other order.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from geodapt.adapters.execution.altered_inputs import Arguments, Vocabulary, changed
from geodapt.adapters.execution.calls import Call, tensors_of
from geodapt.adapters.execution.row_layout import RowLayout
from geodapt.adapters.execution.same_inputs import Sketch

UNORDERED = "holds the rows in an order that their lengths or masks decide"
MASK = re.compile(r"(^|attention_|pad\w*_)mask$")
"""Names of masks that leave out what is padded."""
CLEARLY = 10.0
"""How many times nearer to another row a row has to lie to be that one: models also draw noise by
place, and amplify rounding."""


def growing(call: Call, inputs: Arguments, model: nn.Module) -> Arguments:
    """Copies of a call's arguments, each row longer than the one before.

    A row loses up to half of its length, at the end or, where that is where the padding is, at the
    beginning. Rows keep their lengths where tokens stand for pictures.
    """
    tensors = dict(tensors_of(call.module, *inputs))
    ids = Vocabulary(call.module, model, tensors)
    masks = [_real(name, t) for name, t in tensors.items() if MASK.search(name) and t.ndim == 2]
    left = any(not real[:, 0].all() for real in masks)
    special = torch.tensor(sorted(ids.special), dtype=torch.long, device="cpu")

    def shorten(name: str, value: Tensor) -> Tensor:
        if value.is_floating_point() or value.shape[0] != call.rows:
            return value
        if value.ndim == 1 and "length" in name:
            return torch.minimum(value, _lengths(call.rows, int(value.max())).to(value))
        if value.ndim != 2:
            return value
        length = value.shape[1]
        kept = torch.arange(length, device="cpu") < _lengths(call.rows, length)[:, None]
        kept = (kept.flip(1) if left else kept).to(value.device)
        if MASK.search(name):
            real = _real(name, value)
            some = (real & kept).any(1, keepdim=True)
            return value.masked_fill(some & ~kept, "pad" in name)
        if name.endswith("input_ids") and ids.padding is not None:
            free = ~torch.isin(value, special.to(value))
            return value.masked_fill(free & ~kept, ids.padding)
        return value

    return changed(call.module, *inputs, lambda n, t: t if ids.placeholders else shorten(n, t))


def backwards(call: Call, inputs: Arguments) -> Arguments:
    """Copies of a call's arguments with the rows in the other order."""

    def turn(name: str, value: Tensor) -> Tensor:
        return value.flip(0) if value.ndim and value.shape[0] == call.rows else value

    def turn_cache(value: Any) -> Any:
        if hasattr(value, "reorder_cache"):
            value.reorder_cache(torch.arange(call.rows or 0, device="cpu").flip(0))
        return value

    return changed(call.module, *inputs, turn, turn_cache)


def in_order(
    seen: Sequence[Sketch], turned: Sequence[Sketch], layout: RowLayout, call: Call
) -> bool:
    """Whether a layer that got ``seen`` gets every row in its own place when all are turned."""
    return len(seen) == len(turned) and all(
        _same_places(*both, layout, call) for both in zip(seen, turned, strict=True)
    )


def _same_places(one: Sketch, turned: Sketch, layout: RowLayout, call: Call) -> bool:
    assert call.rows is not None
    (a, rounding), (b, _) = one, turned
    if a.shape != b.shape or not layout.fits(a, call.rows, call.lengths):
        return False
    wide = torch.promote_types(a.dtype, torch.float32)
    a, b = (layout.rows_first(x, call.rows).flatten(1).to(wide) for x in (a, b))
    apart = torch.cdist(b.flip(0), a, compute_mode="donot_use_mm_for_euclid_dist")
    least = torch.maximum(apart.min(1).values, rounding * a.norm(dim=1))
    return not (apart.diagonal() > CLEARLY * least).any()


def _real(name: str, mask: Tensor) -> Bool[Tensor, "rows length"]:
    """Where a mask has no padding, which "padding masks" mark and others leave out."""
    return mask.bool() ^ ("pad" in name)


def _lengths(rows: int, longest: int) -> Int[Tensor, " rows"]:
    """From half of the longest to all of it."""
    number = torch.arange(rows, device="cpu")
    return longest - (longest // 2) * (rows - 1 - number) // max(rows - 1, 1)
