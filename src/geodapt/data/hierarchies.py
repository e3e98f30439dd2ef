"""Where a hierarchy of texts comes from: the ``data:`` part of a radial recipe."""

from typing import Annotated

from pydantic import Field

from geodapt.data.chains import ChainSettings, Hierarchy, load_chains
from geodapt.data.code_trees import CodeTreeSettings, load_code_trees
from geodapt.data.glyph_chains import GlyphChainSettings, load_glyph_chains
from geodapt.data.trees import EdgeSettings, load_edges

HierarchySettings = Annotated[
    ChainSettings | EdgeSettings | CodeTreeSettings | GlyphChainSettings,
    Field(discriminator="kind"),
]
"""Told apart by its ``kind``: chains, edges, code or glyphs."""


def load_hierarchy(settings: HierarchySettings) -> Hierarchy:
    """The chains to tune on and to measure, by the loader of their kind.

    Raises :class:`geodapt.errors.InputError` where the data is not there, malformed, or too little.
    """
    match settings:
        case ChainSettings():
            return load_chains(settings)
        case EdgeSettings():
            return load_edges(settings)
        case CodeTreeSettings():
            return load_code_trees(settings)
        case GlyphChainSettings():
            return load_glyph_chains(settings)
