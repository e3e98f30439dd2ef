"""Updates as full matrices, formed a band of rows at a time: what a core's cache can hold."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.merging.registry import Part

BAND = 1 << 18
"""Entries of a band, over all adapters: a megabyte in float32."""


def bands(rows: int, height: int) -> Iterator[slice]:
    """The rows of a matrix, band after band."""
    for start in range(0, rows, height):
        yield slice(start, min(start + height, rows))


def updates(parts: Sequence[Part]) -> Iterator[tuple[slice, Float[Tensor, "n band in"]]]:
    """The rows of each band, and all parts' updates there, without their weights.

    The caller may write over what it gets; the next band takes the same memory.
    """
    rows, width = parts[0].B.shape[0], parts[0].A.shape[1]
    height = min(max(BAND // (len(parts) * width), 1), rows)
    room = parts[0].A.new_empty(len(parts), height, width)
    for band in bands(rows, height):
        deltas = room[:, : band.stop - band.start]
        for part, delta in zip(parts, deltas, strict=True):
            torch.mm(part.B[band], part.A, out=delta)
        yield band, deltas
