"""From a recipe's name or file to a validated recipe."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from geodapt.errors import InputError
from geodapt.recipes.catalog import FOLDER, find_recipe, suggestion
from geodapt.recipes.document import Document
from geodapt.recipes.explanation import explain_errors
from geodapt.runs import Recipe
from geodapt.settings import Settings
from geodapt.systems import SYSTEMS, recipe_class


@dataclass(frozen=True)
class Loaded:
    """A recipe, ready to run, and the name that its run goes by."""

    name: str
    recipe: Recipe


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Loaded:
    """Read a ready-made recipe or a file, apply ``key=value`` overrides, validate.

    Raises :class:`InputError` that points at the file, the line and the key, or at the override.
    """
    path = find_recipe(name)
    document = Document.read(path, path.name if path.parent == FOLDER else str(path))
    for assignment in overrides:
        document.override(assignment)
    model = _model(document)
    _leave_old_kinds(document, model)
    _keep_defaults(document, model)
    return Loaded(path.stem, validate(document, model))


def _leave_old_kinds(document: Document, model: type[Recipe]) -> None:
    """Where an override changes a part's kind, drop the file's keys that only the old kind has.

    So ``data.kind=csv data.path=sales.csv`` replaces the recipe's own data.
    """
    for name, field in model.model_fields.items():
        part = document.values.get(name)
        if field.discriminator is None or not isinstance(part, dict):
            continue
        key = str(field.discriminator)
        if not document.overridden((name, key)):
            continue
        for member in get_args(field.annotation):
            if part.get(key) in get_args(member.model_fields[key].annotation):
                for old in [*part]:
                    if old not in member.model_fields and not document.overridden((name, old)):
                        del part[old]


def _keep_defaults(document: Document, model: type[Recipe]) -> None:
    """A part that is given in some keys keeps what the recipe's own default says of the others.

    Without it ``glyph_base.training.steps=600`` would also undo the batch size that the recipe
    has for its base.
    """
    for name, field in model.model_fields.items():
        part = document.values.get(name)
        default = field.get_default(call_default_factory=True, validated_data={})
        if not isinstance(part, dict) or not isinstance(default, Settings):
            continue
        key = str(field.discriminator)
        if part.get(key, own := getattr(default, key, None)) == own:
            document.values[name] = _over(default.model_dump(mode="json", exclude_unset=True), part)


def _over(default: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    both = {
        name: _over(default[name], value)
        if isinstance(value, dict) and isinstance(default.get(name), dict)
        else value
        for name, value in part.items()
    }
    return default | both


def validate(document: Document, model: type[Recipe]) -> Recipe:
    """The recipe that a document describes; what is wrong is reported with its place."""
    try:
        return model.model_validate(document.values)
    except ValidationError as error:
        raise InputError(*explain_errors(error, model, document)) from None


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
            f"{suggestion(str(system), SYSTEMS) or '; there are: ' + ', '.join(SYSTEMS)}"
        )
    return recipe_class(system)
