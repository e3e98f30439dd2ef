"""Prints text from untrusted sources: a rich console that passes no control characters on."""

from collections.abc import Collection, Iterable
from typing import Any

from rich import box, console
from rich.segment import Segment
from rich.table import Table

from geodapt.errors import visible


class Console(console.Console):
    """rich's console, which shows control characters instead of sending them to the terminal."""

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def plain_table(
    *headings: str, numbers: Collection[str] = (), whole: Collection[str] = (), gap: int = 3
) -> Table:
    """A table with a line below its headings, ``gap`` blanks between columns.

    ``numbers`` stand at the right, and ``whole`` columns never wrap.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, gap - 1, 0, 0))
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in numbers else "left",
            no_wrap=heading in whole,
            overflow="fold",
        )
    return table
