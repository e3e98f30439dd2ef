"""What radial runs leave in ``results.json``, written by the run and read by its page."""

from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True)
class RetrievalStep:
    """One candidate on the way from the root to a query."""

    text: str
    radius: float
    similarity: float


class RetrievedChain(BaseModel):
    """What was found for one query, from general to specific."""

    query: str
    steps: list[RetrievalStep]


class PolarPicture(BaseModel):
    """Some chains of a model, laid out around the root in two dimensions."""

    texts: list[str]
    chains: list[list[int]]
    """Rows of ``texts``, from general to specific."""
    radii: list[float]
    angles: list[float]
    """Radians."""
    angle_error: float
    """The mean difference between a drawn angle and the true one, degrees."""
