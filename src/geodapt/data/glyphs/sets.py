"""Sets of characters as data sets of labelled pictures: names are classes, fonts are domains."""

from fnmatch import fnmatchcase

import numpy as np
from datasets import Dataset, concatenate_datasets

from geodapt.data.domain import uniform
from geodapt.data.glyph_settings import CharacterSetSettings
from geodapt.data.glyphs.loading import Glyphs, load_glyphs
from geodapt.data.vision.pictures import Pictures, label_column, number_column
from geodapt.errors import InputError

NAME_ALONE = "{}"
"""A character's name is its whole caption, so the template adds nothing."""


def load_character_set(settings: CharacterSetSettings) -> Pictures:
    """Characters below one caption; ``train`` in some fonts, ``test`` in all others.

    A class is drawn in every training font and in :attr:`CharacterSetSettings.tested_in` others or
    more; what is not is left out, and counted in the notes. ``captions`` are the paths of the tree.
    Raises :class:`InputError` for a caption, a character or a font that is not there, and where
    fewer than two classes are left.
    """
    return character_set(load_glyphs(settings.glyphs), settings)


def character_set(glyphs: Glyphs, settings: CharacterSetSettings) -> Pictures:
    """As :func:`load_character_set`, of pictures that are loaded."""
    fonts = [font.name for font in glyphs.fonts]
    trains = [any(fnmatchcase(font, mark) for mark in settings.train_fonts) for font in fonts]
    for mark in settings.train_fonts:
        if not any(fnmatchcase(font, mark) for font in fonts):
            raise InputError(
                f"train_fonts: no font is called '{mark}'; there are {', '.join(fonts)}"
            )
    if all(trains):
        raise InputError(
            f"train_fonts: {settings.train_fonts} leave no font to test; name fewer of "
            f"{', '.join(fonts)}"
        )
    asked = _asked(glyphs, settings)
    images = _all_rows(glyphs)
    labels = label_column(images)
    domains = number_column(images, "domain")
    drawn = np.zeros((len(glyphs.classes), len(fonts)), dtype=bool)
    drawn[labels, domains] = True
    train = np.array(trains)
    enough = drawn[:, train].all(1) & (drawn[:, ~train].sum(1) >= settings.tested_in)
    chosen = [label for label in asked if enough[label]]
    notes = []
    if len(chosen) < len(asked):
        notes.append(
            f"{len(asked) - len(chosen):,} of {len(asked):,} characters left out: not in every "
            f"training font and {settings.tested_in} others"
        )
    names = glyphs.classes["name"][:]
    if settings.classes is not None and len(chosen) > settings.classes:
        seed = settings.glyphs.seed
        drawn_lots = sorted(chosen, key=lambda label: uniform(names[label], seed))
        chosen = sorted(drawn_lots[: settings.classes])
    if len(chosen) < 2:
        raise InputError(
            f"of the {len(asked)} characters below '{settings.of}' only {len(chosen)} are in every "
            f"font of train_fonts and in {settings.tested_in} others; take other fonts"
        )
    splits = {
        split: images.select(np.flatnonzero(np.isin(labels, chosen) & (train[domains] == of_split)))
        for split, of_split in (("train", True), ("test", False))
    }
    every = Pictures(
        tuple(names),
        NAME_ALONE,
        splits,
        settings.of,
        tuple(map(tuple, glyphs.classes["path"][:])),
        notes,
    )
    return every.of_classes(chosen)


def _asked(glyphs: Glyphs, settings: CharacterSetSettings) -> list[int]:
    """The labels of the characters that the settings name."""
    table = glyphs.classes
    if settings.of not in glyphs.tree.parent:
        near = [caption for caption in glyphs.tree.parent if glyphs.tree.children.get(caption)]
        raise InputError(
            f"'{settings.of}' is no caption of these characters; there are {', '.join(near[:20])}"
        )
    below = [label for label, path in enumerate(table["path"][:]) if settings.of in path]
    if settings.only is not None:
        characters = table["character"][:]
        there = {characters[label] for label in below}
        if unknown := [one for one in settings.only if one not in there]:
            raise InputError(f"'{unknown[0]}' is no '{settings.of}' that the fonts have")
        below = [label for label in below if characters[label] in settings.only]
    if settings.shown == "all":
        return below
    new = table["new"][:]
    return [label for label in below if new[label] == (settings.shown == "new")]


def _all_rows(glyphs: Glyphs) -> Dataset:
    """Every picture, in whatever split it is."""
    return concatenate_datasets([rows for rows in glyphs.splits.values() if len(rows)])
