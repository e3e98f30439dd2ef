"""What the page is made of: sections, each read from the parts of a run that it needs."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """All that a run left to read."""

    results: dict[str, Any]
    metrics: list[dict[str, Any]]
    config: str
    """The text of ``config.yaml``; empty where there is none."""
    finished: str = ""
    """When the results were written, in local time; empty where that is unknown."""


@dataclass(frozen=True)
class Section:
    """One part of the page: a heading, and a template with what it shows."""

    title: str
    template: str
    context: dict[str, Any]
