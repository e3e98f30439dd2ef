"""What a user says of pictures with boxes or segments."""

from typing import Literal

from geodapt.settings import GivenPath, SourceSettings

CocoSplit = Literal["48-17"]


class CocoBoxSettings(SourceSettings):
    """Boxes in COCO's JSON: `instances_train2017.json`, or a file like it."""

    loader = "geodapt.data.vision.coco:load_coco_boxes"
    kind: Literal["coco"] = "coco"
    images: GivenPath
    """Folder of the pictures that the file names."""
    annotations: GivenPath
    """The JSON file."""
    check: bool = True
    """Open every picture once while loading; off for a set that has been checked."""


class YoloSettings(SourceSettings):
    """Boxes in text files: a class number and shares of the picture on each line."""

    loader = "geodapt.data.vision.yolo:load_yolo"
    kind: Literal["yolo"] = "yolo"
    images: GivenPath
    """Folder of pictures; folders within it count too."""
    labels: GivenPath
    """Folder of text files, each called as its picture but for the suffix."""
    classes: GivenPath
    """Class list: a name per line in the order of their numbers, JSON, or a YAML with `names`."""


class CocoPanopticSettings(SourceSettings):
    """Segments in COCO's panoptic format, in which ADE20K's are prepared as well."""

    loader = "geodapt.data.vision.coco:load_coco_panoptic"
    kind: Literal["coco-panoptic"] = "coco-panoptic"
    images: GivenPath
    """Folder of pictures."""
    annotations: GivenPath
    """The JSON file."""
    masks: GivenPath
    """Folder of PNGs whose colours are ids."""
    check: bool = True
    """Read every picture and PNG once while loading; off for a set that has been checked."""


# How detection with an open vocabulary splits COCO's categories (Bansal et al. 2018, "Zero-shot
# object detection"); the lists are those published with Detic.
NOVEL = (5, 6, 17, 18, 21, 22, 28, 32, 36, 41, 47, 49, 61, 63, 76, 81, 87)
"""Ids of the 17 categories that training never shows."""

BASE = (
    *(1, 2, 3, 4, 7, 8, 9, 15, 16, 19, 20, 23, 24, 25, 27, 31, 33, 34, 35, 38, 42, 44, 48),
    *(50, 51, 52, 53, 54, 55, 56, 57, 59, 60, 62, 65, 70, 72, 73, 74, 75, 78, 79, 80, 82, 84),
    *(85, 86, 90),
)
"""Ids of the 48 that it shows. The other 15 of the 80 are left out."""
