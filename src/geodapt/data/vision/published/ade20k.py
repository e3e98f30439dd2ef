"""ADE20K in its two published editions.

- 150 classes (``ADEChallengeData2016``): values 1 to 150, 0 is other; ``objectInfo150.txt`` in the
  folder has the names.
- 847 classes (``ADE20K_2021_17_01``): ``X_seg.png`` beside each picture, id ``(R // 10) * 256 + G``
  of about 3,000. Which 847 are classes is no part of the publication: a list ``id: name`` says it
  (``classes.txt`` in the folder, or :func:`open_ade20k_full`'s argument). Its pickled index is a
  list of the files, which are found without it.

Prepared masks (``annotations_detectron2``) number the classes from 0.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geodapt.data.text_files import not_found
from geodapt.data.vision.features import IGNORED
from geodapt.data.vision.folder import read_class_list
from geodapt.data.vision.segmentation import SegmentationData, Split, mapped, paired
from geodapt.errors import InputError
from geodapt.vision.images import open_mask, open_picture

FOLDERS = {"train": "training", "validation": "validation"}
INFO = "objectInfo150.txt"


def is_ade20k(root: Path) -> bool:
    """Whether a folder looks like the edition of 150 classes."""
    return (root / INFO).is_file()


def open_ade20k(root: Path, split: Split) -> SegmentationData:
    """150 classes; raises :class:`InputError` where files are missing or the names are not 150."""
    names = _names(root / INFO)
    folder = FOLDERS[split]
    prepared = root / "annotations_detectron2" / folder
    masks = prepared if prepared.is_dir() else root / "annotations" / folder
    if not masks.is_dir():
        raise not_found(root, f"annotations/{folder}")
    if masks == prepared:
        table = {number: number for number in range(150)} | {255: IGNORED}
    else:
        table = {number + 1: number for number in range(150)} | {0: IGNORED}
    pictures = paired(root / "images" / folder, masks, ".png")
    layout = "prepared for detectron2" if masks == prepared else "as published"

    def read(row: int) -> np.ndarray:
        path = masks / f"{pictures[row].stem}.png"
        return mapped(open_mask(path), table, str(path))

    return SegmentationData(f"ADE20K-150, {split}, {layout}", names, pictures, read)


def is_ade20k_full(root: Path) -> bool:
    """Whether a folder looks like the full edition of 2021."""
    return (root / "images" / "ADE").is_dir()


def open_ade20k_full(root: Path, split: Split, classes: Path | None = None) -> SegmentationData:
    """The full edition, with the classes of a list ``id: name``; other ids are ignored.

    Raises :class:`InputError` without a list, or without pictures.
    """
    listed = classes or root / "classes.txt"
    if not listed.is_file():
        raise InputError(
            f"'{root}' is the full ADE20K, of whose ids only a list says which are the 847 "
            f"classes; write them to '{listed}', a line 'id: name' each"
        )
    names, ids = read_class_list(listed)
    if ids is None:
        raise InputError(f"class list '{listed}' needs ids: a line 'id: name' for each class")
    folder = root / "images" / "ADE" / FOLDERS[split]
    masks = sorted(folder.rglob("*_seg.png"))
    pictures = [mask.with_name(mask.name.replace("_seg.png", ".jpg")) for mask in masks]
    if missing := [path for path in pictures if not path.is_file()]:
        raise InputError(f"'{folder}': there is no picture '{missing[0]}' for its mask")

    def read(row: int) -> np.ndarray:
        return _full_labels(masks[row], ids)

    return SegmentationData(
        f"ADE20K, full edition of 2021 with {len(names)} classes, {split}", names, pictures, read
    )


def _full_labels(path: Path, ids: Sequence[int]) -> np.ndarray:
    values = np.asarray(open_picture(path)).astype(np.int64)
    numbers = values[..., 0] // 10 * 256 + values[..., 1]
    table = np.full(max(26 * 256, *ids) + 1, IGNORED, dtype=np.int64)
    table[list(ids)] = np.arange(len(ids))
    return table[numbers]


def _names(path: Path) -> tuple[str, ...]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    try:
        names = tuple(row["Name"].strip() for row in rows)  # one is published with a blank behind
    except (KeyError, AttributeError) as error:
        raise InputError(f"{path} has no column 'Name' of names") from error
    if len(names) != 150:
        raise InputError(f"{path} names {len(names)} classes; expected 150")
    return names
