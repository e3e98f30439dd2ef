"""One pass over the updates of a layer, merging the entries that are known to stay.

By the kernels where they can be had, else by PyTorch's operators, which do the same.
"""

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt64
from torch import Tensor
from torch.nn.functional import pad

from geodapt import native
from geodapt.adapters.merging.bands import bands, updates
from geodapt.adapters.merging.combining import Combine
from geodapt.adapters.merging.registry import Part

SOURCE = Path(__file__).parent / "kernels" / "kernels.cpp"
PANEL = 64
"""Columns of A that lie together in memory for the kernels, and random bits of a word."""
BAND, TALL = 1 << 20, 64
"""Entries of a kernel's band, and its fewest rows."""
BEYOND = 16
"""Places behind the last open one that the kernels may write to."""

Open = tuple[Int[Tensor, "m"], Float[Tensor, "n m"], Int[Tensor, "n"]]
"""Places that are open, counted along the rows; all updates' entries there; and how many entries
of each update are above its bracket."""


def one_pass(
    parts: Sequence[Part], weights: Float[Tensor, "n"], combine: Combine
) -> "Kernels | Operators":
    """What goes over the updates of these parts, and combines them."""
    library = native.library(SOURCE) if weights.dtype == torch.float32 else None
    if library is None:
        return Operators(parts, weights, combine)
    return Kernels(library, parts, weights, combine)


class Operators:
    """By PyTorch's operators, in any float type."""

    def __init__(self, parts: Sequence[Part], weights: Tensor, combine: Combine) -> None:
        self.parts, self.weights, self.combine = parts, weights, combine

    def largest(
        self, ends: Float[Tensor, "2 n"], merged: Float[Tensor, "out in"]
    ) -> Iterator[Open]:
        """Merge what is above its update's bracket, of these ends; what lies in one stays open."""
        (low, high), width = ends[:, :, None, None], merged.shape[1]
        for rows, deltas in updates(self.parts):
            sizes = deltas.abs()
            stays = sizes > high
            open = ((sizes > low) ^ stays).any(0)
            entries = deltas[:, open]
            merged[rows] = self.combine(deltas.mul_(stays), self.weights)
            yield open.flatten().nonzero()[:, 0] + rows.start * width, entries, stays.sum((1, 2))

    def chosen(
        self, bits: UInt64[np.ndarray, "n out panels"], merged: Float[Tensor, "out in"]
    ) -> None:
        """Merge the entries whose bits are ones."""
        for rows, deltas in updates(self.parts):
            ones = np.unpackbits(bits[:, rows].view(np.uint8), axis=2, bitorder="little")
            stays = torch.from_numpy(ones[:, :, : merged.shape[1]])
            merged[rows] = self.combine(deltas.mul_(stays), self.weights)


class _Arguments(ctypes.Structure):
    _fields_ = [  # in the kernels' order
        *((name, ctypes.c_void_p) for name in ("A", "B", "ranks", "weights", "low", "high")),
        *((name, ctypes.c_void_p) for name in ("bits", "merged", "where", "open", "above")),
        *((name, ctypes.c_int64) for name in ("updates", "R", "rows", "width", "room")),
    ]


class Kernels:
    """By the kernels, in float32."""

    def __init__(
        self, library: ctypes.CDLL, parts: Sequence[Part], weights: Tensor, combine: Combine
    ) -> None:
        self.library, self.weights, self.combine = library, weights, combine.__name__
        A = torch.cat([part.A for part in parts])
        self.A = pad(A, (0, -A.shape[1] % PANEL)).unflatten(1, (-1, PANEL)).transpose(0, 1)
        self.A = self.A.contiguous()
        self.B = torch.cat([part.B for part in parts], 1)
        self.ranks = torch.tensor([len(part.A) for part in parts])

    def largest(
        self, ends: Float[Tensor, "2 n"], merged: Float[Tensor, "out in"]
    ) -> Iterator[Open]:
        """As :meth:`Operators.largest`."""
        (low, high), n, (out, width) = ends, len(self.weights), merged.shape
        height = min(max(BAND // width, TALL), out)
        room = height * width + BEYOND
        where, open = torch.empty(room, dtype=torch.int32), torch.empty(n, room)
        for rows in bands(out, height):
            above = torch.zeros(n, dtype=torch.int64)
            found = self._run(
                "largest", rows, merged, low=low, high=high, where=where, open=open, above=above
            )
            yield where[:found].long() + rows.start * width, open[:, :found].clone(), above

    def chosen(
        self, bits: UInt64[np.ndarray, "n out panels"], merged: Float[Tensor, "out in"]
    ) -> None:
        """As :meth:`Operators.chosen`."""
        self._run("chosen", slice(0, len(merged)), merged, bits=torch.from_numpy(bits))

    def _run(self, which: str, rows: slice, merged: Tensor, **arrays: Tensor) -> int:
        """Merge some rows; the number of places that are open."""
        kernel = getattr(self.library, f"{which}_{self.combine}")
        kernel.restype = ctypes.c_int64
        arrays |= {"A": self.A, "B": self.B[rows], "ranks": self.ranks, "weights": self.weights}
        arguments = _Arguments(
            updates=len(self.weights),
            R=self.B.shape[1],
            rows=rows.stop - rows.start,
            width=merged.shape[1],
            room=arrays["where"].numel() if "where" in arrays else 0,
            merged=merged[rows].data_ptr(),
            **{name: array.data_ptr() for name, array in arrays.items()},
        )
        return kernel(ctypes.byref(arguments))
