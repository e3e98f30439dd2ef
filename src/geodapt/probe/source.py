"""A finite metric space that can be probed, and the checks on it."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from geodapt.errors import InputError
from geodapt.geometry.hyperbolicity import check_distances
from geodapt.probe.arrays import must_fit

Kind = Literal["vectors", "distances", "edges"]

MATRICES = 12  # of distances that measuring takes at its peak (9 were seen), and some room


@dataclass(frozen=True)
class Source:
    """A finite metric space, or the sample of one, with a label for each point."""

    name: str
    kind: Kind
    total: int  # points that there are, of which the following are the sample
    distances: Tensor  # (n, n)
    labels: list[str]
    edges: Tensor | None = None  # (m, 2) of a graph, between the points
    graph: Tensor | None = None  # (M, 2): all its edges, of the points that were left out too
    notes: list[str] = field(default_factory=list)  # what a reader must know


def sample_rows(name: str, total: int, sample: int, generator) -> tuple[np.ndarray, list[str]]:
    require_memory(name, min(total, sample))
    if total <= sample:
        return np.arange(total), []
    chosen = np.sort(generator.choice(total, sample, replace=False))
    return chosen, [f"a random sample of {sample:,} of {total:,} points"]


def require_memory(name: str, points: int) -> None:
    """Raise :class:`InputError` where the distances of so many points do not fit into memory."""
    needed = MATRICES * 8 * points**2
    must_fit(f"{name}: to measure {points:,} points", needed, "take a smaller --sample")


def check_source(source: Source) -> Source:
    check_distances(source.distances)
    if not (source.distances > 0).any():
        raise InputError(f"{source.name}: all {source.total} points coincide")
    return source
