"""Where data in several domains comes from: the ``data:`` part of a recipe.

Apart from the loaders, so that a recipe is checked before anything heavy is imported.
"""

import importlib.util
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import Field

from geodapt.data.table_files import SUFFIXES
from geodapt.data.text_files import existing, on_hub
from geodapt.errors import InputError
from geodapt.extras import missing
from geodapt.settings import GivenPath, Seed, SourceSettings

HUB = "McAuley-Lab/Amazon-Reviews-2023"

PACKAGES = {  # distribution: module
    "sympy": "sympy",
    "pandas": "pandas",
    "numpy": "numpy",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "networkx": "networkx",
    "torch": "torch",
    "matplotlib": "matplotlib",
}
DEMO = {"sympy", "scikit-learn", "networkx", "matplotlib"}
"""Those that the extra ``demo`` installs; geodapt itself needs the others."""
DEMO_MODULES = {PACKAGES[package] for package in DEMO}

# The rarer genres come first: a movie belongs to the first group that it fits, and most fit Drama.
GROUPS = {
    "family": ["Animation", "Children's", "Musical", "Fantasy"],
    "suspense": ["Thriller", "Crime", "Mystery", "Film-Noir", "Horror"],
    "action": ["Action", "Adventure", "Sci-Fi", "War", "Western"],
    "comedy": ["Comedy"],
    "drama": ["Drama", "Romance", "Documentary"],
}


def distribution(name: str) -> str:
    """The distribution of a domain, named as itself or as its module (sklearn)."""
    known = {**{module: package for package, module in PACKAGES.items()}, **dict.fromkeys(PACKAGES)}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise InputError(f"unknown domain '{name}': {hint}There are {', '.join(PACKAGES)}")
    package = known[name] or name
    if importlib.util.find_spec(PACKAGES[package]) is None:
        what = f"domain '{name}' is mined from the package {package}, which is not installed"
        if package in DEMO:
            raise missing(what, "demo")
        raise InputError(f"{what}: pip install {package}")
    return package


class DomainSettings(SourceSettings):
    """Settings that all sources of several domains share."""

    max_train: int | None = Field(None, ge=1)
    """The most training rows of a domain; a random choice of them by the seed."""
    max_test: int | None = Field(None, ge=1)
    """The most test rows of a domain, and the most validation rows."""
    seed: Seed = 0
    """Seed of the splits, of what is drawn and of the rows chosen."""

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(max_train=64, max_test=8)


class SequenceSettings(DomainSettings):
    """Settings that all sources of sequences share."""

    history: int = Field(8, ge=1)
    """Length of a history: its most recent items."""
    min_history: int = Field(1, ge=1)
    """Least number of different items before a target."""
    negatives: int = Field(29, ge=1)
    """Candidates besides the target."""
    k_core: int = Field(5, ge=1)
    """Users with fewer items and items with fewer users are left out, until none is left."""


class ApiCallSettings(SequenceSettings):
    """Sequences of calls of a package's public functions, mined from the package itself."""

    loader = "geodapt.data.api_calls:load_api_calls"
    kind: Literal["api_calls"] = "api_calls"
    domains: list[str] = Field(["sympy", "pandas", "numpy", "scikit-learn"], min_length=1)
    """Of sympy, pandas, numpy, scipy, scikit-learn (or sklearn), networkx, torch, matplotlib."""
    k_core: int = Field(3, ge=1)
    """Items in fewer than this many function bodies are left out."""
    fold: int = Field(0, ge=0, le=4)
    """Which fifth of the packages' files tests: over all five, every row tests once."""

    def require_inputs(self) -> None:
        for name in self.domains:
            distribution(name)


class AmazonSettings(SequenceSettings):
    """Which product a customer reviewed next; a domain is a product category."""

    loader = "geodapt.data.amazon:load_amazon"
    kind: Literal["amazon"] = "amazon"
    path: str = HUB
    """A folder with CATEGORY.jsonl and meta_CATEGORY.jsonl (or .jsonl.gz), or a hub name."""
    domains: list[str] = Field(min_length=1)
    """Categories by the names of their files: Toys_and_Games, Video_Games, All_Beauty, ..."""

    @property
    def on_hub(self) -> bool:
        """Whether ``path`` is a hub name, which has an owner."""
        return "/" in self.path and on_hub(self.path)

    def require_inputs(self) -> None:
        if not self.on_hub:
            existing(self.path)


class MovieLensSettings(SequenceSettings):
    """Which movies a user rated next; a domain is a group of genres."""

    loader = "geodapt.data.movielens:load_movielens"
    kind: Literal["movielens"] = "movielens"
    path: GivenPath
    """The folder: u.data and u.item, or ratings.dat and movies.dat, or a .inter and a .item."""
    groups: dict[str, list[str]] = Field(GROUPS, min_length=1)
    """Genres by domain; a movie belongs to the first that it fits, so domains share no movie."""
    domains: list[str] | None = Field(None, min_length=1)
    """Which groups to take, in this order; all of them when not given."""


class InteractionFileSettings(SequenceSettings):
    """Who took what and when, in the user's own table."""

    loader = "geodapt.data.interactions:load_interactions"
    kind: Literal["csv", "jsonl", "parquet"] = "csv"
    """The file's ending decides how it is read."""
    path: GivenPath
    """A .csv, .tsv, .jsonl (or .gz of them) or .parquet file with a row per interaction."""
    domains: list[str] | None = Field(None, min_length=1)
    """Which values of the domain column to take, in this order; all, sorted, when not given."""
    user: str = "user"
    """The column of who took it."""
    item: str = "item"
    """The column of what was taken: a name or number that is the item's own."""
    time: str = "time"
    """The column of when: seconds, or dates such as 2026-03-31T12:00:00."""
    title: str = "title"
    """The column of the item's text, which models read; may be the item's own column."""
    domain: str = "domain"
    """The column of the domain's name."""


class ClassificationSettings(DomainSettings):
    """Which class a text belongs to."""

    loader = "geodapt.data.classification:load_classification"
    kind: Literal["classification"] = "classification"
    path: str
    """A .csv, .tsv, .jsonl (or .gz of them) or .parquet file, or a hub name."""
    domains: list[str] | None = Field(None, min_length=1)
    """Which values of the domain column to take, in this order; all, sorted, when not given."""
    text: str = "text"
    """The column of the text."""
    label: str = "label"
    """The column of the class's name."""
    domain: str = "domain"
    """The column of the domain's name."""

    @property
    def on_hub(self) -> bool:
        """Whether ``path`` is a hub name."""
        return on_hub(self.path, SUFFIXES)

    def require_inputs(self) -> None:
        if not self.on_hub:
            existing(self.path)


DataSettings = Annotated[
    ApiCallSettings
    | AmazonSettings
    | MovieLensSettings
    | InteractionFileSettings
    | ClassificationSettings,
    Field(discriminator="kind"),
]
"""Where data comes from: the ``data:`` part of a recipe, chosen by its ``kind``."""

SequenceKinds = ApiCallSettings | AmazonSettings | MovieLensSettings | InteractionFileSettings
