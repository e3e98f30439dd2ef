"""Settings of the built-in image-text data. Importing them needs no drawing packages."""

from typing import Any, Literal

from pydantic import Field, model_validator

from geodapt.extras import require
from geodapt.settings import GivenPath, Seed, Settings, SourceSettings, repeated

Paper = Literal["plain", "lined", "squared", "dotted"]
MATPLOTLIB = "matplotlib"
"""Names the fonts that come with matplotlib."""


def require_drawing() -> None:
    """Raise :class:`InputError` where the packages that draw characters are not installed."""
    for package in ("PIL", "fontTools"):
        require(package, f"characters are drawn with {package}, which is not installed", "glyphs")


class GlyphSettings(Settings):
    """Rendered characters, with captions from their Unicode names."""

    kind: Literal["glyphs"] = "glyphs"
    fonts: list[str] = Field(default=[MATPLOTLIB], min_length=1)
    """Font files, folders of them, or matplotlib for those that it ships."""
    scripts: list[str] | None = Field(default=None, min_length=1)
    """Scripts by their Unicode names, such as Latin, Greek, Common; all when not given."""
    kinds: list[str] | None = Field(default=None, min_length=1)
    """Of letter, number, punctuation mark, symbol; all when not given."""
    size: int = Field(default=32, ge=8, le=512)
    """Side of a picture in pixels."""
    views: int = Field(default=1, ge=1)
    """Pictures of a character in a font, each turned, zoomed, moved and greyed a little."""
    new: float = Field(default=0.2, ge=0, lt=1)
    """Share of the characters with an accent or another addition that training never shows."""
    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of the pairs of a font and a character that are kept for the test."""
    validation: float = Field(default=0.05, ge=0, lt=1)
    """Share of those pairs that are kept for validation."""
    shifted: list[str] = ["Computer Modern*"]
    """Fonts that training never shows, by name; * stands for anything."""
    seed: Seed = 0
    """Seed of the views, the splits and the contradicting captions."""

    def require_inputs(self) -> None:
        require_drawing()
        super().require_inputs()

    def _smallest(self) -> dict[str, Any]:
        return {"scripts": self.scripts or ["Latin"], "views": 1}


class PageSettings(Settings):
    """Pages of characters."""

    train: int = Field(default=1000, ge=1)
    """Training pages."""
    test: int = Field(default=200, ge=1)
    """Test pages, and validation pages."""
    size: int = Field(default=128, ge=32, le=2048)
    """Side of a page in pixels."""
    characters: tuple[int, int] = (4, 12)
    """The fewest and the most characters on a page."""
    em: tuple[int, int] = (20, 48)
    """The smallest and the largest size of a font, in pixels."""
    papers: list[Paper] = Field(default=["plain", "lined", "squared", "dotted"], min_length=1)
    """Kinds of paper; each page has one of them by chance."""
    seed: Seed = 0
    """Seed of what stands where."""

    @model_validator(mode="after")
    def _consistent(self) -> "PageSettings":
        for name, least in (("characters", 1), ("em", 8)):
            low, high = getattr(self, name)
            if not least <= low <= high:
                raise ValueError(
                    f"{name}: expected {least} <= smallest <= largest, got {low}, {high}"
                )
        if self.em[1] > self.size:
            raise ValueError(f"em: {self.em[1]} pixels do not fit on a page of {self.size}")
        if twice := repeated(self.papers):
            raise ValueError(f"papers: {twice[0]} is given twice")
        return self

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(train=8, test=4)


class CharacterSetSettings(SourceSettings):
    """Characters of one kind as classes, fonts as domains."""

    loader = "geodapt.data.glyphs.sets:load_character_set"
    kind: Literal["characters"] = "characters"
    of: str = "Latin small letter"
    """A caption of the tree; the classes are the names below it."""
    only: str | None = Field(default=None, min_length=2)
    """Of those names these characters alone, such as abcdefghijklmnopqrstuvwxyz."""
    shown: Literal["new", "known", "all"] = "new"
    """Characters that a model trained on the data set never saw (new), those it did, or all."""
    train_fonts: list[str] = Field(default=["DejaVu Sans*"], min_length=1)
    """Fonts that train, by name; * stands for anything. All others test."""
    tested_in: int = Field(default=4, ge=1)
    """Least number of other fonts that a class must be drawn in, so that each is tested."""
    classes: int | None = Field(default=100, ge=2)
    """The most classes; where there are more, the seed of the glyphs draws them."""
    glyphs: GlyphSettings = GlyphSettings(new=0.5, views=2)
    """The pictures; the settings that the base was trained on, or it has seen what is new."""

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(classes=8)


class OmniglotSettings(SourceSettings):
    """Handwritten letters of Omniglot whose names in Unicode are known."""

    loader = "geodapt.data.glyphs.handwriting:load_omniglot"
    kind: Literal["omniglot"] = "omniglot"
    path: GivenPath
    """A zip file of Omniglot, or a folder with its alphabets somewhere below."""
    alphabets: list[Literal["Latin", "Greek"]] = Field(default=["Latin", "Greek"], min_length=1)
    """Those whose letters lie in the order of Unicode, so that they have names."""

    def require_inputs(self) -> None:
        require_drawing()
        super().require_inputs()
