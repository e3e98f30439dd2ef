"""Factors of which a file holds only the blocks on the diagonal.

PEFT keeps so the B of a grouped convolution, whose groups of outputs read a group of the rank
each, and one factor of each layer of a block-diagonal LoRA (BD-LoRA). Here they are whole.
"""

from typing import Any

import torch
from jaxtyping import Float
from peft import LoraConfig
from torch import Tensor

from geodapt.errors import InputError

LARGER = 64
"""How many times as many numbers as its other half a whole factor may have; real ones have less."""


def from_blocks(
    blocks: Float[Tensor, "rows columns"], count: int, other: int, where: str
) -> Float[Tensor, "rows more_columns"]:
    """The matrix with ``count`` blocks, which a file holds one below the other, on its diagonal.

    ``other`` is how many numbers the other factor has. Raises :class:`InputError`, which calls the
    layer ``where``, for blocks that do not divide the rows.
    """
    rows, width = blocks.shape
    if count < 1 or rows % count or rows * width * count > LARGER * other:
        raise InputError(
            f"{where}: a factor of shape {(rows, width)} does not consist of {count:,} blocks of a "
            "diagonal; save the adapter again"
        )
    return torch.block_diag(*blocks.chunk(count))


def to_blocks(
    whole: Float[Tensor, "rows columns"], count: int, where: str
) -> Float[Tensor, "rows fewer_columns"]:
    """The blocks on the diagonal, one below the other.

    Raises :class:`InputError`, which calls the layer ``where``, where there is more than those.
    """
    rows, columns = whole.shape
    parts = whole.view(count, rows // count, count, columns // count)
    blocks = torch.cat([parts[i, :, i] for i in range(count)])
    if blocks.count_nonzero() != whole.count_nonzero():
        raise InputError(
            f"{where}, a convolution of {count} groups, has an update in which outputs of a group "
            "use what PEFT keeps for another, so that no file of PEFT can hold it"
        )
    return blocks


def without_blocks(
    config: LoraConfig, path: str, A: Tensor, B: Tensor, where: str
) -> tuple[Tensor, Tensor]:
    """A layer's factors, whole, of an adapter that ``use_bdlora`` says is block-diagonal."""
    told: Any = config.use_bdlora
    if not told:
        return A, B
    of_A, of_B = (
        any(name in path for name in names or ())
        for names in (told.target_modules_bd_a, told.target_modules_bd_b)
    )
    if of_A and of_B:
        raise InputError(
            f"{where}: its use_bdlora says that both factors are block-diagonal, which PEFT refuses"
        )
    if of_A:
        A = from_blocks(A, told.nblocks, B.numel(), where)
    if of_B:
        B = from_blocks(B, told.nblocks, A.numel(), where)
    return A, B
