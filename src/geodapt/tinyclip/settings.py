"""What decides the CLIP that is trained here."""

from pydantic import Field, model_validator

from geodapt.data.glyph_settings import GlyphSettings
from geodapt.settings import Seed, Settings
from geodapt.training.settings import TrainingSettings

TINYCLIP = "clip-glyphs"
"""What recipes call the small CLIP; the recipe of this name trains it."""


class TowerSettings(Settings):
    """One transformer of the two."""

    width: int = Field(default=128, ge=8)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> "TowerSettings":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        return self


class ModelSettings(Settings):
    """The size of a CLIP."""

    vision: TowerSettings = TowerSettings()
    text: TowerSettings = TowerSettings(layers=2)
    patch: int = Field(default=8, ge=1)
    """Side of a patch of the picture, in pixels."""
    embedding: int = Field(default=128, ge=8)
    """Width of the space that pictures and texts share."""
    vocabulary: int = Field(default=2000, ge=300)
    """Tokens of the tokenizer that is trained on the captions."""
    max_tokens: int = Field(default=32, ge=8)
    """The most tokens of a text."""


class TinyClipSettings(Settings):
    """A CLIP, its data and its training; the defaults are those of the recipe `clip-glyphs`."""

    data: GlyphSettings = GlyphSettings()
    """Pictures and captions."""
    model: ModelSettings = ModelSettings()
    general: float = Field(default=0.2, ge=0, le=1)
    """Share of the training captions that are more general than the picture's name."""
    moved: float = Field(default=0.0, ge=0, le=0.5)
    """Share of its side that a training picture moves at most, each way; new at every batch."""
    zoomed: float = Field(default=0.0, ge=0, le=3)
    """Training pictures are up to 1 + `zoomed` times as large, or as small."""
    still: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training in which pictures stay as they are, before they move and zoom: what a
    character is is learned sooner where it always stands in one place. Counted in whole epochs."""
    training: TrainingSettings = TrainingSettings(
        steps=4000, batch_size=128, learning_rate=1e-3, schedule="cosine", weight_decay=0.05
    )
    seed: Seed = 0
    """Seed of everything random; the same seed gives the same model."""

    @model_validator(mode="after")
    def _consistent(self) -> "TinyClipSettings":
        if self.data.size % self.model.patch:
            raise ValueError(
                f"data.size {self.data.size} does not divide into patches of {self.model.patch}"
            )
        if self.training.batch_size < 2:
            raise ValueError("training.batch_size: a contrast needs two pairs or more, got 1")
        if self.training.evaluate_every is not None:
            raise ValueError("training.evaluate_every: the last weights are kept; leave it out")
        return self
