"""Section: for each query, the concepts from general to specific."""

from pydantic import BaseModel, ConfigDict

from geodapt.report.rows import parse
from geodapt.report.section import Run, Section


class Step(BaseModel):
    """A concept on the way out from the root."""

    text: str
    radius: float
    similarity: float


class Retrieved(BaseModel):
    """What was found for one query."""

    model_config = ConfigDict(extra="ignore")

    query: str
    steps: list[Step]


def read_chains(results: dict) -> list[Retrieved]:
    """The retrieved chains of a ``results.json``; none where it retrieved none."""
    return parse(list[Retrieved], results, "chains") or []


def section(run: Run) -> Section | None:
    """The retrieved chains, where the run has any."""
    chains = read_chains(run.results)
    if not chains:
        return None
    return Section("From general to specific", "chains.html", {"chains": chains})
