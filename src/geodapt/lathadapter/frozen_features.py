"""Features of pictures and class texts as a frozen CLIP's towers give them."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.progress import track
from geodapt.vision.clip import Clip
from geodapt.vision.templates import fill_templates
from geodapt.vision.text import pooled

AT_ONCE = 64


@torch.no_grad()
def image_features(clip: Clip, images: Sequence[Any]) -> Float[Tensor, "n d"]:
    """Vectors of pictures, not scaled to unit length, on the CPU."""
    parts = []
    for start in track(range(0, len(images), AT_ONCE), "looking at pictures"):
        pixels = clip.pixels(images[start : start + AT_ONCE])
        parts.append(pooled(clip.model.get_image_features(**pixels)).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def class_features(clip: Clip, names: Sequence[str], template: str) -> Float[Tensor, "c d"]:
    """Vectors of class names in a sentence, not scaled to unit length, on the CPU."""
    texts = [row[0] for row in fill_templates(names, [template])]
    parts = []
    for start in range(0, len(texts), AT_ONCE):
        tokens = clip.tokens(texts[start : start + AT_ONCE])
        parts.append(pooled(clip.model.get_text_features(**tokens)).float().cpu())
    return torch.cat(parts)
