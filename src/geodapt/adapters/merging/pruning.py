"""Making updates sparse, in bands of rows: small enough for the cache, never all at once."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import hardshrink

from geodapt.adapters.merging.registry import Part

BAND = 64
"""Rows of a band: at width 1024 and in float32, 256 KB."""
SAMPLE = 4096


def bands(rows: int, height: int = BAND) -> Iterator[slice]:
    """The rows of a matrix, band after band."""
    for start in range(0, rows, height):
        yield slice(start, min(start + height, rows))


def update(part: Part, rows: slice) -> Float[Tensor, "band in"]:
    """A band of a part's whole update, without its weight."""
    return part.B[rows] @ part.A


def keep_above(delta: Float[Tensor, "band in"], threshold: float) -> Float[Tensor, "band in"]:
    """The entries that are at least as large as a threshold; the rest is zero."""
    return hardshrink(delta, threshold)


def keep_random(
    delta: Float[Tensor, "band in"], density: float, generator: torch.Generator
) -> Float[Tensor, "band in"]:
    """Every entry stays with probability ``density``, divided by it, so that the mean stays.

    Source: DARE, Yu et al. 2024, arXiv:2311.03099, equation 2.
    """
    kept = torch.rand(delta.shape, generator=generator).lt_(density)
    return kept.to(delta).div_(density).mul_(delta)


def threshold(part: Part, density: float) -> float:
    """What :func:`keep_above` needs to keep a share of an update's entries, the largest.

    Exact: a sample brackets the magnitude of the last entry that stays, one pass counts what is
    larger and collects what falls into the bracket, and only that is sorted (Floyd and Rivest
    1975). Should the bracket miss, all entries are sorted.
    """
    out, width = part.B.shape[0], part.A.shape[1]
    total = out * width
    count = int(density * total)
    if count >= total:
        return -1.0  # nothing is below
    if count == 0:
        return float("inf")
    low, high = _bracket(part, count / total) if total > 16 * SAMPLE else (0.0, float("inf"))
    value = _largest_within(part, count, low, high)
    if value is None:
        value = _largest_within(part, count, 0.0, float("inf"))
    assert value is not None
    return float(np.nextafter(value, -np.ones_like(value)))  # hardshrink drops its bound


def _bracket(part: Part, share: float) -> tuple[float, float]:
    """Magnitudes between which the last entry that stays almost surely lies."""
    generator = torch.Generator().manual_seed(0)
    i = torch.randint(part.B.shape[0], (SAMPLE,), generator=generator).to(part.B.device)
    j = torch.randint(part.A.shape[1], (SAMPLE,), generator=generator).to(part.A.device)
    drawn = (part.B[i] * part.A[:, j].T).sum(1).abs().sort(descending=True).values
    spread = 4 * (share * (1 - share) * SAMPLE) ** 0.5 + 1  # four standard deviations
    first, last = int(share * SAMPLE - spread), int(share * SAMPLE + spread) + 1
    high = drawn[first].item() if first > 0 else float("inf")
    return (drawn[last].item() if last < SAMPLE else 0.0), high


def _largest_within(part: Part, count: int, low: float, high: float) -> float | None:
    """The ``count``-th largest magnitude if it lies in a bracket, else None."""
    above, inside = 0, []
    for rows in bands(part.B.shape[0]):
        size = update(part, rows).abs_().numpy(force=True)  # whose masks are the faster ones
        above += int(np.count_nonzero(size > high))
        inside.append(size[(size >= low) & (size <= high)])
    found = np.concatenate(inside)
    rank = len(found) - (count - above)  # from the smallest of those in the bracket
    return np.partition(found, rank)[rank] if 0 <= rank < len(found) else None
