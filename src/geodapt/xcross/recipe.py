"""The `xcross` recipe."""

from typing import Any, Literal

from geodapt.runs import Recipe, RunFolder
from geodapt.xcross.settings import XCrossSettings


class XCrossRecipe(XCrossSettings, Recipe):
    """Serve a target domain with the adapters of source domains, in every way there is."""

    recipe: Literal["xcross"] = "xcross"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        from geodapt.xcross.experiment import XCrossExperiment

        found = XCrossExperiment(self, folder).run()
        return {"recipe": self.recipe, "title": self.title, **found}


RECIPES = (XCrossRecipe,)
