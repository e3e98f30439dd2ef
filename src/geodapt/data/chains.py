"""Chains of texts from general to specific: HierarCaps as published, and tables of one's own.

A chain may have a contradicting text for each level; where a file has none, they are drawn from its
other chains.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geodapt.data.domain import split_of
from geodapt.data.hierarchy_settings import ChainSettings
from geodapt.data.sequences import at_most
from geodapt.data.table_files import cell, require_columns, table
from geodapt.data.text_files import is_empty
from geodapt.errors import InputError

ARROW = "=>"
TEXTS, NEGATIVES, GROUPS = ("positive", "captions", "texts"), ("negative",), ("image_url", "image")
DRAWS = 100  # draws of another chain before the data counts as having no contradiction


@dataclass(frozen=True)
class Chain:
    """Texts from general to specific, each entailed by what follows it."""

    texts: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    """For each level but the last a text that contradicts it; empty before they are drawn."""
    group: str = ""
    """The unit that is held out whole: the image's address; if empty, the chain itself."""


@dataclass(frozen=True)
class ChainPictures:
    """Pictures, and what each shows."""

    images: Sequence[Any]
    """PIL images, each opened when it is asked for."""
    names: list[str]
    """Per picture the group of its chains, or another name; repeated where several pictures show
    the same."""


@dataclass(frozen=True)
class Hierarchy:
    """What a model is tuned and measured on."""

    name: str
    train: list[Chain]
    test: list[Chain]
    classes: list[str] = field(default_factory=list)
    """Of a tree: the inner nodes' texts, into which the leaves can be classified."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know of the data."""
    pictures: ChainPictures | None = None
    """The pictures of the test chains' groups, and of other names."""
    names: list[str] = field(default_factory=list)
    """All names that a picture can have, for zero-shot classification."""


def load_chains(settings: ChainSettings) -> Hierarchy:
    """Read the chains; hold out a fifth of the groups, or measure on ``test_path``.

    A text of the training chains may stand in a test chain too: general captions are few. Raises
    :class:`InputError` as :func:`read_chains` does, and where nothing is left to train or test.
    """
    chains = read_chains(settings.path, levels=settings.levels)
    if settings.test_path is None:
        held_out = [split_of(_group(chain), settings.seed) == "test" for chain in chains]
        train = [chain for chain, held in zip(chains, held_out, strict=True) if not held]
        test = [chain for chain, held in zip(chains, held_out, strict=True) if held]
        if not train or not test:
            groups = len({_group(chain) for chain in chains})
            raise InputError(
                f"{settings.path} has {groups} groups, of which none is left for "
                f"{'training' if not train else 'testing'}; give more chains, or test_path"
            )
    else:
        train, test = chains, read_chains(settings.test_path, True, settings.levels)
    names = list(dict.fromkeys(map(_group, test)))
    kept = set(at_most(names, settings.max_test, (settings.seed, "test")))
    train = at_most(train, settings.max_train, (settings.seed, "train"))
    train, notes = contradicted(train, chains, settings.path, settings.seed)
    return Hierarchy(
        Path(settings.path).name,
        train,
        [chain for chain in test if _group(chain) in kept],
        notes=notes,
    )


def read_chains(
    path: str | Path, repeats: bool = False, levels: Sequence[str] | None = None
) -> list[Chain]:
    """All chains of a file, in its order.

    A table has the texts of a chain in the columns ``levels``, or where these are not given in one
    column (``positive`` or ``captions``, joined by ``=>``, as HierarCaps has them) or in columns
    ``level_1``, ``level_2`` and so on; optionally ``negative`` and ``image_url``. A JSONL line
    may also be ``{"texts": [...], "negative": [...], "image": ...}``, or ``positive`` for
    ``texts``.

    Raises :class:`InputError` with file and line for a missing column, an empty text, a chain of
    another length than the first's, fewer than two levels, negatives that are not one per level or
    that repeat their text, and a text that stands at two levels of a chain, unless ``repeats``
    allows that: published test files are measured as they are.
    """
    chains: list[Chain] = []
    for place, record in table(path, "chains", partial(_check_columns, levels)):
        chain = _chain(place, record, levels, len(chains[0].texts) if chains else None)
        if not repeats and len(set(chain.texts)) < len(chain.texts):
            twice = Counter(chain.texts).most_common(1)[0][0]
            raise InputError(
                f"{place}: '{twice}' stands at two levels of its chain; a level must say "
                "more than the one before it"
            )
        chains.append(chain)
    if not chains:
        raise InputError(f"{path} is empty: it has no chains")
    return chains


def contradicted(
    chains: list[Chain], among: Sequence[Chain], name: str | Path, seed: int
) -> tuple[list[Chain], list[str]]:
    """The chains with a contradicting text per level, drawn where they have none; and notes.

    A drawn text stands at the same level of another chain, and in no chain together with the text.

    Raises :class:`InputError` where no such text is found.
    """
    lacking = sum(not chain.negatives for chain in chains)
    if not lacking:
        return chains, []
    together: dict[str, set[str]] = {}
    for chain in among:
        for text in chain.texts:
            together.setdefault(text, set()).update(chain.texts)
    generator = np.random.default_rng(seed)

    def draw(text: str, level: int) -> str:
        for index in generator.integers(len(among), size=DRAWS):
            other = among[int(index)].texts
            if level < len(other) and other[level] not in together[text]:
                return other[level]
        raise InputError(
            f"{name} has no negatives, and none can be drawn: at level {level + 1} nothing "
            f"contradicts '{text}', for its chains hold all others; give a column 'negative', "
            "or chains that part at the first level"
        )

    drawn = [
        chain
        if chain.negatives
        else replace(chain, negatives=tuple(map(draw, chain.texts[:-1], range(len(chain.texts)))))
        for chain in chains
    ]
    return drawn, [f"negatives drawn for {lacking:,} chains that had none"]


def _group(chain: Chain) -> str:
    return chain.group or " => ".join(chain.texts)


def _chain(
    place: str, record: dict[str, Any], columns: Sequence[str] | None, levels: int | None
) -> Chain:
    if columns:
        texts = _listed(place, [str(cell(record, column, place)) for column in columns])
    else:
        texts = _texts(place, record)
    negatives = _listed(place, next((record[n] for n in NEGATIVES if _holds(record, n)), None))
    if len(texts) < 2:
        raise InputError(f"{place}: a chain of {len(texts)} level; it needs at least two")
    if levels is not None and len(texts) != levels:
        raise InputError(
            f"{place}: a chain of {len(texts)} levels, where the first has {levels}; give all "
            "chains the same levels, or an edge list (data.kind=edges), whose paths may differ"
        )
    for name, values in (("level", texts), ("negative", negatives)):
        for number, text in enumerate(values, 1):
            if not text:
                raise InputError(
                    f"{place}: {name} {number} of the chain is empty; fill it or leave the row out"
                )
    if negatives and len(negatives) not in (len(texts), len(texts) - 1):
        raise InputError(
            f"{place}: {len(negatives)} negatives for {len(texts)} levels; give one per level "
            "(the last may be left out), or none at all"
        )
    negatives = negatives[: len(texts) - 1]  # the last level has nothing below it to contrast with
    for text, negative in zip(texts, negatives, strict=False):
        if text == negative:
            raise InputError(f"{place}: the negative '{negative}' is the very text of its level")
    group = next((str(cell(record, name, place)) for name in GROUPS if _holds(record, name)), "")
    return Chain(texts, negatives, group)


def _holds(record: dict[str, Any], name: str) -> bool:
    return bool(record.get(name)) and not is_empty(record[name])


def _check_columns(levels: Sequence[str] | None, names: Collection[str], place: str) -> None:
    """Raise :class:`InputError` where no columns hold the texts."""
    if levels:
        require_columns([("data.levels", level) for level in levels], names, place)
        return
    numbered = [name for name in names if name.startswith("level_")]
    if any(name in names for name in TEXTS):
        return
    if not numbered:
        raise InputError(
            f"{place}: no column {', '.join(TEXTS)} or level_1; it has {', '.join(names)}. "
            "Set data.levels to the columns of the texts, from general to specific"
        )
    for number in range(1, len(numbered) + 1):
        if f"level_{number}" not in names:
            raise InputError(f"{place}: column level_{number} is missing beside {numbered[-1]}")


def _texts(place: str, record: dict[str, Any]) -> tuple[str, ...]:
    for name in TEXTS:
        if name in record:
            return _listed(place, record[name])
    levels = sum(name.startswith("level_") for name in record)
    return _listed(place, [record[f"level_{number}"] for number in range(1, levels + 1)])


def _listed(place: str, value: Any) -> tuple[str, ...]:
    """The texts of a cell joined by ``=>``, or of a list."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = value.split(ARROW)
    if not isinstance(value, list) or not all(isinstance(text, str | None) for text in value):
        raise InputError(f"{place}: expected texts joined by '{ARROW}' or a list of texts")
    return tuple((text or "").strip() for text in value)
