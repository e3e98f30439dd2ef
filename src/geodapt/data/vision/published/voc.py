"""Pascal VOC 2012: 20 classes, or with the background as the 21st.

Masks are palette pictures: 0 background, 1 to 20, 255 borders. Of 20 classes the background is
ignored. As ``20b`` it is a class that no word stands for: the other classes of Pascal Context are
asked too, and any of their answers counts as background, as in CAT-Seg.
"""

from pathlib import Path

import numpy as np

from geodapt.data.text_files import lines, not_found
from geodapt.data.vision.features import IGNORED
from geodapt.data.vision.published.names import CONTEXT_59, VOC
from geodapt.data.vision.segmentation import SegmentationData, Split, mapped
from geodapt.errors import InputError
from geodapt.vision.images import open_mask

LISTS = {"train": ("trainaug.txt", "train.txt"), "validation": ("val.txt",)}


def is_voc(root: Path) -> bool:
    """Whether a folder, or its ``VOC2012`` or ``VOCdevkit/VOC2012``, looks like VOC 2012."""
    return _home(root) is not None


def open_voc(root: Path, split: Split, background: bool = False) -> SegmentationData:
    """One split; ``background``: as the edition 20b.

    Augmented masks (``SegmentationClassAug``) are taken where they are there. Pictures whose masks
    show nothing that counts are left out, which a note says.
    """
    home = _home(root)
    if home is None:
        raise not_found(root, "VOC2012 with JPEGImages and SegmentationClass")
    lists = [home / "ImageSets" / "Segmentation" / name for name in LISTS[split]]
    listed = next((path for path in lists if path.is_file()), None)
    if listed is None:
        raise InputError(f"there is no '{lists[-1]}', which lists the pictures of the split")
    augmented = home / "SegmentationClassAug"
    folder = augmented if augmented.is_dir() else home / "SegmentationClass"
    names = [line.strip() for _, line in lines(listed) if line.strip()]
    table = {number + 1: number for number in range(20)} | {255: IGNORED}
    table[0] = 20 if background else IGNORED

    def labels(name: str) -> np.ndarray:
        path = folder / f"{name}.png"
        return mapped(open_mask(path), table, str(path))

    # Without a background some masks have nothing that counts.
    kept = [name for name in names if background or (labels(name) != IGNORED).any()]
    notes = []
    if len(kept) < len(names):
        notes.append(f"{len(names) - len(kept)} pictures without a class left out")
    edition = f"Pascal VOC 2012, {'20 classes and background' if background else '20 classes'}"
    return SegmentationData(
        f"{edition}, {split}, {folder.name}",
        (*VOC, "background") if background else VOC,
        [home / "JPEGImages" / f"{name}.jpg" for name in kept],
        lambda row: labels(kept[row]),
        tuple(name for name in CONTEXT_59.values() if name not in {*VOC, "table"})
        if background
        else (),
        notes,
    )


def _home(root: Path) -> Path | None:
    for home in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (home / "SegmentationClass").is_dir() or (home / "SegmentationClassAug").is_dir():
            return home
    return None
