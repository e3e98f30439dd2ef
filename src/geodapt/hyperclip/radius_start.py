"""The start value for a radius: texts brought to it before the training, in their directions."""

from collections.abc import Sequence

import torch
from torch import nn

from geodapt.hyperclip.radius import embedding_radius
from geodapt.hyperclip.tuning import SegmentationTuner, radius_penalty
from geodapt.vision import Clip

TEXTS_AT_ONCE = 64
MOST_TEXTS = 512
"""Texts that the start value is fitted on."""


@torch.no_grad()
def mean_text_radius(clip: Clip, texts: Sequence[str]) -> float:
    """The mean hyperbolic radius of texts' vectors before they are normalised."""
    found = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        tokens = clip.tokens(texts[start : start + TEXTS_AT_ONCE])
        found.append(embedding_radius(clip.texts.vectors(tokens).float()))
    return torch.cat(found).mean().item()


def start_at_radius(
    tuner: SegmentationTuner, texts: Sequence[str], target: float, steps: int, rate: float
) -> None:
    """Move what trains of the CLIP until texts have a radius, as far as the steps reach.

    The loss is the penalty and ``1 - cos`` to each text's vector before: directions, which alone
    decide a segmentation, are kept. Text vectors come out of a layer norm, so a radius cannot be
    set at once.
    """
    trained = tuner.clip_parameters()
    optimizer = torch.optim.Adam(trained, lr=rate)
    clip = tuner.segmenter.clip
    texts = list(texts)[:: max(1, len(texts) // MOST_TEXTS)]
    with torch.no_grad():
        before = torch.cat(
            [
                tuner.texts(clip.tokens(texts[start : start + TEXTS_AT_ONCE]))
                for start in range(0, len(texts), TEXTS_AT_ONCE)
            ]
        )
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        some = torch.randperm(len(texts), generator=generator)[:TEXTS_AT_ONCE].tolist()
        tokens = clip.tokens([texts[number] for number in some])
        now = tuner.texts(tokens)
        away = 1 - nn.functional.cosine_similarity(now, before[some], dim=-1).mean()
        loss = radius_penalty(now, target) + away
        optimizer.zero_grad()
        # Some of what trains is not in the text tower, so nothing flows to it.
        for parameter, gradient in zip(
            trained, torch.autograd.grad(loss, trained, allow_unused=True), strict=True
        ):
            parameter.grad = gradient
        optimizer.step()
