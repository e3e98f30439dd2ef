"""What trains by each method, one forward pass of it, and the start value of a radius."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from geodapt.errors import InputError
from geodapt.hyperclip.heads import CosineHead, cost_volume, resized
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.model import OpenSegmenter
from geodapt.hyperclip.page_classes import VOID
from geodapt.hyperclip.radius import embedding_radius
from geodapt.hyperclip.settings import Ignored
from geodapt.hyperclip.text_adapter import (
    new_text_adapter,
    start_text_adapter,
    text_adapter_loss,
)
from geodapt.hyperclip.tuned_towers import TowerTuner
from geodapt.hyperclip.tuning_settings import TuningSettings
from geodapt.vision import Clip
from geodapt.vision.text import pooled


def pixel_loss(
    logits: Float[Tensor, "images classes h w"],
    labels: Int[Tensor, "images height width"],
    ignore: int = 255,
    ignored: Ignored = "left_out",
) -> Float[Tensor, ""]:
    """Binary cross-entropy of every class at every pixel, the mean over pixels and classes.

    Logits are first resized to the labels. Pixels labelled ``ignore`` are left out of the mean; as
    ``negative`` they count as showing none of the classes, as in the released code of CAT-Seg and
    HyperCLIP. Without a pixel that counts the loss is 0.

    Raises :class:`InputError` for a label that is neither a class nor ``ignore``.
    """
    classes = logits.shape[1]
    void = labels == ignore
    wrong = ((labels < 0) | (labels >= classes)) & ~void
    if wrong.any():
        raise InputError(
            f"a mask has the label {int(labels[wrong][0])}; expected 0 to {classes - 1}, or "
            f"{ignore} for pixels to ignore"
        )
    logits = resized(logits, labels.shape[1:])
    target = one_hot(labels.masked_fill(void, 0), classes).movedim(-1, 1).to(logits.dtype)
    if ignored == "negative":
        return binary_cross_entropy_with_logits(logits, target * ~void.unsqueeze(1))
    keep = (~void).unsqueeze(1).to(logits.dtype)
    loss = binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * keep).sum() / (keep.sum() * classes).clamp_min(torch.finfo(loss.dtype).tiny)


class SegmentationTuner(TowerTuner):
    """A segmenter whose head trains, and of whose CLIP what a method lets train."""

    settings: TuningSettings

    def __init__(
        self, segmenter: OpenSegmenter, method: TuningMethod, settings: TuningSettings
    ) -> None:
        super().__init__(segmenter.clip, method, settings)
        self.segmenter = segmenter
        if method.kind == "lathadapter":
            width = segmenter.word_vectors(["word"]).shape[-1]
            segmenter.text_adapter = new_text_adapter(width, settings.lathadapter)

    def forward(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        masks: Int[Tensor, "images height width"],
        **tokens: Tensor,
    ) -> dict[str, Tensor]:
        """The loss of a batch: pictures, masks that number the texts, and the texts' tokens."""
        texts = self.texts(tokens)
        if self.segmenter.text_adapter is not None:
            return {"loss": self._adapted(pixels, masks, texts)}
        logits = self.segmenter(pixels, nn.functional.normalize(texts, dim=-1))
        loss = pixel_loss(logits, masks, VOID, self.settings.ignored)
        if isinstance(self.method.radius, float):
            loss = loss + self.settings.radius.weight * radius_penalty(texts, self.method.radius)
        return {"loss": loss}

    def _adapted(self, pixels: Tensor, masks: Tensor, texts: Tensor) -> Tensor:
        """The loss with an adapter on the words: that of pixels, and the adapter's own terms."""
        segmenter, adapter = self.segmenter, self.segmenter.text_adapter
        dense = segmenter.dense(pixels)
        refined = adapter.refine(texts)
        logits = segmenter.head(
            dense.features, nn.functional.normalize(refined, dim=-1), dense.hidden
        )
        scale = segmenter.clip.scale.detach().float()
        own = text_adapter_loss(adapter, dense.features, masks, texts, refined, VOID, scale)
        return pixel_loss(logits, masks, VOID, self.settings.ignored) + own

    def texts(self, tokens: dict[str, Tensor]) -> Float[Tensor, "texts d"]:
        """Texts before they are normalised, with gradients."""
        return pooled(self.segmenter.clip.model.get_text_features(**tokens)).float()

    @torch.no_grad()
    def calibrate(self, pixels: Tensor, masks: Tensor, **tokens: Tensor) -> None:
        """Set the cosine head to the CLIP's own temperature, and its bias by one batch.

        An adapter on the words starts from that batch, too.

        At the bias ``-mean(logsumexp_c(scale cos_c))`` the sigmoids of a place add up to about 1,
        as the softmax that the CLIP was trained by. From SigLIP's start, made for tens of thousands
        of negatives, a few hundred steps do not reach it: the CLIP is bent to do it instead.
        """
        if (adapter := self.segmenter.text_adapter) is not None:
            features = self.segmenter.dense(pixels).features
            start_text_adapter(adapter, features, self.texts(tokens))
            adapter.to(features.device)
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
        adapter = self.segmenter.text_adapter
        own = [] if adapter is None else adapter.parameters()
        return [*super().clip_parameters(), *own]

    def heads(self) -> list[nn.Parameter]:
        return [p for p in self.segmenter.head.parameters() if p.requires_grad]


def radius_penalty(texts: Float[Tensor, "texts d"], target: float) -> Float[Tensor, ""]:
    """``mean(((2 |t| - R) / R)^2)``: how far texts are from a hyperbolic radius."""
    return ((embedding_radius(texts) - target) / target).square().mean()


TEXTS_AT_ONCE = 64
MOST_TEXTS = 512
"""Texts that the start value is fitted on."""


def mean_text_radius(clip: Clip, texts: Sequence[str]) -> float:
    """The mean hyperbolic radius of texts' vectors before they are normalised."""
    return embedding_radius(clip.text_features(texts)).mean().item()


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
