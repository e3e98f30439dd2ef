"""Zero-shot classification by a CLIP: the caption that fits a picture best."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodapt.metrics import RankingMetrics

AT_ONCE = 512
"""Rows of pictures that are compared with all texts at a time."""


def zero_shot(
    images: Float[Tensor, "rows d"], texts: Float[Tensor, "classes d"], labels: Int[Tensor, " rows"]
) -> dict[str, float]:
    """Ranking figures of each picture's class among all, by cosine similarity.

    ``hit_at_1`` is the zero-shot accuracy. Both sides are unit vectors.
    """
    metric = RankingMetrics()
    for some, of_some in zip(images.split(AT_ONCE), labels.split(AT_ONCE), strict=True):
        metric.update(some @ texts.T, of_some)
    return metric.compute()


def by_level(
    images: Float[Tensor, "rows d"],
    texts: dict[str, Float[Tensor, " d"]],
    chains: Sequence[Sequence[str]],
    labels: Int[Tensor, " rows"],
) -> list[float]:
    """Zero-shot accuracy at each level of the captions, among all captions of that level."""
    accuracies = []
    for level in zip(*chains, strict=True):
        captions = list(dict.fromkeys(level))
        number = {caption: index for index, caption in enumerate(captions)}
        of_class = torch.tensor([number[caption] for caption in level])
        embeddings = torch.stack([texts[caption] for caption in captions])
        accuracies.append(zero_shot(images, embeddings, of_class[labels])["hit_at_1"])
    return accuracies
