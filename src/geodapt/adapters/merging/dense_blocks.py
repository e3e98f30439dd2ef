"""Keep the tiles of each update that carry the most energy."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.merging.cat import cat
from geodapt.adapters.merging.registry import Merged, Part, register
from geodapt.adapters.merging.tiles import Tiles, cut_up


@register(
    "dense_blocks",
    "cuts each update into tiles, keeps those with the most energy, adds them",
    "practice of keeping dense blocks and dropping sparse ones when merging LoRA",
)
def dense_blocks(parts: Sequence[Part], *, density: float = 0.5, tile: int = 32) -> Merged:
    """``sum_i w_i`` of each update's tiles with the largest Frobenius norm.

    ``density`` is the share of tiles that stay, ``tile`` their height and width (those at the
    lower and right edge may be smaller). Tiles' inner products need the factors alone:
    ``<B_i A_j, B'_i A'_j> = <B_i^T B'_i, A_j A'_j^T>``.
    """
    whole = cat(parts)
    B, A = whole.B, whole.A
    ranks = [len(part.A) for part in parts]
    tall, wide = cut_up(B, min(tile, len(B))), cut_up(A.T, min(tile, A.shape[1]))
    left, right = _products(tall, ranks), _products(wide, ranks)
    kept, energy = [], 0.0
    for i in range(len(parts)):
        kept.append(_largest(left[i][i] @ right[i][i].T, density))
        for j in range(i + 1):
            both = (left[i][j] @ right[i][j].T).mul_(kept[i] * kept[j]).sum()
            energy += both.item() if i == j else 2 * both.item()
    terms = [stays.expand(rank, -1, -1) for stays, rank in zip(kept, ranks, strict=True)]
    return Tiles(wide.mT, tall, torch.cat(terms), (len(B), A.shape[1]), energy)


def _products(
    tiles: Float[Tensor, "tiles height R"], ranks: list[int]
) -> list[list[Float[Tensor, "tiles _"]]]:
    """``M^T M'`` of each tile's columns, for every two adapters."""
    grams = (tiles.mT @ tiles).split(ranks, 1)
    return [[block.flatten(1) for block in rows.split(ranks, 2)] for rows in grams]


def _largest(energy: Float[Tensor, "tall wide"], density: float) -> Tensor:
    """Ones for the tiles that carry the most energy, and zeros."""
    best = energy.flatten().topk(math.ceil(density * energy.numel())).indices
    return torch.zeros_like(energy).view(-1).index_fill_(0, best, 1).view_as(energy)
