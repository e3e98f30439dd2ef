"""A character as a picture: its ink, and the ink on paper as somebody might have set it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SUPERSAMPLED = 2
"""Pixels of ink a pixel of the picture, each way: turning and moving them stays smooth."""

EM, BASELINE, MARGIN = 0.68, 0.76, 0.03
"""Of the picture's side: the font's size, where letters stand (from above), and what stays free.
So accents of capitals and descenders fit, and what is large or high in a font remains so."""

TURN, ZOOM, SHIFT = 4.0, 0.08, 0.04
"""The most that a view turns (degrees), zooms, and moves (of the side), either way."""

INK, PAPER = (0, 90), (190, 255)
"""Grey levels; ink is always the darker."""


@dataclass(frozen=True)
class Ink:
    """How much of each pixel a character covers."""

    coverage: Image.Image
    """Grey picture as large as the ink alone."""
    left: float
    """From the middle of the room that the font gives the character."""
    top: float
    """From the baseline, negative above it."""


class Pen:
    """One font at one size: the ink of its characters.

    ``em`` is the font's size in pixels.
    """

    def __init__(self, file: Path, em: int) -> None:
        # Basic layout: the shape that the code point names, without joining to neighbours.
        self._font = ImageFont.truetype(str(file), em, layout_engine=ImageFont.Layout.BASIC)

    def ink(self, character: str, largest: int) -> Ink | None:
        """A character's ink, made smaller where a side exceeds ``largest``; None where blank."""
        left, top, right, bottom = map(round, self._font.getbbox(character, anchor="ls"))
        if right <= left or bottom <= top:
            return None
        picture = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(picture).text((-left, -top), character, 255, self._font, anchor="ls")
        if (box := picture.getbbox()) is None:
            return None
        x = left + box[0] - self._font.getlength(character) / 2
        y = float(top + box[1])
        if box != (0, 0, *picture.size):
            picture = picture.crop(box)
        if (scale := largest / max(picture.size)) < 1:
            width, height = (max(1, int(length * scale)) for length in picture.size)
            picture = picture.resize((width, height), Image.Resampling.BOX)
            x, y = x * scale, y * scale
        return Ink(picture, x, y)


def draw_glyph(ink: Ink, size: int, jitter: Sequence[float] = (0, 0, 0, 0, -1, 1)) -> Image.Image:
    """A grey picture of ink on paper; ``jitter`` holds six numbers in [-1, 1].

    They turn, zoom and move it (x, y) and grey its ink and its paper; by default it is black on
    white and straight. The ink is that of a :class:`Pen` of ``em = EM * SUPERSAMPLED * size``.
    """
    turn, zoom, x, y, dark, light = jitter
    side, margin = SUPERSAMPLED * size, MARGIN * SUPERSAMPLED * size
    width, height = ink.coverage.size
    left = max(margin, min(side / 2 + ink.left, side - margin - width))
    top = max(margin, min(BASELINE * side + ink.top, side - margin - height))
    # From a point of the picture to one of the ink: back about the middle, then to its corner.
    angle, scale = math.radians(TURN * turn), SUPERSAMPLED / (1 + ZOOM * zoom)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    middle_x, middle_y = size * (0.5 + SHIFT * x), size * (0.5 + SHIFT * y)
    to_ink = (
        *(cos, sin, side / 2 - left - cos * middle_x - sin * middle_y),
        *(-sin, cos, side / 2 - top + sin * middle_x - cos * middle_y),
    )
    coverage = ink.coverage.transform(
        (size, size), Image.Transform.AFFINE, to_ink, Image.Resampling.BILINEAR
    )
    return coverage.point(greys(dark, light))


def greys(dark: float, light: float) -> list[int]:
    """The grey of each coverage from 0 to 255, for an ink and a paper in [-1, 1]."""
    black, white = np.interp(dark, (-1, 1), INK), np.interp(light, (-1, 1), PAPER)
    return np.rint(np.linspace(white, black, 256)).astype(int).tolist()
