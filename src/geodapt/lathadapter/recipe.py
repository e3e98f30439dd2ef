"""The `lathadapter` recipe: the adapter on frozen features, and what each part of it is worth."""

from typing import Literal

from geodapt.lathadapter.recipe_settings import AblationSettings
from geodapt.runs import Recipe


class LatHAdapterRecipe(AblationSettings, Recipe):
    """Train LatHAdapter on the features of a frozen CLIP, by several variants, and compare."""

    recipe: Literal["lathadapter"] = "lathadapter"
    experiment = "geodapt.lathadapter.experiment:AblationExperiment"


RECIPES = (LatHAdapterRecipe,)
