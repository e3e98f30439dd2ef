"""The parts of ``results.json``: rows of one method each, with the figures that its task has."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

from jinja2 import UndefinedError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from geodapt.errors import InputError
from geodapt.pages.columns import Column
from geodapt.settings import first_error

T = TypeVar("T")
AGAIN = "it was edited or written by another version, so run the recipe again"


class Measured(BaseModel):
    """Something measured; which metrics there are depends on the task."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any] = Field(init=False)

    method: Annotated[str, BeforeValidator(str)]

    def figure(self, column: Column) -> float | None:
        """The value of a column, or None where this one has no such figure."""
        value = self.__pydantic_extra__.get(column.key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


class MethodRow(Measured):
    """One method of the comparison."""

    label: str = ""

    @property
    def name(self) -> str:
        """What people call the method."""
        return self.label or self.method


def parse_part(kind: type[T] | Any, results: dict[str, Any], key: str) -> T | None:
    """A part of ``results.json`` as its model, or None where the run has no such part.

    Raises :class:`InputError` naming the entry that is not as documented.
    """
    part = results.get(key)
    if not part:
        return None
    try:
        return TypeAdapter(kind).validate_python(part)
    except ValidationError as error:
        raise InputError(f"results.json: {first_error(error, key)}; {AGAIN}") from error


@contextmanager
def as_documented(what: str) -> Iterator[None]:
    """Raises :class:`InputError` where the block reads results that are not as runs write them."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, UndefinedError) as error:
        raise InputError(
            f"results.json: {what} cannot be shown ({type(error).__name__}: {error}); {AGAIN}"
        ) from error


def read_rows(results: dict[str, Any]) -> list[MethodRow]:
    """The methods of the comparison, in the run's own order; none where it compared none."""
    return parse_part(list[MethodRow], results, "rows") or []


def columns_of(rows: Sequence[Measured], columns: Iterable[Column]) -> list[Column]:
    """The columns for which some of the rows have a figure."""
    return [c for c in columns if any(row.figure(c) is not None for row in rows)]
