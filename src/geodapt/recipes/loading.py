"""From a recipe's name or file to a validated recipe."""

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from geodapt.errors import InputError
from geodapt.recipes.catalog import FOLDER, SYSTEMS, find, nearest, system_class
from geodapt.recipes.document import Document
from geodapt.recipes.explanation import explain
from geodapt.runs import Recipe


@dataclass(frozen=True)
class Loaded:
    """A recipe, ready to run, and the name that its run goes by."""

    name: str
    recipe: Recipe


def load(name: str, overrides: Iterable[str] = ()) -> Loaded:
    """Read a ready-made recipe or a file, apply ``key=value`` overrides, validate.

    Raises :class:`InputError` that points at the file, the line and the key, or at the override.
    """
    path = find(name)
    document = Document.read(path, path.name if path.parent == FOLDER else str(path))
    for assignment in overrides:
        document.override(assignment)
    return Loaded(path.stem, validate(document, _model(document)))


def validate(document: Document, model: type[Recipe]) -> Recipe:
    """The recipe that a document describes; what is wrong is told with its place."""
    try:
        return model.model_validate(document.values)
    except ValidationError as error:
        raise InputError(explain(error, model, document)) from None


def _model(document: Document) -> type[Recipe]:
    """The class of the system that a document names."""
    system = document.values.get("recipe")
    if system is None:
        raise InputError(
            f"{document.name} lacks the key 'recipe', which names the system: "
            f"one of {', '.join(SYSTEMS)}"
        )
    if system not in list(SYSTEMS):  # a list is compared, not hashed
        raise InputError(
            f"{document.where(('recipe',))}: unknown system {system!r}"
            f"{nearest(str(system), SYSTEMS) or '; there are: ' + ', '.join(SYSTEMS)}"
        )
    return system_class(system)
