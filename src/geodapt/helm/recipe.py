"""The `helm` recipe."""

from typing import Any, Literal

from geodapt.helm.settings import HelmSettings
from geodapt.runs import Recipe, RunFolder


class HelmRecipe(HelmSettings, Recipe):
    """Train language models on the same rows of text, and measure their perplexity."""

    recipe: Literal["helm"] = "helm"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        from geodapt.helm.experiment import compare_contenders

        found = compare_contenders(self, self.seed, folder)
        return {"recipe": self.recipe, "title": self.title, **found}


RECIPES = (HelmRecipe,)
