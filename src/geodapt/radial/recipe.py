"""The `radial` recipe: measure, tune, measure again."""

from typing import Any, Literal

from geodapt.radial.query import RadialQueryRecipe
from geodapt.radial.settings import RadialSettings
from geodapt.runs import Recipe, RunFolder


class RadialRecipe(RadialSettings, Recipe):
    """Teach a text or image-text encoder a hierarchy, and measure what it knew and knows."""

    recipe: Literal["radial"] = "radial"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        # Here, so that the recipe is checked before torch is imported.
        from geodapt.radial.experiment import RadialExperiment

        found = RadialExperiment(self, folder).run()
        return {"recipe": self.recipe, "title": self.title, **found}


RECIPES = (RadialRecipe, RadialQueryRecipe)
