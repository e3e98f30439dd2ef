"""MaPLe: learned tokens in both towers, the pictures' by a linear map of the texts'.

Source: Khattak et al. 2023, "MaPLe: multi-modal prompt learning", section 3.2; the maps of the
deeper layers start alike, as in the authors' code.
"""

from copy import deepcopy

from torch import Generator, nn

from geodapt.prompts.host import TextHost, check_depth, drawn_linear
from geodapt.prompts.settings import MaPLe
from geodapt.vision.clip import Clip
from geodapt.vision.deep_prompts import Prompts
from geodapt.vision.towers import image_tower, text_tower


class CoupledTokens(TextHost):
    """``image[l] = map[l](text[l])`` for each of ``depth`` layers."""

    settings: MaPLe

    def __init__(self, settings: MaPLe, clip: Clip, random: Generator) -> None:
        super().__init__(settings)
        check_depth(clip, settings.depth, settings.depth)
        self.text = self.deep_tokens(clip, settings.depth, random)
        widths = text_tower(clip.model).width, image_tower(clip.model).width
        own, shared = (drawn_linear(*widths, random) for _ in range(2))
        self.maps = nn.ModuleList([own, *(deepcopy(shared) for _ in self.text[1:])])

    def prompts(self) -> Prompts:
        text = list(self.text)
        return Prompts(
            text, [to_image(tokens) for to_image, tokens in zip(self.maps, text, strict=True)]
        )
