"""What the adapter's logits and losses are made of: refined texts, distances, classification."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def cosine_matrix(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Cosines of all pairs."""
    return nn.functional.normalize(x, dim=-1) @ nn.functional.normalize(y, dim=-1).T


def euclidean(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Distances whose gradient at equal points is 0."""
    squares = (x.unsqueeze(1) - y.unsqueeze(0)).square().sum(-1)
    apart = squares > 0
    return torch.where(apart, torch.where(apart, squares, 1).sqrt(), 0)


def classification_loss(
    logits: Float[Tensor, "b c"],
    labels: Int[Tensor, " b"] | None,
    teacher: Float[Tensor, "b c"] | None,
) -> Float[Tensor, ""]:
    """Cross entropy, or the mean divergence of the softmax from that of a teacher's logits."""
    if labels is not None:
        return nn.functional.cross_entropy(logits, labels)
    assert teacher is not None
    target = teacher.detach().to(logits.dtype).log_softmax(-1)
    return nn.functional.kl_div(
        logits.log_softmax(-1), target, reduction="batchmean", log_target=True
    )


def refine_texts(
    texts: Float[Tensor, "c d"], attributes: Float[Tensor, "n d"], beta: float
) -> Float[Tensor, "c d"]:
    """``T^ = (F + beta D^-1/2 S D^-1/2 F)[:C]`` with ``F = [T; A]`` and ``S`` its cosines.

    Zhao et al. 2025, "LatHAdapter", attribute-aware text refiner. The paper's degree is the sum of
    a row of ``S``, which with random attributes is often not positive, so that it has no root.
    Here it is that of a signed graph, ``D_ii = sum_j |S_ij|``: at least 1, the same where
    no cosine is negative, and the spectrum of ``D^-1/2 S D^-1/2`` lies in [-1, 1].
    """
    nodes = torch.cat([texts, attributes])
    unit = nn.functional.normalize(nodes, dim=-1)
    cosines = unit @ unit.T
    # A zero vector has no cosines, not even with itself.
    root = cosines.abs().sum(-1).clamp_min(1).rsqrt()
    passed = cosines[: len(texts)] @ (root.unsqueeze(-1) * nodes)
    return texts + beta * root[: len(texts)].unsqueeze(-1) * passed
