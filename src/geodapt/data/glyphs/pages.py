"""Pages of several characters on paper, with the class and the object of every pixel.

For segmentation, detection and panoptic segmentation with an open vocabulary: training pages show
what training shows, test pages characters in other fonts and characters that are new. Paper is
stuff: a class without objects.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from jaxtyping import Int
from PIL import Image as Pillow

from geodapt.data.glyph_settings import PageSettings, Paper
from geodapt.data.glyphs.drawing import Ink, Pen, greys
from geodapt.data.glyphs.fonts import Font
from geodapt.data.glyphs.loading import Glyphs
from geodapt.data.glyphs.store import drawn_with, png
from geodapt.data.progress_bars import quiet_datasets
from geodapt.data.vision.features import FEATURES, PictureClasses
from geodapt.data.vision.pictures import label_column, number_column
from geodapt.errors import InputError
from geodapt.files import build_once, cache_folder
from geodapt.progress import bar

PAPERS: dict[Paper, str] = {
    "plain": "plain paper",
    "lined": "lined paper",
    "squared": "squared paper",
    "dotted": "dotted paper",
}
"""What each kind is called as a class, in the order of the classes."""

SPACING = (8, 17)
"""Pixels from a rule to the next: from the first, below the second."""
DEPTH = (50, 100)
"""How dark rules are, of 255: lighter than ink, so that characters stay in front."""


def rules(kind: Paper, side: int, random: np.random.Generator) -> Int[np.ndarray, "side side"]:
    """How much the rules of a sheet cover each pixel, 0 to 255; one pixel wide, none on plain."""
    spacing, depth = int(random.integers(*SPACING)), int(random.integers(*DEPTH))
    across, down = (np.arange(side) % spacing == int(random.integers(spacing)) for _ in range(2))
    ruled = {
        "plain": np.zeros((side, side), dtype=bool),
        "lined": np.repeat(down[:, None], side, axis=1),
        "squared": down[:, None] | across,
        "dotted": down[:, None] & across,
    }[kind]
    return depth * ruled.astype(np.int64)


PAGES_VERSION = 2
"""Part of the cache's key: raised whenever the same settings give other pages."""

SHOWN = {"train": ("train",), "validation": ("validation",), "test": ("test", "new")}
"""The splits that each split's pages take their characters from."""

COVERED = 64
"""A pixel shows a character where ink covers a quarter of it (of 255)."""

TRIES = 20


def load_pages(glyphs: Glyphs, settings: PageSettings) -> DatasetDict:
    """Pages in ``train``, ``validation`` and ``test``, drawn where the cache does not have them.

    Columns are all of :mod:`geodapt.data.vision.features`: ``image`` (grey); ``mask`` (16 bits,
    whose values :func:`page_classes` explains); ``objects``; ``segments`` (16 bits), whose first
    ids, from 1, are those of the objects in their order, and whose last is the paper's. Every pixel
    belongs to a segment. Boxes do not overlap; a character that finds no room on its page is left
    out.

    Raises :class:`InputError` where a split has no characters, or more than a mask can hold.
    """
    if (count := len(page_classes(glyphs).names)) >= 2**16:
        raise InputError(
            f"a mask of 16 bits holds 65,535 classes, there are {count}; choose scripts or kinds"
        )
    pairs = {name: _pairs(glyphs, splits) for name, splits in SHOWN.items()}
    folder = cache_folder() / "glyph-pages" / _key(glyphs, pairs, settings)

    def make(temporary: Path) -> None:
        counts = {name: settings.train if name == "train" else settings.test for name in SHOWN}
        with bar("setting pages", sum(counts.values())) as progress, quiet_datasets():
            for number, (name, count) in enumerate(counts.items()):
                press = _Press(glyphs, settings, [settings.seed, number])
                pages = []
                for _ in range(count):
                    pages.append(press.page(pairs[name]))
                    progress.advance()
                Dataset.from_list(pages, FEATURES).save_to_disk(str(temporary / name))

    build_once(folder, make)
    return DatasetDict({name: Dataset.load_from_disk(str(folder / name)) for name in SHOWN})


def page_classes(glyphs: Glyphs) -> PictureClasses:
    """The classes of pages: the characters by their labels, then the papers, which are stuff.

    A mask has 1 + the class's number.
    """
    characters = tuple(glyphs.classes["name"])
    stuff = range(len(characters), len(characters) + len(PAPERS))
    names = (*characters, *PAPERS.values())
    return PictureClasses.numbered(names, offset=1, stuff=tuple(stuff))


class _Press:
    """Sets one page after another, by the seed."""

    def __init__(self, glyphs: Glyphs, settings: PageSettings, seed: list[int]) -> None:
        self.characters, self.fonts = glyphs.classes["character"][:], glyphs.fonts
        self.settings = settings
        self.random = np.random.default_rng(seed)
        # A few sizes rather than all, so that few fonts are open at once.
        self.sizes = np.unique(np.linspace(*settings.em, num=8).round().astype(int))
        self.pens: dict[tuple[Path, int], Pen] = {}

    def page(self, pairs: np.ndarray) -> dict:
        """One page of some of these pairs of a character and a font."""
        side, random = self.settings.size, self.random
        coverage = Pillow.new("L", (side, side))
        paper = self.settings.papers[random.integers(len(self.settings.papers))]
        paper_class = len(self.characters) + list(PAPERS).index(paper)
        under = rules(paper, side, random)
        mask = np.full((side, side), paper_class + 1, dtype=np.uint16)
        segments = np.zeros((side, side), dtype=np.uint16)
        boxes: list[tuple[int, int, int, int]] = []
        labels: list[int] = []
        low, high = self.settings.characters
        for label, domain in pairs[
            random.integers(len(pairs), size=random.integers(low, high + 1))
        ]:
            ink = self._ink(self.characters[label], self.fonts[domain])
            if ink is None or not (shown := np.asarray(ink.coverage) >= COVERED).any():
                continue
            if (corner := self._room(ink.coverage.size, boxes)) is None:
                continue
            (x, y), (width, height) = corner, ink.coverage.size
            coverage.paste(ink.coverage, (x, y))
            boxes.append((x, y, width, height))
            labels.append(int(label))
            mask[y : y + height, x : x + width][shown] = label + 1
            segments[y : y + height, x : x + width][shown] = len(labels)
        ids = [*range(1, len(labels) + 2)]
        segments[segments == 0] = ids[-1]  # the paper
        dark = np.maximum(np.asarray(coverage), under).astype(np.uint8)
        picture = Pillow.fromarray(dark).point(greys(*random.uniform(-1, 1, 2)))
        return {
            "image": png(picture),
            "mask": png(Pillow.fromarray(mask)),
            "objects": {"bbox": boxes, "category": labels, "crowd": [False] * len(labels)},
            "segments": png(Pillow.fromarray(segments)),
            "segments_info": {
                "id": ids,
                "category": [*labels, paper_class],
                "crowd": [False] * len(ids),
            },
        }

    def _ink(self, character: str, font: Font) -> Ink | None:
        em = int(self.random.choice(self.sizes))
        if (font.file, em) not in self.pens:
            self.pens[font.file, em] = Pen(font.file, em)
        return self.pens[font.file, em].ink(character, self.settings.size // 2)

    def _room(
        self, size: tuple[int, int], boxes: list[tuple[int, int, int, int]]
    ) -> tuple[int, int] | None:
        """The corner of a place that no box touches, or None after some tries."""
        width, height = size
        for _ in range(TRIES):
            x = int(self.random.integers(self.settings.size - width + 1))
            y = int(self.random.integers(self.settings.size - height + 1))
            if all(
                x + width < left or left + wide < x or y + height < top or top + high < y
                for left, top, wide, high in boxes
            ):
                return x, y
        return None


def _pairs(glyphs: Glyphs, splits: tuple[str, ...]) -> np.ndarray:
    """The different pairs of a label and a font in some splits, in order."""
    columns = [
        np.stack([label_column(rows), number_column(rows, "domain")], axis=1)
        for name in splits
        if len(rows := glyphs.splits[name])
    ]
    if not columns:
        raise InputError(
            f"the characters have no rows for {' and '.join(splits)}, so there is nothing to set "
            "pages with; raise test, validation or new"
        )
    return np.unique(np.concatenate(columns), axis=0)


def _key(glyphs: Glyphs, pairs: dict[str, np.ndarray], settings: PageSettings) -> str:
    """A short hash of all that the pages depend on."""
    depends = {
        "version": PAGES_VERSION,
        "drawn": drawn_with(glyphs.fonts),
        "characters": "".join(glyphs.classes["character"]),
        "settings": settings.model_dump(),
    }
    digest = hashlib.sha256(json.dumps(depends).encode())
    for of_split in pairs.values():
        digest.update(of_split.astype(np.int64).tobytes())
    return digest.hexdigest()[:16]
