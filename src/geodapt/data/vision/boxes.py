"""Boxes as data sets give them, within their picture or refused."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset, Features

from geodapt.data.vision.features import FEATURES, PictureClasses, PictureData
from geodapt.errors import InputError

LEAST = 0.5
"""Share of a box that lies in its picture: published boxes are rounded and leave it a little; of
corners or shares, taken for pixels, most lies outside."""


def cut_to_picture(box: Sequence[float], size: tuple[int, int], called: str) -> list[float]:
    """The part of x, y, width, height that lies within a picture of this width and height.

    Raises :class:`InputError` where that is less than half of the box, or a number is none.
    """
    x, y, width, height = (float(value) for value in box)
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, float(size[0])), min(y + height, float(size[1]))
    inside = max(right - left, 0.0) * max(bottom - top, 0.0)
    if not inside >= LEAST * width * height > 0:
        raise InputError(
            f"{called} has the box {list(box)}, which lies outside its picture of {size[0]} x "
            f"{size[1]} pixels; expected x, y, width, height in pixels"
        )
    if (left, top) == (x, y) and right == x + width and bottom == y + height:
        return [x, y, width, height]
    return [left, top, right - left, bottom - top]


def boxed_pictures(
    rows: list[dict[str, Any]], classes: PictureClasses, notes: list[str], empty: int, cut: int
) -> PictureData:
    """The columns ``image`` and ``objects``, with what a reader should know in ``notes``.

    ``empty`` boxes without width or height were left out, ``cut`` were cut to their picture.
    """
    notes = list(notes)
    if bare := sum(not row["objects"]["bbox"] for row in rows):
        notes.append(f"{bare:,} pictures without boxes")
    if empty:
        notes.append(f"{empty:,} boxes without width or height, left out")
    if cut:
        notes.append(f"{cut:,} boxes cut to their picture")
    features = Features({name: FEATURES[name] for name in ("image", "objects")})
    return PictureData(Dataset.from_list(rows, features), classes, notes)
