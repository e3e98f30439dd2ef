"""What a user chooses about tuning a CLIP on pictures with masks."""

from typing import Any

from pydantic import Field, model_validator

from geodapt.data.vision.settings import PictureSetSettings
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.settings import SegmenterSettings
from geodapt.hyperclip.tuning_settings import TuningSettings
from geodapt.settings import Name


class PictureTuningSettings(TuningSettings):
    """A CLIP, a data set to train on, and others to test on."""

    data: PictureSetSettings
    """The data set that trains: its training split; a path alone will do. Its validation split is
    the first test."""
    test: dict[Name, PictureSetSettings] = {}
    """More data sets whose validation splits are tested, by a name of yours."""
    segmenter: SegmenterSettings = SegmenterSettings()
    """Its window is also the size of the crops that training sees."""
    pictures: int | None = Field(default=None, ge=1)
    """At most so many pictures of each test; all where none."""

    @model_validator(mode="after")
    def _no_chosen_radius(self) -> "PictureTuningSettings":
        for name in self.methods:
            if TuningMethod.parse(name).radius == "auto" and not self.test:
                raise ValueError(
                    f"method '{name}' chooses by the data's validation split, which would then be "
                    "no test; give a test beside it"
                )
        return self

    def _smallest(self) -> dict[str, Any]:
        return {**super()._smallest(), "pictures": min(2, self.pictures or 2)}
