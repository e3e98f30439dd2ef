"""A system is a package that one line registers: its recipes and its page are found there."""

import json
import subprocess
import sys
from types import ModuleType
from typing import Literal, get_args

import pytest

from geodapt.errors import InputError
from geodapt.runs import Recipe
from geodapt.systems import SYSTEMS, page_of, recipe_class


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_offers_its_recipe_and_its_page(name):
    assert issubclass(recipe_class(name), Recipe)
    page = page_of(name)
    keys = [column.key for column in (*page.metrics, *page.costs)]
    assert keys or page.sections or page.tables
    assert len(set(keys)) == len(keys)


class IdleRecipe(Recipe):
    recipe: Literal["idle"] = "idle"


class MethodRecipe(Recipe):
    recipe: Literal["method"] = "method"

    def run(self, folder):
        return {}


class NamingRecipe(Recipe):
    recipe: Literal["naming"] = "naming"
    experiment = "json:dumps"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("idle", "IdleRecipe does nothing; give it experiment"),
        ("absent", "none of its RECIPES has recipe: Literal"),
        ("method", None),
        ("naming", None),
    ],
)
def test_a_system_that_can_run_nothing_is_refused_when_it_is_looked_up(name, reason, monkeypatch):
    module = ModuleType("invented.recipe")
    module.RECIPES = (IdleRecipe, MethodRecipe, NamingRecipe)
    monkeypatch.setitem(sys.modules, "invented", ModuleType("invented"))
    monkeypatch.setitem(sys.modules, "invented.recipe", module)
    monkeypatch.setitem(SYSTEMS, name, "invented")
    if reason is None:
        assert get_args(recipe_class(name).model_fields["recipe"].annotation) == (name,)
        return
    with pytest.raises(InputError, match=f"invented.recipe: {reason}"):
        recipe_class(name)


def test_several_systems_share_their_columns():
    keys = [column.key for column in page_of("xcross", "compress").metrics]
    assert {"hit_at_1", "ndcg_at_10", "cosine_agreement"} <= set(keys)
    assert len(set(keys)) == len(keys)
    assert page_of("xcross").metrics == page_of("xcross", "xcross").metrics


def test_a_registered_system_runs_and_has_its_own_columns(tiny, geodapt):
    done = geodapt("run", "tiny.yaml", "--out", "out")
    assert done.code == 0, done.err
    assert "Hit@1" in done.out
    assert json.loads((tiny.parent / "out" / "results.json").read_text())["recipe"] == "tiny"


@pytest.mark.slow
def test_what_was_imported_for_its_settings_alone_is_registered_for_a_run():
    check = """
import sys
from geodapt.recipes.loading import load_recipe
load_recipe("compress")
load_recipe("helm-tiny")
assert "transformers" not in sys.modules
import geodapt.recipes.execution
from transformers import AutoConfig
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
AutoConfig.for_model("helm")
print("geodapt" in AUTO_QUANTIZER_MAPPING)
"""
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("package", ["geodapt.helm", "geodapt.compress"])
def test_importing_a_package_registers_its_formats_with_transformers(package):
    check = f"""
import sys
import {package}
from transformers import AutoConfig
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
found = "geodapt" in AUTO_QUANTIZER_MAPPING
if {package!r} == "geodapt.helm":
    AutoConfig.for_model("helm")
    found = True
print(found)
"""
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "True", done.stderr
