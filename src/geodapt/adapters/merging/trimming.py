"""Which entries of an update are among its largest?

Exactly, and without sorting an update: a sample brackets the magnitude of the last entry that
stays, one pass counts what is larger and collects what falls into the bracket, and only that is
searched (Floyd and Rivest 1975). Where a bracket misses, it is widened to everything.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.merging.bands import updates
from geodapt.adapters.merging.registry import Part

SAMPLE, SUBSAMPLE = 1 << 16, 1 << 12
SPREAD = 3.5
"""Half a bracket's width, in standard deviations of what the sample says."""


def trim(deltas: Float[Tensor, "n band in"], limits: Sequence[float]) -> None:
    """Set to zero what is not larger than its update's limit."""
    for delta, limit in zip(deltas, limits, strict=True):
        torch.hardshrink(delta, limit, out=delta)


def limits(parts: Sequence[Part], density: float) -> list[float]:
    """What :func:`trim` needs to keep exactly a share of each update's entries, the largest.

    Entries as large as the smallest that stays stay too.
    """
    total = parts[0].B.shape[0] * parts[0].A.shape[1]
    count = int(density * total)
    if count >= total:
        return [-1.0] * len(parts)  # nothing is below
    if count == 0:
        return [float("inf")] * len(parts)
    brackets = [bracket(sample(part), count / total) for part in parts]
    for _, deltas in updates(parts):
        sizes = deltas.abs_().numpy()  # numpy's comparisons are several times faster
        for size, around in zip(sizes, brackets, strict=True):
            around.look(size)
    found = []
    for i, around in enumerate(brackets):
        value = around.largest(count)
        if value is None:
            everything = Bracket()
            for _, deltas in updates(parts):
                everything.look(deltas[i].abs().numpy())
            value = everything.largest(count)
            assert value is not None
        found.append(float(np.nextafter(value, -np.ones_like(value))))  # for it has to stay
    return found


class Bracket:
    """Two magnitudes, and of all that are looked at, how many are above and which between."""

    def __init__(self, low: float = 0.0, high: float = float("inf")) -> None:
        self.low, self.high = low, high
        self.above = 0
        self.inside: list[np.ndarray] = []

    def look(self, sizes: Float[np.ndarray, "..."]) -> None:
        over = sizes > self.high
        self.above += int(np.count_nonzero(over))
        self.inside.append(sizes[(sizes >= self.low) ^ over])

    def largest(self, count: int) -> np.floating | None:
        """The ``count``-th largest if it lies in the bracket."""
        inside = np.concatenate(self.inside)
        rank = len(inside) - (count - self.above)  # from the smallest
        return np.partition(inside, rank)[rank] if 0 <= rank < len(inside) else None


def sample(part: Part) -> Float[np.ndarray, "_"]:
    """Magnitudes of some entries of an update: of all if they are few.

    Blocks of it in which, its rows and its columns being in random order, each row and each
    column occurs equally often.
    """
    out, width = part.B.shape[0], part.A.shape[1]
    blocks = min(out * width // SAMPLE, out, width)
    if blocks < 2:
        return (part.B @ part.A).abs_().flatten().numpy()
    generator = torch.Generator().manual_seed(0)
    i = torch.randperm(out, generator=generator)[: out // blocks * blocks].view(blocks, -1)
    j = torch.randperm(width, generator=generator)[: width // blocks * blocks].view(blocks, -1)
    return (part.B[i] @ part.A.T[j].mT).abs_().flatten().numpy()


def bracket(sizes: Float[np.ndarray, "n"], share: float) -> Bracket:
    """Where the end of the largest ``share`` of all magnitudes almost surely lies, by a sample.

    Its own order is found in the same way.
    """
    n = len(sizes)
    spread = SPREAD * (share * (1 - share) * n) ** 0.5 + 1
    most, least = int(share * n + spread) + 1, int(share * n - spread)
    coarse = Bracket()
    if n >= 4 * SUBSAMPLE:
        drawn = np.random.default_rng(0).integers(n, size=SUBSAMPLE)
        coarse = bracket(sizes[drawn], share)
    for around in (coarse, Bracket()):  # the second one cannot miss
        around.look(sizes)
        low = around.largest(most) if most <= n else 0.0
        high = around.largest(least) if least > 0 else float("inf")
        if low is not None and high is not None:
            break
    assert low is not None
    assert high is not None
    return Bracket(float(low), float(high))
