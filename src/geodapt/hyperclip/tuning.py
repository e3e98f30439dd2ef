"""What trains by each method, and one forward pass of it."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from geodapt.hyperclip.heads import CosineHead, cost_volume
from geodapt.hyperclip.losses import pixel_loss
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.model import OpenSegmenter
from geodapt.hyperclip.page_classes import VOID
from geodapt.hyperclip.radius import embedding_radius
from geodapt.hyperclip.tuned_towers import TunedTowers
from geodapt.hyperclip.tuning_settings import TuningSettings
from geodapt.vision.text import pooled


class SegmentationTuner(nn.Module):
    """A segmenter whose head trains, and of whose CLIP what a method lets train."""

    def __init__(
        self, segmenter: OpenSegmenter, method: TuningMethod, settings: TuningSettings
    ) -> None:
        super().__init__()
        self.segmenter, self.method, self.settings = segmenter, method, settings
        self.tuned = TunedTowers(segmenter.clip.model, method, settings)
        self.beside = self.tuned.module

    def train(self, mode: bool = True) -> "SegmentationTuner":
        """The CLIP stays in eval mode: its dropout would blur what is tuned."""
        super().train(mode)
        self.segmenter.clip.model.eval()
        return self

    def forward(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        masks: Int[Tensor, "images height width"],
        **tokens: Tensor,
    ) -> dict[str, Tensor]:
        """The loss of a batch: pictures, masks that number the texts, and the texts' tokens."""
        texts = self.texts(tokens)
        logits = self.segmenter(pixels, nn.functional.normalize(texts, dim=-1))
        loss = pixel_loss(logits, masks, VOID, self.settings.ignored)
        if isinstance(self.method.radius, float):
            loss = loss + self.settings.radius.weight * radius_penalty(texts, self.method.radius)
        return {"loss": loss}

    def texts(self, tokens: dict[str, Tensor]) -> Float[Tensor, "texts d"]:
        """Texts before they are normalised, with gradients."""
        return pooled(self.segmenter.clip.model.get_text_features(**tokens)).float()

    @torch.no_grad()
    def calibrate(self, pixels: Tensor, masks: Tensor, **tokens: Tensor) -> None:
        """Set the cosine head to the CLIP's own temperature, and its bias by one batch.

        At the bias ``-mean(logsumexp_c(scale cos_c))`` the sigmoids of a place add up to about 1,
        as the softmax that the CLIP was trained by. From SigLIP's start, made for tens of thousands
        of negatives, a few hundred steps do not reach it: the CLIP is bent to do it instead.
        """
        head = self.segmenter.head
        if not isinstance(head, CosineHead) or not hasattr(
            self.segmenter.clip.model, "logit_scale"
        ):
            return
        texts = nn.functional.normalize(self.texts(tokens), dim=-1)
        dense = self.segmenter.clip.dense_features(pixels, self.segmenter.settings.residual)
        scale = self.segmenter.clip.scale.detach().float()
        logits = scale * cost_volume(dense.features, texts)
        head.log_scale.copy_(scale.log())
        head.bias.copy_(-logits.logsumexp(1).mean())

    def clip_parameters(self) -> list[nn.Parameter]:
        """What trains of the CLIP, or beside it in its place."""
        return self.tuned.parameters()

    def groups(self) -> list[dict[str, Any]]:
        """Optimizer groups: the head, and the CLIP at its own step size."""
        return self.tuned.groups([p for p in self.segmenter.head.parameters() if p.requires_grad])


def radius_penalty(texts: Float[Tensor, "texts d"], target: float) -> Float[Tensor, ""]:
    """``mean(((2 |t| - R) / R)^2)``: how far texts are from a hyperbolic radius."""
    return ((embedding_radius(texts) - target) / target).square().mean()
