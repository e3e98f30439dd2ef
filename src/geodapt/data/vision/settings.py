"""What a user says of a folder of pictures."""

from pydantic import Field, model_validator

from geodapt.settings import GivenPath, Settings


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
