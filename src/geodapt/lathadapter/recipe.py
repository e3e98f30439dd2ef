"""The `lathadapter` recipe: the adapter on frozen features, and what each part of it is worth."""

from typing import Any, Literal

from geodapt.lathadapter.recipe_settings import AblationSettings
from geodapt.runs import Recipe, RunFolder


class LatHAdapterRecipe(AblationSettings, Recipe):
    """Train LatHAdapter on the features of a frozen CLIP, by several variants, and compare."""

    recipe: Literal["lathadapter"] = "lathadapter"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        # Here, so that the recipe is checked before torch is imported.
        from geodapt.lathadapter.experiment import AblationExperiment

        found = AblationExperiment(self, folder).run()
        return {"recipe": self.recipe, "title": self.title, **found}


RECIPES = (LatHAdapterRecipe,)
