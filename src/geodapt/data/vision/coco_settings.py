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
