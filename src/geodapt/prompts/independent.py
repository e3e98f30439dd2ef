"""Learned tokens in both towers that know nothing of one another: PromptSRC's.

Source: Khattak et al. 2023, "Self-regulating prompts", section 3.1 (independent vision-language
prompting).
"""

from torch import Generator, nn

from geodapt.prompts.host import Host, check_depth, drawn_tokens, start_tokens
from geodapt.prompts.settings import PromptSRC
from geodapt.vision.clip import Clip
from geodapt.vision.deep_prompts import Prompts
from geodapt.vision.towers import image_tower, text_tower


class IndependentTokens(Host):
    """Tokens of ``depth`` text layers and of ``image_depth`` image layers."""

    settings: PromptSRC

    def __init__(self, settings: PromptSRC, clip: Clip, random: Generator) -> None:
        super().__init__(settings)
        image_depth = settings.image_depth or settings.depth
        check_depth(clip, settings.depth, image_depth)
        self.count, self.place = settings.length, settings.place
        width = text_tower(clip.model).width
        first = nn.Parameter(start_tokens(clip, settings.length, settings.words, random))
        deeper = drawn_tokens(settings.depth - 1, settings.length, width, random)
        self.text = nn.ParameterList([first, *deeper])
        self.image = drawn_tokens(
            image_depth, settings.length, image_tower(clip.model).width, random
        )

    def prompts(self) -> Prompts:
        return Prompts(list(self.text), list(self.image))
