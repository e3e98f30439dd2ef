"""What a user chooses about detection and panoptic segmentation; read without torch."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from geodapt.data.glyph_settings import GlyphSettings, PageSettings
from geodapt.data.vision.coco_settings import (
    CocoBoxSettings,
    CocoSplit,
    YoloSettings,
)
from geodapt.hyperclip.method_settings import MethodSettings
from geodapt.hyperclip.methods import TuningMethod
from geodapt.settings import Settings
from geodapt.training.settings import TrainingSettings


class DetectorSettings(Settings):
    """How words pass a detector or a panoptic model."""

    templates: list[str] = Field(default=["a photo of a {}"], min_length=1)
    """Sentences around a word, each with one {}; their vectors are averaged."""


class SceneSettings(MethodSettings):
    """A CLIP, pictures with objects, and the ways to tune the one for the other."""

    pages: PageSettings = PageSettings()
    """Of the data `glyphs`."""
    level: int = Field(default=3, ge=1, le=4)
    """Of the data `glyphs`: the level of the captions that are classes, from general to names."""
    split: CocoSplit | None = None
    """Which classes training never shows; none: it shows all that its pictures have."""
    templates: list[str] = Field(default=["{}"], min_length=1)
    """Sentences around a class's name."""
    classes: int = Field(default=32, ge=2)
    """Classes that a training batch is asked for: those in its pictures, then others by chance."""
    training: TrainingSettings = TrainingSettings(steps=600, batch_size=8, schedule="cosine")

    @model_validator(mode="after")
    def _no_radius(self) -> "SceneSettings":
        for name in self.methods:
            if TuningMethod.parse(name).radius is not None:
                raise ValueError(f"method '{name}': a radius is for segmentation alone")
        return self


Boxes = Annotated[GlyphSettings | CocoBoxSettings | YoloSettings, Field(discriminator="kind")]


class DetectionSettings(SceneSettings):
    """Boxes by words: the data, and the size of pictures."""

    data: Boxes = GlyphSettings()
    """Characters on pages, or a training set of boxes."""
    test: Boxes | None = None
    """The set that is measured; of the data `glyphs` their own test pages."""
    side: int = Field(default=128, ge=8)
    """Pixels that pictures are stretched to, each way."""

    @model_validator(mode="after")
    def _has_a_test(self) -> "DetectionSettings":
        return _paired(self, self.data, self.test)


def _paired(settings: Any, data: Any, test: Any) -> Any:
    if data.kind == "glyphs" and test is not None:
        raise ValueError("test: glyphs have test pages of their own; leave it out")
    if data.kind != "glyphs" and test is None:
        raise ValueError("test: give the set that is measured, as data gives the one that trains")
    if settings.split and data.kind != "coco":
        raise ValueError(f"split: '{settings.split}' is of COCO's categories; data is {data.kind}")
    return settings
