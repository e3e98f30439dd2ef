"""Norm and hyperbolic radius of embeddings, by group.

The paper reads a level of a hierarchy off the radius of ``exp0(e)`` in the Poincare ball. That is
``2 |e|`` for every curvature, since ``artanh(tanh(sqrt(c) |e|)) = sqrt(c) |e|``, so both are
reported: which of the two its figures show is not known.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.errors import InputError


def embedding_radius(vectors: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """Distance of ``exp0(e)`` from the origin of the Poincare ball, ``2 |e|`` for every curvature.

    Not by way of the ball, in whose float32 points of radius above 15 (at ``c = 1``) are one.
    """
    return 2 * vectors.norm(dim=-1)


def radius_table(
    vectors: Float[Tensor, "n d"], groups: Sequence[str], label: str = "group"
) -> list[dict[str, float | int | str]]:
    """A row per group, in order of first appearance: how many vectors, the mean of their norms, its
    standard deviation over them, and the mean hyperbolic radius.

    ``vectors`` are embeddings before they are normalised. Raises :class:`InputError` where the
    groups are not one per vector.
    """
    if len(vectors) != len(groups):
        raise InputError(f"there are {len(vectors)} vectors and {len(groups)} groups")
    norms = vectors.double().norm(dim=-1)
    rows: list[dict[str, float | int | str]] = []
    for group in dict.fromkeys(groups):
        own = norms[torch.tensor([name == group for name in groups])]
        spread = own.std(correction=0).item()
        mean = own.mean().item()
        rows.append(
            {label: group, "count": len(own), "norm": mean, "norm_std": spread, "radius": 2 * mean}
        )
    return rows
