"""The base of every configuration: typed, documented, unknown keys rejected."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What numpy, torch and Python all take as a seed."""


def _usable(name: str) -> str:
    if not name.strip():
        raise ValueError("a name is empty; give it at least a letter")
    if len(name.encode()) > 150 or not name.isprintable():
        raise ValueError("a name must be one line of at most 150 bytes, without control characters")
    return name


Name = Annotated[str, AfterValidator(_usable)]
"""What a recipe calls something that gets files of its own (:func:`geodapt.paths.child`)."""


def repeated(values: list) -> list:
    """The values that stand more than once in a list, each once, in order."""
    return [value for value in dict.fromkeys(values) if values.count(value) > 1]


class Settings(BaseModel):
    """A pydantic model that refuses keys it does not know and assignments of the wrong type."""

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, use_attribute_docstrings=True
    )
