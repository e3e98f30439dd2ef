"""The small CLIP that is asked for characters, and a check that it saw none of those called new."""

from collections.abc import Iterable

from geodapt.data.glyph_settings import CharacterSetSettings, GlyphSettings
from geodapt.data.picture_settings import PictureSource
from geodapt.tinyclip.settings import TINYCLIP, ModelSettings, TinyClipSettings, TowerSettings
from geodapt.training.settings import TrainingSettings

SCRIPTS = ["Latin", "Greek", "Cyrillic"]
"""Those with enough characters of a letter and an addition to ask for new ones."""


def glyph_base(model: ModelSettings | None = None) -> TinyClipSettings:
    """A CLIP of :data:`SCRIPTS`, trained in minutes; half of the characters that can be new are."""
    return TinyClipSettings(
        data=GlyphSettings(scripts=SCRIPTS, new=0.5),
        model=model or ModelSettings(),
        training=TrainingSettings(
            steps=1200, batch_size=64, learning_rate=1e-3, schedule="cosine", weight_decay=0.05
        ),
    )


def larger_glyph_base() -> TinyClipSettings:
    """A teacher's: half as wide again, and with half as many layers more."""
    return glyph_base(
        ModelSettings(
            vision=TowerSettings(width=192, layers=6, heads=6),
            text=TowerSettings(width=192, layers=3, heads=6),
            embedding=192,
        )
    )


def new_characters(**changes: object) -> CharacterSetSettings:
    """Characters in the pictures of :func:`glyph_base`, each drawn twice in a font."""
    glyphs = GlyphSettings(scripts=SCRIPTS, new=0.5, views=2)
    return CharacterSetSettings.model_validate({"glyphs": glyphs.model_dump(), **changes})


def check_new_characters(
    base: str, trained_on: GlyphSettings, sources: Iterable[PictureSource]
) -> None:
    """Raises ValueError where characters called new were shown to the base, or may have been.

    Which are new follows from all that are drawn and from the seed, so both must be alike there.
    """
    if base != TINYCLIP:
        return
    decides = ("fonts", "scripts", "kinds", "new", "seed")
    for source in sources:
        if not isinstance(source, CharacterSetSettings) or source.shown == "all":
            continue
        for name in decides:
            asked, trained = getattr(source.glyphs, name), getattr(trained_on, name)
            if asked != trained:
                raise ValueError(
                    f"data '{source.of}': glyphs.{name} is {asked}, but {TINYCLIP} is trained with "
                    f"glyph_base.data.{name} {trained}; characters called {source.shown} would not "
                    "be; give both the same, or shown: all"
                )
