"""COCO-Stuff-164k: COCO's 2017 pictures, 171 classes of things and stuff.

Published masks (``stuffthingmaps``) hold COCO's id minus 1, 255 where nothing is known. Prepared
ones (``annotations_detectron2``) number the 171 classes from 0.
"""

from pathlib import Path

from geodapt.data.vision.features import IGNORED
from geodapt.data.vision.published.names import coco_stuff
from geodapt.data.vision.segmentation import SegmentationData, Split, mapped, paired
from geodapt.vision.images import open_mask

FOLDERS = {"train": "train2017", "validation": "val2017"}


def is_coco_stuff(root: Path) -> bool:
    """Whether a folder looks like COCO-Stuff."""
    return _masks(root, "validation") is not None or _masks(root, "train") is not None


def open_coco_stuff(root: Path, split: Split) -> SegmentationData:
    """One split; raises :class:`InputError` where its folders are missing."""
    from geodapt.data.text_files import not_found

    masks = _masks(root, split)
    if masks is None:
        raise not_found(root, f"annotations/{FOLDERS[split]} with masks")
    names = coco_stuff()
    prepared = masks.parent.name == "annotations_detectron2"
    values = range(len(names)) if prepared else [number - 1 for number in names]
    table = {value: place for place, value in enumerate(values)} | {255: IGNORED}
    pictures = paired(root / "images" / FOLDERS[split], masks, ".png")
    layout = "prepared for detectron2" if prepared else "as published"

    def read(row: int):
        path = masks / f"{pictures[row].stem}.png"
        return mapped(open_mask(path), table, str(path))

    return SegmentationData(
        f"COCO-Stuff-164k, {split}, {layout}", tuple(names.values()), pictures, read
    )


def _masks(root: Path, split: Split) -> Path | None:
    for parent in ("annotations", "stuffthingmaps", "annotations_detectron2"):
        folder = root / parent / FOLDERS[split]
        if folder.is_dir() and next(folder.glob("*.png"), None):
            return folder
    return None
