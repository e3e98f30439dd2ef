"""What every loader gives: one domain of a ranking task, or of a classification task."""

from dataclasses import dataclass
from hashlib import blake2b

from datasets import Dataset, DatasetDict

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Domain:
    """One domain of a ranking task: what users took next, and what they could have taken.

    ``items`` has a row per item, whose index is the item's id: ``name`` and ``text``.
    ``splits`` has ``train``, ``validation`` and ``test`` with the columns

    - ``user``: who it was;
    - ``history``: ids of the user's most recent items before the target, oldest first;
    - ``target``: id of the next item, one that this user had not taken before;
    - ``negatives``: different ids, drawn uniformly by a fixed seed from the items that this user
      never took.
    """

    name: str
    items: Dataset
    splits: DatasetDict


@dataclass(frozen=True)
class LabelledDomain:
    """One domain of a classification task.

    ``labels`` are the names of the classes, the same in every domain of a data set. ``splits``
    has ``train``, ``validation`` and ``test`` with the columns ``text`` and ``label``, a
    ``datasets.ClassLabel`` over ``labels``.
    """

    name: str
    labels: list[str]
    splits: DatasetDict


FOLDS = 5  # test splits of a fifth each


def split_of(group: str, seed: int, fold: int = 0) -> str:
    """The split of a group: train (70 %), validation (10 %) or test (20 %).

    It depends only on the group's name, the seed and the fold, so adding data moves no group. A
    group is in the test split of exactly one of the five folds.
    """
    at = uniform(group, seed)
    if fold:
        at = (at + fold / FOLDS) % 1
    return "test" if at < 0.2 else "validation" if at < 0.3 else "train"


def uniform(text: str, seed: int) -> float:
    """A number in [0, 1) that depends on the text and the seed alone."""
    digest = blake2b(f"{seed}/{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
