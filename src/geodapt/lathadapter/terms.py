"""What the adapter's logits and losses are made of: cosines, flat distances, classification."""

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
