"""All pictures of a data set, drawn once and kept as Arrow in the cache folder."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pillow
from PIL import features as pillow_features

from geodapt.data.glyph_settings import GlyphSettings
from geodapt.data.glyphs.drawing import EM, MARGIN, SUPERSAMPLED, Ink, Pen, draw_glyph
from geodapt.data.glyphs.fonts import Font
from geodapt.data.progress_bars import quiet_datasets
from geodapt.errors import InputError
from geodapt.files import build_once, cache_folder, short_hash
from geodapt.progress import bar

DRAWING_VERSION = 1
"""Part of the cache's key: raised whenever the same fonts give other pictures."""


def stored(fonts: Sequence[Font], characters: list[str], settings: GlyphSettings) -> Path:
    """The folder with ``characters`` and ``images``, drawn now where the cache has none.

    Left out are blank characters, and those that a font draws exactly as an earlier one (Greek
    capital alpha as Latin capital A): their pictures could not tell them apart.
    """
    folder = cache_folder() / "glyphs" / _key(fonts, characters, settings)

    def make(temporary: Path) -> None:
        kept, rows = _draw(fonts, characters, settings)
        names = ClassLabel(names=[font.name for font in fonts])
        features = Features({"image": Image(), "label": Value("int32"), "domain": names})
        with quiet_datasets():
            Dataset.from_dict({"character": kept}).save_to_disk(str(temporary / "characters"))
            Dataset.from_dict(rows, features).save_to_disk(str(temporary / "images"))

    return build_once(folder, make)


def png(picture: Pillow.Image) -> dict[str, bytes | None]:
    """A picture as an encoded value of a ``datasets.Image`` column."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}


def drawn_with(fonts: Sequence[Font]) -> dict[str, Any]:
    """What decides how a character looks."""
    return {
        "version": DRAWING_VERSION,
        "pillow": Pillow.__version__,
        "freetype": pillow_features.version("freetype2"),
        "fonts": [(font.name, font.sha256) for font in fonts],
    }


def _key(fonts: Sequence[Font], characters: list[str], settings: GlyphSettings) -> str:
    """A short hash of all that the pictures depend on."""
    return short_hash(
        {
            **drawn_with(fonts),
            "characters": "".join(characters),
            "settings": settings.model_dump(include={"size", "views", "seed"}),
        }
    )


def _draw(
    fonts: Sequence[Font], characters: list[str], settings: GlyphSettings
) -> tuple[list[str], dict[str, list]]:
    """The characters kept, and the columns of their pictures, font after font."""
    number = {character: index for index, character in enumerate(characters)}
    drawn = [
        [number[character] for character in font.characters if character in number]
        for font in fonts
    ]
    images: list[tuple[int, int, dict]] = []  # character, font, picture
    shapes: dict[tuple, int] = {}
    alike: set[int] = set()
    with bar("drawing characters", sum(map(len, drawn))) as progress:
        for index, (font, numbers) in enumerate(zip(fonts, drawn, strict=True)):
            for one, ink, views in _views(font, [characters[n] for n in numbers], settings):
                progress.advance()
                if ink is None:
                    continue
                # In order of code point, so that the first of a shape is the one that stays.
                shape = (index, ink.left, ink.top, ink.coverage.size, ink.coverage.tobytes())
                if shapes.setdefault(shape, number[one]) != number[one]:
                    alike.add(number[one])
                images += ((number[one], index, png(view)) for view in views)
    kept = sorted({one for one, _, _ in images} - alike)
    if not kept:
        raise InputError(
            f"{', '.join(font.name for font in fonts)} draw none of the {len(characters)} "
            "characters that are asked for: they are blank there; take other fonts"
        )
    label = {one: index for index, one in enumerate(kept)}
    images = [(label[one], index, picture) for one, index, picture in images if one in label]
    columns: dict[str, list] = {
        "image": [picture for _, _, picture in images],
        "label": [one for one, _, _ in images],
        "domain": [index for _, index, _ in images],
    }
    return [characters[one] for one in kept], columns


def _views(
    font: Font, characters: list[str], settings: GlyphSettings
) -> Iterator[tuple[str, Ink | None, list[Pillow.Image]]]:
    """Each character's ink and its pictures in one font."""
    side = SUPERSAMPLED * settings.size
    pen, largest = Pen(font.file, round(EM * side)), round((1 - 2 * MARGIN) * side)
    # Seeded by the font, so that the others change nothing in its pictures.
    random = np.random.default_rng([settings.seed, int(font.sha256[:8], 16)])
    jitter = random.uniform(-1, 1, (len(characters), settings.views, 6))
    for character, of_views in zip(characters, jitter, strict=True):
        ink = pen.ink(character, largest)
        views = [] if ink is None else [draw_glyph(ink, settings.size, one) for one in of_views]
        yield character, ink, views
