"""MaPLe: learned tokens in both towers, the pictures' by a linear map of the texts'.

Source: Khattak et al. 2023, "MaPLe: multi-modal prompt learning", section 3.2; the maps of the
deeper layers start alike, as in the authors' code.
"""

from copy import deepcopy

import torch
from torch import Generator, nn

from geodapt.prompts.host import Host, check_depth, drawn_tokens, start_tokens
from geodapt.prompts.settings import MaPLe
from geodapt.vision.clip import Clip
from geodapt.vision.deep_prompts import Prompts
from geodapt.vision.towers import image_tower, text_tower


class CoupledTokens(Host):
    """``image[l] = map[l](text[l])`` for each of ``depth`` layers."""

    settings: MaPLe

    def __init__(self, settings: MaPLe, clip: Clip, random: Generator) -> None:
        super().__init__(settings)
        check_depth(clip, settings.depth, settings.depth)
        self.count, self.place = settings.length, settings.place
        width = text_tower(clip.model).width
        first = start_tokens(clip, settings.length, settings.words, random)
        deeper = drawn_tokens(settings.depth - 1, settings.length, width, random)
        self.text = nn.ParameterList([nn.Parameter(first), *deeper])
        own, shared = (_linear(width, image_tower(clip.model).width, random) for _ in range(2))
        self.maps = nn.ModuleList([own, *(deepcopy(shared) for _ in deeper)])

    def prompts(self) -> Prompts:
        text = list(self.text)
        return Prompts(
            text, [to_image(tokens) for to_image, tokens in zip(self.maps, text, strict=True)]
        )


def _linear(width: int, out: int, random: Generator) -> nn.Linear:
    """torch's own start of a linear map, drawn from a generator: uniform within 1/sqrt(width)."""
    made = nn.Linear(width, out)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_((2 * torch.rand(parameter.shape, generator=random) - 1) / width**0.5)
    return made
