"""What a user chooses about the parts of X-Cross."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from geodapt.settings import Settings

Pooling = Literal["auto", "first", "last", "mean"]


class IntegratorSettings(Settings):
    """How the streams exchange; each departure from the default is an ablation."""

    beta: float = 1.0
    """Strength of the direct terms ``z_[m'] h_m'``."""
    gamma: float = 1.0
    """Strength of the interaction terms ``z_[m,m'] (h_m - h_m')``."""
    terms: Literal["both", "direct", "interaction"] = "both"
    """Which of the two kinds of terms there are."""
    dynamic: bool = True
    """Whether z depends on the token (``W_concat h^``); else it is learned, one per layer."""
    layers: Literal["all", "last", "none"] | list[int] = "all"
    """The blocks after which the streams exchange."""
    scale: Literal["unit", "sqrt_width", "none"] = "unit"
    """What ``W_concat`` reads: the unit vector, the vector over ``sqrt(n d)``, or it raw."""
    aggregation: Literal["learned", "uniform"] = "learned"
    """Whether the weights ``w_m`` of the last sum are trained."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Step size of ``W_concat`` and of w; the head has the training's own."""


class PromptSettings(Settings):
    """How much of the history and of an item a prompt holds."""

    max_tokens: int = Field(default=64, ge=8)
    """Longest prompt, in tokens."""
    item_tokens: int = Field(default=24, ge=2)
    """Longest candidate, in tokens; the history gets what is left."""

    @model_validator(mode="after")
    def _room(self) -> "PromptSettings":
        if self.item_tokens >= self.max_tokens:
            raise ValueError(
                f"item_tokens ({self.item_tokens}) leaves no room for a history within max_tokens "
                f"({self.max_tokens})"
            )
        return self


class CurveSettings(Settings):
    """The data-efficiency curve: methods trained on shares of the target's rows."""

    fractions: list[Annotated[float, Field(gt=0, le=1)]] = [0.1, 0.25, 0.5, 0.75]
    """Shares of the training rows; the whole set is the table's own row."""
    methods: list[str] = ["lora", "xcross"]
    steps_exponent: float = Field(default=0.5, ge=0, le=1)
    """Steps at share f are ``steps * f ** exponent``: 0 the same steps, 1 the same epochs."""

    def _smallest(self) -> dict[str, Any]:
        return {"fractions": [max(self.fractions)] if self.fractions else []}
