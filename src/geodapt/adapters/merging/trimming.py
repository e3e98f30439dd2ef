"""Merging each update's largest entries.

Which those are is known exactly, without sorting an update and while it is formed once: a sample
brackets the magnitude of the last entry that stays, one pass merges what is larger and keeps the
places where an entry falls into its bracket, and only those are searched, and merged, afterwards
(after Floyd and Rivest 1975). A bracket that misses is widened to everything.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.merging.combining import Combine
from geodapt.adapters.merging.one_pass import one_pass
from geodapt.adapters.merging.registry import Part, empty, weights_of

SAMPLE, SUBSAMPLE = 1 << 16, 1 << 12
SPREAD = 3.5
"""Half a bracket's width, in standard deviations of what the sample says."""
NOTHING, EVERYTHING = (-1.0, -1.0), (-1.0, float("inf"))
"""Brackets that no magnitude is in, since all are above, and that all are in."""


def merge_largest(
    parts: Sequence[Part], density: float, combine: Combine
) -> Float[Tensor, "out in"]:
    """Merge exactly the largest ``density`` of each update's entries.

    Entries as large as the smallest that stays stay too.
    """
    merged, weights = empty(parts), weights_of(parts)
    over, total = one_pass(parts, weights, combine), merged.numel()
    count = int(density * total)
    if count == 0:
        return merged.zero_()
    if count == total:
        brackets = [NOTHING] * len(parts)
    else:
        brackets = [bracket(sizes, count / total) for sizes in sample(parts)]
    while True:
        ends = merged.new_tensor(brackets).T.contiguous()
        places, entries, above = zip(*over.largest(ends, merged), strict=True)
        if count == total:
            return merged
        open, left = torch.cat(entries, 1), (count - sum(above)).tolist()
        missed = []
        for i, size in enumerate(open.abs().numpy()):  # numpy compares several times faster
            inside = size[(size > brackets[i][0]) & (size <= brackets[i][1])]
            if 0 < left[i] <= len(inside):
                torch.hardshrink(open[i], below(inside, left[i]), out=open[i])
            else:
                missed.append(i)
        if not missed:
            merged.view(-1).scatter_(0, torch.cat(places), combine(open, weights))
            return merged
        brackets = [EVERYTHING if i in missed else around for i, around in enumerate(brackets)]


def sample(parts: Sequence[Part]) -> Iterator[Float[np.ndarray, "_"]]:
    """Magnitudes of some entries of each update: of all if they are few.

    Blocks of it in which, its rows and its columns being in random order, each row and each
    column occurs equally often.
    """
    out, width = parts[0].B.shape[0], parts[0].A.shape[1]
    blocks = max(min(out * width // SAMPLE, out, width), 1)
    generator = torch.Generator().manual_seed(0)
    i, j = (
        torch.randperm(m, generator=generator)[: m // blocks * blocks].view(blocks, -1)
        for m in (out, width)
    )
    for A, B, _ in parts:
        yield (B[i] @ A.T[j].mT).abs_().flatten().numpy()


def bracket(sizes: Float[np.ndarray, "n"], share: float) -> tuple[float, float]:
    """Two magnitudes: the last of the largest ``share`` of all is above the first, not the second.

    Almost surely: ``sizes`` is a sample of all. Its own order is found in the same way.
    """
    n = len(sizes)
    spread = SPREAD * (share * (1 - share) * n) ** 0.5 + 1
    most, least = int(share * n + spread) + 1, int(share * n - spread)
    inside, above = sizes, 0
    if n >= 4 * SUBSAMPLE:
        low, high = bracket(sizes[:: n // SUBSAMPLE | 1], share)
        over = sizes > high
        inside, above = sizes[(sizes > low) ^ over], int(np.count_nonzero(over))
        if not 0 < least - above <= most - above <= len(inside):
            inside, above = sizes, 0  # it missed, or an end is beyond the sample
    low = below(inside, most - above) if most <= n else NOTHING[0]
    high = largest(inside, least - above) if least > 0 else EVERYTHING[1]
    return low, high


def largest(sizes: Float[np.ndarray, "n"], count: int) -> float:
    """The ``count``-th largest."""
    at = len(sizes) - count
    return float(np.partition(sizes, at)[at])


def below(sizes: Float[np.ndarray, "n"], count: int) -> float:
    """The number just below the ``count``-th largest."""
    return float(np.nextafter(largest(sizes, count), -1, dtype=sizes.dtype))
