"""Recipes from Python, and their smallest versions."""

import json

import pytest

import geodapt
from geodapt.errors import InputError
from geodapt.recipes.catalog import packaged
from geodapt.recipes.loading import load_recipe
from geodapt.settings import Settings
from geodapt.training.settings import TrainingSettings


def settings_within(settings: Settings):
    yield settings
    for _, value in settings:
        if isinstance(value, Settings):
            yield from settings_within(value)


@pytest.mark.parametrize("name", packaged())
def test_the_smallest_version_is_a_valid_recipe_with_short_trainings(name):
    recipe = load_recipe(name).recipe
    small = recipe.small()
    again = type(recipe).model_validate(json.loads(small.model_dump_json()))
    assert again == small
    trainings = [part for part in settings_within(small) if isinstance(part, TrainingSettings)]
    assert all(training.steps <= 2 for training in trainings)
    if getattr(small, "base", None) == "clip-glyphs":
        assert small.glyph_base.training.steps <= 2  # not the minutes of one that is worth having
    # What is measured stays: the same methods, models and queries.
    for field in ("methods", "models", "queries"):
        assert getattr(small, field, None) == getattr(recipe, field, None)
    assert load_recipe(name).recipe == recipe, "the recipe itself is as it was"


def test_a_run_from_python_is_the_command_lines(tiny):
    run = geodapt.run("tiny.yaml", "training.epochs=2", out="out")
    assert run.results == json.loads((run.folder / "results.json").read_text())
    assert run.page.is_file()
    assert "out" in repr(run)
    assert geodapt.run("tiny.yaml", "training.epochs=2", out="out", resume=True).results == (
        run.results
    )


def test_what_the_command_line_refuses_python_refuses(tiny):
    with pytest.raises(InputError, match="did you mean 'training'"):
        geodapt.run("tiny.yaml", "trainng.epochs=2")


def test_a_smoke_test_says_that_it_is_one(tiny):
    run = geodapt.run("tiny.yaml", out="out", smoke=True)
    assert "A tiny recipe (smoke test)" in run.page.read_text()
    again = geodapt.run("tiny.yaml", out="out", smoke=True, resume=True)
    assert again.results == run.results
