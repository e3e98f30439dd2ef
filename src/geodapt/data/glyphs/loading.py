"""The data set that the settings describe: pictures, captions, tree, splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from datasets import Dataset, DatasetDict

from geodapt.data.glyph_settings import GlyphSettings
from geodapt.data.glyphs.fonts import Font, find_fonts
from geodapt.data.glyphs.splits import new_classes, shifted_fonts, split_rows
from geodapt.data.glyphs.store import stored
from geodapt.data.glyphs.taxonomy import KINDS, path, script
from geodapt.data.glyphs.tree import Tree, chain, contradictions, tree_of
from geodapt.data.vision.pictures import label_column, number_column
from geodapt.errors import InputError


@dataclass(frozen=True)
class Glyphs:
    """Rendered characters with their captions.

    ``classes`` has a row per character, whose index is its label: ``character``, ``name``,
    ``captions`` (four, from general to specific; the last is the name), ``contradictions`` (a
    wrong caption for each), ``path`` (all captions above the name, and it), ``script``, ``new``
    (whether training never shows it).

    ``splits`` has ``train``, ``validation``, ``test``, ``new`` and ``shifted``, each with
    ``image``, ``label`` and ``domain`` (a ``datasets.ClassLabel`` over the fonts).
    """

    classes: Dataset
    splits: DatasetDict
    tree: Tree
    fonts: tuple[Font, ...]


def load_glyphs(settings: GlyphSettings) -> Glyphs:
    """The data set that the settings describe, drawn where the cache does not have it.

    Raises :class:`InputError` for fonts that cannot be read, unknown scripts and kinds, and where
    no character is left.
    """
    fonts = find_fonts(settings.fonts)
    names = [font.name for font in fonts]
    shifted_fonts(names, settings)  # refused before all is drawn
    folder = stored(fonts, _chosen(fonts, settings), settings)
    characters = Dataset.load_from_disk(str(folder / "characters"))["character"]
    images = Dataset.load_from_disk(str(folder / "images"))
    paths = [path(character) for character in characters]
    tree = tree_of(paths)
    new = new_classes(paths, settings)
    chains = [chain(of_one) for of_one in paths]
    wrong = [
        contradictions(tree, captions, Random(f"{settings.seed}/{captions[-1]}"))
        for captions in chains
    ]
    classes = Dataset.from_dict(
        {
            "character": list(characters),
            "name": [captions[-1] for captions in chains],
            "captions": chains,
            "contradictions": wrong,
            "path": paths,
            "script": [script(character) for character in characters],
            "new": new,
        }
    )
    rows = split_rows(
        label_column(images),
        number_column(images, "domain"),
        classes["name"][:],
        names,
        new,
        settings,
    )
    splits = DatasetDict({name: images.select(chosen) for name, chosen in rows.items()})
    return Glyphs(classes, splits, tree, tuple(fonts))


def _chosen(fonts: Sequence[Font], settings: GlyphSettings) -> list[str]:
    """The characters that the fonts have and the settings ask for, in order of code point."""
    covered = sorted({character for font in fonts for character in font.characters})
    for asked, there, what in (
        (settings.scripts, sorted({script(character) for character in covered}), "script"),
        (settings.kinds, list(KINDS.values()), "kind"),
    ):
        if unknown := [name for name in asked or () if name not in there]:
            raise InputError(f"no font has the {what} '{unknown[0]}'; there are {', '.join(there)}")
    chosen = [
        character
        for character in covered
        if (settings.scripts is None or script(character) in settings.scripts)
        and (settings.kinds is None or path(character)[0] in settings.kinds)
    ]
    if not chosen:
        raise InputError(
            f"no font has a character of the kinds {settings.kinds} in the scripts "
            f"{settings.scripts}; leave one of the two out"
        )
    return chosen
