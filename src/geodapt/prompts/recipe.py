"""The `prompts` recipe: hosts, with and without an adapter, under one of four protocols."""

from typing import Any, Literal

from geodapt.prompts.study_settings import PromptStudySettings
from geodapt.runs import Recipe, RunFolder


class PromptsRecipe(PromptStudySettings, Recipe):
    """Tune a CLIP on a few pictures of each class, and ask it for others."""

    recipe: Literal["prompts"] = "prompts"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        # Here, so that the recipe is checked before torch is imported.
        from geodapt.prompts.experiment import PromptsExperiment

        found = PromptsExperiment(self, folder).run()
        return {"recipe": self.recipe, "title": self.title, **found}


RECIPES = (PromptsRecipe,)
