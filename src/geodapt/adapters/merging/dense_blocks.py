"""Keep the tiles of each update that carry the most energy."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geodapt.adapters.merging.pruning import bands, update
from geodapt.adapters.merging.registry import Merged, Part, empty, register


@register(
    "dense_blocks",
    "cuts each update into tiles, keeps those with the most energy, adds them",
    "practice of keeping dense blocks and dropping sparse ones when merging LoRA",
)
def dense_blocks(parts: Sequence[Part], *, density: float = 0.5, tile: int = 32) -> Merged:
    """``sum_i w_i`` of each update's tiles with the largest Frobenius norm.

    ``density`` is the share of tiles that stay, ``tile`` their height and width (those at the
    lower and right edge may be smaller).
    """
    kept = [dense_tiles(part, density, tile) for part in parts]
    result = empty(parts)
    for i, rows in enumerate(bands(len(result), tile)):
        result[rows] = sum(
            part.weight * update(part, rows) * stays[i].repeat_interleave(tile)[: result.shape[1]]
            for part, stays in zip(parts, kept, strict=True)
        )
    return result


def dense_tiles(part: Part, density: float, tile: int) -> Bool[Tensor, "tall wide"]:
    """Which tiles of an update carry the most energy."""
    energies: list[Float[Tensor, wide]] = []
    for rows in bands(part.B.shape[0], tile):
        by_column = update(part, rows).square_().sum(0)
        padding = -len(by_column) % tile
        padded = torch.nn.functional.pad(by_column, (0, padding))
        energies.append(padded.view(-1, tile).sum(1))
    energy = torch.stack(energies)
    kept = torch.zeros_like(energy, dtype=torch.bool)
    best = energy.flatten().topk(math.ceil(density * energy.numel())).indices
    kept.view(-1)[best] = True
    return kept
