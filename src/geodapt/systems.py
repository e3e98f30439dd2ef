"""The systems that recipes run: one line registers one.

A system is a package. Its module ``recipe`` holds ``RECIPES``, the settings that YAML files are
validated by, imported without torch. Its module ``report`` holds ``PAGE``, a
:class:`~geodapt.pages.section.SystemPage` with the columns and sections of its runs, imported when
a page is made. The command line, ``geodapt ls`` and :func:`geodapt.run` find both here.
"""

from importlib import import_module
from typing import Any, get_args

from geodapt.errors import InputError
from geodapt.pages.section import SystemPage
from geodapt.registration import register_pending, settings_only
from geodapt.runs import Recipe

SYSTEMS = {
    "clip": "geodapt.tinyclip",
    "xcross": "geodapt.xcross",
    "radial": "geodapt.radial",
    "radial-query": "geodapt.radial",
    "hyperclip": "geodapt.hyperclip",
    "hyperclip-pictures": "geodapt.hyperclip",
    "hyperclip-detection": "geodapt.hyperclip",
    "hyperclip-panoptic": "geodapt.hyperclip",
    "lathadapter": "geodapt.lathadapter",
    "compress": "geodapt.compress",
    "helm": "geodapt.helm",
    "evaluate-lm": "geodapt.lm",
    "prompts": "geodapt.prompts",
}
"""What ``recipe:`` names in a file -> the package that runs it."""


def recipe_class(name: str) -> type[Recipe]:
    """The settings of a recipe in :data:`SYSTEMS`.

    Raises :class:`InputError` where its package offers none of that name, or one that runs nothing.
    """
    module = f"{SYSTEMS[name]}.recipe"
    with settings_only():
        recipes = import_module(module).RECIPES
    for each in recipes:
        if name in get_args(each.model_fields["recipe"].annotation):
            if each.run is Recipe.run and not hasattr(each, "experiment"):
                raise InputError(
                    f"{module}: {each.__name__} does nothing; give it experiment = 'module:Class', "
                    "or a method run(folder)"
                )
            return each
    raise InputError(f"{module}: none of its RECIPES has recipe: Literal['{name}']")


def register_systems() -> None:
    """Register the model formats of all systems with transformers: any recipe may name them."""
    for package in dict.fromkeys(SYSTEMS.values()):
        import_module(package)
    register_pending()


def page_of(*recipes: Any) -> SystemPage:
    """What these recipes' systems add to a page; for none that is known, what all of them do."""
    known = dict.fromkeys(SYSTEMS[name] for name in SYSTEMS if name in recipes)
    packages = known or dict.fromkeys(SYSTEMS.values())
    pages: list[SystemPage] = [import_module(f"{package}.report").PAGE for package in packages]
    return SystemPage(
        metrics=[*dict.fromkeys(column for page in pages for column in page.metrics)],
        costs=[*dict.fromkeys(column for page in pages for column in page.costs)],
        sections=[section for page in pages for section in page.sections],
        tables=lambda results: (
            table for page in pages if page.tables for table in page.tables(results)
        ),
    )
