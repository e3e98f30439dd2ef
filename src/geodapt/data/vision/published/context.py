"""Pascal Context in two editions, both on VOC 2010's pictures.

- 59 classes (``trainval_merged.json``): run-length masks with ids of the 459, of which 59 count.
- 459 classes (``trainval/ID.mat``): ``LabelMap`` of 1 to 459, named by ``labels.txt``; nothing is
  ignored, and one class is called "unknown".
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geodapt.data.text_files import existing, lines
from geodapt.data.vision.annotation_files import read_annotations
from geodapt.data.vision.features import IGNORED
from geodapt.data.vision.labelled_files import within
from geodapt.data.vision.published.names import CONTEXT_59
from geodapt.data.vision.segmentation import SegmentationData, Split
from geodapt.errors import InputError
from geodapt.extras import require

MERGED = "trainval_merged.json"
PHASES = {"train": "train", "validation": "val"}


@dataclass(frozen=True, slots=True)
class ContextPicture:
    """A picture and what it is for, train or val."""

    image_id: int | str
    file_name: str
    phase: str


@dataclass(frozen=True, slots=True)
class ContextMask:
    """The pixels of a class in a picture, as run lengths."""

    image_id: int | str
    category_id: int
    mask: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ContextFile:
    """``trainval_merged.json``."""

    images: list[ContextPicture]
    annos_segmentation: list[ContextMask]


def is_context_59(root: Path) -> bool:
    """Whether a folder, or its ``VOC2010``, has the edition of 59 classes."""
    return (_home(root) / MERGED).is_file()


def open_context_59(root: Path, split: Split) -> SegmentationData:
    """59 classes; needs COCO's mask decoder. Raises :class:`InputError` for a broken file."""
    require(
        "faster_coco_eval",
        "run lengths are decoded by faster-coco-eval, which is not installed",
        "vision",
    )
    home = _home(root)
    found = read_annotations(home / MERGED, ContextFile, "Pascal Context")
    images = [
        (image.image_id, within(home / "JPEGImages", image.file_name, home / MERGED))
        for image in found.images
        if image.phase == PHASES[split]
    ]
    masks: dict[int | str, list[ContextMask]] = defaultdict(list)
    for row in found.annos_segmentation:
        masks[row.image_id].append(row)
    place = {number: k for k, number in enumerate(CONTEXT_59)}

    def read(row: int) -> np.ndarray:
        return _decoded(masks[images[row][0]], place, str(images[row][1]))

    return SegmentationData(
        f"Pascal Context, 59 classes, {split}",
        tuple(CONTEXT_59.values()),
        [path for _, path in images],
        read,
    )


def is_context_459(root: Path) -> bool:
    """Whether a folder, or its ``VOC2010``, has the edition of 459 classes."""
    home = _home(root)
    return (home / "trainval").is_dir() and (home / "labels.txt").is_file()


def open_context_459(root: Path, split: Split) -> SegmentationData:
    """459 classes of the pictures in VOC 2010's list of the split."""
    from scipy.io import loadmat

    home = _home(root)
    names = [re.sub(r"^\d+\s*:\s*", "", line).strip() for _, line in lines(home / "labels.txt")]
    names = [name for name in names if name]
    listed = existing(home / "ImageSets" / "Main" / f"{PHASES[split]}.txt")
    numbers = [line.split()[0] for _, line in lines(listed) if line.strip()]
    kept = [name for name in numbers if (home / "trainval" / f"{name}.mat").is_file()]

    def read(row: int) -> np.ndarray:
        path = home / "trainval" / f"{kept[row]}.mat"
        try:
            labels = loadmat(path)["LabelMap"].astype(np.int64) - 1
        except Exception as error:  # whatever a broken file leads to
            raise InputError(f"mask '{path}' has no LabelMap that can be read: {error}") from error
        if labels.min() < 0 or labels.max() >= len(names):
            raise InputError(
                f"mask '{path}' has the value {labels.max() + 1}; expected 1 to {len(names)}"
            )
        return labels

    return SegmentationData(
        f"Pascal Context, {len(names)} classes, {split}",
        tuple(names),
        [home / "JPEGImages" / f"{name}.jpg" for name in kept],
        read,
    )


def _decoded(rows: list[ContextMask], place: dict[int, int], name: str) -> np.ndarray:
    from faster_coco_eval.core import mask as coder

    if not rows:
        raise InputError(f"picture '{name}' has no masks")
    labels: np.ndarray | None = None
    for row in rows:
        rle = row.mask
        if isinstance(rle["counts"], list):
            rle = coder.frPyObjects(rle, *rle["size"])
        part = coder.decode(rle).astype(bool)
        if labels is None:
            labels = np.full(part.shape, IGNORED, dtype=np.int64)
        if part.shape != labels.shape:
            raise InputError(f"the masks of picture '{name}' have several sizes")
        labels[part] = place.get(row.category_id, IGNORED)
    assert labels is not None
    return labels


def _home(root: Path) -> Path:
    return root / "VOC2010" if (root / "VOC2010").is_dir() else root
