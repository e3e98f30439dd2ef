"""The figures of a source, and the same of a Euclidean control that has its size and spread."""

from dataclasses import dataclass

import torch
from torch import Tensor

from geodapt.geometry import curvature
from geodapt.geometry.curvature import Delta, Embedding
from geodapt.probe.sources import Source

NEIGHBOURS = 10  # of the graph whose curvature is measured, where the source is no graph itself
EXACT = 120  # points up to which every point is a base of delta
BASES = 6
EDGES = 300  # edges whose curvature is measured
DRAWN = 250  # points of the pictures
DIMENSION = 8  # of the space in which a curvature is sought
STEPS = 240


@dataclass(frozen=True)
class Shape:
    """What is measured of one metric space."""

    delta: Delta
    average_delta: float
    curvatures: Tensor
    radii: Tensor  # relative to the mean distance between points
    hyperbolic: Embedding
    euclidean: Embedding

    @property
    def gain(self) -> float:
        """Euclidean distortion over hyperbolic: above 1, curvature helps.

        A hundredth is added to both, for below that neither has anything left to gain.
        """
        return (self.euclidean.distortion + 0.01) / (self.hyperbolic.distortion + 0.01)


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
        """How far the source is from a tree, as a multiple of the control: average deltas."""
        return self.data.average_delta / max(self.control.average_delta, 1e-9)


def measure(source: Source, seed: int = 0) -> Figures:
    """Measure a source and its control.

    The control is a Gaussian cloud with as many points and, by classical scaling, the same
    variances along its axes: what the source would be if only its spread mattered. High-dimensional
    clouds look a little hyperbolic, because their distances are all alike; the comparison with
    the control takes that away.
    """
    generator = torch.Generator().manual_seed(seed)
    n = len(source.distances)
    axes = curvature.classical_scaling(source.distances, n)
    cloud = torch.randn(n, n, generator=generator, dtype=torch.float64) * axes.std(0)
    control = torch.cdist(cloud, cloud, compute_mode="donot_use_mm_for_euclid_dist")
    drawn = _spread(source, min(n, DRAWN), generator)
    return Figures(
        source,
        _shape(source.distances, source.edges, drawn, seed),
        _shape(control, None, drawn, seed),
        drawn,
        curvature.suggest_curvature(source.distances[drawn][:, drawn], 2, STEPS, seed),
    )


def _shape(distances: Tensor, edges: Tensor | None, drawn: Tensor, seed: int) -> Shape:
    generator = torch.Generator().manual_seed(seed)
    n = len(distances)
    bases = None if n <= EXACT else torch.randperm(n, generator=generator)[:BASES].tolist()
    if edges is None:
        edges = curvature.nearest_neighbours(distances, min(NEIGHBOURS, n - 1))
        lengths = distances[edges[:, 0], edges[:, 1]]
        # Coinciding points join at no cost: a zero would mean no edge, and divide by zero.
        edges, lengths = edges[lengths > 0], lengths[lengths > 0]
        paths = curvature.graph_distances(edges, lengths)
        far = paths[torch.isfinite(paths)].max()
        paths = paths.nan_to_num(posinf=float(2 * far))
    else:
        paths = distances
    chosen = torch.randperm(len(edges), generator=generator)[:EDGES]
    center, radii = curvature.radius_profile(distances)
    others = torch.arange(n) != center
    part = distances[drawn][:, drawn]
    return Shape(
        curvature.delta_hyperbolicity(distances, bases),
        curvature.average_delta(distances, seed=seed),
        curvature.ollivier_ricci(edges, paths, chosen=chosen),
        radii[others] / distances.sum() * (n * (n - 1)),
        curvature.suggest_curvature(part, DIMENSION, STEPS, seed),
        curvature.embed(part, DIMENSION, 0, STEPS, seed),
    )


def _spread(source: Source, count: int, generator: torch.Generator) -> Tensor:
    """Points to draw: of a graph the nodes nearest to its centre, so that edges stay whole."""
    if source.edges is None:
        return torch.randperm(len(source.distances), generator=generator)[:count].sort().values
    _, radii = curvature.radius_profile(source.distances)
    return radii.argsort(stable=True)[:count].sort().values
