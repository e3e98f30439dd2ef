"""The `radial` recipe: measure, tune, measure again."""

from typing import Literal

from geodapt.radial.query import RadialQueryRecipe
from geodapt.radial.settings import RadialSettings
from geodapt.runs import Recipe


class RadialRecipe(RadialSettings, Recipe):
    """Teach a text or image-text encoder a hierarchy, and measure what it knew and knows."""

    recipe: Literal["radial"] = "radial"
    experiment = "geodapt.radial.experiment:RadialExperiment"


RECIPES = (RadialRecipe, RadialQueryRecipe)
