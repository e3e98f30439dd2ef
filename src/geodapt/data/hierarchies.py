"""Hierarchies of texts, by the loader of their kind."""

from geodapt.data.chains import Hierarchy, load_chains
from geodapt.data.code_trees import load_code_trees
from geodapt.data.glyph_chains import load_glyph_chains
from geodapt.data.hierarchy_settings import (
    ChainSettings,
    CodeTreeSettings,
    EdgeSettings,
    GlyphChainSettings,
    HierarchySettings,
)
from geodapt.data.trees import load_edges


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
