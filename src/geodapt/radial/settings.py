"""What a user chooses about the parts of radial embeddings."""

from typing import Literal

from pydantic import Field, model_validator

from geodapt.settings import Settings

CONFIG = "radial.json"
"""In the folder of a saved model, which is known by it."""


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
