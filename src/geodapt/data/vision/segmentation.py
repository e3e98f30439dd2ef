"""Pictures with a class for every pixel, read one at a time: what segmentation trains and tests on.

A data set of a published layout is recognised by its folders (:func:`open_segmentation`) and read
as it was published, without a preparation; ``edition`` says which it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Int

from geodapt.data.vision.features import IGNORED
from geodapt.errors import InputError
from geodapt.vision.images import open_picture

if TYPE_CHECKING:
    from PIL.Image import Image

Split = Literal["train", "validation"]


@dataclass(frozen=True)
class SegmentationData:
    """Pictures, and for each the class of every pixel, read when it is asked for."""

    edition: str
    """Which data set this is, and in which layout, for a reader."""
    names: tuple[str, ...]
    """Of the classes, by number, as published; synonyms stand after commas."""
    pictures: Sequence[Path]
    read_mask: Callable[[int], Int[np.ndarray, "h w"]]
    """The class of each pixel of a picture's mask, or
    :data:`~geodapt.data.vision.features.IGNORED`."""
    others: tuple[str, ...] = ()
    """Words that are asked beside the classes; an answer of one of them is the last class."""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.pictures:
            raise InputError(f"{self.edition}: there are no pictures with masks")

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> tuple["Image", Int[np.ndarray, "h w"]]:
        """A picture in RGB and its mask.

        Raises :class:`InputError` for files that cannot be read, a mask value that is no class, and
        a mask of another size.
        """
        return self.with_mask(row, open_picture(self.pictures[row]))

    def with_mask(self, row: int, image: "Image") -> tuple["Image", Int[np.ndarray, "h w"]]:
        """An opened picture and its mask."""
        mask = self.read_mask(row)
        if mask.shape != (image.height, image.width):
            raise InputError(
                f"the mask of '{self.pictures[row]}' has {mask.shape[1]} x {mask.shape[0]} pixels, "
                f"the picture {image.width} x {image.height}"
            )
        return image, mask

    def answers(self, labels: Int[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
        """Numbers of the asked words as classes: those of :attr:`others` are the last class."""
        return np.minimum(labels, len(self.names) - 1) if self.others else labels

    @property
    def asked(self) -> list[str]:
        """The words to ask for, as published."""
        # The last class is what the other words stand for; its own name is not asked.
        return [*self.names[: len(self.names) - bool(self.others)], *self.others]


def mapped(values: Int[np.ndarray, "h w"], table: dict[int, int], where: str) -> np.ndarray:
    """Mask values as classes by a table; raises :class:`InputError` for a value that it lacks."""
    found = np.full(values.shape, IGNORED, dtype=np.int64)
    for value in np.unique(values).tolist():
        if value not in table:
            raise InputError(
                f"mask '{where}' has the value {value}, which means nothing in this data set; its "
                f"values are {min(table)} to {max(table)}"
            )
        found[values == value] = table[value]
    return found


def paired(pictures: Path, masks: Path, suffix: str) -> list[Path]:
    """The pictures of a folder whose masks of the same name are in another, sorted.

    Raises :class:`InputError` where no mask has a picture, and for a mask without one.
    """
    found = []
    for mask in sorted(masks.glob(f"*{suffix}")):
        path = pictures / f"{mask.name.removesuffix(suffix)}.jpg"
        if not path.is_file():
            raise InputError(f"mask '{mask}' has no picture: there is no '{path}'")
        found.append(path)
    if not found:
        raise InputError(f"'{masks}' has no masks: no file ends with {suffix}")
    return found
