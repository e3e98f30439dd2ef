"""Turns pydantic's errors about a recipe into messages that name the key and its line."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from geodapt.recipes.catalog import suggestion
from geodapt.recipes.document import Document, Keys

_EXPECTED = "Input should be "


@dataclass(frozen=True)
class _Location:
    """Where something is wrong: its keys, its type and the type of what holds it."""

    keys: Keys
    annotation: Any
    holder: Any

    def __str__(self) -> str:
        return ".".join(map(str, self.keys))


def explain_errors(error: ValidationError, model: type[BaseModel], document: Document) -> list[str]:
    """One line per error, with its place and what to write instead."""
    # The members of a union each complain about the same value: say it once.
    problems: dict[Keys, tuple[_Location, list[ErrorDetails]]] = {}
    for details in error.errors(include_url=False):
        location = _locate(details["loc"], model)
        problems.setdefault(location.keys, (location, []))[1].append(details)
    lines = [_message(location, found, document, model) for location, found in problems.values()]
    order = list(dict.fromkeys(document.origins.values()))
    lines.sort(key=lambda line: order.index(line[0]) if line[0] in order else -1)
    return [f"{place}: {text}" for place, text in lines]


def _message(
    location: _Location, found: list[ErrorDetails], document: Document, model: type[BaseModel]
) -> tuple[str, str]:
    """The place of one problem, and what to say about it."""
    details, keys = found[0], location.keys
    context, given = details.get("ctx", {}), details["input"]
    place = document.where(keys)
    parent = ".".join(map(str, keys[:-1]))
    inside = f" in '{parent}'" if parent else ""
    match details["type"]:
        case "extra_forbidden":
            names = [name for member in _models(location.holder) for name in member.model_fields]
            kind = _kind(location.holder)
            other = f" of {kind}" if kind else ""
            elsewhere = _others_with(str(keys[-1]), location, model) if kind else ""
            return place, (
                f"unknown key '{keys[-1]}'{inside}{other}{elsewhere}{_suggest(keys[-1], names)}"
            )
        case "missing":
            return place, f"the key '{keys[-1]}' is missing{inside}{_describe(location)}"
        case "union_tag_not_found" | "union_tag_invalid":
            key = context["discriminator"].strip("'")
            tags = _tags(location.annotation, key)
            if "tag" not in context:
                return place, f"the key '{key}' is missing in '{location}': one of {_list(tags)}"
            place = document.where((*keys, key))
            tag = context["tag"]
            return place, f"{location}.{key}: unknown value '{tag}'{_suggest(tag, tags)}"
        case "value_error" | "assertion_error":
            return place, f"{location}: {context['error']}" if keys else str(context["error"])
    if not details["msg"].startswith(_EXPECTED):  # such as a list's length
        said = details["msg"].replace(" after validation", "")
        return place, f"{location}: {said[0].lower()}{said[1:]}"
    expected = " or ".join(dict.fromkeys(_expected(each) for each in found))
    words = [word for each in found for word in _literals(each)]
    close = suggestion(given, words) if isinstance(given, str) else ""
    return place, f"{location}: expected {expected}, got {_show(given)}{close}"


def _expected(details: ErrorDetails) -> str:
    """`a valid integer`, from pydantic's `Input should be a valid integer, unable to ...`."""
    if details["type"] == "model_type":
        return "a mapping of keys"
    text = details["msg"].removeprefix(_EXPECTED)
    return text.split(", unable to")[0].split(", got a number")[0]


def _literals(details: ErrorDetails) -> list[str]:
    expected = details.get("ctx", {}).get("expected", "")
    return [part.strip(" '") for part in expected.replace(" or ", ",").split(",")]


def _show(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _list(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _suggest(name: str | int, valid: list[str]) -> str:
    return suggestion(str(name), valid) or f"; expected one of {_list(valid)}"


def _describe(location: _Location) -> str:
    """What a missing key means, in the words of its field."""
    for member in _models(location.holder):
        field = member.model_fields.get(str(location.keys[-1]))
        if field and field.description:
            return f": {' '.join(field.description.split())}"
    return ""


def _kind(holder: Any) -> str:
    """``kind csv`` for a member of a union whose members differ by their kind; else nothing."""
    field = next((member.model_fields.get("kind") for member in _models(holder)), None)
    values = get_args(field.annotation) if field else ()
    return f"kind {' or '.join(map(str, values))}" if values else ""


def _others_with(key: str, location: _Location, model: type[BaseModel]) -> str:
    """The other kinds that have a key that this one lacks."""
    union: Any = model
    for part in location.keys[:-1]:
        members = list(_members(union))
        union = _below(members[0], part) if len(members) == 1 else None
    others = [_kind(m) for m in _models(union) if key in m.model_fields and _kind(m)]
    names = [other.removeprefix("kind ") for other in others]
    return f" ({', '.join(names)} {'have' if names[1:] else 'has'} it)" if names else ""


def _tags(annotation: Any, key: str) -> list[str]:
    """The values of the key that tells a union's members apart."""
    fields = [member.model_fields[key] for member in _models(annotation)]
    return [str(value) for field in fields for value in get_args(field.annotation)]


def _locate(location: tuple[str | int, ...], model: type[BaseModel]) -> _Location:
    """The keys of pydantic's location, which names a union's member between the keys.

    Walking down the types tells such names from keys.
    """
    keys: Keys = ()
    annotation: Any = model
    holder: Any = None
    for part in location:
        members = list(_members(annotation))
        if len(members) > 1:
            annotation = next((member for member in members if _named(member, part)), None)
        else:
            keys, holder = (*keys, part), annotation
            annotation = _below(members[0], part) if members else None
    return _Location(keys, annotation, holder)


def _below(annotation: Any, part: str | int) -> Any:
    """The type of a model's field, of a list's item or of a mapping's value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = get_args(annotation)
    if not arguments:
        return None
    if get_origin(annotation) is tuple and isinstance(part, int) and part < len(arguments):
        return arguments[part] if arguments[-1] is not Ellipsis else arguments[0]
    return arguments[-1]


def _members(annotation: Any) -> Iterator[Any]:
    """The members of a union besides None; of anything else, itself."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif annotation is not type(None):
        yield annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [
        member
        for member in _members(annotation)
        if isinstance(member, type) and issubclass(member, BaseModel)
    ]


def _named(member: Any, tag: str | int) -> bool:
    """Whether pydantic means this member of a union by a tag in a location."""
    if isinstance(member, type) and issubclass(member, BaseModel):
        literals = [
            value
            for field in member.model_fields.values()
            if get_origin(field.annotation) is Literal
            for value in get_args(field.annotation)
        ]
        return tag in (*literals, member.__name__)
    return str(tag).split("[")[0] == getattr(get_origin(member) or member, "__name__", None)
