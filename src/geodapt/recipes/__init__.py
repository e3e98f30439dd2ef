"""Recipes: YAML files that users copy, own and run.

``recipe:`` names the system; the rest is that system's pydantic model. The files in this folder
are the ready-made ones, which ``geodapt ls`` lists and ``geodapt cp`` copies.

    recipe = load("demo", ["training.epochs=1"]).recipe
    results = execute(recipe, "runs/demo")
"""

from geodapt.recipes.catalog import SYSTEMS, packaged
from geodapt.recipes.execution import execute
from geodapt.recipes.loading import Loaded, load

__all__ = ["SYSTEMS", "Loaded", "execute", "load", "packaged"]
