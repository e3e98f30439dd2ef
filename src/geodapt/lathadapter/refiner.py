"""Class texts refined by attributes: one step of message passing over their cosines."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def refine_texts(
    texts: Float[Tensor, "c d"], attributes: Float[Tensor, "n d"], beta: float
) -> Float[Tensor, "c d"]:
    """``T^ = (F + beta D^-1/2 S D^-1/2 F)[:C]`` with ``F = [T; A]`` and ``S`` its cosines.

    Zhao et al. 2025, "LatHAdapter", attribute-aware text refiner. The paper's degree is the sum of
    a row of ``S``, which with random attributes is often not positive, so that its root is no
    number. Here it is that of a signed graph, ``D_ii = sum_j |S_ij|``: at least 1, the same where
    no cosine is negative, and the spectrum of ``D^-1/2 S D^-1/2`` lies in [-1, 1].
    """
    nodes = torch.cat([texts, attributes])
    unit = nn.functional.normalize(nodes, dim=-1)
    cosines = unit @ unit.T
    # A zero vector has no cosines, not even with itself.
    root = cosines.abs().sum(-1).clamp_min(1).rsqrt()
    passed = cosines[: len(texts)] @ (root.unsqueeze(-1) * nodes)
    return texts + beta * root[: len(texts)].unsqueeze(-1) * passed
