"""From what users did, in order, to a :class:`~geodapt.data.domain.Domain`.

What the loaders of sequential data share: k-core filtering, splits, the removal of sequences that
are in two splits, and negatives.
"""

import random
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset, DatasetDict, Features, List, Value
from jaxtyping import Bool, Int

from geodapt.data.domain import SPLITS, Domain, split_of
from geodapt.data.settings import SequenceSettings
from geodapt.errors import InputError
from geodapt.progress import track

FEATURES = Features(
    {
        "user": Value("string"),
        "history": List(Value("int32")),
        "target": Value("int32"),
        "negatives": List(Value("int32")),
    }
)


@dataclass(frozen=True)
class Trail:
    """One user's items by number, oldest first, and the group that must stay in one split."""

    user: str
    items: tuple[int, ...]
    group: str = ""


@dataclass(frozen=True)
class Row:
    """One question: after this history, which item is next? ``seen`` is all the user took."""

    user: str
    history: tuple[int, ...]
    target: int
    seen: frozenset[int]


def k_core(
    users: Int[np.ndarray, " n"], items: Int[np.ndarray, " n"], per_user: int, per_item: int
) -> Bool[np.ndarray, " n"]:
    """Which interactions stay: the most in which all users and items have enough of each other.

    A user stays with ``per_user`` different items or more, an item with ``per_item`` different
    users or more; dropping one can drop others, so this repeats until nothing changes.
    """
    if len(users) == 0:
        return np.zeros(0, dtype=bool)
    pairs = np.unique(users.astype(np.int64) * (items.max() + 1) + items)
    user, item = np.divmod(pairs, items.max() + 1)
    user_stays = np.ones(users.max() + 1, dtype=bool)
    item_stays = np.ones(items.max() + 1, dtype=bool)
    while True:
        left = user_stays[user] & item_stays[item]
        enough_items = np.bincount(user[left], minlength=len(user_stays)) >= per_user
        enough_users = np.bincount(item[left], minlength=len(item_stays)) >= per_item
        if (enough_items == user_stays).all() and (enough_users == item_stays).all():
            return user_stays[users] & item_stays[items]
        user_stays, item_stays = enough_items, enough_users


def leave_one_out(trails: Iterable[Trail], settings: SequenceSettings) -> dict[str, list[Row]]:
    """Each user's last item tests, the last but one validates, those before train.

    An item that a user took again counts once, the first time: a target is always new.
    """
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for trail in trails:
        items = tuple(dict.fromkeys(trail.items))
        seen = frozenset(items)
        for position in range(settings.min_history, len(items)):
            split = {1: "test", 2: "validation"}.get(len(items) - position, "train")
            history = items[max(0, position - settings.history) : position]
            rows[split].append(Row(trail.user, history, items[position], seen))
    return rows


def rows_by_group(
    trails: Iterable[Trail], settings: SequenceSettings, fold: int = 0
) -> dict[str, list[Row]]:
    """One row a trail; whole groups go to train (70 %), validation (10 %) or test (20 %).

    A trail's target is the last item that it had not met before, so that it can never be found
    in the history: negatives are never found there either, and that would give it away. A run of
    one item in the history is one item.
    """
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for trail in trails:
        position = max(trail.items.index(item) for item in trail.items)
        before = trail.items[:position]
        if len(set(before)) < settings.min_history:
            continue
        history = tuple(item for at, item in enumerate(before) if at == 0 or before[at - 1] != item)
        row = Row(
            trail.user,
            history[-settings.history :],
            trail.items[position],
            frozenset(trail.items),
        )
        rows[split_of(trail.group, settings.seed, fold)].append(row)
    return rows


def build_domain(
    name: str,
    rows: Mapping[str, list[Row]],
    items: Sequence[tuple[str, str]],
    settings: SequenceSettings,
) -> Domain:
    """Rows of the three splits and the items they speak of, as a :class:`Domain`.

    ``items`` are the names and texts that the rows' numbers stand for; those in no row are left
    out. Of rows that look the same (the same history and target) one stays, in the test split
    before validation before train.

    Raises :class:`InputError` when a split is empty or there are too few items for the negatives.
    """
    used = sorted({item for split in rows.values() for row in split for item in row.seen})
    used.sort(key=lambda item: items[item])
    ids = {item: index for index, item in enumerate(used)}
    if not used:
        raise InputError(
            f"domain '{name}' is empty: nothing is left after leaving out users and items with "
            f"fewer than k_core ({settings.k_core}) of each other, and users with fewer than "
            f"{settings.min_history + 1} items (min_history + 1); lower k_core or give more data"
        )
    if len(used) <= settings.negatives:
        raise InputError(
            f"domain '{name}' has {len(used)} items, too few for {settings.negatives} negatives "
            "beside a target and its history: set negatives lower, lower k_core "
            f"(now {settings.k_core}), or give more data"
        )
    splits = {}
    for number, (split, unique) in enumerate(_without_copies(rows).items()):
        if not unique:
            raise InputError(
                f"domain '{name}' has no {split} rows, or none that is not in another split too: "
                f"it is too small; lower k_core (now {settings.k_core}) or min_history (now "
                f"{settings.min_history}), or give more data"
            )
        seed = (settings.seed, zlib.crc32(name.encode()), number)
        most = settings.max_train if split == "train" else settings.max_test
        splits[split] = at_most(unique, most, seed), np.random.default_rng(seed)
    return Domain(
        name,
        Dataset.from_dict(
            {"name": [items[i][0] for i in used], "text": [items[i][1] for i in used]}
        ),
        DatasetDict(
            {
                split: _dataset(name, chosen, ids, settings, generator)
                for split, (chosen, generator) in splits.items()
            }
        ),
    )


def _without_copies(rows: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """Among rows with the same history and target keep one: in the test split if there, else in
    validation."""
    taken: set[tuple[tuple[int, ...], int]] = set()
    unique: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for split in reversed(SPLITS):
        for row in rows[split]:
            if (row.history, row.target) not in taken:
                taken.add((row.history, row.target))
                unique[split].append(row)
    return unique


def at_most(rows: list, most: int | None, seed: object) -> list:
    """At most this many rows, chosen at random, in their order."""
    if most is None or len(rows) <= most:
        return rows
    chosen = random.Random(repr(seed)).sample(range(len(rows)), most)
    return [rows[index] for index in sorted(chosen)]


def _dataset(
    name: str,
    rows: list[Row],
    ids: Mapping[int, int],
    settings: SequenceSettings,
    generator: np.random.Generator,
) -> Dataset:
    columns: dict[str, list] = {column: [] for column in FEATURES}
    for row in track(rows, f"{name}: drawing negatives"):
        left = len(ids) - len(row.seen)
        if left < settings.negatives:
            fewer = f"set negatives to {left} or fewer, or " if left else ""
            raise InputError(
                f"domain '{name}' has {len(ids)} items and user '{row.user}' took "
                f"{len(row.seen)} of them, which leaves {left}, too few for "
                f"{settings.negatives} negatives: {fewer}lower k_core (now {settings.k_core}) to "
                "keep more items"
            )
        columns["user"].append(row.user)
        columns["history"].append([ids[item] for item in row.history])
        columns["target"].append(ids[row.target])
        seen = np.sort([ids[item] for item in row.seen])
        columns["negatives"].append(draw_outside(seen, len(ids), settings.negatives, generator))
    return Dataset.from_dict(columns, features=FEATURES)


def draw_outside(
    taken: Int[np.ndarray, " t"], size: int, count: int, generator: np.random.Generator
) -> Int[np.ndarray, " {count}"]:
    """``count`` different numbers of ``range(size)``, uniform over those not in sorted ``taken``.

    The r-th number that is not taken (from 0) is r + j, where j of the taken lie below it;
    ``taken[i] - i`` is how many that are not taken lie below ``taken[i]``.
    """
    ranks = generator.choice(size - len(taken), size=count, replace=False)
    return ranks + np.searchsorted(taken - np.arange(len(taken)), ranks, side="right")
