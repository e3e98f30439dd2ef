"""An adapter on the words of a segmenter: refined before places of pictures are compared with them.

It is one of :mod:`geodapt.prompts.adapter`, made for pictures of one class each. Here the places of
a picture's features stand in for pictures, each with the class of its pixels.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodapt.prompts.adapter import FeatureAdapter, adapter_of

KIND = "lathadapter"
PLACES = 64
"""The most places of a batch that pass the adapter's losses: triplets grow with their square."""
STARTS = 2048
"""The most places that it starts from."""


def new_text_adapter(width: int, settings: dict[str, Any]) -> FeatureAdapter:
    """An adapter of the width of features, before its start."""
    return adapter_of(KIND)(width, **settings)


def start_text_adapter(
    adapter: FeatureAdapter,
    features: Float[Tensor, "images d h w"],
    texts: Float[Tensor, "classes d"],
) -> None:
    """Put its attributes where the places and words of one batch say."""
    places = features.movedim(1, -1).flatten(0, -2)
    step = max(1, len(places) // STARTS)
    adapter.start(places[::step], texts, seed=0)


def text_adapter_loss(
    adapter: FeatureAdapter,
    features: Float[Tensor, "images d h w"],
    masks: Int[Tensor, "images height width"],
    texts: Float[Tensor, "classes d"],
    refined: Float[Tensor, "classes d"],
    void: int,
    scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """The adapter's terms on some places of a batch, drawn by torch's generator.

    A place has the class of the pixel in its middle; those of no class are left out, and without
    any the loss is 0.
    """
    grid = features.shape[-2:]
    rows = _middles(masks.shape[1], grid[0], masks.device)
    columns = _middles(masks.shape[2], grid[1], masks.device)
    labels = masks[:, rows][:, :, columns].flatten()
    places = features.movedim(1, -1).flatten(0, -2)
    counted = torch.nonzero(labels != void).flatten()
    if not len(counted):
        return features.new_zeros(())
    drawn = torch.randperm(len(counted), device=counted.device)[:PLACES]
    some = counted[drawn]
    terms = adapter.losses(places[some], texts, refined, labels[some], None, scale)
    return torch.stack([*terms.values()]).sum()


def _middles(pixels: int, places: int, device: torch.device) -> Int[Tensor, " places"]:
    numbers = torch.arange(places, device=device)
    return (2 * numbers + 1) * pixels // (2 * places)
