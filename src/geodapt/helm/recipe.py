"""The `helm` recipe: HELMs beside their Euclidean twins."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from geodapt.lm.settings import PretrainingSettings
from geodapt.registration import named_object
from geodapt.runs import Recipe, RunFolder
from geodapt.settings import repeated

CONTENDER_NAMES = (
    *("helm-d", "helm-mice", "llama", "deepseek", "helm-d-relative", "helm-mice-relative"),
    *("helm-mice-hmha", "helm-mice-const", "helm-mice-mixed"),
)
"""The keys of :data:`geodapt.helm.contenders.CONTENDERS`, without importing torch."""


class HelmRecipe(PretrainingSettings, Recipe):
    """Train language models on the same rows of text, and measure their perplexity."""

    recipe: Literal["helm"] = "helm"
    models: list[str] = Field(["helm-d", "helm-mice", "llama", "deepseek"], min_length=1)
    """Rows of the table; the first one's model is left in `model/`."""
    size: Literal["tiny", "100m", "1b", "100m-released", "1b-released"] = "tiny"
    """The preset of the HELMs; the others have their numbers of parameters."""
    curvature: Annotated[float, Field(gt=0)] | Literal["auto"] | None = None
    """c of the HELMs' space of curvature -c; none: the preset's, 1; auto: an estimate from how
    tokens occur together, then validated by short trainings of the first HELM."""
    config: dict[str, Any] = {}
    """Attributes of HelmConfig that differ from the preset's."""

    def _smallest(self) -> dict[str, Any]:
        return super()._smallest() | {"size": "tiny"}

    @model_validator(mode="after")
    def _consistent(self) -> "HelmRecipe":
        for name in self.models:
            if name not in CONTENDER_NAMES:
                known = ", ".join(CONTENDER_NAMES)
                raise ValueError(f"model '{name}' is unknown; there are {known}")
        if self.curvature is not None and "curvature" in self.config:
            raise ValueError("curvature and config.curvature are both given; leave one out")
        if self.curvature == "auto" and not any("helm" in name for name in self.models):
            raise ValueError("curvature: auto is chosen with a HELM, but models names none")
        if twice := repeated(self.models):
            raise ValueError(f"models: {twice} given more than once")
        if self.gradient_checkpointing and "deepseek" in self.models:
            raise ValueError(
                "gradient_checkpointing: deepseek's experts, which are balanced after each forward "
                "pass, would be chosen otherwise when it is computed again; leave one of the two"
            )
        return self

    def run(self, folder: RunFolder) -> dict[str, Any]:
        compare = named_object("geodapt.helm.experiment:compare_contenders")
        found = compare(self, self.seed, folder)
        return {"recipe": self.recipe, "title": self.title, **found}


RECIPES = (HelmRecipe,)
