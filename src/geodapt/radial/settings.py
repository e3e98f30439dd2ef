"""What a user chooses about radial embeddings."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from geodapt.adapters.settings import LoraSettings
from geodapt.data.hierarchy_settings import HierarchySettings
from geodapt.settings import Seed, Settings, repeated
from geodapt.training.settings import TrainingSettings

METHODS = {
    "radial": "Radial embeddings",
    "cone": "Entailment cone",
    "roots": "Radial, several roots",
}
"""Ways to tune, and what tables call them."""


class LossSettings(Settings):
    """The total ``weight * L + anchoring * L_reg``."""

    weight: float = Field(default=1.0, gt=0)
    """Weight of the hierarchy's loss (lambda_RE)."""
    anchoring: float = Field(default=10.0, ge=0)
    """Weight of the pull towards the pretrained embeddings (lambda_reg)."""
    eps: float = Field(default=0.1, gt=0)
    """Of the cone: ``sin(half aperture) = eps / |e - r|``."""


class RootSettings(Settings):
    """Where the root is."""

    text: str = ""
    """The most general text; the empty one, unless the encoder cannot embed it."""
    kind: Literal["encoder", "learned", "fixed"] = "encoder"
    """encoder: the text's embedding, moving as the encoder trains; learned: a point of its own
    that starts there; fixed: where the pretrained encoder puts it."""
    count: int = Field(default=1, ge=1)
    """Roots; several are learned or fixed, and a concept belongs to the nearest."""

    @model_validator(mode="after")
    def _several_are_points(self) -> "RootSettings":
        if self.count > 1 and self.kind == "encoder":
            raise ValueError("several roots are points of their own: set kind to learned or fixed")
        return self


class RadialSettings(Settings):
    """An encoder, a hierarchy, and the ways to tune the one on the other."""

    base: str = "minilm"
    """A text encoder, a CLIP or a SigLIP: a folder or a hub name; minilm and clip-glyphs need no
    network."""
    data: HierarchySettings
    """Chains, a tree or characters; `kind` chooses the loader."""
    images: str | None = None
    """Folder with the images that chains name, for an encoder of images."""
    lexical: str | None = None
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

    seed: Seed = 0
    """Seed of everything random; the same seed repeats the run."""

    @model_validator(mode="after")
    def _consistent(self) -> "RadialSettings":
        for name in self.methods:
            if name not in METHODS:
                raise ValueError(f"method '{name}' is unknown; there are {', '.join(METHODS)}")
        if twice := repeated(self.methods):
            raise ValueError(f"methods: {twice} given more than once")
        return self
