"""A low-rank sum of which only some tiles are kept: a full matrix that need not be formed."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad


class Tiles(NamedTuple):
    """Tile (i, j) is ``sum_n B_in kept_nij A_jn`` over the terms n of all adapters.

    Has what a decomposition by products needs: ``@``, ``T`` and the squared norm.
    """

    A: Float[Tensor, "wide R width"]
    B: Float[Tensor, "tall height R"]
    kept: Float[Tensor, "R tall wide"]
    shape: tuple[int, int]
    """That of the whole; tiles at its lower and right edge are filled up with zeros."""
    energy: float

    @property
    def T(self) -> "Tiles":
        """The transpose."""
        return Tiles(self.B.mT, self.A.mT, self.kept.mT, self.shape[::-1], self.energy)

    def __matmul__(self, x: Float[Tensor, "in k"]) -> Float[Tensor, "out k"]:
        spans = self.A @ cut_up(x, self.A.shape[2])
        sums = self.kept @ spans.transpose(0, 1)
        return (self.B @ sums.transpose(0, 1)).flatten(0, 1)[: self.shape[0]]

    def dense(self) -> Float[Tensor, "out in"]:
        """The matrix itself."""
        return self @ torch.eye(self.shape[1], dtype=self.A.dtype, device=self.A.device)


def cut_up(rows: Float[Tensor, "m k"], height: int) -> Float[Tensor, "tiles height k"]:
    """Rows in tiles of so many, the last one filled up with zeros."""
    return pad(rows, (0, 0, 0, -len(rows) % height)).view(-1, height, rows.shape[1])
