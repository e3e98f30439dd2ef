"""Font files: what each is called and which characters it draws."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import ascii_letters, digits

from fontTools.ttLib import TTFont

from geodapt.data.glyph_settings import MATPLOTLIB
from geodapt.data.glyphs.taxonomy import path as path_of
from geodapt.errors import InputError
from geodapt.extras import missing
from geodapt.paths import given
from geodapt.progress import track

SHIPPED = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
TEX = {
    "cmr10": "Computer Modern",
    "cmb10": "Computer Modern Bold",
    "cmti10": "Computer Modern Italic",
    "cmss10": "Computer Modern Sans",
    "cmtt10": "Computer Modern Typewriter",
}
"""In TeX's own encoding, which is Unicode's for ASCII letters and digits only."""

SUFFIXES = {".ttf", ".otf", ".ttc"}


@dataclass(frozen=True)
class Font:
    """A font file and what it draws."""

    name: str
    file: Path
    characters: tuple[str, ...]
    """Those with a place in the taxonomy, in order of code point."""

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.file.read_bytes()).hexdigest()


def find_fonts(places: Iterable[str]) -> list[Font]:
    """The fonts in the places named: files, folders, or ``matplotlib``; no file twice.

    Raises :class:`InputError` for a place without fonts, a file that is none, and two fonts of
    one name.
    """
    fonts: dict[str, Font] = {}
    seen = set()
    for file in track([file for place in places for file in _files(place)], "reading fonts"):
        font = _read(file)
        if font.sha256 in seen:
            continue
        seen.add(font.sha256)
        if font.name in fonts:
            raise InputError(
                f"{fonts[font.name].file} and {file} are both called '{font.name}', so their "
                "pictures could not be told apart; leave one out"
            )
        fonts[font.name] = font
    return list(fonts.values())


def _files(place: str) -> list[Path]:
    if place == MATPLOTLIB:
        try:
            import matplotlib
        except ImportError as error:
            raise missing(
                "the built-in fonts are matplotlib's, which is not installed; name your own by "
                "data.fonts=[FILE|FOLDER], or install them",
                "glyphs",
            ) from error
        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        files = [folder / f"{stem}.ttf" for stem in (*SHIPPED, *TEX)]
        if lacking := [file.name for file in files if not file.is_file()]:
            raise InputError(
                f"matplotlib {matplotlib.__version__} does not ship {', '.join(lacking)}, which "
                "the built-in pictures are drawn with; install matplotlib 3.11 or newer"
            )
        return files
    path = given(place)
    if path.is_dir():
        found = sorted(
            file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()
        )
        if not found:
            raise InputError(f"folder {path} holds no font: no {', '.join(sorted(SUFFIXES))} file")
        return found
    if not path.is_file():
        raise InputError(
            f"font '{place}' does not exist; give a file, a folder, or '{MATPLOTLIB}' for the "
            "fonts that it ships"
        )
    return [path]


def _read(file: Path) -> Font:
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # odd dates in old fonts are no news
    try:
        with TTFont(file, lazy=True, fontNumber=0) as font:
            codes = font.getBestCmap() or {}
            name = TEX.get(file.stem) or font["name"].getDebugName(4) or file.stem
    except Exception as error:  # whatever fontTools raises over a broken file
        raise InputError(
            f"{file} is not a font that can be read ({error}); leave it out, or give a "
            f"{', '.join(sorted(SUFFIXES))} file"
        ) from error
    drawn = [chr(code) for code in sorted(codes)]
    if file.stem in TEX:
        drawn = [character for character in drawn if character in ascii_letters + digits]
    return Font(name, file, tuple(character for character in drawn if path_of(character)))
