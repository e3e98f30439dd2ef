"""Trees of texts: edge lists such as WordNet's, and built-in trees.

A tree trains by its edges, each a chain of two with a contradicting text from beside it, and is
measured on the whole paths to leaves that were held out.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np

from geodapt.data.chains import Chain, Hierarchy
from geodapt.data.domain import split_of
from geodapt.data.edge_files import read_edges
from geodapt.data.hierarchy_settings import EdgeSettings, TreeSettings
from geodapt.data.sequences import at_most
from geodapt.errors import InputError

WAYS = 16  # paths to one text


class Forest:
    """Texts with the parent of each, or all parents; several roots are allowed."""

    def __init__(
        self, name: str, edges: Iterable[tuple[str, str]], every_parent: bool = False
    ) -> None:
        """Of several texts above one (a directed acyclic graph's), the first is kept; or all, with
        ``every_parent``: a word of several meanings is below each of them.

        Raises :class:`InputError` for no edges, an empty text, and texts in a circle.
        """
        self.name = name
        self.above: dict[str, str] = {}
        self.below: dict[str, list[str]] = {}
        self.parents: dict[str, list[str]] = {}
        self.dropped = 0
        for parent, child in edges:
            if not parent or not child:
                raise InputError(f"{name}: an edge '{parent}' -> '{child}' has an empty text")
            if self.above.setdefault(child, parent) != parent and not every_parent:
                self.dropped += 1
            elif child not in self.below.setdefault(parent, []):
                self.below[parent].append(child)
                self.parents.setdefault(child, []).append(parent)
        if not self.above:
            raise InputError(f"{name} has no edges")
        self.several = any(len(parents) > 1 for parents in self.parents.values())
        """Whether a text is below more than one."""
        self.tops = [text for text in self.below if text not in self.above]
        self.paths: dict[str, tuple[str, ...]] = {top: (top,) for top in self.tops}
        waiting = list(self.tops)
        for text in waiting:  # grows while it is walked: breadth first
            for child in self.below.get(text, ()):
                if child not in self.paths:
                    self.paths[child] = (*self.paths[text], child)
                    waiting.append(child)
        if circle := self._circle():
            raise InputError(
                f"{name}: '{circle}' is above or below itself, by a circle of edges; "
                "an edge goes from a general text to a specific one"
            )
        self.by_depth: dict[int, list[str]] = {}
        for text, path in self.paths.items():
            self.by_depth.setdefault(len(path), []).append(text)

    def _circle(self) -> str | None:
        """A text above itself, if there is one."""
        try:
            TopologicalSorter(self.parents).prepare()
        except CycleError as error:
            return str(error.args[1][0])
        return None

    def ways(self, text: str) -> list[tuple[str, ...]]:
        """Paths that lead from a top to a text, at most 16, short ones first.

        Depth first: a text far below has more beginnings of paths than fit into memory.
        """
        found: list[tuple[str, ...]] = []
        waiting: list[tuple[str, ...]] = [(text,)]
        while waiting and len(found) < WAYS:
            path = waiting.pop()
            over = self.parents.get(path[0])
            if over is None:
                found.append(path)
            else:
                waiting += [(parent, *path) for parent in reversed(over)]
        return sorted(found, key=len)

    def related(self, text: str) -> set[str]:
        """All texts above a text and below it, itself included."""
        found = {text}
        for step in (self.parents, self.below):
            waiting = [text]
            while waiting:
                fresh = [other for other in step.get(waiting.pop(), ()) if other not in found]
                found.update(fresh)
                waiting += fresh
        return found

    @property
    def leaves(self) -> list[str]:
        return [text for text in self.paths if text not in self.below]

    def contradiction(
        self, text: str, generator: np.random.Generator, without: AbstractSet[str] = frozenset()
    ) -> str | None:
        """A text that neither entails this one nor follows from it, at random.

        A child of the same parent; else one of the same depth elsewhere in the forest. None where
        the text has no such rival, or ``without`` holds them all.
        """
        parent = self.above.get(text)
        beside = self.tops if parent is None else self.below[parent]
        if self.several:  # a text beside this one may also be above or below it
            without = without | self.related(text)
        for circle in (beside, self.by_depth[len(self.paths[text])]):
            rivals = [other for other in circle if other != text and other not in without]
            if rivals:
                return rivals[int(generator.integers(len(rivals)))]
        return None


def load_edges(settings: EdgeSettings) -> Hierarchy:
    """A file of edges as a :class:`~geodapt.data.chains.Hierarchy`.

    Raises :class:`InputError` with file and line for what is no pair of texts, and as
    :class:`Forest` and :func:`from_forest` do.
    """
    every = settings.parents == "all"
    return from_forest(Forest(Path(settings.path).name, read_edges(settings.path), every), settings)


def from_forest(
    forest: Forest,
    settings: TreeSettings,
    described: Mapping[str, str] | None = None,
) -> Hierarchy:
    """Edges to train on, and whole paths to held-out leaves to measure.

    ``described`` maps some leaves to a text below them, which goes to the leaf's split.

    Raises :class:`InputError` where no edge has a contradicting text, or no leaf is left to train
    or to test.
    """
    described = described or {}
    generator = np.random.default_rng(settings.seed)
    held_out = {leaf for leaf in forest.leaves if split_of(leaf, settings.seed) == "test"}
    train, alone = [], 0
    for child, parents in forest.parents.items():
        if child in held_out:
            continue
        edges = [(parent, child) for parent in parents]
        if child in described:
            edges.append((child, described[child]))
        for general, specific in edges:
            rival = forest.contradiction(general, generator, held_out)
            if rival is None:
                alone += 1
                continue
            train.append(Chain((general, specific), (rival,)))
    if not train:
        raise InputError(
            f"{forest.name}: none of its {len(forest.above)} edges has a text that contradicts its "
            "upper end; a single line of texts has no negatives: give a tree that branches"
        )
    tested = at_most(sorted(held_out), settings.max_test, (settings.seed, "test"))
    if not tested:
        raise InputError(f"{forest.name} has {len(forest.leaves)} leaves, and none to hold out")
    ends = {leaf: (described[leaf],) if leaf in described else () for leaf in tested}
    # Several ways to one leaf are chains of one group: a level is met when any of them is.
    paths = [
        Chain((*way, *ends[leaf]), group=leaf if forest.several else "")
        for leaf in tested
        for way in (forest.ways(leaf) if forest.several else [forest.paths[leaf]])
    ]
    told = []
    if forest.several:
        shared = sum(len(parents) > 1 for parents in forest.parents.values())
        told.append(f"{shared:,} texts are below more than one")
    if forest.dropped:
        told.append(f"{forest.dropped:,} edges to a second text above one left out")
    if alone:
        told.append(f"{alone:,} edges without a contradicting text left out of training")
    return Hierarchy(
        forest.name,
        at_most(train, settings.max_train, (settings.seed, "train")),
        paths,
        classes=list(forest.below),
        notes=told,
    )
