"""PromptSRC: tokens in both towers, kept near the frozen CLIP, and averaged over the epochs.

Source: Khattak et al. 2023, "Self-regulating prompts": the independent tokens of section 3.1, the
regularisers of equations 3 to 6, and the Gaussian average of equation 7.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from geodapt.prompts.classes import ClassTexts
from geodapt.prompts.host import TextHost, check_depth, drawn_tokens
from geodapt.prompts.settings import PromptSRC
from geodapt.vision.clip import Clip
from geodapt.vision.deep_prompts import Prompts
from geodapt.vision.towers import image_tower


class IndependentTokens(TextHost):
    """Tokens of ``depth`` text layers and of ``image_depth`` image layers."""

    settings: PromptSRC

    def __init__(self, settings: PromptSRC, clip: Clip, random: Generator) -> None:
        super().__init__(settings)
        image_depth = settings.image_depth or settings.depth
        check_depth(clip, settings.depth, image_depth)
        self.text = self.deep_tokens(clip, settings.depth, random)
        self.image = drawn_tokens(
            image_depth, settings.length, image_tower(clip.model).width, random
        )

    def prompts(self) -> Prompts:
        return Prompts(list(self.text), list(self.image))


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


def epoch_weights(epochs: int, mean: float, std: float) -> list[float]:
    """Weights of epochs 1, 2, ... that add up to 1, as a normal density has them."""
    squares = [((epoch - mean) / std) ** 2 / 2 for epoch in range(1, epochs + 1)]
    least = min(squares)  # so that far from the mean not all of them are 0
    values = [math.exp(least - square) for square in squares]
    return [value / sum(values) for value in values]


class GaussianAverage(nn.Module):
    """Sums in buffers, which checkpoints keep: a resumed training ends with the same average."""

    def __init__(self, parameters: Iterable[Tensor], weights: list[float]) -> None:
        super().__init__()
        self.weights = weights
        self._parameters_of_it = list(parameters)
        for number, parameter in enumerate(self._parameters_of_it):
            self.register_buffer(f"sum_{number}", torch.zeros_like(parameter))

    @torch.no_grad()
    def add(self, epoch: int) -> None:
        """Add the weights as they are after this epoch, counted from 0."""
        for total, parameter in self._pairs():
            total.add_(parameter, alpha=self.weights[epoch])

    @torch.no_grad()
    def apply_average(self) -> None:
        """Put the average in place of the weights."""
        for total, parameter in self._pairs():
            parameter.copy_(total)

    def _pairs(self):
        for number, parameter in enumerate(self._parameters_of_it):
            yield getattr(self, f"sum_{number}"), parameter


def average_of(settings: PromptSRC, parameters: Iterable[Tensor], epochs: int) -> GaussianAverage:
    """The average that settings ask for: by default around 3/4 of the epochs, 1/20 wide."""
    mean = 0.75 * epochs if settings.average_mean is None else settings.average_mean
    std = 0.05 * epochs if settings.average_std is None else settings.average_std
    return GaussianAverage(parameters, epoch_weights(epochs, mean, std))
