"""The `prompts` recipe: hosts, with and without an adapter, under one of four protocols."""

from typing import Literal

from geodapt.prompts.study_settings import PromptStudySettings
from geodapt.runs import Recipe


class PromptsRecipe(PromptStudySettings, Recipe):
    """Tune a CLIP on a few pictures of each class, and ask it for others."""

    recipe: Literal["prompts"] = "prompts"
    experiment = "geodapt.prompts.experiment:PromptsExperiment"


RECIPES = (PromptsRecipe,)
