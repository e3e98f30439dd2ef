"""Where a layer's input holds the rows of the batch."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class RowLayout:
    """The dimension that holds the rows, in runs of k (``r r s s``) or in k tiles (``r s r s``)."""

    dim: int
    tiled: bool = False
    counts: frozenset[int] = frozenset({1})
    """The k that were seen."""

    def fits(self, x: Tensor, rows: int, lengths: Collection[int]) -> bool:
        """Whether what was seen determines where the rows of another input are."""
        k, rest = divmod(x.shape[self.dim], rows)
        if rest or (k > 1 and self.counts == {1}):  # runs and tiles look alike where k is 1
            return False
        # Tokens gathered by their content can have any number; those of rows cannot.
        return x.ndim > 2 or k in self.counts or k in lengths

    def rows_first(
        self, x: Float[Tensor, "*leading d"], rows: int
    ) -> Float[Tensor, "rows positions d"]:
        """The input with everything of a row together: a view where rows come first already."""
        if not self.dim and not self.tiled and x.ndim == 3 and x.shape[0] == rows:
            return x
        x = x.movedim(self.dim, 0)
        if self.tiled:
            x = x.unflatten(0, (-1, rows)).transpose(0, 1)
        return x.reshape(rows, -1, x.shape[-1])

    def put_back(self, y: Float[Tensor, "rows positions d"], like: Tensor) -> Tensor:
        """An output of :meth:`rows_first` in the shape that the layer's own output has."""
        if not self.dim and not self.tiled:
            return y.reshape(like.shape)
        shape = like.movedim(self.dim, 0).shape
        if self.tiled:
            y = y.reshape(y.shape[0], shape[0] // y.shape[0], -1, y.shape[-1]).transpose(0, 1)
        return y.reshape(shape).movedim(0, self.dim).contiguous()


SAME = "does not depend on the rows"
"""Why there is no layout where an input is the same whatever the rows hold."""
Place = Callable[[str, Tensor], tuple[RowLayout, int]]
"""Finds where the input of the layer at a path holds the rows, and how many rows there are."""


def locate_rows(
    changes: Sequence[tuple[Bool[Tensor, "*leading"], Sequence[int]]], rows: int
) -> RowLayout | str:
    """The layout in which exactly the altered rows changed, or the reason why there is none.

    ``changes`` are places of a layer's input that changed, and the rows that were changed.
    """
    if not any(changed.any() for changed, _ in changes):
        return SAME
    shape = changes[0][0].shape
    for dim, size in enumerate(shape):
        if size % rows:
            continue
        k = size // rows
        for tiled in (False, True)[: 2 if k > 1 else 1]:
            place = torch.arange(size, device="cpu")
            owner = place % rows if tiled else place // k
            if all(_agree(changed, dim, owner, chosen) for changed, chosen in changes):
                return RowLayout(dim, tiled, frozenset({k}))
    return "does not keep the rows apart, or orders them by their content"


def rows_hit(changed: Bool[Tensor, "*leading"], layout: RowLayout, rows: int) -> set[int]:
    """The rows whose places in an input of a known layout changed."""
    found = layout.rows_first(changed.unsqueeze(-1), rows).flatten(1).any(1)
    return set(found.nonzero().flatten().tolist())


def combine_layouts(one: "RowLayout | str", other: "RowLayout | str") -> "RowLayout | str":
    """What two calls of a layer show together."""
    if isinstance(one, str) or isinstance(other, str):
        return one if isinstance(one, str) else other
    if one.dim == other.dim and (one.tiled == other.tiled or {1} in (one.counts, other.counts)):
        return replace(one, tiled=one.tiled or other.tiled, counts=one.counts | other.counts)
    return "holds the rows in different places from call to call"


def differs(
    one: Float[Tensor, "*leading d"], other: Float[Tensor, "*leading d"], tolerance: float
) -> Bool[Tensor, "*leading"]:
    """Where two sketches of an input differ by more than rounding; the last column is its norm."""
    norms = torch.maximum(one[..., -1:], other[..., -1:])
    apart = (one - other)[..., :-1].abs() > tolerance * norms
    return (apart | (one.isnan() != other.isnan())[..., :-1]).any(-1).cpu()


def sketch(x: Float[Tensor, "*leading d"]) -> Float[Tensor, "*leading 5"]:
    """Four random projections of every vector, and its norm."""
    wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))  # also ids
    generator = torch.Generator().manual_seed(x.shape[-1])
    directions = torch.randn(x.shape[-1], 4, generator=generator, device="cpu").to(wide)
    return torch.cat([wide @ directions, wide.norm(dim=-1, keepdim=True)], -1)


def rounding(dtype: torch.dtype) -> float:
    """How much summation in another order may change, relative to a vector's norm."""
    own = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
    return max(64 * torch.finfo(torch.float32).eps, 8 * own)


def splits(rows: int) -> list[list[int]]:
    """Sets of rows to change: a half at random, the other half, and another half."""
    generator = torch.Generator().manual_seed(rows)
    order, again = (
        torch.randperm(rows, generator=generator, device="cpu").tolist() for _ in range(2)
    )
    half = math.ceil(rows / 2)
    found = [sorted(order[:half]), sorted(order[half:])]
    return found if rows == 2 else [*found, sorted(again[:half])]


def _agree(changed: Tensor, dim: int, owner: Tensor, chosen: Sequence[int]) -> bool:
    hit = changed.movedim(dim, 0).flatten(1).any(1) if changed.ndim > 1 else changed
    return set(owner[hit].tolist()) == set(chosen)
