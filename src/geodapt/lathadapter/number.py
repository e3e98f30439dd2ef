"""How many attributes: a first number from the classes, then fewer by what they are used for."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.cluster.vq import kmeans2
from torch import Tensor

from geodapt.adapters.lowrank import effective_rank

FEWEST, MOST = 4, 64
"""Between which the automatic number starts."""

STARTS = 5
"""Of k-means, each from other points."""

START = 2
"""Times the first number: how many there are before any is dropped."""


def rank_of_points(points: Float[Tensor, "n d"]) -> float:
    """The effective rank of the centred points, at least 1.

    ``exp`` of the entropy of the normalised eigenvalues of their centred Gram matrix: 1 where all
    lie on a line or are equal, ``n - 1`` where all directions are alike.
    """
    centred = points.detach().double() - points.detach().double().mean(0)
    return max(1.0, effective_rank(torch.linalg.svdvals(centred)))


def first_number(images: Float[Tensor, "n d"], texts: Float[Tensor, "c d"]) -> int:
    """The effective rank of the classes, rounded, within :data:`FEWEST` and :data:`MOST`.

    A class's point is its text and the mean of the pictures that are nearest to it, each centred
    among its kind first: texts and pictures lie apart as wholes, which says nothing of classes.
    """
    pictures, words = images.double(), texts.double()
    pictures, words = pictures - pictures.mean(0), words - words.mean(0)
    unit = torch.nn.functional.normalize
    nearest = (unit(pictures, dim=-1) @ unit(words, dim=-1).T).argmax(-1)
    sums = torch.zeros_like(words).index_add_(0, nearest, pictures)
    counts = torch.bincount(nearest, minlength=len(words)).unsqueeze(-1)
    means = torch.where(counts > 0, (words + sums / counts.clamp_min(1)) / 2, words)
    return min(MOST, max(FEWEST, round(rank_of_points(means))))


def centres(points: Float[Tensor, "n d"], number: int, seed: int) -> Float[Tensor, "number d"]:
    """k-means centres of some points at 0.9 of their lengths; random ones where points are fewer.

    The same arguments give the same centres.
    """
    found = np.unique(points.detach().cpu().double().numpy(), axis=0)
    length = float(np.linalg.norm(found, axis=1).mean())
    if len(found) > number:
        kept = _best_of_several(found, number, np.random.default_rng(seed))
    else:
        kept = found
    lacking = torch.as_tensor(kept)
    if len(kept) < number:
        lacking = torch.cat(
            [lacking, random_attributes(number - len(kept), points.shape[1], length, seed).double()]
        )
    return (0.9 * lacking).to(points.dtype)


def _best_of_several(points: np.ndarray, number: int, generator: np.random.Generator) -> np.ndarray:
    """The centres of least squared distance over some starts: one may end far from the best."""
    best, least = points[:number], np.inf
    for _ in range(STARTS):
        found, nearest = kmeans2(points, number, minit="++", rng=generator, missing="warn")
        left = float(((points - found[nearest]) ** 2).sum())
        if left < least:
            best, least = found, left
    return best


def random_attributes(number: int, width: int, length: float, seed: int) -> Float[Tensor, "n d"]:
    """Normal vectors whose lengths are about ``length``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, width, generator=generator) * length / width**0.5


def still_used(
    distances: Float[Tensor, "n n"],
    used: Bool[Tensor, " n"],
    chosen: Float[Tensor, " n"],
    apart: float,
) -> Bool[Tensor, " n"]:
    """Which attributes stay: chosen often enough, and not beside one that is chosen more.

    Dropped are those chosen in less than ``1 / (4 N)`` of all choices, and of two that lie closer
    than ``apart`` the one that is chosen less. One stays in any case. Without choices all stay.
    """
    total = float(chosen[used].sum())
    if total == 0:
        return used.clone()
    kept = used & (chosen / total >= 1 / (4 * int(used.sum())))
    if not kept.any():
        kept[torch.where(used, chosen, -1).argmax()] = True
    for one in chosen.argsort(descending=True, stable=True).tolist():
        if kept[one]:
            beside = kept & (distances[one] < apart)
            beside[one] = False
            kept &= ~beside
    return kept
