"""Which published data set a folder holds, or that it is any folder of pictures and masks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from geodapt.data.text_files import existing
from geodapt.data.vision.features import IGNORED, stored_pictures
from geodapt.data.vision.folder import load_picture_folder
from geodapt.data.vision.published.ade20k import (
    is_ade20k,
    is_ade20k_full,
    open_ade20k,
    open_ade20k_full,
)
from geodapt.data.vision.published.coco_stuff import is_coco_stuff, open_coco_stuff
from geodapt.data.vision.published.context import (
    is_context_59,
    is_context_459,
    open_context_59,
    open_context_459,
)
from geodapt.data.vision.published.voc import is_voc, open_voc
from geodapt.data.vision.segmentation import SegmentationData, Split
from geodapt.data.vision.settings import Edition, PictureFolderSettings
from geodapt.errors import InputError
from geodapt.vision.images import open_mask

OPENERS: dict[str, tuple[Callable[[Path], bool], Callable[[Path, Split], SegmentationData]]] = {
    "ade20k-150": (is_ade20k, open_ade20k),
    "ade20k-847": (is_ade20k_full, open_ade20k_full),
    "coco-stuff": (is_coco_stuff, open_coco_stuff),
    "context-59": (is_context_59, open_context_59),
    "context-459": (is_context_459, open_context_459),
    "voc-20": (is_voc, open_voc),
    "voc-20b": (is_voc, lambda root, split: open_voc(root, split, background=True)),
}
"""Editions: what recognises the folder, and what opens it. Of several the first is taken."""


def open_segmentation(
    path: Path, split: Split = "validation", edition: Edition | None = None
) -> SegmentationData:
    """A published data set in its folder, recognised where no ``edition`` is given.

    A folder with ``images/``, ``masks/`` and ``classes.txt`` (or .json) is any data set; with
    ``images/train`` and ``images/validation`` (and the same in ``masks``) it has splits.

    Raises :class:`InputError` for a folder that is none of these, and for one that is not the
    edition that is given.
    """
    root = existing(path)
    if edition is not None:
        fits, opened = OPENERS[edition]
        if not fits(root):
            raise InputError(f"'{root}' does not look like {edition} as it is published")
        return opened(root, split)
    for fits, opened in OPENERS.values():
        if fits(root):
            return opened(root, split)
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return _any_folder(root, split)
    raise InputError(
        f"'{root}' is no data set that is known: expected one of {', '.join(OPENERS)} as "
        "published, or a folder with images/, masks/ and classes.txt"
    )


def _any_folder(root: Path, split: Split) -> SegmentationData:
    lists = [root / name for name in ("classes.txt", "classes.json")]
    listed = next((name for name in lists if name.is_file()), None)
    if listed is None:
        raise InputError(f"'{root}' has no classes.txt, the names of its classes")
    images, masks = root / "images", root / "masks"
    if (images / split).is_dir():
        images, masks = images / split, masks / split
    return open_picture_masks(
        PictureFolderSettings(images=images, masks=masks, classes=listed), f"pictures of '{images}'"
    )


def open_picture_masks(settings: PictureFolderSettings, edition: str) -> SegmentationData:
    """Any folder of pictures with masks (:func:`load_picture_folder`) for segmentation."""
    data = load_picture_folder(settings)
    classes = data.classes
    if classes is None:
        raise InputError(f"{edition}: segmentation needs masks and classes")
    rows = stored_pictures(data.rows, "image", "mask")
    pictures = [Path(cell["path"]) for cell in rows["image"]]
    masks = [Path(cell["path"]) for cell in rows["mask"]]

    def read(row: int) -> np.ndarray:
        labels = classes.labels(open_mask(masks[row]), str(masks[row]))
        return np.where(labels < 0, IGNORED, labels)

    return SegmentationData(edition, classes.names, pictures, read, (), data.notes)
