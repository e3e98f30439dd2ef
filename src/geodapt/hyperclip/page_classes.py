"""Pages of characters as segmentation data: classes by level of the captions, seen and new."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from geodapt.data.vision import PictureClasses
from geodapt.vision import Clip

if TYPE_CHECKING:
    from datasets import Dataset

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


class PageBatches:
    """Training batches: pages, the words that a batch is asked for, and its masks by those words.

    The words are the classes on the pages, then others of the seen ones by chance, ``asked`` in
    all, or as many as the pages show.
    """

    def __init__(
        self,
        pages: "Dataset",
        classes: PageClasses,
        clip: Clip,
        asked: int,
        template: str = "{}",
    ) -> None:
        self.images = [page["image"].convert("RGB") for page in pages]
        self.masks = [classes.labels(np.array(page["mask"])) for page in pages]
        self.classes, self.clip, self.asked, self.template = classes, clip, asked, template

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> int:
        return row

    def collate(self, rows: list[int]) -> dict[str, Any]:
        """What :class:`SegmentationTuner` takes; the same rows give the same words."""
        labels = torch.stack([self.masks[row] for row in rows])
        words = self.words(labels, rows)
        place = torch.full((VOID + 1,), VOID)
        place[words] = torch.arange(len(words))
        texts = [self.template.format(self.classes.names[word]) for word in words]
        return {
            "pixels": self.clip.normalise([self.images[row] for row in rows]),
            "masks": place[labels],
            **self.clip.tokens(texts),
        }

    def words(self, labels: Tensor, rows: Sequence[int]) -> list[int]:
        """The classes that a batch is asked for."""
        shown = [word for word in labels.unique().tolist() if word != VOID]
        others = sorted(set(self.classes.seen) - set(shown))
        # By the rows rather than by a running state: a resumed training draws the same.
        random = np.random.default_rng(zlib.crc32(np.array(rows, dtype=np.int64).tobytes()))
        more = min(len(others), max(0, self.asked - len(shown)))
        return shown + sorted(random.choice(others, more, replace=False).tolist() if more else [])
