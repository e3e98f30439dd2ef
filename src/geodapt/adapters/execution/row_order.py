"""Whether layers keep the rows in order, and whole, whatever their lengths are.

Models sort rows by their lengths, or put the positions of all rows together without padding.
Lengths stand in masks, labels, lists and padding, which other trials leave as they are: a batch
that is sorted already looks like one that nothing sorts, and rows of one length like runs of it. So
the model runs once with every row longer than the one before, and once with the same rows in the
other order.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from geodapt.adapters.execution.altered_inputs import Arguments, Vocabulary, changed
from geodapt.adapters.execution.calls import Call, main_input, tensors_of
from geodapt.adapters.execution.row_layout import RowLayout
from geodapt.adapters.execution.same_inputs import Sketch

UNORDERED = "holds the rows in an order that their lengths or masks decide"
MASK = re.compile(r"(^|attention_|pad\w*_)mask$")
"""Names of masks that leave out what is padded."""
NO_LABEL = -100
"""The label of positions that count for nothing, as PyTorch has it."""
CLEARLY = 10.0
"""How many times nearer to another row a row has to lie to be that one: models also draw noise by
place, and amplify rounding."""


class Shortened(NamedTuple):
    """What else changes where rows are shortened."""

    filled: bool
    """What is left of a row is real, where there was padding or no label, too."""
    special: bool
    """What a row loses are special tokens, too."""


HOW = (Shortened(True, True), Shortened(False, True), Shortened(False, False))
"""The ways to shorten rows. Models refuse some: BART wants as many end tokens in each row."""


def growing(call: Call, inputs: Arguments, model: nn.Module, how: Shortened) -> Arguments:
    """Copies of a call's arguments, each row longer than the one before.

    A row loses up to half of the batch's length, at the end or, where that is where the padding is,
    at the beginning. Rows keep their lengths where tokens stand for pictures.
    """
    tensors = dict(tensors_of(call.module, *inputs))
    ids = Vocabulary(call.module, model, tensors)
    masks = [_real(name, t) for name, t in tensors.items() if MASK.search(name) and t.ndim == 2]
    left = any(not real[:, 0].all() for real in masks)
    main = main_input(call.module, tensors)
    special = torch.tensor(sorted(ids.special), dtype=torch.long, device="cpu")

    def shorten(name: str, value: Tensor) -> Tensor:
        labels = "label" in name
        if value.is_floating_point() or not value.ndim or value.shape[0] != call.rows:
            return value
        if ids.placeholders and not labels:
            return value
        if value.ndim == 1 and "length" in name:
            return torch.minimum(value, _lengths(call.rows, int(value.max())).to(value))
        if value.ndim < 2:
            return value
        length = value.shape[1]
        kept = torch.arange(length, device="cpu") < _lengths(call.rows, length)[:, None]
        kept = (kept.flip(1) if left else kept).to(value.device)
        kept = kept.view(*kept.shape, *(1 for _ in value.shape[2:]))
        if labels:
            return torch.where(kept, value.clamp_min(0), NO_LABEL) if how.filled else value
        if MASK.search(name) and value.ndim == 2:
            real = kept if how.filled else _real(name, value)
            some = (real & kept).any(1, keepdim=True)
            value = value.masked_fill(kept & real, "pad" not in name)
            return value.masked_fill(some & ~kept, "pad" in name)
        if name.endswith("input_ids") or name == main:
            if how.filled and ids.padding is not None:
                value = value.masked_fill(value == ids.padding, int(ids.free[0]))
            lost = ~kept if how.special else ~kept & ~torch.isin(value, special.to(value))
            return value.masked_fill(lost, ids.padding or 0)
        return value

    return changed(call.module, *inputs, shorten)


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
    """From half of the longest to all of it, in all no multiple of the rows: positions that a model
    puts together cannot look like runs of one length."""
    number = torch.arange(rows, device="cpu")
    lengths = longest - (longest // 2) * (rows - 1 - number) // max(rows - 1, 1)
    if longest > 1 and not lengths.sum() % rows:
        lengths[0] += 1 if lengths[0] == 1 else -1
    return lengths
