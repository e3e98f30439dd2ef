"""The `radial` recipe: measure, tune, measure again."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from geodapt.adapters.settings import LoraSettings
from geodapt.data.hierarchy_settings import HierarchySettings
from geodapt.models import locate_base
from geodapt.radial.query import RadialQueryRecipe
from geodapt.radial.settings import LossSettings, RootSettings
from geodapt.runs import Recipe
from geodapt.settings import GivenPath, repeated
from geodapt.tinyclip.settings import TINYCLIP, TinyClipSettings
from geodapt.training.settings import TrainingSettings

METHODS = {
    "radial": "Radial embeddings",
    "cone": "Entailment cone",
    "roots": "Radial, several roots",
}
"""Ways to tune, and what tables call them."""


class RadialRecipe(Recipe):
    """Teach a text or image-text encoder a hierarchy, and measure what it knew and knows."""

    recipe: Literal["radial"] = "radial"
    experiment = "geodapt.radial.experiment:RadialExperiment"
    base: str = "minilm"
    """A text encoder, a CLIP or a SigLIP: a folder or a hub name; minilm and clip-glyphs need no
    network."""
    glyph_base: TinyClipSettings = TinyClipSettings()
    """What clip-glyphs is trained on here."""
    data: HierarchySettings
    """Chains, a tree or characters; `kind` chooses the loader."""
    images: GivenPath | None = None
    """Folder with the images that chains name, for an encoder of images."""
    lexical: GivenPath | None = None
    """HyperLex, or a file like it, to measure lexical entailment on; nothing trains on it."""
    root: RootSettings = RootSettings()
    loss: LossSettings = LossSettings()
    curvature: Annotated[float, Field(ge=0)] | Literal["auto"] = 0.0
    """c of the space of curvature -c in which angles are measured; 0: flat, as in the paper; auto:
    an estimate from the training texts, then validated on their chains before any tuning."""
    tune: Literal["full", "lora"] = "full"
    """What trains: all of the text side, or an adapter on it."""
    lora: LoraSettings = LoraSettings()
    """The adapter; its targets are layers of the text side."""
    training: TrainingSettings = TrainingSettings(learning_rate=2e-5)
    root_learning_rate: float = Field(default=1e-3, gt=0)
    """Step size of learned roots."""
    methods: list[str] = ["radial"]
    """Rows of the table beside the untuned model: radial, cone, and roots (several of them)."""
    several_roots: int = Field(default=4, ge=2)
    """Roots of the method `roots`."""

    def require_inputs(self) -> None:
        super().require_inputs()
        if self.base != TINYCLIP:
            locate_base(self.base)

    def _idle(self) -> set[str]:
        return set() if self.base == TINYCLIP else {"glyph_base"}

    @model_validator(mode="after")
    def _consistent(self) -> "RadialRecipe":
        for name in self.methods:
            if name not in METHODS:
                raise ValueError(f"method '{name}' is unknown; there are {', '.join(METHODS)}")
        if twice := repeated(self.methods):
            raise ValueError(f"methods: {twice} given more than once")
        return self


RECIPES = (RadialRecipe, RadialQueryRecipe)
