"""Training pictures: checked, cut and mirrored by chance, and put into batches."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from datasets import Dataset

from geodapt.errors import InputError, reason_of
from geodapt.prompts.settings import HostSettings
from geodapt.vision.clip import Clip
from geodapt.vision.images import as_rgb
from geodapt.vision.towers import image_tower

if TYPE_CHECKING:
    from PIL.Image import Image

RATIOS = (3 / 4, 4 / 3)
"""Of width to height of what is cut out, as RandomResizedCrop has them."""


class LabelledRows(Protocol):
    """What learners are fitted on: :class:`geodapt.data.vision.Pictures` and what looks like it."""

    @property
    def names(self) -> Sequence[str]:
        """Of the classes, by label."""
        ...

    @property
    def splits(self) -> Any:
        """``train`` has the columns ``image`` and ``label``."""
        ...


def training_split(pictures: LabelledRows) -> tuple[Dataset, np.ndarray]:
    """The training rows with their labels.

    Raises :class:`InputError` for fewer than two classes, no rows, a label that is no class, and
    classes without a picture, as gaps between labels leave them.
    """
    names = list(pictures.names)
    if len(names) < 2:
        raise InputError(
            f"there are {len(names)} classes; a learner needs two or more to tell apart"
        )
    if "train" not in pictures.splits or not len(pictures.splits["train"]):
        raise InputError("there are no training pictures: the split 'train' is missing or empty")
    rows = pictures.splits["train"]
    labels = np.asarray(rows.select_columns("label").with_format("numpy")["label"][:], dtype=int)
    if labels.min() < 0 or labels.max() >= len(names):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise InputError(
            f"a training picture has the label {wrong}, but there are {len(names)} classes, "
            "counted from 0"
        )
    if lacking := sorted({*range(len(names))} - {*labels.tolist()}):
        raise InputError(
            f"class {lacking[0]} '{names[lacking[0]]}' has no training picture, as have "
            f"{len(lacking) - 1} others; the labels have gaps, or the class should be left out of "
            "the names"
        )
    return rows, labels


class TrainingRows:
    """Rows of pictures; what chance does to one depends on seed, epoch and row alone."""

    def __init__(
        self,
        rows: Dataset,
        labels: np.ndarray,
        clip: Clip,
        settings: HostSettings,
        seed: int,
        teacher: Clip | None = None,
    ) -> None:
        self.images, self.labels, self.clip, self.teacher = rows["image"], labels, clip, teacher
        self.crop, self.flip, self.seed, self.epoch = settings.crop, settings.flip, seed, 0
        self.side = image_tower(clip.model).side

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, rows: list[int]) -> dict[str, Any]:
        """A batch for :class:`geodapt.prompts.objective.Objective`."""
        shown = pictures_at(self.images, rows)
        images = [self._changed(image, row) for image, row in zip(shown, rows, strict=True)]
        batch: dict[str, Any] = {
            "pixels": self.clip.pixels(images),
            "labels": torch.from_numpy(self.labels[rows]),
        }
        if self.teacher is not None:
            batch["teacher_pixels"] = self.teacher.pixels(images)
        return batch

    def _changed(self, image: "Image", row: int) -> "Image":
        from PIL.Image import Resampling, Transpose

        random = np.random.default_rng([self.seed, self.epoch, row])
        if self.crop is not None:
            box = random_box(image.width, image.height, self.crop, random)
            side = self.side or min(image.size)
            image = image.resize((side, side), Resampling.BICUBIC, box=box)
        if self.flip and random.random() < 0.5:
            image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
        return image


def pictures_at(images: Any, rows: Sequence[int]) -> "list[Image]":
    """Some rows' pictures as RGB, of a list or a data set's column, which reads them in one go.

    That takes a fifth of the time of one by one. Raises :class:`InputError` as :func:`picture_at`.
    """
    if not isinstance(images, list):
        try:
            found = images[list(rows)]
            return [as_rgb(image, f"row {row}") for image, row in zip(found, rows, strict=True)]
        except Exception:
            pass  # which of them is wrong is found one by one
    return [picture_at(images, row) for row in rows]


def picture_at(images: Any, row: int) -> "Image":
    """A row's picture as RGB; raises :class:`InputError` with its number if it cannot be read."""
    try:
        return as_rgb(images[row], f"row {row}")
    except InputError:
        raise
    except Exception as error:  # whatever a data set's decoder raises over a broken picture
        raise InputError(f"the picture of row {row} cannot be read: {reason_of(error)}") from error


def random_box(
    width: int, height: int, share: tuple[float, float], random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a part with a share of the area, as RandomResizedCrop draws it.

    Shares are uniform, ratios of the sides log-uniform within 3/4 and 4/3. Where ten draws do not
    fit, it is the middle, as large as those ratios allow.
    """
    for _ in range(10):
        area = width * height * random.uniform(*share)
        ratio = math.exp(random.uniform(math.log(RATIOS[0]), math.log(RATIOS[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
            return left, top, left + w, top + h
    ratio = min(max(width / height, RATIOS[0]), RATIOS[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
