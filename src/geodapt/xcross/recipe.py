"""The `xcross` recipe."""

from typing import Literal

from geodapt.runs import Recipe
from geodapt.xcross.settings import XCrossSettings


class XCrossRecipe(XCrossSettings, Recipe):
    """Serve a target domain with the adapters of source domains, in every way there is."""

    recipe: Literal["xcross"] = "xcross"
    experiment = "geodapt.xcross.experiment:XCrossExperiment"


RECIPES = (XCrossRecipe,)
