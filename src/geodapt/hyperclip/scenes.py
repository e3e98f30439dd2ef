"""Pictures with objects, from pages or from a path: their classes, seen and new, and batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from geodapt.data.vision import CocoPanopticSettings, PictureClasses, PictureData
from geodapt.data.vision.coco_settings import BASE, NOVEL
from geodapt.data.vision.features import picture_source, stored_pictures
from geodapt.errors import InputError
from geodapt.hyperclip.page_classes import PageClasses
from geodapt.vision import open_picture

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

    from geodapt.data.glyphs import Glyphs

LEFT_OUT = -1


@dataclass(frozen=True)
class SceneClasses:
    """Classes that are asked for, and which of them each category of the data is."""

    names: list[str]
    of_category: list[int]
    """The class of each category, :data:`LEFT_OUT` where it is not asked for."""
    seen: list[int]
    """Classes that training may show."""
    new: list[int]
    """All others."""
    stuff: frozenset[int] = frozenset()
    """Classes without objects that could be counted."""

    def of(self, categories: Sequence[int]) -> list[int]:
        """The class of each."""
        return [self.of_category[category] for category in categories]


@dataclass(frozen=True)
class Scenes:
    """What trains, what is measured, and their classes."""

    train: "Dataset"
    test: "Dataset"
    classes: SceneClasses
    notes: list[str]
    categories: PictureClasses
    """What the data's own numbers stand for."""
    other_classes: SceneClasses | None = None
    """Those of the test where it has its own."""
    other_categories: PictureClasses | None = None
    """What the test's own numbers stand for, where they are others."""

    @property
    def tested_classes(self) -> SceneClasses:
        """The classes that the test is asked for."""
        return self.other_classes or self.classes

    @property
    def tested_categories(self) -> PictureClasses:
        """What the test's own numbers stand for."""
        return self.other_categories or self.categories


def glyph_scenes(glyphs: "Glyphs", pages: Any, level: int) -> Scenes:
    """Pages with the captions of a level (1 to 4) as classes, and the papers as stuff."""
    each = PageClasses.of(glyphs, level)
    papers = [each.characters.names[number] for number in each.characters.stuff]
    stuff = range(len(each.names), len(each.names) + len(papers))
    of_category = [*each.of_label[: -len(papers)].tolist(), *stuff]
    seen = [*each.seen, *stuff]
    classes = SceneClasses([*each.names, *papers], of_category, seen, each.new, frozenset(stuff))
    return Scenes(pages["train"], pages["test"], classes, [], each.characters)


def path_scenes(data: Any, test: Any, split: str | None) -> Scenes:
    """Two sets of one list of classes; raises :class:`InputError` where their classes differ.

    Those of panoptic sets may: what the training's list does not have is new.
    """
    train_set, test_set = data.load(), test.load()
    classes, tested = _classes(train_set), _classes(test_set)
    notes = [f"training: {note}" for note in train_set.notes]
    notes += [f"test: {note}" for note in test_set.notes]
    asked = scene_classes(classes, split)
    if classes != tested and isinstance(test, CocoPanopticSettings):
        own = transferred_classes(tested, [asked.names[number] for number in asked.seen])
        return Scenes(train_set.rows, test_set.rows, asked, notes, classes, own, tested)
    if classes != tested:
        raise InputError(
            f"training and test have different classes: {len(classes.names)} beginning with "
            f"'{classes.names[0]}', and {len(tested.names)} beginning with '{tested.names[0]}'"
        )
    return Scenes(train_set.rows, test_set.rows, asked, notes, classes)


def scene_classes(classes: PictureClasses, split: str | None = None) -> SceneClasses:
    """All classes, seen ones all; or COCO's split of 48 and 17, which leaves other objects out.

    Stuff, of which the split says nothing, is seen. Raises :class:`InputError` where the split
    finds none of its categories.
    """
    if split is None:
        every = list(range(len(classes.names)))
        return SceneClasses([*classes.names], every, every, [], frozenset(classes.stuff))
    if not {*classes.ids} & {*BASE, *NOVEL}:
        raise InputError(f"the data has none of the categories of COCO's split {split}")
    kept = [
        place
        for place, identity in enumerate(classes.ids)
        if identity in {*BASE, *NOVEL} or place in classes.stuff
    ]
    number = {place: new for new, place in enumerate(kept)}
    of_category = [number.get(place, LEFT_OUT) for place in range(len(classes.names))]
    stuff = frozenset(number[place] for place in classes.stuff)
    new = [n for place, n in number.items() if classes.ids[place] in NOVEL and n not in stuff]
    seen = [n for n in number.values() if n not in new]
    return SceneClasses([classes.names[place] for place in kept], of_category, seen, new, stuff)


def transferred_classes(classes: PictureClasses, trained: Sequence[str]) -> SceneClasses:
    """All classes of a set that did not train: seen is what shares a name with one that did.

    Names are compared without case, and by each of the synonyms that stand between commas.
    """
    known = {name for each in trained for name in _synonyms(each)}
    every = range(len(classes.names))
    seen = [number for number in every if known & set(_synonyms(classes.names[number]))]
    new = [number for number in every if number not in set(seen)]
    return SceneClasses([*classes.names], [*every], seen, new, frozenset(classes.stuff))


def _synonyms(name: str) -> list[str]:
    return [part.strip().lower() for part in name.split(",") if part.strip()]


class PictureRows:
    """Rows of a data set whose pictures are opened when they are asked for."""

    def __init__(self, rows: "Dataset", pictures: Sequence[str] = ("image",)) -> None:
        self.pictures, self.rows = pictures, stored_pictures(rows, *pictures)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        row = dict(self.rows[number])
        return row | {column: picture_source(row[column]) for column in self.pictures}

    def image(self, row: dict[str, Any]) -> "Image":
        """The picture of a row as RGB."""
        return open_picture(row["image"])


def box_targets(
    boxes: Sequence[Sequence[float]], labels: Sequence[int], extent: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """Boxes in pixels as the loss wants them: their middle and size as shares of ``extent``."""
    values = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    values[:, :2] += values[:, 2:] / 2
    return {
        "class_labels": torch.tensor(labels, dtype=torch.int64),
        "boxes": values / torch.tensor([*extent, *extent], dtype=torch.float32),
    }


def _classes(data: PictureData) -> PictureClasses:
    assert data.classes is not None
    return data.classes
