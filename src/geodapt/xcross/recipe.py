"""The `xcross` recipe: the domains, the base, the methods and their training."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from geodapt.adapters.settings import LoraSettings
from geodapt.data.settings import DataSettings
from geodapt.models import locate_base
from geodapt.runs import Recipe
from geodapt.settings import Name, repeated
from geodapt.training.settings import TrainingSettings
from geodapt.xcross.methods import METHODS
from geodapt.xcross.settings import CurveSettings, IntegratorSettings, Pooling, PromptSettings


class XCrossRecipe(Recipe):
    """Serve a target domain with the adapters of source domains, in every way there is."""

    recipe: Literal["xcross"] = "xcross"
    experiment = "geodapt.xcross.experiment:XCrossExperiment"
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

    def require_inputs(self) -> None:
        data = self.data.model_copy(update={"domains": [*self.sources, self.target]})
        super(XCrossRecipe, self.model_copy(update={"data": data})).require_inputs()
        locate_base(self.base)

    def _smallest(self) -> dict[str, Any]:
        return {"rate_factors": self.rate_factors[:2]}

    @model_validator(mode="after")
    def _consistent(self) -> "XCrossRecipe":
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


RECIPES = (XCrossRecipe,)
