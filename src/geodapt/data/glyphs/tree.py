"""The tree that the characters' paths form, and what contradicts a caption in it."""

from collections.abc import Iterable, Iterator, Sequence
from random import Random

from geodapt.data.glyphs.taxonomy import KINDS
from geodapt.errors import InputError

LEVELS = 4
"""Captions in a chain, from general to specific."""


class Tree:
    """Captions with one parent each; the kinds, which have none, stand under ``""``.

    >>> tree = Tree([("letter", "Latin letter"), ("letter", "Greek letter")])
    >>> tree.children["letter"], tree.parent["Greek letter"]
    (['Latin letter', 'Greek letter'], 'letter')
    """

    def __init__(self, paths: Iterable[Sequence[str]]) -> None:
        self.parent: dict[str, str] = {}
        self.children: dict[str, list[str]] = {}
        for path in paths:
            for above, caption in zip(("", *path), path, strict=False):
                there = self.parent.setdefault(caption, above)
                if there != above:
                    raise InputError(
                        f"caption '{caption}' stands under '{above}' and under '{there}'; "
                        "in a tree a caption has one parent"
                    )
        for caption, above in self.parent.items():
            self.children.setdefault(above, []).append(caption)

    def path(self, caption: str) -> tuple[str, ...]:
        """The captions from the kind down to this one."""
        found = [caption]
        while above := self.parent[found[-1]]:
            found.append(above)
        return tuple(reversed(found))

    def edges(self) -> list[tuple[str, str]]:
        """``(parent, child)`` for every caption but the kinds."""
        return [(above, caption) for caption, above in self.parent.items() if above]

    def others(self, caption: str) -> Iterator[list[str]]:
        """What stands beside a caption, nearest first: siblings, then cousins of each degree.

        Cousins stand as deep below a common ancestor; where it has none as deep, those above them.
        """
        depth, below = 0, caption
        while below:
            above = self.parent[below]
            found = [one for one in self.children[above] if one != below]
            for _ in range(depth):
                found = [child for one in found for child in self.children.get(one, [one])]
            if found:
                yield found
            depth, below = depth + 1, above


def tree_of(paths: Iterable[Sequence[str]]) -> Tree:
    """The tree of some characters' paths, and of all kinds.

    A kind that no character has is still a wrong caption for those of another.
    """
    return Tree([*((kind,) for kind in KINDS.values()), *paths])


def chain(path: Sequence[str]) -> tuple[str, ...]:
    """Four captions of a path: the two most general and the two most specific."""
    return (*path[: LEVELS // 2], *path[-LEVELS // 2 :])


def contradictions(tree: Tree, captions: Sequence[str], random: Random) -> tuple[str, ...]:
    """For each caption of a chain one that is wrong, though near: a sibling in the tree.

    Where there is no sibling, a cousin. A caption of which every word is in the chain's last one
    may be true of it (an "A with acute" of an "A with circumflex and acute"), so it is not taken.
    """
    true = set(captions[-1].split())
    wrong = []
    for caption in captions:
        for found in tree.others(caption):
            # In an order of chance, of which mostly the first is needed.
            shuffled = (found.pop(random.randrange(len(found))) for _ in range(len(found)))
            if false := next((one for one in shuffled if not true.issuperset(one.split())), ""):
                wrong.append(false)
                break
        else:
            raise InputError(
                f"nothing contradicts '{caption}': there is no other caption as general; "
                "take more fonts, scripts or kinds"
            )
    return tuple(wrong)
