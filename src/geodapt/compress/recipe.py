"""The `compress` recipe: what `geodapt compress` runs, and continues after a kill."""

from typing import Any, Literal

from geodapt.compress.settings import CompressSettings
from geodapt.runs import Recipe, RunFolder


class CompressRecipe(CompressSettings, Recipe):
    """Make a model smaller, and measure what that costs."""

    recipe: Literal["compress"] = "compress"
    experiment = "geodapt.compress.experiment:CompressExperiment"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        title = self.title or f"{self.model}, {self.method}"
        return {**super().run(folder), "title": title}


RECIPES = (CompressRecipe,)
