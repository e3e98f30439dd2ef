"""Printing what may come from elsewhere: a rich console that passes no control characters on."""

from collections.abc import Iterable
from typing import Any

from rich import console
from rich.segment import Segment

from geodapt.errors import visible


class Console(console.Console):
    """rich's, whose texts and tables show control characters rather than let a terminal obey."""

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
