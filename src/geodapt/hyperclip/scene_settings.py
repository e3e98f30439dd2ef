"""What a user chooses about detection and panoptic segmentation; read without torch."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from geodapt.data.glyph_settings import GlyphSettings, PageSettings
from geodapt.data.vision.coco_settings import (
    CocoBoxSettings,
    CocoSplit,
    YoloSettings,
)
from geodapt.hyperclip.settings import ScalingSettings
from geodapt.settings import Seed, Settings, repeated
from geodapt.training.settings import TrainingSettings

SCALED = "hyperclip-"
SCENE_METHODS = {"frozen": "Frozen CLIP, heads alone", "full": "All of CLIP", "lora": "LoRA"}
"""Ways to tune the towers, beside ``hyperclip-N`` for blocks of N, and what tables call them."""


class DetectorSettings(Settings):
    """How words pass a detector or a panoptic model."""

    templates: list[str] = Field(default=["a photo of a {}"], min_length=1)
    """Sentences around a word, each with one {}; their vectors are averaged."""


class SceneSettings(Settings):
    """A CLIP, pictures with objects, and the ways to tune the one for the other."""

    base: str = "clip-glyphs"
    """A CLIP: a folder or a hub name; clip-glyphs needs no network."""
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
    methods: list[str] = Field(default=["frozen", "hyperclip-32"], min_length=1)
    """Rows of the table: frozen, full, lora, and hyperclip-N for blocks of N."""
    scaling: ScalingSettings = ScalingSettings()
    """Of the methods hyperclip-N, but for the block's size."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of `lora`, on query, key and value of all layers."""
    training: TrainingSettings = TrainingSettings(steps=600, batch_size=8, schedule="cosine")
    learning_rates: dict[str, float] = {}
    """Step size of the towers' numbers by method, where it is not the training's."""
    keep: str = ""
    """The method whose model the run keeps; the last of the methods where it is not one of them."""
    seed: Seed = 0
    """Seed of everything random; the same seed repeats the run."""

    @model_validator(mode="after")
    def _known_methods(self) -> "SceneSettings":
        for name in (*self.methods, *self.learning_rates, *([self.keep] if self.keep else [])):
            block = name.removeprefix(SCALED)
            scaled = name != block and block.isdecimal() and int(block) > 0
            if not scaled and name not in SCENE_METHODS:
                raise ValueError(
                    f"method '{name}' is unknown; there are {', '.join(SCENE_METHODS)} and "
                    f"{SCALED}N"
                )
        if twice := repeated(self.methods):
            raise ValueError(f"method '{twice[0]}' is given twice")
        if any(not rate > 0 for rate in self.learning_rates.values()):
            raise ValueError("learning_rates: a step size is above 0")
        return self

    @property
    def kept(self) -> str:
        """The method whose model the run keeps."""
        return self.keep if self.keep in self.methods else self.methods[-1]

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(classes=4)


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
