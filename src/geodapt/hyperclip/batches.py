"""Training batches: pieces of pictures, words to ask for, and masks that number these words."""

import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int

from geodapt.hyperclip.page_classes import VOID
from geodapt.vision import Clip

if TYPE_CHECKING:
    from PIL.Image import Image


def drawn_by(rows: Sequence[int], *seed: int) -> np.random.Generator:
    """What is random in a batch, by its rows and not by a running state: a resumed training draws
    the same."""
    return np.random.default_rng([*seed, zlib.crc32(np.array(rows, np.int64).tobytes())])


def asked_words(
    shown: Sequence[int], seen: Sequence[int], asked: int, random: np.random.Generator
) -> list[int]:
    """The classes that a batch is asked for: those it shows, then seen ones by chance."""
    shown = list(dict.fromkeys(shown))
    others = sorted(set(seen) - set(shown))
    more = min(len(others), max(0, asked - len(shown)))
    return shown + sorted(random.choice(others, more, replace=False).tolist() if more else [])


class WordBatches:
    """Batches of one picture's pixels, another's, ... each cut to a square of ``side`` pixels.

    The words of a batch are the classes on its pieces, then others of the seen ones by chance,
    ``asked`` in all, or as many as the pieces show. ``fetch(row)`` gives a picture and its mask of
    class numbers, :data:`VOID` where no class counts; both may have any size: smaller ones are
    enlarged so that a piece fits, and with ``fit`` larger ones shrink to the same shorter side.
    """

    def __init__(
        self,
        count: int,
        fetch: Callable[[int], tuple["Image", Int[np.ndarray, "height width"]]],
        names: Sequence[str],
        seen: Sequence[int],
        clip: Clip,
        asked: int,
        side: int,
        template: str = "{}",
        seed: int = 0,
        fit: bool = False,
    ) -> None:
        self.count, self.fetch, self.names, self.seen = count, fetch, names, list(seen)
        self.clip, self.asked, self.side = clip, asked, side
        self.template, self.seed, self.fit = template, seed, fit

    def __len__(self) -> int:
        return self.count

    def collate(self, rows: list[int]) -> dict[str, Any]:
        """What :class:`~geodapt.hyperclip.tuning.SegmentationTuner` takes."""
        random = drawn_by(rows, self.seed)
        pieces = [self._piece(row, random) for row in rows]
        labels = torch.stack([torch.from_numpy(mask) for _, mask in pieces])
        shown = [word for word in labels.unique().tolist() if word != VOID]
        words = asked_words(shown, self.seen, self.asked, random)
        place = torch.full((VOID + 1,), VOID)
        place[words] = torch.arange(len(words))
        texts = [self.template.format(self.names[word]) for word in words]
        return {
            "pixels": self.clip.normalise([image for image, _ in pieces]),
            "masks": place[labels],
            **self.clip.tokens(texts),
        }

    def _piece(self, row: int, random: np.random.Generator) -> tuple["Image", np.ndarray]:
        from PIL import Image as Pillow

        image, mask = self.fetch(row)
        scale = self.side / min(image.size)
        if scale > 1 or (self.fit and scale < 1):
            size = (
                max(self.side, round(scale * image.width)),
                max(self.side, round(scale * image.height)),
            )
            image = image.resize(size, Pillow.Resampling.BICUBIC)
            grown = Pillow.fromarray(mask.astype(np.int32)).resize(size, Pillow.Resampling.NEAREST)
            mask = np.asarray(grown)
        x = int(random.integers(image.width - self.side + 1))
        y = int(random.integers(image.height - self.side + 1))
        piece = image.crop((x, y, x + self.side, y + self.side))
        return piece, mask[y : y + self.side, x : x + self.side].astype(np.int64)
