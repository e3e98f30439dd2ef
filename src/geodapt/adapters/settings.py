"""The settings of an adapter that a recipe trains."""

from typing import Literal

from pydantic import Field

from geodapt.settings import Settings


class LoraSettings(Settings):
    """A LoRA adapter (Hu et al. 2021): its size, and the layers that it touches."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    targets: list[str] | Literal["all-linear"] = "all-linear"
    """Names of linear layers, as PEFT's target_modules, within what the recipe trains."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of an adapter's inputs that are dropped while it trains."""
    rslora: bool = False
    """Scale by ``alpha / sqrt(rank)`` rather than ``alpha / rank`` (Kalajdzievski 2023)."""
