"""Where a hierarchy of texts comes from: the ``data:`` part of a radial recipe."""

from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import Field

from geodapt.data.glyph_settings import GlyphSettings
from geodapt.data.settings import DEMO_MODULES, distribution
from geodapt.extras import missing
from geodapt.settings import GivenPath, Seed, SourceSettings

PACKAGES = ("builtins", "collections", "io", "email", "sympy", "sklearn", "torch.nn", "networkx")
"""Packages that are searched for classes: their public modules, two levels down."""


class ChainSourceSettings(SourceSettings):
    """Settings that all sources of chains share; the chains of a tree are its edges."""

    max_train: int | None = Field(None, ge=1)
    """Largest number of training chains; chosen at random by the seed."""
    max_test: int | None = Field(None, ge=1)
    """Largest number of images, leaves or new characters to measure on; chosen likewise."""
    seed: Seed = 0
    """Seed of what is held out and chosen, and of the contradicting texts."""

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(max_train=64, max_test=20)


class ChainSettings(ChainSourceSettings):
    """A file of chains."""

    loader = "geodapt.data.chains:load_chains"
    kind: Literal["chains"] = "chains"
    path: GivenPath
    """A .csv, .tsv, .jsonl (or .gz of them) or .parquet file: HierarCaps, or your own chains."""
    levels: list[str] | None = Field(None, min_length=2)
    """The columns of a chain's texts, from general to specific; none: level_1, level_2 and so on,
    or one column of whole chains, as HierarCaps has it."""
    test_path: GivenPath | None = None
    """A file to measure on, such as HierarCaps's test file; none: a part is held out by image."""


class TreeSettings(ChainSourceSettings):
    """Settings that all sources of trees share."""

    parents: Literal["first", "all"] = "first"
    """Of a text below several, such as a word of several meanings: the first one, or all."""


class EdgeSettings(TreeSettings):
    """A file of edges."""

    loader = "geodapt.data.trees:load_edges"
    kind: Literal["edges"] = "edges"
    path: GivenPath
    """Lines of two texts, the general one first, with a tab or a comma between (.gz allowed)."""


class CodeTreeSettings(TreeSettings):
    """Python's class hierarchy, the modules of the built-in API data, or both."""

    loader = "geodapt.data.code_trees:load_code_trees"
    kind: Literal["code"] = "code"
    trees: list[Literal["classes", "api"]] = Field(["classes", "api"], min_length=1)
    """classes: the class hierarchy; api: packages, modules and functions."""
    packages: list[str] = Field(list(PACKAGES), min_length=1)
    """Modules whose classes are read."""
    domains: list[str] = Field(["numpy", "scikit-learn", "networkx"], min_length=1)
    """Packages of the api tree, as in the data kind `api_calls`."""

    def require_inputs(self) -> None:
        if "api" in self.trees:
            for name in self.domains:
                distribution(name)
        if "classes" in self.trees:
            for module in self.packages:
                package = module.split(".")[0]
                if package in DEMO_MODULES and find_spec(package) is None:
                    what = f"classes are read from {package}, which is not installed"
                    raise missing(what, "demo")


class GlyphChainSettings(ChainSourceSettings):
    """Rendered characters, whose captions go from general to specific."""

    loader = "geodapt.data.glyph_chains:load_glyph_chains"
    kind: Literal["glyphs"] = "glyphs"
    glyphs: GlyphSettings = GlyphSettings()
    """The characters and their pictures: what the CLIP was trained on, so that those that are new
    to it are held out here."""


HierarchySettings = Annotated[
    ChainSettings | EdgeSettings | CodeTreeSettings | GlyphChainSettings,
    Field(discriminator="kind"),
]
"""Told apart by its ``kind``: chains, edges, code or glyphs."""
