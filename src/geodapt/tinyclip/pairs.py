"""Batches of pictures and captions to train a CLIP on."""

import io
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from geodapt.progress import bar
from geodapt.tinyclip.model import MEAN, STD

READ_AT_ONCE = 1000


def pixels(images: Dataset) -> UInt8[Tensor, "rows height width"]:
    """The grey pictures of a data set's ``image`` column, all of one size, in memory."""
    from PIL import Image

    pictures = []
    with bar("reading pictures", len(images)) as progress:
        for batch in images.select_columns("image").with_format("arrow").iter(READ_AT_ONCE):
            for cell in batch["image"].to_pylist():
                with Image.open(io.BytesIO(cell["bytes"])) as picture:
                    pictures.append(torch.from_numpy(np.array(picture)))
            progress.advance(len(batch))
    return torch.stack(pictures)


def normalised(grey: UInt8[Tensor, "rows height width"]) -> Float[Tensor, "rows 3 height width"]:
    """What the processor of :func:`~geodapt.tinyclip.model.new_clip` makes of pictures that fit."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    return (grey.unsqueeze(1).float() / 255 - mean) / std


class Pairs:
    """Rows of a picture and one of its captions, and the batches that they make.

    Mostly the caption is the last of its chain, the picture's name; a share ``general`` of the
    rows has one of those above it. From the epoch ``still`` on, pictures move by at most ``moved``
    of their side and are up to ``1 + zoomed`` times as large or small. A general caption stands in
    a batch once, since to the contrastive loss the other pictures that it fits are wrong answers.
    """

    def __init__(
        self,
        grey: UInt8[Tensor, "rows height width"],
        labels: Sequence[int] | Int[np.ndarray, " rows"],
        captions: Sequence[Sequence[str]],
        tokenizer: PreTrainedTokenizerBase,
        general: float,
        moved: float = 0.0,
        zoomed: float = 0.0,
        still: float = 0.0,
    ) -> None:
        self.grey, self.labels, self.general = grey, np.asarray(labels), general
        self.moved, self.zoomed, self.still = moved, zoomed, still
        self.set_epoch(0)
        texts = list(dict.fromkeys(caption for chain in captions for caption in chain))
        number = {text: index for index, text in enumerate(texts)}
        self.chains = np.array([[number[caption] for caption in chain] for chain in captions])
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        self.input_ids, self.attention_mask = tokens["input_ids"], tokens["attention_mask"]
        self.lengths = self.attention_mask.sum(1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> int:
        return index

    def set_epoch(self, epoch: int) -> None:
        """Pictures stay as they are in the first epochs, and move in the others."""
        self._moves = bool(self.moved or self.zoomed) and epoch >= self.still

    def collate(self, rows: list[int]) -> dict[str, Any]:
        """A batch for ``CLIPModel.forward``; the same rows give the same captions."""
        texts = torch.from_numpy(self.captions(rows))
        longest = int(self.lengths[texts].max())
        return {
            "pixel_values": self._placed(normalised(self.grey[rows]), rows),
            "input_ids": self.input_ids[texts, :longest],
            "attention_mask": self.attention_mask[texts, :longest],
            "return_loss": True,
        }

    def _placed(
        self, images: Float[Tensor, "rows 3 height width"], rows: list[int]
    ) -> Float[Tensor, "rows 3 height width"]:
        """Pictures elsewhere and in another size, on more of the paper at their edges."""
        if not self._moves:
            return images
        random = np.random.default_rng([1, zlib.crc32(np.array(rows, dtype=np.int64).tobytes())])
        most = np.log1p(self.zoomed)
        scale = np.exp(-random.uniform(-most, most, len(rows)))
        # The grid runs from -1 to 1, so a picture's side is 2.
        away = 2 * random.uniform(-self.moved, self.moved, (len(rows), 2)) * scale[:, None]
        places = torch.zeros(len(rows), 2, 3)
        places[:, 0, 0] = places[:, 1, 1] = torch.from_numpy(scale).float()
        places[:, :, 2] = torch.from_numpy(away).float()
        grid = nn.functional.affine_grid(places, list(images.shape), align_corners=False)
        return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def captions(self, rows: list[int]) -> Int[np.ndarray, " rows"]:
        """The number of each row's caption."""
        # By the rows rather than by a running state: a resumed training draws the same.
        random = np.random.default_rng(zlib.crc32(np.array(rows, dtype=np.int64).tobytes()))
        chains = self.chains[self.labels[rows]]
        names = chains[:, -1]
        wants = random.random(len(rows)) < self.general
        above = chains[np.arange(len(rows)), random.integers(chains.shape[1] - 1, size=len(rows))]
        drawn = np.where(wants, above, names)
        first = np.zeros(len(rows), dtype=bool)
        first[np.unique(drawn, return_index=True)[1]] = True
        return np.where(first, drawn, names)
