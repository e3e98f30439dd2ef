"""The figures of a source, and the same of a Euclidean control that has its size and spread."""

from dataclasses import dataclass

import torch
from torch import Tensor

from geodapt.extras import require_transport
from geodapt.geometry.graphs import graph_distances, nearest_neighbours
from geodapt.geometry.hyperbolicity import (
    Delta,
    average_delta,
    delta_hyperbolicity,
    ollivier_ricci,
    radius_profile,
)
from geodapt.geometry.mds import Embedding, classical_scaling, embed_distances, suggest_curvature
from geodapt.probe.graphs import connected_sample
from geodapt.probe.source import Source

NEIGHBOURS = 10  # of the graph whose curvature is measured, where the source is no graph itself
EXACT = 120  # points up to which every point is a base of delta
BASES = 4  # of delta, else
EDGES = 300  # edges whose curvature is measured
DRAWN = 200  # points that are embedded, and points of the picture
NEARLY_A_TREE = 1.2  # edges per node
DIMENSION = 8  # of the space in which a curvature is sought
MOST_AXES = 10  # of the control, times its points
STEPS = 200
REACH = 32.0  # largest diameter, in radii of curvature, at which a curvature is sought
VISIBLE = 10.0  # the same of the picture: beyond, all lies on the rim


@dataclass(frozen=True)
class Shape:
    """What is measured of one metric space."""

    delta: Delta
    average_delta: float
    curvatures: Tensor
    radii: Tensor  # relative to the mean distance between points
    hyperbolic: Embedding  # in DIMENSION dimensions
    euclidean: Embedding
    disk: Embedding  # in two
    plane: Embedding
    span: float  # diameter of the embedded points

    @property
    def gain(self) -> float:
        """Euclidean distortion over hyperbolic: above 1, curvature helps.

        A hundredth is added to both: below that, neither has anything left to gain.
        """
        return (self.euclidean.distortion + 0.01) / (self.hyperbolic.distortion + 0.01)

    @property
    def endless(self) -> bool:
        """Whether the largest curvature tried fits best, as it does a tree."""
        return self.hyperbolic.c**0.5 * self.span > 0.99 * REACH


@dataclass(frozen=True)
class Figures:
    """The source's shape, its control's, and which points were drawn."""

    source: Source
    data: Shape
    control: Shape
    drawn: Tensor  # indices into the source's points
    picture: Embedding  # of these, in the hyperbolic plane

    @property
    def departure(self) -> float:
        """How far the source is from a tree, by average deltas, as a multiple of the control's."""
        return self.data.average_delta / max(self.control.average_delta, 1e-9)


def measure(source: Source, seed: int = 0) -> Figures:
    """Measure a source and its control.

    The control is a Gaussian cloud with as many points and the same spread: what the source would
    be if only that mattered. High-dimensional clouds look a little hyperbolic, because their
    distances are all alike; the comparison with the control takes that away.
    """
    require_transport()
    generator = torch.Generator().manual_seed(seed)
    n = len(source.distances)
    control = control_cloud(source.distances, generator)
    drawn = _drawn(source, min(n, DRAWN), generator)
    return Figures(
        source,
        _shape(source.distances, source.graph, seed),
        _shape(control, None, seed),
        drawn,
        suggest_curvature(source.distances[drawn][:, drawn], 2, STEPS, seed, VISIBLE),
    )


def control_cloud(distances: Tensor, generator: torch.Generator) -> Tensor:
    """Distances of a Gaussian cloud that spreads as the points do, by classical scaling.

    The variances along a sample's own axes are more unequal than those it was drawn from: white
    noise in as many dimensions as there are points would seem to have half as many. The unbiased
    estimate of their sum of squares is ``sum v^2 - (sum v)^2 / (n - 1)``; the variances are shrunk
    towards equal ones (Ledoit & Wolf 2004) until they have it, over more axes where it takes more.
    """
    n = len(distances)
    variances = classical_scaling(distances, n).square().mean(0)
    variances = variances[variances > 1e-12 * variances[0]]
    total, squares = variances.sum(), variances.square().sum()
    wanted = (squares - total**2 / (n - 1)).clamp_min(total**2 / (MOST_AXES * n))
    axes = max(len(variances), int(total**2 / wanted))
    equal = total / axes
    kept = ((wanted - total * equal).clamp_min(0) / (squares - total * equal)).nan_to_num(1).sqrt()
    variances = torch.nn.functional.pad(variances, (0, axes - len(variances)))
    spread = (kept * variances + (1 - kept) * equal).sqrt()
    cloud = torch.randn(n, axes, generator=generator, dtype=torch.float64) * spread
    control = torch.cdist(cloud, cloud)
    return ((control + control.T) / 2).fill_diagonal_(0)  # the fast form rounds


def _shape(distances: Tensor, graph: Tensor | None, seed: int) -> Shape:
    generator = torch.Generator().manual_seed(seed)
    n = len(distances)
    bases = None if n <= EXACT else torch.randperm(n, generator=generator)[:BASES].tolist()
    paths = None
    if graph is None:
        # Points that coincide count once: they would be each other's only neighbours, at no length.
        first = (distances == 0).int().argmax(1)
        distinct = (first == torch.arange(n)).nonzero().flatten()
        between = distances[distinct][:, distinct]
        graph = nearest_neighbours(between, min(NEIGHBOURS, len(distinct) - 1))
        paths = graph_distances(graph, between[graph[:, 0], graph[:, 1]])
    measured = _inner(graph) if paths is None else torch.arange(len(graph))
    chosen = measured[torch.randperm(len(measured), generator=generator)[:EDGES]]
    center, radii = radius_profile(distances)
    others = torch.arange(n) != center
    some = torch.randperm(n, generator=generator)[:DRAWN]
    part = distances[some][:, some]
    return Shape(
        delta_hyperbolicity(distances.float(), bases),
        average_delta(distances, seed=seed),
        ollivier_ricci(graph, paths, chosen=chosen),
        radii[others] / distances.sum() * (n * (n - 1)),
        suggest_curvature(part, DIMENSION, STEPS, seed, REACH),
        embed_distances(part, DIMENSION, 0, STEPS, seed),
        suggest_curvature(part, 2, STEPS, seed, REACH),
        embed_distances(part, 2, 0, STEPS, seed),
        part.max().item(),
    )


def _inner(graph: Tensor) -> Tensor:
    """The edges that do not end at a leaf: to a leaf curvature is never negative, branch or not."""
    degrees = torch.bincount(graph.flatten())
    inner = (degrees[graph] > 1).all(1).nonzero().flatten()
    return inner if len(inner) else torch.arange(len(graph))


def _drawn(source: Source, count: int, generator: torch.Generator) -> Tensor:
    """Points to draw: at random, but for a graph so that the nodes that join them are drawn too.

    For a graph that is nearly a tree, random nodes with their paths from the centre. Paths alone
    would make any graph look like a tree, so for other graphs the nodes around the centre.
    """
    n = len(source.distances)
    shuffled = torch.randperm(n, generator=generator)
    if source.edges is None or n <= count:
        return shuffled[:count].sort().values
    center, radii = radius_profile(source.distances)
    if len(source.edges) < NEARLY_A_TREE * n:
        return connected_sample(source.edges, n, center, count, shuffled.numpy())
    return radii.argsort(stable=True)[:count].sort().values
