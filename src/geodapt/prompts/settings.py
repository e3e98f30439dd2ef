"""The hosts, as settings: what each learns, how it starts and how it trains.

The defaults are those of the authors' code on ViT-B/16. All freeze the CLIP, train by SGD with
momentum and keep the last epoch.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from geodapt.settings import Settings
from geodapt.training.settings import TrainingSettings


def published(epochs: int, batch_size: int, learning_rate: float) -> TrainingSettings:
    """SGD as Dassl sets it up: momentum, decay, no clipping, rates by epoch, whole batches."""
    return TrainingSettings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer="sgd",
        schedule="cosine-by-epoch",
        drop_last=True,
        weight_decay=5e-4,
        max_grad_norm=0,
        tensorboard=False,
    )


class HostSettings(Settings):
    """What all hosts share."""

    kind: str
    """The host."""
    template: str = "a photo of a {}."
    """The class's text; learned tokens stand before it, where there are any."""
    classes_at_once: int = Field(default=100, ge=1)
    """Classes whose activations are kept; of more, parts are computed again for the gradient."""
    crop: tuple[float, float] | None = (0.08, 1.0)
    """Smallest and largest share of a training picture that is cut out; none: it is left whole."""
    flip: bool = True
    """Mirror half of the training pictures."""
    training: TrainingSettings = published(5, 4, 0.0035)
    """How it trains."""
    adapter_rate: float = Field(default=1.0, gt=0)
    """Step size of an adapter, as a multiple of training.learning_rate."""

    @field_validator("training", mode="before")
    @classmethod
    def _over_the_authors(cls, given: Any) -> Any:
        """What is not given stays the host's, and does not become AdamW, say."""
        if not isinstance(given, dict):
            return given
        if "steps" in given and "epochs" not in given:
            raise ValueError("a prompt learner trains by epochs; give training.epochs, not steps")
        return {**cls.model_fields["training"].default.model_dump(), **given}

    @property
    def whole_template(self) -> str:
        """The class's text with the words that learned tokens start as."""
        return self.template

    @model_validator(mode="after")
    def _usable(self) -> "HostSettings":
        if self.template.count("{}") != 1:
            raise ValueError(f"template '{self.template}' needs exactly one {{}} for the class")
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop: expected 0 < smallest <= largest <= 1, got {self.crop}")
        return self


class PlainClip(HostSettings):
    """The CLIP itself: nothing is learned, but for an adapter."""

    kind: Literal["clip"] = "clip"


class TextTokenSettings(HostSettings):
    """What hosts with learned tokens in the text share."""

    length: int = Field(default=4, ge=1)
    """Learned tokens of a layer."""
    words: str | None = None
    """What the first layer's tokens start as; drawn from N(0, 0.02) where it is not given."""
    place: Literal["end", "middle", "front"] = "end"
    """Where the class's name stands among the learned tokens."""

    @property
    def whole_template(self) -> str:
        return f"{self.words} {self.template}" if self.words else self.template


class CoOp(TextTokenSettings):
    """Tokens before, around or after the name, at the first layer (Zhou et al. 2022)."""

    kind: Literal["coop"] = "coop"
    template: str = "{}."
    length: int = Field(default=16, ge=1)
    """Learned tokens."""
    per_class: bool = False
    """Tokens of its own for each class of training; then no other names can be asked."""
    training: TrainingSettings = published(50, 32, 0.002)


class MaPLe(TextTokenSettings):
    """Tokens in both towers, the pictures' by a linear map of the texts' (Khattak et al. 2023a)."""

    kind: Literal["maple"] = "maple"
    template: str = "of a {}."
    length: int = Field(default=2, ge=1)
    """Learned tokens of a layer."""
    depth: int = Field(default=9, ge=1)
    """Layers that have them, of both towers."""
    words: str | None = "a photo"
    """What the first layer's tokens start as."""
    training: TrainingSettings = published(5, 4, 0.0035)


class PromptSRC(TextTokenSettings):
    """Tokens in both towers, held near the frozen CLIP (Khattak et al. 2023b)."""

    kind: Literal["promptsrc"] = "promptsrc"
    template: str = "{}."
    depth: int = Field(default=9, ge=1)
    """Layers that have them, of the text tower."""
    image_depth: int | None = Field(default=None, ge=1)
    """Layers that have them, of the image tower; none: as many as depth."""
    words: str | None = "a photo of a"
    """What the first text layer's tokens start as."""
    text_weight: float = Field(default=25.0, ge=0)
    """Of the mean absolute difference from the frozen text vectors."""
    image_weight: float = Field(default=10.0, ge=0)
    """Of the mean absolute difference from the frozen image vectors."""
    logit_weight: float = Field(default=1.0, ge=0)
    """Of the divergence from the frozen logits."""
    frozen_templates: list[str] | None = Field(default=None, min_length=1)
    """The frozen text of a class is the mean over these; none: the sixty of the authors' code."""
    average_mean: float | None = None
    """Epoch, counted from 1, whose weights count most in the average; none: 3/4 of the epochs."""
    average_std: float | None = Field(default=None, gt=0)
    """Width of the average in epochs; none: 1/20 of the epochs."""
    training: TrainingSettings = published(20, 4, 0.0025)


class PromptKD(HostSettings):
    """Image tokens and a projector that follow a larger tuned CLIP, unlabelled (Li et al. 2024)."""

    kind: Literal["promptkd"] = "promptkd"
    length: int = Field(default=4, ge=1)
    """Learned tokens of a layer of the image tower."""
    depth: int = Field(default=9, ge=1)
    """Layers that have them."""
    temperature: float = Field(default=1.0, gt=0)
    """What both sides' logits are divided by."""
    weight: float = Field(default=1000.0, gt=0)
    """Of the divergence, which is a mean over rows and classes: 200 for aircraft, flowers, DTD."""
    transductive: bool = False
    """Train on pictures and names of the new classes, too, without labels, as the authors' code
    does: base-to-new then measures no unseen classes."""
    training: TrainingSettings = published(20, 8, 0.005)


AnyHost = Annotated[PlainClip | CoOp | MaPLe | PromptSRC | PromptKD, Field(discriminator="kind")]
"""The settings of any host."""
HOSTS: dict[str, type[HostSettings]] = {
    "clip": PlainClip,
    "coop": CoOp,
    "maple": MaPLe,
    "promptsrc": PromptSRC,
    "promptkd": PromptKD,
}
"""Kind -> settings."""
