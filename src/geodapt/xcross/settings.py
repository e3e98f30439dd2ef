"""What a user chooses about X-Cross: the domains, the base, the methods and their training."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from geodapt.adapters.settings import LoraSettings
from geodapt.data.settings import DataSettings
from geodapt.settings import Name, Seed, Settings, repeated
from geodapt.training.settings import TrainingSettings
from geodapt.xcross.methods import METHODS

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


class XCrossSettings(Settings):
    """A target domain, served by the adapters of source domains in every way there is."""

    base: str = "minilm"
    """Any Hugging Face encoder or decoder: a folder, a hub name, or minilm (needs no network)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the frozen base; auto: bfloat16 where the device multiplies it natively."""
    data: DataSettings
    """Where the domains come from; `kind` chooses the loader."""
    sources: list[Name] = Field(min_length=2)
    """Domains whose adapters are given or trained first."""
    target: Name
    """The domain to serve."""
    adapters: dict[str, str] = {}
    """PEFT folders or hub names of source adapters that exist; the others are trained."""
    lora: LoraSettings = LoraSettings()
    head_width: int | None = Field(default=None, ge=1)
    """Width of the pooler W_p that all methods share; none: half the base's."""
    pooling: Pooling = "auto"
    """The summary token: auto is the first for encoders and the last for decoders."""
    prompt: PromptSettings = PromptSettings()
    training_negatives: int = Field(default=4, ge=1)
    """Negatives per training row, drawn anew each time from the row's own."""
    integrator: IntegratorSettings = IntegratorSettings()
    source_training: TrainingSettings = TrainingSettings()
    """How source adapters are trained."""
    lora_training: TrainingSettings = TrainingSettings()
    """How the target's LoRA is trained."""
    training: TrainingSettings = TrainingSettings()
    """How X-Cross and trained heads are trained."""
    methods: list[str] = [
        "base",
        "sources",
        "mix",
        "svd",
        "ties",
        "atoms",
        "head",
        "lora",
        "xcross",
    ]
    """Rows of the table, in order."""
    curve: CurveSettings | None = CurveSettings()
    rate_factors: list[Annotated[float, Field(gt=0)]] = []
    """Factors of its own learning rates that each trained method tries, whole trainings each; the
    validation rows choose, and the method trains again at that; empty: rates as they are."""
    against: Name | None = None
    """The method that all others are compared with row by row, with intervals; such as lora."""
    examples: int = Field(default=4, ge=0)
    """Predictions that the report explains."""

    seed: Seed = 0
    """Seed of everything random; the same seed repeats the run."""

    def _smallest(self) -> dict[str, Any]:
        return {"rate_factors": self.rate_factors[:2]}

    @model_validator(mode="after")
    def _consistent(self) -> "XCrossSettings":
        if self.target in self.sources:
            raise ValueError(f"target '{self.target}' is one of the sources")
        curve = self.curve.methods if self.curve else []
        shares = self.curve.fractions if self.curve else []
        for key, values in (
            ("sources", self.sources),
            ("methods", self.methods),
            ("curve.methods", curve),
            ("curve.fractions", shares),
            ("rate_factors", self.rate_factors),
        ):
            if twice := repeated(values):
                raise ValueError(f"{key}: {twice} given more than once")
        domains = [*self.sources, self.target]
        if len({name.casefold() for name in domains}) < len(domains):
            raise ValueError(
                "sources and target: two names differ only in capitals, for which some systems "
                "have one folder; name one otherwise"
            )
        for name in [*self.methods, *curve]:
            if name not in METHODS:
                raise ValueError(f"method '{name}' is unknown; there are {', '.join(METHODS)}")
        if self.against is not None and self.against not in self.methods:
            raise ValueError(f"against: '{self.against}' is not among the methods")
        for name in curve:
            if not METHODS[name].trains:
                raise ValueError(f"curve: method '{name}' does not train, so it has no curve")
        unknown = set(self.adapters) - set(self.sources)
        if unknown:
            raise ValueError(f"adapters: {sorted(unknown)} are not among the sources")
        return self
