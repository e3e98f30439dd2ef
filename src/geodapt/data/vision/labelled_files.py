"""From files and the classes that somebody says they show to labelled pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from datasets import Dataset

from geodapt.data.domain import uniform
from geodapt.data.vision.pictures import LABELLED, SPLITS, Pictures
from geodapt.errors import InputError
from geodapt.settings import repeated

TRAIN_SHARE, VALIDATION_SHARE = 0.5, 0.2
"""Of the pictures where nobody split them; the other 0.3 test. CoOp's shares."""


def labelled_files(
    rows: Mapping[str, Sequence[tuple[Path, int]]],
    names: Sequence[str],
    template: str,
    title: str,
    check: bool,
    said_by: Path,
) -> Pictures:
    """Pictures of files with their labels, which ``said_by`` (for errors) says.

    Raises :class:`InputError` for a file that is missing, a label without a picture in any split,
    and with ``check`` for a picture that cannot be read.
    """
    absent = [path for split in rows.values() for path, _ in split if not path.is_file()]
    if absent:
        raise InputError(
            f"{said_by} names {len(absent):,} pictures that are missing, the first is "
            f"'{absent[0]}'; fetch them, or give the folder that they lie in"
        )
    seen = {label for split in rows.values() for _, label in split}
    if gaps := [label for label in range(len(names)) if label not in seen]:
        raise InputError(
            f"{said_by}: class {gaps[0]} ('{names[gaps[0]]}') has no picture in any split; labels "
            "must count from 0 without gaps"
        )
    splits = {
        split: Dataset.from_dict(
            {
                "image": [str(path) for path, _ in of_split],
                "label": [label for _, label in of_split],
            },
            LABELLED,
        )
        for split, of_split in rows.items()
        if of_split
    }
    notes = []
    if twice := repeated(list(names)):
        notes.append(f"several classes are called '{twice[0]}', so no text tells them apart")
    pictures = Pictures(tuple(names), template, splits, title, notes=notes)
    if check:
        pictures.check()
    return pictures


def within(folder: Path, name: str, said_by: Path) -> Path:
    """The file that a list calls ``name`` in a folder; refused where it would lie outside."""
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\0" in name:
        raise InputError(f"{said_by} names the picture '{name}'; expected a path within '{folder}'")
    return folder / parts


def split_by_chance(
    rows: Sequence[tuple[Path, int]], seed: int
) -> dict[str, list[tuple[Path, int]]]:
    """Half of each class trains, a fifth validates, the rest tests; by file name and seed.

    A class of three pictures or more has one in each.
    """
    split: dict[str, list[tuple[Path, int]]] = {name: [] for name in SPLITS}
    labels = np.array([label for _, label in rows])
    for label in np.unique(labels):
        of_class = [rows[i] for i in np.flatnonzero(labels == label).tolist()]
        of_class.sort(key=lambda row: uniform(f"{row[0].parent.name}/{row[0].name}", seed))
        count = len(of_class)
        train = max(1, round(TRAIN_SHARE * count))
        validation = max(1, round(VALIDATION_SHARE * count)) if count > 2 else 0
        train = min(train, count - validation - 1) if count > 1 else train
        split["train"] += of_class[:train]
        split["validation"] += of_class[train : train + validation]
        split["test"] += of_class[train + validation :]
    return split
