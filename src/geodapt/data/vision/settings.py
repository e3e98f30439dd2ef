"""What a user says of pictures on disk."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from geodapt.settings import GivenPath, Seed, Settings, SourceSettings

COOP_NAMES = Literal[
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
    "imagenet",
    "imagenetv2",
    "imagenet_sketch",
    "imagenet_a",
    "imagenet_r",
]


class PictureFolderSettings(Settings):
    """Pictures, masks of the same names, and the list of classes."""

    images: GivenPath
    """Folder of pictures; folders within it count too."""
    masks: GivenPath | None = None
    """Folder of masks, each called as its picture but for the suffix."""
    classes: GivenPath | None = None
    """Class list: a name per line, or a mask's value and a name; JSON of either."""
    offset: int = Field(default=0, ge=0)
    """The mask's value of the first class, where the list has no values of its own."""
    background: int | None = Field(default=None, ge=0)
    """The mask's value of pixels that show none of the classes."""
    ignored: list[int] = [255]
    """Values of pixels that count for nothing: borders, unknown things."""
    check: bool = True
    """Read every picture and mask once while loading; off for a folder that has been checked."""

    @model_validator(mode="after")
    def _masks_have_classes(self) -> "PictureFolderSettings":
        if self.masks is not None and self.classes is None:
            raise ValueError("masks need classes: a file with the name of each class")
        return self


class _LabelledSettings(SourceSettings):
    """What labelled pictures of every kind have."""

    check: bool = True
    """Read every picture once while loading; off where they have been checked: then only that
    they are there."""


class _OwnSettings(_LabelledSettings):
    """Labelled pictures of the user's own."""

    path: GivenPath
    """The folder or file."""
    template: str = "a photo of a {}."
    """The sentence that zero-shot classification asks."""
    seed: Seed = 0
    """Decides what trains and what tests, where the folder or table does not say."""


class CoopSettings(_LabelledSettings):
    """A data set of prompt learning in the layout of CoOp."""

    loader = "geodapt.data.vision.coop_layout:load_coop"
    kind: Literal["coop"] = "coop"
    path: GivenPath
    """The folder that holds the data sets' folders."""
    name: COOP_NAMES
    """Which of them."""


class SplitFileSettings(_LabelledSettings):
    """Pictures with a split file as CoOp writes it: rows of path, label and name."""

    loader = "geodapt.data.vision.image_folder:load_split_file"
    kind: Literal["split_file"] = "split_file"
    path: GivenPath
    """The JSON file."""
    images: GivenPath
    """The folder that its paths start from."""
    template: str = "a photo of a {}."
    """The sentence that zero-shot classification asks."""


class ClassFolderSettings(_OwnSettings):
    """A folder per class, within train, val and test or without them."""

    loader = "geodapt.data.vision.image_folder:load_class_folders"
    kind: Literal["folders"] = "folders"


class PictureTableSettings(_OwnSettings):
    """A CSV, TSV, JSONL or Parquet table with a picture's path and its class in each row."""

    loader = "geodapt.data.vision.image_folder:load_picture_table"
    kind: Literal["table"] = "table"
    images: GivenPath | None = None
    """The folder that its paths start from; the table's own when not given."""
    image: str = "image"
    """Column of the path."""
    label: str = "label"
    """Column of the class's name."""
    split: str = "split"
    """Column of train, val or test; without it the seed decides."""


Edition = Literal[
    "coco-stuff", "ade20k-150", "ade20k-847", "voc-20", "voc-20b", "context-59", "context-459"
]
"""Published data sets for segmentation."""


class PictureSetSettings(Settings):
    """A data set for segmentation in its folder; a path alone will do."""

    path: GivenPath
    """The folder, as published, or one with images/, masks/ and classes.txt."""
    edition: Edition | None = None
    """Which data set it is; recognised by its folders where none is given."""

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str | Path) else given
