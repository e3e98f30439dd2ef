"""Pages of characters as segmentation data: classes by level of the captions, seen and new."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from geodapt.data.vision import PictureClasses

if TYPE_CHECKING:
    from geodapt.data.glyphs import Glyphs

VOID = 65_535
"""Label of the pixels that count for no class: the paper."""


@dataclass(frozen=True)
class PageClasses:
    """The captions of one level, and which of them each character has."""

    level: int
    """1 is the most general."""
    names: list[str]
    characters: PictureClasses
    """What the values of a page's mask stand for: characters, then papers."""
    of_label: Int[Tensor, " labels"]
    """The class of each of them, :data:`VOID` of papers."""
    seen: list[int]
    """Classes of at least one character that training shows."""
    new: list[int]
    """All others."""

    @classmethod
    def of(cls, glyphs: "Glyphs", level: int) -> "PageClasses":
        """The classes of a level of the captions, 1 to 4."""
        from geodapt.data.glyphs.pages import page_classes  # draws, which needs more packages

        captions = [chain[level - 1] for chain in glyphs.classes["captions"]]
        names = list(dict.fromkeys(captions))
        number = {name: place for place, name in enumerate(names)}
        shown = page_classes(glyphs)
        of_label = torch.tensor([number[c] for c in captions] + [VOID] * len(shown.stuff))
        trained = {
            number[caption]
            for caption, new in zip(captions, glyphs.classes["new"], strict=True)
            if not new
        }
        new = [place for place in range(len(names)) if place not in trained]
        return cls(level, names, shown, of_label, sorted(trained), new)

    def labels(self, mask: Int[np.ndarray, "height width"]) -> Int[Tensor, "height width"]:
        """The classes of a page's pixels, paper as :data:`VOID`."""
        characters = torch.from_numpy(self.characters.labels(mask))
        return torch.where(characters >= 0, self.of_label[characters.clamp_min(0)], VOID)
