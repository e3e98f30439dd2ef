"""What a user chooses about detection and panoptic segmentation; read without torch."""

from typing import Literal

from pydantic import Field, model_validator

from geodapt.data.glyph_settings import PageSettings
from geodapt.data.vision.coco_settings import CocoSplit
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
            if name == "lathadapter":
                raise ValueError("method 'lathadapter' is for segmentation alone")
        return self


class MaskSettings(Settings):
    """The Mask2Former that proposes masks: one of transformers, or a small one from scratch."""

    checkpoint: str | None = None
    """Folder or hub name of a Mask2Former, whose other settings are its own."""
    width: int = Field(default=64, ge=32, multiple_of=32)
    """Channels of both decoders."""
    queries: int = Field(default=32, ge=1)
    """Masks that are proposed for a picture."""
    layers: int = Field(default=4, ge=1)
    """Of the decoder of queries; that of pixels has half as many."""
    heads: int = Field(default=4, ge=1)
    """Of every attention of the decoders; they divide the width."""
    backbone: int = Field(default=24, ge=12, multiple_of=12)
    """Channels of the Swin backbone's first stage of four; each other has twice the one before."""
    depths: tuple[int, int, int, int] = (1, 1, 2, 1)
    """Layers of its stages."""
    points: int = Field(default=1024, ge=16)
    """Places that the loss compares masks at."""

    @model_validator(mode="after")
    def _divides(self) -> "MaskSettings":
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        return self


class PanopticModelSettings(Settings):
    """How pictures and words pass a panoptic model, and what its training showed."""

    templates: list[str] = Field(default=["a photo of a {}"], min_length=1)
    """Sentences around a word, each with one {}; their vectors are averaged."""
    side: int = Field(default=512, ge=32, le=4096)
    """Pixels that pictures are stretched to, each way; a multiple of the CLIP's patches."""
    window: int | None = Field(default=None, ge=1)
    """Side of the CLIP's windows in pixels, a multiple of its patches; its own size where none."""
    residual: Literal["class", "patch", "none"] | None = None
    """Of the CLIP's dense features (:func:`geodapt.vision.dense_features`)."""
    alpha: float = Field(default=0.4, ge=0, le=1)
    """Share of the CLIP's score in that of words that training showed."""
    beta: float = Field(default=0.8, ge=0, le=1)
    """Share of the CLIP's score in that of all other words."""
    threshold: float = Field(default=0.0, ge=0, le=1)
    """Masks below this score are left out."""
    overlap: float = Field(default=0.8, ge=0, le=1)
    """Masks of which others take more than the rest are left out."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of the colours that the Mask2Former was trained with; ImageNet's."""
    deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Standard deviation of them."""
    seen: list[str] = []
    """Words that training showed."""
    stuff: list[str] = []
    """Words without objects that could be counted, such as sky; a picture has one segment each."""
