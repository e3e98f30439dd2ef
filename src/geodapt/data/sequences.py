"""From what users did, in order, to a :class:`~geodapt.data.domain.Domain`.

What the loaders of sequential data share: k-core filtering, splits, the removal of sequences that
are in two splits, and negatives.
"""

import random
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from datasets import Dataset, DatasetDict, Features, List, Value
from pydantic import Field

from geodapt.data.domain import Domain
from geodapt.errors import InputError
from geodapt.progress import track
from geodapt.settings import Settings

SPLITS = ("train", "validation", "test")
FEATURES = Features(
    {
        "user": Value("string"),
        "history": List(Value("int32")),
        "target": Value("int32"),
        "negatives": List(Value("int32")),
    }
)


class SequenceSettings(Settings):
    """What every source of sequences lets its user choose."""

    history: int = Field(8, ge=1)
    """How many of the most recent items a history keeps."""
    min_history: int = Field(1, ge=1)
    """The fewest items before a target."""
    negatives: int = Field(29, ge=1)
    """Candidates beside the target."""
    k_core: int = Field(5, ge=1)
    """Items that fewer than this many users took are left out, until none is left to leave out."""
    max_train: int | None = Field(None, ge=1)
    """The most training rows of a domain; a random choice of them by the seed."""
    max_test: int | None = Field(None, ge=1)
    """The most test rows of a domain, and the most validation rows."""
    seed: int = Field(0, ge=0)
    """Seed of the splits, of the negatives and of the rows chosen."""


@dataclass(frozen=True)
class Trail:
    """What one user did: keys of items, oldest first, and the group that no split may cut."""

    user: str
    items: tuple[str, ...]
    group: str = ""


@dataclass(frozen=True)
class Row:
    """One question: after this history, which item is next? ``seen`` is all the user took."""

    user: str
    history: tuple[str, ...]
    target: str
    seen: frozenset[str]


def k_core(trails: Iterable[Trail], per_item: int, per_user: int) -> list[Trail]:
    """The largest set of trails in which every item has so many users and every user so many items.

    Dropping an item can leave a run of one item behind, which becomes one.
    """
    kept = list(trails)
    while True:
        users = Counter(item for trail in kept for item in set(trail.items))
        smaller = []
        for trail in kept:
            items = _without_runs(item for item in trail.items if users[item] >= per_item)
            if len(set(items)) >= per_user:
                smaller.append(Trail(trail.user, items, trail.group))
        if smaller == kept:
            return kept
        kept = smaller


def _without_runs(items: Iterable[str]) -> tuple[str, ...]:
    result: list[str] = []
    for item in items:
        if not result or result[-1] != item:
            result.append(item)
    return tuple(result)


def leave_one_out(trails: Iterable[Trail], min_history: int) -> dict[str, list[Row]]:
    """Each user's last item tests, the last but one validates, those before train.

    An item that a user took again counts once, the first time: a target is always new.
    """
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for trail in trails:
        items = tuple(dict.fromkeys(trail.items))
        for position in range(min_history, len(items)):
            from_end = len(items) - position
            split = {1: "test", 2: "validation"}.get(from_end, "train")
            seen = frozenset(items)
            rows[split].append(Row(trail.user, items[:position], items[position], seen))
    return rows


def by_group(trails: Iterable[Trail], min_history: int, seed: int) -> dict[str, list[Row]]:
    """One row a trail; whole groups go to train (70 %), validation (10 %) or test (20 %).

    A trail's target is the last item that it had not met before, so that it can never be found
    in the history: negatives are never found there either, and that would give it away.
    """
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for trail in trails:
        position = max(trail.items.index(item) for item in trail.items)
        history = trail.items[:position]
        if len(set(history)) < min_history:
            continue
        at = _fraction(f"{seed}/{trail.group}")
        split = "test" if at < 0.2 else "validation" if at < 0.3 else "train"
        rows[split].append(Row(trail.user, history, trail.items[position], frozenset(trail.items)))
    return rows


def _fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) / 2**64


def build_domain(
    name: str,
    rows: Mapping[str, list[Row]],
    items: Mapping[str, tuple[str, str]],
    settings: SequenceSettings,
) -> Domain:
    """Rows of the three splits and the items they speak of, as a :class:`Domain`.

    ``items`` maps an item's key to its name and text; those in no row are left out. Of rows that
    look the same to a model (the same kept history and target) one stays, in the test split
    before validation before train.

    Raises :class:`InputError` when a split is empty or an item set too small for the negatives.
    """
    keys = sorted({key for split in rows.values() for row in split for key in row.seen})
    ids = {key: index for index, key in enumerate(keys)}
    if len(keys) <= settings.negatives:
        raise InputError(
            f"domain '{name}' has {len(keys)} items, too few for {settings.negatives} negatives "
            f"beside a target: set negatives to {max(len(keys) - 2, 1)} or fewer, lower k_core "
            f"(now {settings.k_core}), or give more data"
        )
    taken: set[tuple] = set()
    splits = {}
    for number, split in reversed(list(enumerate(SPLITS))):
        unique = []
        for row in rows[split]:
            look = (row.history[-settings.history :], row.target)
            if look not in taken:
                taken.add(look)
                unique.append(row)
        if not unique:
            raise InputError(
                f"domain '{name}' has no {split} rows: it is too small; lower k_core (now "
                f"{settings.k_core}) or min_history (now {settings.min_history}), or give more data"
            )
        most = settings.max_train if split == "train" else settings.max_test
        seed = (settings.seed, zlib.crc32(name.encode()), number)
        if most is not None and len(unique) > most:
            chosen = random.Random(str(seed)).sample(range(len(unique)), most)
            unique = [unique[index] for index in sorted(chosen)]
        splits[split] = _dataset(name, unique, ids, settings, np.random.default_rng(seed))
    return Domain(
        name,
        Dataset.from_dict(
            {"name": [items[k][0] for k in keys], "text": [items[k][1] for k in keys]}
        ),
        DatasetDict({split: splits[split] for split in SPLITS}),
    )


def _dataset(
    name: str,
    rows: list[Row],
    ids: Mapping[str, int],
    settings: SequenceSettings,
    generator: np.random.Generator,
) -> Dataset:
    columns: dict[str, list] = {column: [] for column in FEATURES}
    for row in track(rows, f"{name}: drawing negatives"):
        left = len(ids) - len(row.seen)
        if left < settings.negatives:
            raise InputError(
                f"domain '{name}' has {len(ids)} items and user '{row.user}' took "
                f"{len(row.seen)} of them, which leaves {left}, too few for "
                f"{settings.negatives} negatives: set negatives to {left} or fewer, or lower "
                f"k_core (now {settings.k_core})"
            )
        columns["user"].append(row.user)
        columns["history"].append([ids[key] for key in row.history[-settings.history :]])
        columns["target"].append(ids[row.target])
        seen = np.sort(np.fromiter((ids[key] for key in row.seen), dtype=np.int64))
        columns["negatives"].append(draw_outside(seen, len(ids), settings.negatives, generator))
    return Dataset.from_dict(columns, features=FEATURES)


def draw_outside(
    taken: np.ndarray, size: int, count: int, generator: np.random.Generator
) -> np.ndarray:
    """``count`` distinct numbers of ``range(size)``, uniform over those not in sorted ``taken``.

    The r-th number that is not taken is r + j, where j of the taken lie below it:
    ``taken[i] - i`` counts the free numbers below ``taken[i]``.
    """
    ranks = generator.choice(size - len(taken), size=count, replace=False)
    return ranks + np.searchsorted(taken - np.arange(len(taken)), ranks, side="right")
