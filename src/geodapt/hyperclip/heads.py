"""From dense features and embedded words to a logit per word and place."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from geodapt.errors import InputError
from geodapt.hyperclip.aggregation import AggregationLayer
from geodapt.hyperclip.settings import CostSettings

OUT = -100.0
"""Logit of the classes that are left out where there are more than the head takes."""


def cost_volume(
    features: Float[Tensor, "images d h w"], texts: Float[Tensor, "classes d"]
) -> Float[Tensor, "images classes h w"]:
    """Cosine of each place's feature and each text's vector."""
    return torch.einsum("idhw,cd->ichw", normalize(features, dim=1), normalize(texts, dim=1))


class CosineHead(nn.Module):
    """``scale * cosine + bias``, the logit of "this place shows that class"; two parameters.

    The start is SigLIP's: 10 and -10, so that almost every place is negative of almost every class.
    """

    def __init__(self, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(
        self,
        features: Float[Tensor, "images d h w"],
        texts: Float[Tensor, "classes d"],
        levels: Sequence[Tensor] = (),
    ) -> Float[Tensor, "images classes h w"]:
        """Logits on the grid of the features; ``levels`` are not used."""
        return self.log_scale.exp() * cost_volume(features, texts) + self.bias


class CostAggregation(nn.Module):
    """CAT-Seg's head: the cost volume, embedded and refined over places, over classes, upwards.

    Args:
        embedding: ``d`` of features and texts.
        width: of the intermediate features of the image tower.
        settings: sizes.

    Source: Cho et al. 2024, "CAT-Seg: Cost aggregation for open-vocabulary semantic segmentation",
    as KU-CVLAB/CAT-Seg 6d3a188 builds it. The grid is the input's, of any size.
    """

    def __init__(self, embedding: int, width: int, settings: CostSettings | None = None) -> None:
        super().__init__()
        self.settings = s = settings or CostSettings()
        if s.width % s.heads:
            raise InputError(f"{s.heads} heads do not divide a width of {s.width}")
        self.embed = nn.Conv2d(1, s.width, 7, padding=3)
        self.image_guidance = nn.Sequential(nn.Conv2d(embedding, s.width, 3, padding=1), nn.ReLU())
        self.text_guidance = nn.Sequential(nn.Linear(embedding, s.width), nn.ReLU())
        self.layers = nn.ModuleList(
            AggregationLayer(s.width, s.heads, s.window, s.classes) for _ in range(s.layers)
        )
        # Intermediate features on twice and four times the grid, then what each doubling takes.
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose2d(width, channels, factor, stride=factor)
            for channels, factor in zip(s.decoder_guidance, (2, 4), strict=True)
        )
        projected = s.decoder_guidance_projected
        self.decoder_guidance = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.ReLU())
            for channels, out in zip(s.decoder_guidance, projected, strict=True)
        )
        self.doublings = nn.ModuleList(
            [
                Doubling(s.width, s.decoder[0], projected[0]),
                Doubling(s.decoder[0], s.decoder[1], projected[1]),
            ]
        )
        self.logit = nn.Conv2d(s.decoder[1], 1, 3, padding=1)

    def forward(
        self,
        features: Float[Tensor, "images d h w"],
        texts: Float[Tensor, "classes d"],
        levels: Sequence[Float[Tensor, "images width h w"]],
    ) -> Float[Tensor, "images classes height width"]:
        """Logits on four times the grid of the features.

        ``levels`` are the image tower's features after a third and two thirds of its layers.
        """
        texts = normalize(texts, dim=1)
        cost = cost_volume(features, texts)
        images, classes = cost.shape[:2]
        kept = None
        if classes > self.settings.classes:
            kept = cost.flatten(2).amax(2).topk(self.settings.classes, dim=1).indices
            cost = cost.gather(1, kept[..., None, None].expand(-1, -1, *cost.shape[2:]))
        x = self.embed(cost.flatten(0, 1).unsqueeze(1)).unflatten(0, cost.shape[:2])
        image, text = self.image_guidance(features), self.text_guidance(texts)
        text = text[kept] if kept is not None else text.expand(images, -1, -1)
        pooling = self.settings.pooling if self.training else 1
        for layer in self.layers:
            x = layer(x, image, text, pooling)
        x = x.flatten(0, 1)
        for level, up, project, double in zip(
            levels, self.upsamplers, self.decoder_guidance, self.doublings, strict=True
        ):
            x = double(x, project(up(level)))
        logits = self.logit(x).view(images, -1, *x.shape[2:])
        if kept is None:
            return logits
        place = kept[..., None, None].expand_as(logits)
        return logits.new_full((images, classes, *x.shape[2:]), OUT).scatter(1, place, logits)


class Doubling(nn.Module):
    """Doubles the grid and joins guidance: a transposed and two 3 x 3 convolutions with GroupNorm.

    The input has ``inputs`` channels, of which the transposed convolution keeps all but
    ``guidance``.
    """

    def __init__(self, inputs: int, outputs: int, guidance: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, inputs - guidance, 2, stride=2)
        self.refine = nn.Sequential(*_refining(inputs, outputs), *_refining(outputs, outputs))

    def forward(
        self, x: Float[Tensor, "rows c h w"], guidance: Float[Tensor, "images g h2 w2"]
    ) -> Float[Tensor, "rows out h2 w2"]:
        """``rows`` are the images' classes, one image after the other."""
        guidance = guidance.repeat_interleave(len(x) // len(guidance), dim=0)
        return self.refine(torch.cat([self.up(x), guidance], dim=1))


def _refining(inputs: int, outputs: int) -> list[nn.Module]:
    groups = max(1, outputs // 16)
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [convolution, nn.GroupNorm(groups, outputs), nn.ReLU()]


def resized(
    logits: Float[Tensor, "images classes h w"], size: Sequence[int]
) -> Float[Tensor, "images classes height width"]:
    """Logits on another grid, interpolated bilinearly between the centres of places."""
    return interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
