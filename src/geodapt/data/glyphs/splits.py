"""Which pictures train, and which only test: new combinations, in three degrees.

``test`` holds characters that training shows, in fonts in which it does not show them; ``new``
characters that it never shows, made of a letter and an addition that it does; ``shifted`` fonts
that it never shows.
"""

from fnmatch import fnmatchcase

import numpy as np
from jaxtyping import Bool, Int

from geodapt.data.domain import uniform
from geodapt.data.glyph_settings import GlyphSettings
from geodapt.errors import InputError

SPLITS = ("train", "validation", "test", "new", "shifted")


def new_classes(paths: list[tuple[str, ...]], settings: GlyphSettings) -> Bool[np.ndarray, " n"]:
    """Which characters training never shows, given the path of each.

    Each is made of parts that training shows: the character without the addition, and the
    addition on another one.
    """
    place = {path[-1]: index for index, path in enumerate(paths)}
    composed = {}
    for index, path in enumerate(paths):
        base = place.get(path[-2])
        if base is not None:
            composed[index] = base, path[-1].removeprefix(path[-2])
    drawn = {index for index in composed if uniform(paths[index][-1], settings.seed) < settings.new}
    shown = {addition for index, (_, addition) in composed.items() if index not in drawn}
    new = np.zeros(len(paths), dtype=bool)
    for index in drawn:
        base, addition = composed[index]
        new[index] = base not in drawn and addition in shown
    return new


def shifted_fonts(fonts: list[str], settings: GlyphSettings) -> Bool[np.ndarray, " fonts"]:
    """Which fonts training never shows.

    Raises :class:`InputError` where they are all, or a name without ``*`` is no font's.
    """
    for mark in settings.shifted:
        if "*" not in mark and mark not in fonts:
            raise InputError(f"shifted: no font is called '{mark}'; there are {', '.join(fonts)}")
    shifted = [any(fnmatchcase(font, mark) for mark in settings.shifted) for font in fonts]
    if all(shifted):
        raise InputError(
            f"shifted: {settings.shifted} holds out all fonts; leave one of {', '.join(fonts)}"
        )
    return np.array(shifted)


def split_rows(
    labels: Int[np.ndarray, " rows"],
    domains: Int[np.ndarray, " rows"],
    names: list[str],
    fonts: list[str],
    new: Bool[np.ndarray, " classes"],
    settings: GlyphSettings,
) -> dict[str, Int[np.ndarray, " some"]]:
    """The row numbers of each split; all views of a character in a font stay together.

    A character that is not new trains in at least one font, where one that has it is not shifted.
    """
    where = np.full(len(labels), "train", dtype=object)
    where[new[labels]] = "new"
    where[shifted_fonts(fonts, settings)[domains]] = "shifted"
    pairs: dict[int, dict[int, float]] = {}
    for row in np.flatnonzero(where == "train").tolist():
        label, domain = int(labels[row]), int(domains[row])
        of_fonts = pairs.setdefault(label, {})
        if domain not in of_fonts:
            of_fonts[domain] = uniform(f"{names[label]}/{fonts[domain]}", settings.seed)
    for of_fonts in pairs.values():
        of_fonts[max(of_fonts, key=lambda domain: of_fonts[domain])] = 1.0  # it trains in any case
    for row in np.flatnonzero(where == "train").tolist():
        at = pairs[int(labels[row])][int(domains[row])]
        if at < settings.test:
            where[row] = "test"
        elif at < settings.test + settings.validation:
            where[row] = "validation"
    return {name: np.flatnonzero(where == name) for name in SPLITS}
