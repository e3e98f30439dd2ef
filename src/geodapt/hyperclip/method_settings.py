"""What a user chooses about tuning a CLIP by several methods; every task has these settings."""

from typing import Any

from pydantic import Field, model_validator

from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.settings import ScalingSettings
from geodapt.settings import Seed, Settings, repeated
from geodapt.tinyclip.settings import TinyClipSettings
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
