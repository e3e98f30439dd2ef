"""What a host learns, as a module of its own beside the frozen CLIP."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from geodapt.errors import InputError
from geodapt.prompts.classes import ClassTexts, Place, embedded_words
from geodapt.prompts.settings import HostSettings, TextTokenSettings
from geodapt.vision.clip import Clip
from geodapt.vision.deep_prompts import Prompts
from geodapt.vision.towers import image_tower, text_tower

STD = 0.02
"""Of the normal distribution that learned tokens are drawn from, unless they start as words."""


class Host(nn.Module):
    """Plain CLIP, and the base of all hosts: no tokens, no change of features, no loss."""

    count = 0
    """Learned tokens in each text."""
    place: Place = "end"

    def __init__(self, settings: HostSettings) -> None:
        super().__init__()
        self.settings = settings

    def prompts(self) -> Prompts:
        """What stands in both towers, with gradients."""
        return Prompts()

    def image_features(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        """What pictures are compared with class texts by, of the image tower's vectors."""
        return features

    def class_texts(self, clip: Clip, names: tuple[str, ...]) -> ClassTexts:
        """The texts of these classes, with room for the learned tokens."""
        return ClassTexts(clip, names, self.settings.template, self.count, self.place)

    def remember_classes(self, names: tuple[str, ...]) -> None:
        """Called when training begins, with the classes that it shows."""

    def saved(self) -> dict[str, Any]:
        """What building it again needs beside its settings, as JSON."""
        return {}


def drawn_tokens(layers: int, length: int, width: int, random: Generator) -> nn.ParameterList:
    """Tokens of some layers, each from N(0, 0.02)."""
    return nn.ParameterList(
        nn.Parameter(STD * torch.randn(length, width, generator=random)) for _ in range(layers)
    )


class TextHost(Host):
    """A host with learned tokens in the text."""

    settings: TextTokenSettings

    def __init__(self, settings: TextTokenSettings) -> None:
        super().__init__(settings)
        self.count, self.place = settings.length, settings.place

    def first_tokens(self, clip: Clip, random: Generator) -> Float[Tensor, "length width"]:
        """Those of the first layer: the embeddings of words as far as they go, then random."""
        width = text_tower(clip.model).width
        drawn = STD * torch.randn(self.settings.length, width, generator=random)
        if self.settings.words is not None:
            own = embedded_words(clip, self.settings.words)[: len(drawn)].cpu()
            drawn[: len(own)] = own
        return drawn

    def deep_tokens(self, clip: Clip, depth: int, random: Generator) -> nn.ParameterList:
        """Those of ``depth`` layers, the first as :meth:`first_tokens`."""
        first = nn.Parameter(self.first_tokens(clip, random))
        width = text_tower(clip.model).width
        return nn.ParameterList(
            [first, *drawn_tokens(depth - 1, self.settings.length, width, random)]
        )


@torch.no_grad()
def drawn_linear(width: int, out: int, random: Generator) -> nn.Linear:
    """torch's own start of a linear map, drawn from a generator: uniform within 1/sqrt(width)."""
    made = nn.Linear(width, out)
    for parameter in made.parameters():
        parameter.copy_((2 * torch.rand(parameter.shape, generator=random) - 1) / width**0.5)
    return made


def check_depth(clip: Clip, text: int, image: int) -> None:
    """Raises :class:`InputError` for more layers of tokens than a tower has layers."""
    towers: Mapping[str, tuple[int, int]] = {
        "text": (text, len(text_tower(clip.model).layers)),
        "image": (image, len(image_tower(clip.model).layers)),
    }
    for name, (asked, layers) in towers.items():
        if asked > layers:
            raise InputError(
                f"depth {asked} is over the {layers} layers of the {name} tower of "
                f"{clip.name or 'this CLIP'}; lower the depth"
            )
