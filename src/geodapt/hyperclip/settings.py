"""What a user chooses about scalings, heads and models; read without torch."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from geodapt.settings import Settings, repeated

Tower = Literal["text", "image"]
Matrix = Literal["query", "key", "value"]
Form = Literal["auto", "activation", "weight", "mobius"]
Ignored = Literal["left_out", "negative"]


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


class DetectorSettings(Settings):
    """How words pass a detector or a panoptic model."""

    templates: list[str] = Field(default=["a photo of a {}"], min_length=1)
    """Sentences around a word, each with one {}; their vectors are averaged."""


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


class WordShares(Settings):
    """How a CLIP tells the words of masks, and its share in their scores."""

    window: int | None = Field(default=None, ge=1)
    """Side of the CLIP's windows in pixels, a multiple of its patches; its own size where none."""
    residual: Literal["class", "patch", "none"] | None = None
    """Of the CLIP's dense features (:func:`geodapt.vision.dense_features`)."""
    alpha: float = Field(default=0.4, ge=0, le=1)
    """Share of the CLIP's score in that of words that training showed."""
    beta: float = Field(default=0.8, ge=0, le=1)
    """Share of the CLIP's score in that of all other words."""


class PanopticModelSettings(WordShares, DetectorSettings):
    """How pictures and words pass a panoptic model, and what its training showed."""

    side: int = Field(default=512, ge=32, le=4096)
    """Pixels that pictures are stretched to, each way; a multiple of the CLIP's patches."""
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
