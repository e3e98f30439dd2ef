"""Boxes as data sets give them, within their picture or refused."""

from collections.abc import Iterable, Sequence
from typing import Any

from geodapt.errors import InputError

LEAST = 0.5
"""Share of a box that lies in its picture: published boxes are rounded and leave it a little; of
corners or shares, taken for pixels, most lies outside."""
HAIR = 0.01
"""Pixels by which a box may leave its picture without being called cut: numbers are rounded."""


class BoxCutter:
    """Cuts boxes to their pictures, leaves out those without width or height, and counts both."""

    def __init__(self) -> None:
        self.empty = self.cut = 0

    def inside(
        self, box: Sequence[float], size: tuple[int, int], called: str
    ) -> list[float] | None:
        """The part of x, y, width, height that lies within a picture of this width and height.

        None for an empty box. Raises :class:`InputError` where less than half of the box lies
        there, or a number is none.
        """
        if len(box) != 4 or not (box[2] > 0 and box[3] > 0):
            self.empty += 1
            return None
        x, y, width, height = (float(value) for value in box)
        left, top = max(x, 0.0), max(y, 0.0)
        right, bottom = min(x + width, float(size[0])), min(y + height, float(size[1]))
        inside = max(right - left, 0.0) * max(bottom - top, 0.0)
        if not inside >= LEAST * width * height:
            raise InputError(
                f"{called} has the box {list(box)}, which lies outside its picture of {size[0]} x "
                f"{size[1]} pixels; expected x, y, width, height in pixels"
            )
        if (left, top) == (x, y) and right == x + width and bottom == y + height:
            return [x, y, width, height]
        found = [left, top, right - left, bottom - top]
        self.cut += any(abs(a - float(b)) > HAIR for a, b in zip(found, box, strict=True))
        return found

    def notes(self, rows: Iterable[dict[str, Any]]) -> list[str]:
        """What a reader of these rows should know."""
        bare = sum(not row["objects"]["bbox"] for row in rows)
        said = {
            "pictures without boxes": bare,
            "boxes without width or height, left out": self.empty,
            "boxes cut to their picture": self.cut,
        }
        return [f"{count:,} {what}" for what, count in said.items() if count]
