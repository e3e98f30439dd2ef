"""Built-in trees: Python's class hierarchies, and packages with their modules and functions.

They are read from the packages that are installed, so they are the same on every machine with
the same versions. A class's text is its name in words; a function's is its path in words; below
both stands the first sentence of its documentation.
"""

import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType

from geodapt.data.api_calls import ApiCallSettings, load_api_calls, module_tree
from geodapt.data.chains import Hierarchy
from geodapt.data.hierarchy_settings import CodeTreeSettings
from geodapt.data.settings import DEMO_MODULES
from geodapt.data.trees import Forest, from_forest
from geodapt.errors import InputError
from geodapt.extras import missing
from geodapt.progress import track

LONGEST = 160  # characters of a description


def load_code_trees(settings: CodeTreeSettings) -> Hierarchy:
    """The trees as one :class:`~geodapt.data.chains.Hierarchy`.

    Raises :class:`InputError` for a package that is not installed.
    """
    edges: list[tuple[str, str]] = []
    described: dict[str, str] = {}
    for tree in settings.trees:
        found, texts = class_tree(settings.packages) if tree == "classes" else api_tree(settings)
        edges += found
        described |= texts
    forest = Forest(" and ".join(settings.trees), edges, settings.parents == "all")
    leaves = set(forest.leaves)
    # A description that two share, or that only repeats a name, is left out.
    said = list(described.values())
    told = {
        leaf: text
        for leaf, text in described.items()
        if leaf in leaves and said.count(text) == 1 and text not in forest.paths
    }
    return from_forest(forest, settings, told)


def class_tree(packages: list[str]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """(base, class) of every public class in words, and the first sentence of each class's
    docstring.

    The base is the first that is not itself a mixin; a class that is called as its base is
    passed over, and its own classes stand below that base.
    """
    edges: dict[tuple[str, str], None] = {}
    described: dict[str, str] = {}
    for module in track(list(_modules(packages)), "reading classes"):
        for name, kind in sorted(vars(module).items()):
            if not inspect.isclass(kind) or name.startswith("_") or kind is object:
                continue
            line = list(dict.fromkeys(words(base.__name__) for base in _lineage(kind)))
            edges.update(dict.fromkeys(pairwise(line)))
            if text := sentence(kind):
                described.setdefault(line[-1], text)
    # A name that two packages use could become its own ancestor; the first occurrence is kept.
    above: dict[str, str] = {}
    kept = []
    for parent, child in edges:
        if child in above or _is_above(above, child, parent):
            continue
        above[child] = parent
        kept.append((parent, child))
    return kept, described


def api_tree(settings: CodeTreeSettings) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """(package or module, what it holds) in words, and the first sentence of each function's
    docstring."""
    asked = {"domains": settings.domains, "seed": settings.seed}
    domains = load_api_calls(ApiCallSettings.model_validate(asked))
    edges = [(words(parent), words(child)) for parent, child in module_tree(domains)]
    described = {}
    for domain in domains.values():
        for name, text in zip(domain.items["name"], domain.items["text"], strict=True):
            said = text.removeprefix(name).removeprefix(":").strip()
            if said:
                described[words(name)] = _first_sentence(said)
    return [(parent, child) for parent, child in edges if parent != child], described


def words(name: str) -> str:
    """``sklearn.linear_model.RidgeCV`` as ``sklearn linear model ridge cv``."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[._]+", " ", name)
    return spaced.strip().lower()


def sentence(value: object) -> str:
    """The first sentence of an object's own documentation, or nothing."""
    said = vars(value).get("__doc__") if inspect.isclass(value) else getattr(value, "__doc__", None)
    if not isinstance(said, str):
        return ""
    paragraph = " ".join(inspect.cleandoc(said).split("\n\n")[0].split())
    # A signature, or a dataclass's, says nothing in words.
    return "" if re.match(r"[\w.]+\(", paragraph) else _first_sentence(paragraph)


def _first_sentence(text: str) -> str:
    first = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0].rstrip(".")
    return first if len(first) <= LONGEST else first[:LONGEST].rsplit(" ", 1)[0]


def _lineage(kind: type) -> list[type]:
    """From below ``object`` down to a class, by the first base of each that is no mixin."""
    line = [kind]
    while bases := [base for base in line[-1].__bases__ if base is not object]:
        line.append(next((b for b in bases if "mixin" not in b.__name__.lower()), bases[0]))
    return [each for each in reversed(line) if not each.__name__.startswith("_")]


def _modules(packages: list[str]) -> Iterator[ModuleType]:
    for package in packages:
        try:
            module = importlib.import_module(package)
        except ImportError as error:
            if package in DEMO_MODULES and isinstance(error, ModuleNotFoundError):
                what = f"classes are read from {package}, which is not installed"
                raise missing(what, "demo") from error
            raise InputError(
                f"classes are read from the package {package}, which does not import ({error}); "
                "install it, or leave it out of data.packages"
            ) from error
        yield module
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, value in sorted(vars(module).items()):
                inside = isinstance(value, ModuleType) and value.__name__ == f"{package}.{name}"
                if inside and not name.startswith("_"):
                    yield value


def _is_above(above: dict[str, str], text: str, start: str) -> bool:
    """Whether a text is an ancestor of another."""
    at: str | None = start
    while at is not None:
        if at == text:
            return True
        at = above.get(at)
    return False
