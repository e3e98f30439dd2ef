"""Recipes: YAML files that users copy, own and run.

``recipe:`` names the system; the rest is that system's pydantic model. The files in this folder
are the ready-made ones, which ``geodapt ls`` lists and ``geodapt cp`` copies.

::

    from geodapt.recipes.execution import execute
    from geodapt.recipes.loading import load_recipe

    results = execute(load_recipe("demo", ["training.steps=10"]).recipe, "runs/demo")

Nothing is imported here, so that listing recipes does not wait for torch.
"""
