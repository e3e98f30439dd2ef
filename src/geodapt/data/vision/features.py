"""The columns of pictures with masks, boxes and segments, and what the values of a mask mean.

Every data set of pictures has these columns, so that training, measuring and drawing know no
layouts. ``image`` is required; of the others some may be absent, ``segments`` and
``segments_info`` together.

=================  =========================================================================
``image``          the picture
``mask``           one number per pixel, as large as the picture, in the file's own values:
                   :class:`PictureClasses` turns them into class numbers
``objects``        ``bbox``: x, y, width, height in pixels of the picture, as COCO has them;
                   ``category``: the class number of each box; ``crowd``: whether it holds
                   many objects of its class, which measuring leaves out as COCO does
``segments``       the segment that each pixel belongs to, as large as the picture, by id:
                   grey values, or colours R + 256 G + 65536 B; 0 belongs to none
``segments_info``  ``id`` in the picture, ``category`` and ``crowd`` of each segment; a class
                   of stuff has one segment at most
=================  =========================================================================
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from jaxtyping import Int

from geodapt.errors import InputError
from geodapt.settings import repeated
from geodapt.vision.images import open_picture

BACKGROUND = -1
"""Label of pixels that show none of the classes, and are right to be given none."""
IGNORED = -100
"""Label of pixels that count for nothing; what torch's losses ignore by default."""

FEATURES = Features(
    {
        "image": Image(),
        "mask": Image(),
        "objects": {
            "bbox": List(List(Value("float32"), 4)),
            "category": List(Value("int32")),
            "crowd": List(Value("bool")),
        },
        "segments": Image(),
        "segments_info": {
            "id": List(Value("int32")),
            "category": List(Value("int32")),
            "crowd": List(Value("bool")),
        },
    }
)
LARGEST_VALUE = 2**24
"""Of a mask's pixel; a table of this size says what each value means."""


@dataclass(frozen=True)
class PictureClasses:
    """The classes of a data set by number, and the values that stand for them in its masks."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    """The mask's value of each class; any order, with gaps where the data set has them."""
    background: int | None = None
    """The mask's value of pixels that show none of the classes."""
    ignored: tuple[int, ...] = ()
    """Values of pixels that count for nothing."""
    stuff: tuple[int, ...] = ()
    """Numbers of the classes without objects that could be counted: sky, grass, paper."""

    def __post_init__(self) -> None:
        if not self.names:
            raise InputError("there are no classes; give at least one name")
        if len(self.ids) != len(self.names):
            raise InputError(f"{len(self.names)} classes have {len(self.ids)} mask values")
        own = [] if self.background is None else [self.background]
        if twice := repeated([*self.ids, *own, *self.ignored]):
            raise InputError(
                f"mask value {twice[0]} stands for two of: classes, background, ignored"
            )
        if wrong := [v for v in (*self.ids, *own, *self.ignored) if not 0 <= v < LARGEST_VALUE]:
            raise InputError(f"mask value {wrong[0]} is not from 0 to {LARGEST_VALUE - 1:,}")
        if wrong := [number for number in self.stuff if not 0 <= number < len(self.names)]:
            raise InputError(f"class {wrong[0]} is stuff, but there are {len(self.names)} classes")

    @classmethod
    def numbered(
        cls,
        names: tuple[str, ...],
        offset: int = 0,
        background: int | None = None,
        ignored: tuple[int, ...] = (),
        stuff: tuple[int, ...] = (),
    ) -> "PictureClasses":
        """Classes whose values count up from ``offset``."""
        return cls(names, tuple(range(offset, offset + len(names))), background, ignored, stuff)

    def labels(self, mask: Int[np.ndarray, "h w"], name: str = "") -> Int[np.ndarray, "h w"]:
        """The class number of each pixel, :data:`BACKGROUND` or :data:`IGNORED`.

        Raises :class:`InputError` for a value that means nothing; ``name`` is the mask's.
        """
        known = (mask >= 0) & (mask < len(self._meanings))
        found = np.where(known, self._meanings[np.where(known, mask, 0)], _UNKNOWN)
        if (found == _UNKNOWN).any():
            value = int(mask[found == _UNKNOWN][0])
            raise InputError(
                f"mask '{name}' has the value {value}, which is no class: {len(self.names)} "
                f"classes have the values {min(self.ids)} to {max(self.ids)}, background is "
                f"{self.background}, ignored are {list(self.ignored)}; the class list may be too "
                "short, or count from another number"
            )
        return found

    @cached_property
    def _meanings(self) -> Int[np.ndarray, " values"]:
        size = 1 + max(*self.ids, *self.ignored, self.background or 0)
        table = np.full(size, _UNKNOWN)
        table[list(self.ids)] = np.arange(len(self.ids))
        table[list(self.ignored)] = IGNORED
        if self.background is not None:
            table[self.background] = BACKGROUND
        return table


_UNKNOWN = -(2**31)


@dataclass(frozen=True)
class PictureData:
    """A data set of pictures, its classes, and notes for its reader."""

    rows: Dataset
    """With the columns of :data:`FEATURES`."""
    classes: PictureClasses | None
    notes: list[str] = field(default_factory=list)


class ReadableRows(list[dict[str, Any]]):
    """Rows of a data set, for each picture that can be read; the others are skipped, and noted."""

    def __init__(self, place: Path) -> None:
        """``place`` is the folder or file that names the pictures."""
        super().__init__()
        self.place, self.skipped = place, list[str]()

    def size(self, path: Path) -> tuple[int, int] | None:
        """Width and height of a picture; None, and noted, where it cannot be read."""
        try:
            return open_picture(path).size
        except InputError as error:
            self.skipped.append(str(error))
            return None

    def data(self, classes: PictureClasses | None, notes: list[str]) -> PictureData:
        """The data set; raises :class:`InputError` where no picture can be read."""
        if not self:
            reason = self.skipped[0] if self.skipped else "it lists none"
            raise InputError(f"no picture of '{self.place}' can be read: {reason}")
        if self.skipped:
            notes = [f"{len(self.skipped):,} pictures skipped: {self.skipped[0]}", *notes]
        features = Features({name: FEATURES[name] for name in self[0]})
        return PictureData(Dataset.from_list(list(self), features), classes, notes)


def stored_pictures(rows: Dataset, *columns: str) -> Dataset:
    """The same rows, whose pictures are opened by what :func:`picture_source` gives of a cell."""
    for column in columns:
        rows = rows.cast_column(column, Image(decode=False))
    return rows


def picture_source(cell: dict[str, Any]) -> bytes | str:
    """What a cell of :func:`stored_pictures` holds: the bytes of a file, or its path."""
    return cell["path"] if cell["bytes"] is None else cell["bytes"]
