"""What a user chooses about tuning a CLIP by several methods, for any task and for each kind."""

from typing import Any

from pydantic import Field, model_validator

from geodapt.data.glyph_settings import PageSettings
from geodapt.data.vision.coco_settings import CocoSplit
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.settings import Ignored, ScalingSettings, SegmenterSettings
from geodapt.models import locate_base
from geodapt.settings import Seed, Settings, repeated
from geodapt.tinyclip.settings import TINYCLIP, TinyClipSettings
from geodapt.training.settings import TrainingSettings


class MethodSettings(Settings):
    """A CLIP, and the ways to tune it, each of which is a row of the table."""

    base: str = "clip-glyphs"
    """A CLIP or SigLIP: a folder or a hub name; clip-glyphs needs no network."""
    glyph_base: TinyClipSettings = TinyClipSettings()
    """How clip-glyphs is trained here. Pages show characters anywhere and in several sizes, which
    it reads only where its own training moved and zoomed them."""
    methods: list[str] = Field(default=["frozen", "hyperclip-32"], min_length=1)
    """Rows of the table: frozen, full, query-value, lora, oft-N, and hyperclip-N for blocks of N,
    with -shared, -text or -image after it; for segmentation also lathadapter, and -radius-R or
    -radius-auto after hyperclip-N."""
    scaling: ScalingSettings = ScalingSettings()
    """Of the methods hyperclip-N, but for what their names say."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of `lora`, on query, key and value of all layers."""
    training: TrainingSettings = TrainingSettings(steps=300, batch_size=8, schedule="cosine")
    learning_rates: dict[str, float] = {}
    """Step size of the CLIP's numbers, by a method's name or by what stands before its first dash
    and number, where it is not the training's."""
    keep: str = ""
    """The method whose model the run keeps; the last of the methods where it is not one of them."""
    seed: Seed = 0
    """Seed of everything random; the same seed repeats the run."""

    @model_validator(mode="after")
    def _consistent(self) -> "MethodSettings":
        for name in (*self.methods, *([self.keep] if self.keep else [])):
            TuningMethod.parse(name)
        for name in self.learning_rates:
            if name not in ("oft", "hyperclip"):
                TuningMethod.parse(name)
        if twice := repeated(self.methods):
            raise ValueError(f"method '{twice[0]}' is given twice")
        if any(not rate > 0 for rate in self.learning_rates.values()):
            raise ValueError("learning_rates: a step size is above 0")
        if self.training.evaluate_every is not None:
            raise ValueError("training.evaluate_every: the last weights are kept; leave it out")
        return self

    @property
    def kept(self) -> str:
        """The method whose model the run keeps."""
        return self.keep if self.keep in self.methods else self.methods[-1]

    def rate(self, method: TuningMethod) -> float:
        """Step size of the CLIP's numbers by a method."""
        rates = self.learning_rates
        return rates.get(method.name, rates.get(method.kind, self.training.learning_rate))

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(classes=4)

    def require_inputs(self) -> None:
        super().require_inputs()
        if self.base != TINYCLIP:
            locate_base(self.base)

    def _idle(self) -> set[str]:
        return set() if self.base == TINYCLIP else {"glyph_base"}


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
