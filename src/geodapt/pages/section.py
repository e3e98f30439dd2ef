"""What a page is made of: sections, each read from the parts of a run that it needs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType

from geodapt.pages.columns import Column


@dataclass(frozen=True)
class RunRecord:
    """Everything that a run left."""

    results: dict[str, Any]
    metrics: list[dict[str, Any]]
    config: str
    """The text of ``config.yaml``; empty where there is none."""
    finished: str = ""
    """When the results were written, in local time; empty where that is unknown."""

    def part(self, key: str) -> dict[str, Any]:
        """A part of the results; empty where the run has no such part."""
        return self.results.get(key) or {}


@dataclass(frozen=True)
class Section:
    """One part of the page: a heading, and a template with what it shows."""

    title: str
    template: str
    """``package/name.html`` for ``templates/name.html`` of a package."""
    context: dict[str, Any]


def table_section(
    title: str,
    heads: Sequence[Any],
    rows: Sequence[Sequence[object]],
    intro: str = "",
    about: str = "",
    notes: Sequence[str] = (),
) -> Section | None:
    """A section that is a table; None where it has no rows.

    A head is a column's name, or a pair of its name and unit; a row is its name and its cells.
    ``about`` says what the table shows, for who cannot see it, where the title does not; ``notes``
    are a list below it.
    """
    context = {"heads": heads, "rows": rows, "intro": intro, "notes": [*notes]}
    context["about"] = about or title
    return Section(title, "geodapt.pages/table.html", context) if rows else None


@dataclass(frozen=True)
class SystemPage:
    """What a system adds to the page and the table of its runs: ``PAGE`` of its ``report`` module.

    The page shows a table of methods first, then these sections, then the training curves.
    """

    metrics: Sequence[Column] = ()
    """Columns that a method is judged by, the most important first."""
    costs: Sequence[Column] = ()
    """Columns of what a method costs, besides parameters, time and memory."""
    sections: Sequence[Callable[[RunRecord], Section | None]] = ()
    """In the order of the page. A section gives None when the run has nothing for it."""
    tables: Callable[[dict[str, Any]], Iterable[RenderableType]] | None = None
    """What the terminal shows of a ``results.json`` before the table of methods."""
