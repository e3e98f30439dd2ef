"""``curvature: auto``: the curvatures to try for the features that an adapter is started on."""

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.geometry.curvature import find_curvature

FACTORS = (1 / 16, 1 / 4, 1.0, 4.0)


def estimated_curvatures(
    images: Float[Tensor, "n d"], texts: Float[Tensor, "c d"], seed: int
) -> list[float]:
    """The probe's estimate for pictures and class texts at the length that they enter hyperbolic
    space with, and curvatures around it."""
    vectors = 2 * torch.cat([images, texts])  # exp0 of the ball reaches twice as far
    estimate = find_curvature(vectors, seed=seed).c
    return [estimate * factor for factor in FACTORS]
