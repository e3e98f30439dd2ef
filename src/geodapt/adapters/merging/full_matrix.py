"""Merging updates entry by entry: which entries stay, and how those at one place combine.

Signs and magnitudes of entries are not in the factors, so the updates are formed here, a band of
rows at a time.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.merging.registry import Part

BAND = 1 << 18
"""Entries of a band, over all adapters: a megabyte in float32."""
Combine = Callable[[Tensor, Tensor], Tensor]
"""The signature of :func:`weighted_sum` and :func:`merge_agreeing`."""


def weighted_sum(
    deltas: Float[Tensor, " n *places"], weights: Float[Tensor, " n"]
) -> Float[Tensor, "*places"]:
    """``sum_i w_i delta_i``, in one pass over the updates."""
    return (weights[None] @ deltas.flatten(1)).view(deltas.shape[1:])


def merge_agreeing(
    deltas: Float[Tensor, " n *places"], weights: Float[Tensor, " n"]
) -> Float[Tensor, "*places"]:
    """Elect a sign for every entry, then average those that have it; writes over ``deltas``.

    The sign with the greater total magnitude wins (zero counts as positive); the result is the
    weighted sum over the updates with that sign, divided by their number.

    Source: TIES, Yadav et al. 2023, arXiv:2306.01708, section 4, steps 2 and 3.
    """
    sign = weighted_sum(deltas, torch.ones_like(weights)).ge_(0).mul_(2).sub_(1)
    agreeing = deltas.mul_(sign).clamp_(min=0)
    count = (agreeing > 0).sum(0).clamp_(min=1)
    return weighted_sum(agreeing, weights).mul_(sign).div_(count)


def merge_largest(
    parts: Sequence[Part], density: float, combine: Combine
) -> Float[Tensor, "out in"]:
    """Merge exactly the largest ``density`` of each update's entries.

    Entries that tie with the smallest one kept are kept too.
    """
    merged, weights = _room(parts)
    count = int(density * merged.numel())
    if count == 0:
        return merged.zero_()
    least = torch.stack([_largest(part, count, len(parts)) for part in parts])
    for rows, deltas in _bands(parts, len(parts)):
        stays = deltas.abs() >= least[:, None, None]
        merged[rows] = combine(deltas.mul_(stays), weights)
    return merged


def merge_random(
    parts: Sequence[Part], density: float, seed: int, combine: Combine
) -> Float[Tensor, "out in"]:
    """Keep each entry with probability ``density``, divide it by that, and merge.

    So the expected value stays. Source: DARE, Yu et al. 2024, arXiv:2311.03099, equation 2.
    """
    merged, weights = _room(parts)
    random = np.random.Generator(np.random.SFC64(seed))  # several times as fast as torch's
    for rows, deltas in _bands(parts, len(parts)):
        stays = torch.from_numpy(random.random(deltas.shape, dtype=np.float32) < density)
        merged[rows] = combine(deltas.mul_(stays), weights / density)
    return merged


def _room(parts: Sequence[Part]) -> tuple[Float[Tensor, "out in"], Float[Tensor, " n"]]:
    """Room for the merged matrix, and the weights."""
    first = parts[0]
    merged = first.A.new_empty(first.B.shape[0], first.A.shape[1])
    return merged, merged.new_tensor([part.weight for part in parts])


def _bands(parts: Sequence[Part], share: int) -> Iterator[tuple[slice, Float[Tensor, "n band in"]]]:
    """The rows of each band, and all parts' updates there, without their weights.

    The height of a band depends on ``share``, so that an update has the same bits in every pass:
    products of other shapes round differently. The caller may overwrite what it gets; the next band
    uses the same memory.
    """
    rows, width = parts[0].B.shape[0], parts[0].A.shape[1]
    height = min(max(BAND // (share * width), 1), rows)
    room = parts[0].A.new_empty(len(parts), height, width)
    for start in range(0, rows, height):
        band = slice(start, min(start + height, rows))
        deltas = room[:, : band.stop - band.start]
        for part, delta in zip(parts, deltas, strict=True):
            torch.mm(part.B[band], part.A, out=delta)
        yield band, deltas


def _largest(part: Part, count: int, share: int) -> Float[Tensor, ""]:
    """The ``count``-th largest magnitude of an update's entries."""
    sizes = part.A.new_empty(part.B.shape[0], part.A.shape[1])
    for rows, (delta,) in _bands([part], share):
        torch.abs(delta, out=sizes[rows])
    flat, place = sizes.view(-1).numpy(), sizes.numel() - count
    flat.partition(place)  # several times as fast as torch.kthvalue, and in place
    return sizes.view(-1)[place]
