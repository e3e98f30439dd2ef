"""The base of every configuration: typed, documented, unknown keys rejected."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from geodapt.errors import InputError
from geodapt.files import read_json
from geodapt.paths import given
from geodapt.registration import named_object

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed that numpy, torch and Python all accept."""


def _usable(name: str) -> str:
    if not name.strip():
        raise ValueError("a name is empty; give it at least a letter")
    if len(name.encode()) > 150 or not name.isprintable():
        raise ValueError("a name must be one line of at most 150 bytes, without control characters")
    return name


Name = Annotated[str, AfterValidator(_usable)]
"""A name in a recipe that becomes part of a file's name (:func:`geodapt.paths.child`)."""


def _not_empty(path: Any) -> Any:
    if path == "":  # which pathlib takes as the current folder
        raise ValueError("a path is empty; give a file or a folder")
    return path


GivenPath = Annotated[Path, BeforeValidator(_not_empty)]
"""A file or folder of the user's, which must be there when a recipe runs."""


def repeated(values: list) -> list:
    """The values that stand more than once in a list, each once, in order."""
    return [value for value in dict.fromkeys(values) if values.count(value) > 1]


def first_error(error: ValidationError, *above: str) -> str:
    """``key: what is wrong`` of the first of pydantic's errors, ``above`` being keys above it."""
    first = error.errors(include_url=False)[0]
    return ": ".join(filter(None, (".".join(map(str, (*above, *first["loc"]))), first["msg"])))


class Settings(BaseModel):
    """A pydantic model that refuses keys it does not know and assignments of the wrong type."""

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, use_attribute_docstrings=True
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """What a JSON file holds; raises :class:`InputError` for anything else."""
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise InputError(
                f"{path}: {first_error(error)}; was it saved by another version of geodapt?"
            ) from error

    def small(self) -> Self:
        """A copy that does as little work as still goes through every part, for a smoke test."""
        parts = {name: value.small() for name, value in self if isinstance(value, Settings)}
        return self.model_copy(update={**parts, **self._smallest()})

    def require_inputs(self) -> None:
        """Raise :class:`InputError` where a package or a file that the settings need is missing.

        It is asked before torch is imported, so it looks only whether they are there: every
        :data:`GivenPath`, and what a part asks for itself. Parts that the others leave without
        effect need nothing.
        """
        idle = self._idle()
        for name, value in self:
            if name in idle:
                continue
            parts = value.values() if isinstance(value, dict) else value
            for part in parts if isinstance(value, dict | list) else (value,):
                if isinstance(part, Settings):
                    part.require_inputs()
                elif isinstance(part, Path) and not given(part).exists():
                    raise InputError(
                        f"{name} '{part}' does not exist; give a folder or file that does"
                    )

    def _idle(self) -> set[str]:
        """The fields that others leave without effect."""
        return set()

    def _smallest(self) -> dict[str, Any]:
        """The fields that make a smoke test short, with their values."""
        return {}

    def _at_most(self, **limits: int) -> dict[str, Any]:
        """Integer fields, lowered to a limit where they are unset or above it."""
        return {
            name: limit if (value := getattr(self, name)) is None else min(value, limit)
            for name, limit in limits.items()
        }


class SourceSettings(Settings):
    """Where data comes from."""

    loader: ClassVar[str]
    """``module:function`` that reads it; imported then, as it may need what is not installed."""

    def load(self) -> Any:
        """What the loader makes of the settings."""
        return named_object(self.loader)(self)
