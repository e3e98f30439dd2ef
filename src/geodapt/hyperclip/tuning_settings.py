"""What a user chooses about tuning a CLIP for segmentation."""

from typing import Any

from pydantic import Field, model_validator

from geodapt.hyperclip.method_settings import MethodSettings
from geodapt.hyperclip.settings import Ignored, ScalingSettings, SegmenterSettings
from geodapt.settings import Settings, repeated


class RadiusSettings(Settings):
    """How the methods ``-radius-`` draw texts to a hyperbolic radius, twice their norm."""

    weight: float = Field(default=1.0, gt=0)
    """Of the penalty beside the loss: the mean of ``((2 |t| - R) / R)^2`` over a batch's texts."""
    start_steps: int = Field(default=20, ge=0)
    """Steps on the penalty alone, before the training, that keep each text's direction: the start
    value."""
    start_rate: float = Field(default=4e-3, gt=0)
    """Step size of them."""
    factors: list[float] = Field(default=[0.8, 0.9, 1.0, 1.1, 1.2], min_length=2)
    """What ``-radius-auto`` tries, as multiples of the untuned texts' mean radius."""

    @model_validator(mode="after")
    def _usable(self) -> "RadiusSettings":
        if any(not 0 < factor < 100 for factor in self.factors):
            raise ValueError("factors: each is above 0 and below 100")
        if twice := repeated(self.factors):
            raise ValueError(f"factors: {twice[0]} is given twice")
        return self

    def _smallest(self) -> dict[str, Any]:
        return {"factors": self.factors[:2], "start_steps": min(self.start_steps, 1)}


class TuningSettings(MethodSettings):
    """A CLIP, and the ways to tune it for segmentation."""

    segmenter: SegmenterSettings = SegmenterSettings()
    classes: int = Field(default=16, ge=2)
    """Classes that a training batch is asked for: those on its pictures, then others by chance."""
    ignored: Ignored = "left_out"
    """Whether pixels that count for no class are left out of the loss, or show none of the classes,
    as in the released code."""
    scaling: ScalingSettings = ScalingSettings(dense=True)
    """Of the methods hyperclip-N, but for what their names say."""
    lathadapter: dict[str, Any] = {
        "attributes": 16,
        "losses": ["hyperbolic", "image_hierarchy", "attribute_hierarchy"],
    }
    """Settings of `lathadapter`; the loss of pixels takes the place of its classification loss."""
    radius: RadiusSettings = RadiusSettings()
    seeds: int = Field(default=1, ge=1, le=100)
    """How often each method trains: with `seed`, `seed` + 1, ... Figures are the means."""

    def _smallest(self) -> dict[str, Any]:
        return {**super()._smallest(), "seeds": 1}
