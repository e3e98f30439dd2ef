"""Class-agnostic masks by transformers' Mask2Former (Cheng et al. 2022), and words for them.

Every query of the decoder is a mask and a state. :class:`MaskWords` gives it a vector in the space
of a CLIP's texts, as FC-CLIP does (Yu et al. 2023, "Convolutions die hard", section 3.3), so that
any words can be scored by cosine.
"""

import math
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessorPil,
    SwinConfig,
)
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from geodapt.errors import InputError
from geodapt.hyperclip.settings import MaskSettings
from geodapt.models import as_input_errors, load_weights, locate_base, pretrained

TEMPERATURE = 0.07


def build_masker(settings: MaskSettings) -> Mask2FormerForUniversalSegmentation:
    """A small Mask2Former from scratch, by torch's seed."""
    first = settings.backbone
    kind: Any = SwinConfig  # whose arguments are more than it lists
    backbone = kind(
        embed_dim=first,
        depths=list(settings.depths),
        num_heads=[first // 12 * 2**stage for stage in range(4)],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        drop_path_rate=0.0,
    )
    width = settings.width
    kind = Mask2FormerConfig
    config = kind(
        backbone_config=backbone,
        feature_size=width,
        mask_feature_size=width,
        hidden_dim=width,
        encoder_feedforward_dim=2 * width,
        dim_feedforward=4 * width,
        encoder_layers=max(1, settings.layers // 2),
        decoder_layers=settings.layers + 1,  # it counts the masks before the first layer
        num_attention_heads=settings.heads,
        num_queries=settings.queries,
        train_num_points=settings.points,
        num_labels=1,
    )
    return Mask2FormerForUniversalSegmentation(config)


def load_masker(
    name: str,
) -> tuple[Any, tuple[tuple[float, ...], tuple[float, ...]]]:
    """A Mask2Former by its folder or hub name, and the mean and deviation of its colours.

    Raises :class:`InputError` for another model.
    """
    location = locate_base(name)
    with as_input_errors(name):
        found = pretrained(AutoConfig, location).model_type
        if found != "mask2former":
            raise InputError(
                f"'{name}' is a {found}, which finds no masks; give a Mask2Former, such as "
                "facebook/mask2former-swin-tiny-coco-panoptic"
            )
        model = load_weights(name, location, kind=Mask2FormerForUniversalSegmentation)
        colours = pretrained(Mask2FormerImageProcessorPil, location)
    return model, (tuple(colours.image_mean), tuple(colours.image_std))


class MaskWords(nn.Module):
    """A vector per mask in the space of texts: of its state and of the pixels that it covers.

    ``logits = s cos(f(q + g(mean of pixel features in the mask)), texts)``, the last class a
    learned vector that stands for no object. The start of ``s`` is CLIP's, 1 / 0.07; it stays
    below 100.
    """

    def __init__(self, width: int, features: int, embedding: int) -> None:
        """Of the decoder's states, of its pixels, and of texts."""
        super().__init__()
        self.of_pixels = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width))
        self.embed = nn.Sequential(
            *(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
            nn.Linear(width, embedding),
        )
        self.void = nn.Parameter(torch.randn(embedding))
        self.log_scale = nn.Parameter(torch.tensor(1 / TEMPERATURE).log())

    def forward(
        self,
        states: Float[Tensor, "images queries width"],
        masks: Float[Tensor, "images queries h w"],
        pixels: Float[Tensor, "images features h w"],
        texts: Float[Tensor, "words d"],
    ) -> Float[Tensor, "images queries words_and_void"]:
        """Logits of words, then of no object; ``masks`` are logits, which get no gradient here."""
        inside = (masks.detach() > 0).to(pixels.dtype)
        pooled = pool_features(pixels, inside)
        vectors = self.embed(states + self.of_pixels(pooled))
        every = torch.cat([texts, nn.functional.normalize(self.void, dim=0)[None]])
        scale = self.log_scale.clamp(max=math.log(100)).exp()
        return scale * nn.functional.normalize(vectors, dim=-1) @ every.T


def pool_features(
    features: Float[Tensor, "images d rows columns"], masks: Float[Tensor, "images n h w"]
) -> Float[Tensor, "images n d"]:
    """The mean over each mask's pixels of the feature of the place that the pixel lies in.

    Masks may be finer than the places, which then count by the share that is covered; so a mask
    smaller than a place still has a feature. An empty mask has zeros. FC-CLIP makes masks as
    coarse as the places first, which leaves small objects empty.
    """
    shares = nn.functional.adaptive_avg_pool2d(masks, (features.shape[2], features.shape[3]))
    total = shares.sum((2, 3)).unsqueeze(-1)
    summed = torch.einsum("inhw,idhw->ind", shares, features)
    return summed / total.clamp_min(torch.finfo(summed.dtype).tiny)


def mask_loss(
    masker: Mask2FormerForUniversalSegmentation,
    layers: list[dict[str, Tensor]],
    masks: list[Float[Tensor, "segments h w"]],
    labels: list[Tensor],
) -> Float[Tensor, ""]:
    """Mask2Former's loss of the last layer and all before it, by transformers.

    A layer is ``masks_queries_logits`` and ``class_queries_logits``, whose last class is no object.
    Each true segment takes one mask by the cheapest assignment; then cross-entropy of words, binary
    cross-entropy and dice of masks, weighted 2, 5, 5. A picture without segments teaches that all
    its masks show no object.
    """
    words = layers[-1]["class_queries_logits"].shape[-1] - 1
    shown = [place for place, own in enumerate(labels) if len(own)]
    bare = [place for place, own in enumerate(labels) if not len(own)]
    config: Any = deepcopy(masker.config)
    config.num_labels = words
    total = layers[-1]["masks_queries_logits"].sum() * 0
    for layer in layers:
        for place in bare:
            logits = layer["class_queries_logits"][place]
            none = torch.full((len(logits),), words, device=logits.device)
            total = total + config.class_weight * nn.functional.cross_entropy(logits, none) / len(
                labels
            )
    if not shown:
        return total
    some = [{name: values[shown] for name, values in layer.items()} for layer in layers]
    losses = Mask2FormerLoss(config, masker.weight_dict).to(total.device)(
        **some[-1],
        mask_labels=[masks[place] for place in shown],
        class_labels=[labels[place] for place in shown],
        auxiliary_predictions=some[:-1],
    )
    for name, value in losses.items():
        (weight,) = (w for key, w in masker.weight_dict.items() if name.startswith(key))
        total = total + weight * value * len(shown) / len(labels)
    return total


def check_sides(side: int, patch: int, window: int) -> None:
    """Refuse pictures and windows that patches do not divide."""
    for name, length in (("pictures", side), ("windows", window)):
        if length % patch:
            raise InputError(f"{name} of {length} pixels do not divide into patches of {patch}")
    if window > side:
        raise InputError(f"a window of {window} pixels does not fit on pictures of {side}")
