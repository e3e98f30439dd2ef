"""What a user chooses about scalings, heads, segmenters and the recipe; read without torch."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from geodapt.data.glyph_settings import GlyphSettings, PageSettings
from geodapt.settings import Seed, Settings, repeated
from geodapt.training.settings import TrainingSettings

Tower = Literal["text", "image"]
Matrix = Literal["query", "key", "value"]
Form = Literal["auto", "activation", "weight", "mobius"]
Ignored = Literal["left_out", "negative"]
METHODS = {
    "frozen": "Frozen CLIP",
    "full": "All of CLIP",
    "query-value": "Query and value",
    "lora": "LoRA",
}
"""Ways to tune, beside ``hyperclip-N`` for blocks of N, and what tables call them."""
SCALED = "hyperclip-"


class ScalingSettings(Settings):
    """Which weights are scaled, and by blocks of which size."""

    block: int = Field(default=128, ge=1)
    """Side n of the diagonal blocks; it divides the width of every scaled weight."""
    shared: bool = False
    """Whether the blocks of a weight are one matrix."""
    matrices: list[Matrix] = Field(default=["query", "key", "value"], min_length=1)
    """Projections of each attention layer."""
    towers: list[Tower] = Field(default=["text", "image"], min_length=1)
    """Towers of the model."""
    layers: list[int] | dict[Tower, list[int]] | None = None
    """Layers, counted from 0, of both towers or per tower; all where none are given."""
    dense: bool = False
    """For dense features, which use only the values of the last image layer: leaves its query and
    key out, which would not act."""
    form: Form = "auto"
    """How a layer computes: on its input, on its weight, by Mobius products (for comparison; with
    the released clamps), or the cheaper of the first two."""
    curvature: float = Field(default=0.01, gt=0)
    """Of the Mobius form alone."""

    @field_validator("matrices", "towers")
    @classmethod
    def _once(cls, values: list) -> list:
        if twice := repeated(values):
            raise ValueError(f"{twice[0]} is given twice")
        return values


class CostSettings(Settings):
    """Sizes of :class:`~geodapt.hyperclip.heads.CostAggregation`; the defaults are CAT-Seg's."""

    width: int = Field(default=128, ge=1)
    """Channels of the embedded cost, and of both guidances."""
    layers: int = Field(default=2, ge=1)
    """Pairs of spatial and class aggregation."""
    heads: int = Field(default=4, ge=1)
    """Of every attention; they divide the width."""
    window: int = Field(default=12, ge=2)
    """Places on a side of the windows of the spatial attention."""
    pooling: int = Field(default=2, ge=1)
    """Places on a side that the class attention of training takes as one; evaluation takes each."""
    classes: int = Field(default=256, ge=1)
    """Most classes per image; of more, those with the largest cost anywhere are kept."""
    decoder: tuple[int, int] = (64, 32)
    """Channels after each doubling of the grid."""
    decoder_guidance: tuple[int, int] = (256, 128)
    """Channels of the upsampled intermediate features."""
    decoder_guidance_projected: tuple[int, int] = (32, 16)
    """Channels of them that each doubling takes."""


class SegmenterSettings(Settings):
    """How pictures and words pass a segmenter."""

    residual: Literal["class", "patch", "none"] | None = None
    """Of CLIP's dense features (:func:`geodapt.vision.dense_features`)."""
    templates: list[str] = Field(default=["A photo of a {} in the scene"], min_length=1)
    """Sentences around a word, each with one {}; their vectors are averaged."""
    head: Literal["cosine", "cost"] = "cosine"
    """Scaled cosines, or CAT-Seg's cost aggregation."""
    cost: CostSettings = CostSettings()
    """Of the head `cost`."""
    window: int | None = Field(default=None, ge=1)
    """Side of the windows in pixels, a multiple of the patches'; the model's own where none."""
    stride: int | None = Field(default=None, ge=1)
    """Pixels between windows; two thirds of a window where none."""
    short_side: int | None = Field(default=None, ge=1)
    """Pixels of the shorter side that pictures are resized to; none: they keep their size."""
    whole: bool = False
    """Average the windows half and half with the whole picture in one window, as CAT-Seg does."""


class HyperClipSettings(Settings):
    """A CLIP, pages of characters, and the ways to tune the one for the other."""

    base: str = "clip-glyphs"
    """A CLIP or SigLIP: a folder or a hub name; clip-glyphs needs no network."""
    data: GlyphSettings = GlyphSettings()
    """Characters on the pages, with their captions."""
    pages: PageSettings = PageSettings()
    segmenter: SegmenterSettings = SegmenterSettings(templates=["{}"], window=128)
    level: int = Field(default=3, ge=1, le=4)
    """Level of the captions that are classes: 1 is the most general, 4 the characters' names."""
    classes: int = Field(default=16, ge=2)
    """Classes that a training batch is asked for: those on its pages, then others by chance."""
    ignored: Ignored = "left_out"
    """Whether paper is left out of the loss, or shows none of the classes, as in the released
    code."""
    methods: list[str] = Field(default=["frozen", "hyperclip-32"], min_length=1)
    """Rows of the table: frozen, full, query-value, lora, and hyperclip-N for blocks of N."""
    scaling: ScalingSettings = ScalingSettings(dense=True)
    """Of the methods hyperclip-N, but for the block's size."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of `lora`, on query, key and value of all layers."""
    training: TrainingSettings = TrainingSettings(steps=300, batch_size=8, schedule="cosine")
    learning_rates: dict[str, float] = {}
    """Step size of the CLIP's numbers by method, where it is not the training's."""
    keep: str = ""
    """The method whose model the run keeps; the last of the methods where it is not one of them."""
    seed: Seed = 0
    """Seed of everything random; the same seed repeats the run."""

    @model_validator(mode="after")
    def _consistent(self) -> "HyperClipSettings":
        for name in (*self.methods, *self.learning_rates, *([self.keep] if self.keep else [])):
            block = name.removeprefix(SCALED)
            scaled = name != block and block.isdecimal() and int(block) > 0
            if not scaled and name not in METHODS:
                raise ValueError(
                    f"method '{name}' is unknown; there are {', '.join(METHODS)} and {SCALED}N"
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
