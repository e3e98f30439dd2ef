"""Whether a data set keeps the contract of :mod:`geodapt.data.vision.features`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Image
from jaxtyping import Int

from geodapt.data.vision.features import (
    FEATURES,
    PictureClasses,
    picture_source,
    stored_pictures,
)
from geodapt.data.vision.segments import read_segments
from geodapt.errors import InputError
from geodapt.progress import track
from geodapt.vision.images import open_mask, open_picture, require_size

SLACK = 0.5
"""Pixels by which a box may leave its picture: published ones are rounded."""


@dataclass(frozen=True)
class PictureCounts:
    """What a checked data set holds."""

    pictures: int
    pixels: Int[np.ndarray, " classes"]
    """Of each class, in masks."""
    boxes: Int[np.ndarray, " classes"]
    segments: Int[np.ndarray, " classes"]


def check_pictures(rows: Dataset, classes: PictureClasses) -> PictureCounts:
    """Read every picture, mask, box and segment once, and count the classes.

    Raises :class:`InputError`, with the row or file, for missing or other columns, unreadable
    files, a mask of another size than its picture, a mask value or category that is no class, a box
    that is empty or leaves its picture, and segments as :func:`read_segments` does.
    """
    present = _columns(rows)
    pixels, boxes, segments = (np.zeros(len(classes.names), dtype=np.int64) for _ in range(3))
    raw = rows.select_columns(list(present))
    raw = stored_pictures(raw, *(present & {"image", "mask", "segments"}))
    for number, row in enumerate(track(raw, "checking pictures", len(raw))):
        name = _name(row["image"], number)
        size = open_picture(picture_source(row["image"]), name).size
        if "mask" in present:
            mask = row["mask"]
            pixels += count_pixels(picture_source(mask), _name(mask, number), name, size, classes)
        if "objects" in present:
            boxes += _count_boxes(row["objects"], name, size, classes)
        if "segments" in present:
            cell = row["segments"]
            called = _name(cell, number)
            found = read_segments(picture_source(cell), row["segments_info"], classes, called)
            require_size(found.places.shape, size, f"segments '{called}'", name, many=True)
            segments += np.bincount(found.categories, minlength=len(classes.names))
    return PictureCounts(len(rows), pixels, boxes, segments)


def _columns(rows: Dataset) -> set[str]:
    """The columns of the contract that the data set has."""
    present = {name for name in FEATURES if name in rows.features}
    if "image" not in present or len(present) < 2:
        raise InputError(
            f"a data set of pictures needs the columns image and mask or objects; it has "
            f"{', '.join(rows.features)}"
        )
    if len(present & {"segments", "segments_info"}) == 1:
        raise InputError("of the columns segments and segments_info there is one; both are needed")
    for name in present:
        found, wanted = rows.features[name], FEATURES[name]
        fits = isinstance(found, Image) if isinstance(wanted, Image) else _structure(found, wanted)
        if not fits:
            raise InputError(f"column '{name}' is {found}; expected {wanted}")
    return present


def _structure(found: Any, wanted: dict[str, Any]) -> bool:
    """Whether a column has the parts of the contract; a file without crowds need not say so."""
    needed = {part: kind for part, kind in wanted.items() if part != "crowd"}
    return found in (wanted, needed)


def count_pixels(
    mask: bytes | str | Path,
    name: str,
    picture: str,
    size: tuple[int, int],
    classes: PictureClasses,
) -> Int[np.ndarray, " classes"]:
    """Pixels of each class in the mask of a picture of this width and height, named for errors.

    Raises :class:`InputError` for another size and for a value that is no class.
    """
    values = open_mask(mask, name)
    require_size(values.shape, size, f"mask '{name}'", picture)
    labels = classes.labels(values, name)
    return np.bincount(labels[labels >= 0], minlength=len(classes.names))


def _count_boxes(
    objects: dict[str, list], name: str, size: tuple[int, int], classes: PictureClasses
) -> Int[np.ndarray, " classes"]:
    corners, categories = objects["bbox"], objects["category"]
    if len(corners) != len(categories):
        raise InputError(f"'{name}' has {len(corners)} boxes, but {len(categories)} categories")
    for box, category in zip(corners, categories, strict=True):
        x, y, width, height = box
        inside = min(x, y) >= -SLACK and x + width <= size[0] + SLACK
        if not (inside and y + height <= size[1] + SLACK and width > 0 and height > 0):
            raise InputError(
                f"picture '{name}' of {size[0]} x {size[1]} pixels has the box {list(box)}; "
                "expected x, y, width, height in pixels, within the picture"
            )
        if not 0 <= category < len(classes.names):
            raise InputError(
                f"picture '{name}' has a box of class {category}, but there are "
                f"{len(classes.names)} classes, counted from 0"
            )
    return np.bincount(np.array(categories, dtype=np.int64), minlength=len(classes.names))


def _name(cell: Any, row: int) -> str:
    if not isinstance(cell, dict):
        raise InputError(f"row {row} has no picture or no mask; leave the row out")
    return cell["path"] or f"row {row}"
