"""PromptSRC's three regularisers: prompted vectors and logits stay near the frozen CLIP's.

Source: Khattak et al. 2023, "Self-regulating prompts", equations 3 to 6.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.prompts.classes import ClassTexts
from geodapt.prompts.settings import PromptSRC
from geodapt.vision.clip import Clip


@torch.no_grad()
def frozen_texts(
    clip: Clip, names: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "classes d"]:
    """Unit vectors of the mean over templates of the frozen tower's vectors.

    The mean is of vectors as they come, not of unit vectors, as in the authors' code.
    """
    total = sum(ClassTexts(clip, names, template).features(clip) for template in templates)
    assert isinstance(total, Tensor)
    return nn.functional.normalize(total, dim=-1)


def consistency(
    settings: PromptSRC,
    images: Float[Tensor, "b d"],
    texts: Float[Tensor, "c d"],
    frozen_images: Float[Tensor, "b d"],
    frozen: Float[Tensor, "c d"],
    scale: Float[Tensor, ""],
) -> dict[str, Float[Tensor, ""]]:
    """The three terms, weighted; all vectors are unit vectors.

    Mean absolute differences of texts and of images, and ``KL(frozen || prompted) / (B C)`` of the
    softmax of the logits.
    """
    prompted = scale * images @ texts.T
    zero_shot = scale * frozen_images @ frozen.T
    divergence = nn.functional.kl_div(
        prompted.log_softmax(-1), zero_shot.log_softmax(-1), reduction="sum", log_target=True
    )
    return {
        "text_consistency": settings.text_weight * (texts - frozen).abs().mean(),
        "image_consistency": settings.image_weight * (images - frozen_images).abs().mean(),
        "logit_consistency": settings.logit_weight * divergence / prompted.numel(),
    }
