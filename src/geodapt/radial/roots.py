"""The root: the most general point, from which generality and angles are measured."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from geodapt.radial.settings import RootSettings

ROUNDS = 50  # of k-means, which settles long before
HALF = 0.5  # how far a centre of its own lies from the empty text's embedding towards a cluster


class Roots(nn.Module):
    """One or several roots, unit vectors.

    With several, a chain belongs to the root that is nearest to its most specific member, in
    training, in measuring and in retrieval alike, where the query is that member.
    """

    def __init__(self, settings: RootSettings, points: Float[Tensor, "roots d"] | None) -> None:
        super().__init__()
        self.settings = settings
        self.points: nn.Parameter | None = None
        if settings.kind != "encoder":
            assert points is not None
            self.points = nn.Parameter(points.clone(), requires_grad=settings.kind == "learned")

    def forward(self, empty: Float[Tensor, " d"]) -> Float[Tensor, "roots d"]:
        """The roots, where ``empty`` is the embedding of their text now."""
        if self.points is None:
            return empty[None]
        return nn.functional.normalize(self.points, dim=-1)


def nearest_root(
    roots: Float[Tensor, "roots d"], specific: Float[Tensor, "n d"]
) -> Int[Tensor, " n"]:
    """The root that each most specific member belongs to."""
    return (specific @ roots.T).argmax(-1)  # of unit vectors, the nearest is the most similar


def generality(
    embeddings: Float[Tensor, "*batch d"], root: Float[Tensor, "*batch d"]
) -> Float[Tensor, "*batch"]:
    """``d_r(e) = |e - r|``: small for general concepts; at most 2 for unit vectors."""
    return torch.linalg.vector_norm(embeddings - root, dim=-1)


def initial_roots(
    empty: Float[Tensor, " d"], general: Float[Tensor, "n d"], count: int, seed: int
) -> Float[Tensor, "roots d"]:
    """Points for ``count`` roots: the empty text's, or halfway from it to clusters of ``general``.

    The clusters are spherical k-means' over the most general texts, whose centres they are.
    """
    if count == 1:
        return empty[None].clone()
    generator = torch.Generator().manual_seed(seed)
    general = general.unique(dim=0)
    count = min(count, len(general))
    centres = general[torch.randperm(len(general), generator=generator)[:count]]
    for _ in range(ROUNDS):
        owner = nearest_root(centres, general)
        sums = torch.zeros_like(centres).index_add_(0, owner, general)
        centres = nn.functional.normalize(torch.where(sums.any(1, True), sums, centres), dim=-1)
    return nn.functional.normalize((1 - HALF) * empty + HALF * centres, dim=-1)
