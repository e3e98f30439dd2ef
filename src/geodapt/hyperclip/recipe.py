"""The `hyperclip` recipe: tune a CLIP for segmentation with an open vocabulary, by each method."""

from typing import Any, Literal

from geodapt.hyperclip.settings import HyperClipSettings
from geodapt.runs import Recipe, RunFolder


class HyperClipRecipe(HyperClipSettings, Recipe):
    """Teach a CLIP to segment pages by words, and measure words that it was never shown."""

    recipe: Literal["hyperclip"] = "hyperclip"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        # Here, so that the recipe is checked before torch is imported.
        from geodapt.hyperclip.experiment import HyperClipExperiment

        found = HyperClipExperiment(self, folder).run()
        return {"recipe": self.recipe, "title": self.title, **found}


RECIPES = (HyperClipRecipe,)
