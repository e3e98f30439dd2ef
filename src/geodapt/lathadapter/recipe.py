"""The `lathadapter` recipe: the adapter on frozen features, and what each part of it is worth."""

from typing import Any, Literal

from pydantic import Field, model_validator

from geodapt.data.picture_settings import PictureSource
from geodapt.lathadapter.settings import LOSSES, LatHAdapterSettings
from geodapt.models import locate_base
from geodapt.prompts.glyph_base import check_new_characters, glyph_base, new_characters
from geodapt.runs import Recipe
from geodapt.settings import Name, Seed, Settings, repeated
from geodapt.tinyclip.settings import TINYCLIP, TinyClipSettings


def _without(loss: str) -> dict[str, Any]:
    return {"losses": [name for name in LOSSES if name != loss]}


VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "refiner only": {"losses": ["classification"], "hyperbolic_scale": 0},
    "hierarchy only": {"beta": 0},
    "flat": {"space": "flat"},
    "norm clip": {"norm": "clip"},
    "norm raw": {"norm": "raw"},
    "learned curvature": {"curvature": "learned"},
    "validated curvature": {"curvature": [0.01, 0.1, 1.0]},
    "no distance in logits": {"hyperbolic_logits": False},
    **{f"without the loss {name}": _without(name) for name in LOSSES},
}
"""What stands in the table when nothing else is asked: name -> what it changes."""


class FeatureTraining(Settings):
    """How the adapter is trained on features."""

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=0.0035, gt=0)
    """Of SGD, after the first epoch."""

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(epochs=2)


class LatHAdapterRecipe(Recipe):
    """Train LatHAdapter on the features of a frozen CLIP, by several variants, and compare."""

    recipe: Literal["lathadapter"] = "lathadapter"
    experiment = "geodapt.lathadapter.experiment:AblationExperiment"
    base: str = "clip-glyphs"
    """A CLIP or SigLIP: folder or hub name; clip-glyphs is trained here where it is missing."""
    glyph_base: TinyClipSettings = Field(default_factory=glyph_base)
    """What clip-glyphs is trained on here, as in the recipe prompts-glyphs."""
    data: PictureSource = Field(default_factory=lambda: new_characters(of="Latin letter"))
    """Labelled pictures."""
    protocol: Literal["base-to-new", "few-shot", "domain"] = "base-to-new"
    shots: int = Field(default=8, ge=1)
    """Training pictures of a class."""
    seeds: list[Seed] = Field(default=[1, 2, 3], min_length=1)
    variants: dict[Name, LatHAdapterSettings] = Field(
        default={name: LatHAdapterSettings(**changes) for name, changes in VARIANTS.items()},
        min_length=1,
    )
    """Each by name, with the settings that it changes."""
    training: FeatureTraining = FeatureTraining()

    @model_validator(mode="after")
    def _different(self) -> "LatHAdapterRecipe":
        if twice := repeated(self.seeds):
            raise ValueError(f"seeds: {twice[0]} stands twice")
        if "plain" in self.variants:
            raise ValueError("variants: 'plain' is the CLIP without an adapter; take another name")
        check_new_characters(self.base, self.glyph_base.data, [self.data])
        return self

    def _smallest(self) -> dict[str, Any]:
        first = dict([*self.variants.items()][:2])
        return {"seeds": self.seeds[:2], "variants": first, **self._at_most(shots=2)}

    def require_inputs(self) -> None:
        super().require_inputs()
        if self.base != TINYCLIP:
            locate_base(self.base)

    def _idle(self) -> set[str]:
        return set() if self.base == TINYCLIP else {"glyph_base"}


RECIPES = (LatHAdapterRecipe,)
