"""The rows of ``results.json``: one method each, with the figures that its task has."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from geodapt.errors import InputError
from geodapt.report.columns import COSTS, METRICS, Column, present

T = TypeVar("T")


class Figures(BaseModel):
    """Something measured; which metrics there are depends on the task."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any] = Field(init=False)

    method: Annotated[str, BeforeValidator(str)]

    def figure(self, column: Column) -> float | None:
        """The value of a column, or None where this one has no such figure."""
        value = self.__pydantic_extra__.get(column.key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


class Row(Figures):
    """One method of the comparison."""

    label: str = ""

    @property
    def name(self) -> str:
        """What people call the method."""
        return self.label or self.method


def parse(kind: type[T] | Any, results: dict[str, Any], key: str) -> T | None:
    """A part of ``results.json`` as its model, or None where the run has no such part.

    Raises :class:`InputError` naming the entry that is not as documented.
    """
    part = results.get(key)
    if not part:
        return None
    try:
        return TypeAdapter(kind).validate_python(part)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in (key, *first["loc"]))
        raise InputError(
            f"results.json: {where}: {first['msg']}; it was edited or written by another version, "
            "so run the recipe again"
        ) from error


def read_rows(results: dict[str, Any]) -> list[Row]:
    """The methods of the comparison, in the run's own order; none where it compared none."""
    return parse(list[Row], results, "rows") or []


def columns_of(figures: list[Any]) -> tuple[list[Column], list[Column]]:
    """The metrics and the costs that some of the rows have."""

    def there(columns: tuple[Column, ...]) -> list[Column]:
        return present(
            columns,
            (c.key for c in columns if any(f.figure(c) is not None for f in figures)),
        )

    return there(METRICS), there(COSTS)
