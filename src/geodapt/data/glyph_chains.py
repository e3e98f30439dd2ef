"""Characters' captions as chains: trained on what a CLIP knows, measured on what it never saw."""

from random import Random
from typing import TYPE_CHECKING

import numpy as np
from datasets import concatenate_datasets

from geodapt.data.chains import Chain, ChainPictures, Hierarchy
from geodapt.data.hierarchy_settings import GlyphChainSettings
from geodapt.data.sequences import at_most
from geodapt.data.vision.pictures import label_column
from geodapt.errors import InputError

if TYPE_CHECKING:
    from geodapt.data.glyphs import Glyphs


def load_glyph_chains(settings: GlyphChainSettings) -> Hierarchy:
    """The paths of the known characters to tune on, and of the new ones to measure.

    A chain is a character's whole path down the tree of captions, so that its steps are the
    tree's edges. Nothing that is tuned on names a new character. The pictures are those of the
    measured ones, and as many of known characters, in fonts in which a CLIP did not see them.

    Raises :class:`InputError` where no character is new or known, and as
    :func:`geodapt.data.glyphs.load_glyphs` does.
    """
    # Here, since other hierarchies do without what draws these.
    from geodapt.data.glyphs import load_glyphs
    from geodapt.data.glyphs.tree import contradictions, tree_of

    glyphs = load_glyphs(settings.glyphs)
    names, new = glyphs.classes["name"][:], glyphs.classes["new"][:]
    paths = [tuple(path) for path in glyphs.classes["path"]]
    unseen = {name for name, is_new in zip(names, new, strict=True) if is_new}
    known = [path for path, is_new in zip(paths, new, strict=True) if not is_new]
    shown = [path for path in known if unseen.isdisjoint(path)]
    if not unseen or not shown:
        raise InputError(
            f"of {len(names)} characters {len(unseen)} are new, which leaves none to "
            f"{'train on' if unseen else 'measure'}; raise data.glyphs.new, or take fonts and "
            "scripts with more letters that have accents, such as Latin or Greek"
        )
    tree = tree_of(shown)
    chosen = at_most(shown, settings.max_train, (settings.seed, "train"))
    tested = set(at_most(sorted(unseen), settings.max_test, (settings.seed, "test")))
    notes = []
    if below := len(known) - len(shown):
        notes.append(f"{below:,} characters below a new one left out of training")
    return Hierarchy(
        "glyphs",
        train=[
            Chain(path, contradictions(tree, path, Random(f"{settings.seed}/{path[-1]}"))[:-1])
            for path in chosen
        ],
        test=[Chain(path, group=path[-1]) for path in paths if path[-1] in tested],
        classes=list(dict.fromkeys(text for path in paths for text in path[:-1])),
        notes=notes,
        pictures=_pictures(glyphs, tested, settings.seed),
        names=names,
    )


def _pictures(glyphs: "Glyphs", tested: set[str], seed: int) -> ChainPictures:
    """All pictures of the characters that are measured, and as many of known ones."""
    names = glyphs.classes["name"][:]
    new, known = glyphs.splits["new"], glyphs.splits["test"]
    asked = new.select(np.flatnonzero([names[label] in tested for label in label_column(new)]))
    beside = known.select(at_most(list(range(len(known))), len(asked), (seed, "pictures")))
    rows = concatenate_datasets([asked, beside])
    return ChainPictures(rows["image"], [names[label] for label in rows["label"]])
