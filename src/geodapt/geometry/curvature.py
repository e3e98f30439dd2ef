"""How hyperbolic is a finite metric space? Four measurements, all on a matrix of distances.

- :func:`delta_hyperbolicity`, :func:`average_delta`: Gromov's four-point delta, 0 for a tree.
- :func:`ollivier_ricci`: curvature of a graph's edges, negative where neighbourhoods move apart.
- :func:`radius_profile`: how far the points lie from their centre.
- :func:`embed` and :func:`suggest_curvature`: points of a hyperbolic (or Euclidean) space that keep
  the distances, and the curvature under which they keep them best.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from geodapt.errors import InputError
from geodapt.geometry import lorentz
from geodapt.progress import bar

ROWS = 64  # rows of one block of the (max, min) product: a block stays in the cache


@dataclass(frozen=True)
class Delta:
    """Gromov's delta. ``delta <= true delta <= upper``; equal where every point was a base."""

    delta: float
    upper: float
    diameter: float

    @property
    def relative(self) -> float:
        """``2 delta / diameter``: 0 for a tree, at most 1."""
        return 2 * self.delta / self.diameter

    @property
    def exact(self) -> bool:
        return self.delta == self.upper


@dataclass(frozen=True)
class Embedding:
    """Points that keep given distances.

    ``points (n, dim)`` are space components on the hyperboloid of curvature ``-c``, or Euclidean
    where ``c`` is 0. ``distortion`` is the mean of ``|d / D - 1|`` over all pairs.
    """

    points: Tensor
    c: float
    distortion: float


def delta_hyperbolicity(
    distances: Float[Tensor, "n n"], bases: Sequence[int] | None = None
) -> Delta:
    """Gromov's four-point delta of a metric.

    ``(x|y)_w = (d(x,w) + d(y,w) - d(x,y)) / 2`` and ``delta_w = max over x, y, z of
    min((x|z)_w, (z|y)_w) - (x|y)_w``, a (max, min) matrix product (Fournier, Ismail & Vigneron
    2015); delta is the largest ``delta_w``. One base takes ``n^3`` steps in blocks of rows, so
    thousands of points are no problem; all bases take ``n^4``. Whatever the base,
    ``delta_w <= delta <= 2 delta_w``, which bounds delta when only some bases are given.
    """
    check_distances(distances)
    d = distances.double()
    diameter = d.max().item()
    everything = bases is None
    bases = range(len(d)) if bases is None else bases
    lower, upper = 0.0, float("inf")
    with bar("Gromov's delta", total=len(bases)) as progress:
        for w in bases:
            products = (d[:, w, None] + d[w] - d) / 2
            at_base = max(
                _excess(products[start : start + ROWS], products)
                for start in range(0, len(d), ROWS)
            )
            lower, upper = max(lower, at_base), min(upper, 2 * at_base)
            progress.advance()
    return Delta(lower, lower if everything else max(upper, lower), diameter)


def average_delta(
    distances: Float[Tensor, "n n"], quadruples: int = 100_000, seed: int = 0
) -> float:
    """Mean of the four-point delta over random quadruples, relative to the mean distance.

    Of the three sums of opposite distances among four points, half the difference of the two
    largest. Unlike the maximum it does not hang on the worst four points. 0 for a tree.
    """
    check_distances(distances)
    d, n = distances.double(), len(distances)
    generator = torch.Generator().manual_seed(seed)
    i, j, k, m = torch.randint(n, (4, quadruples), generator=generator)
    sums = torch.stack([d[i, j] + d[k, m], d[i, k] + d[j, m], d[i, m] + d[j, k]])
    largest = sums.sort(0, descending=True).values
    return ((largest[0] - largest[1]).mean() / 2 / d.sum() * (n * (n - 1))).item()


def _excess(rows: Tensor, products: Tensor) -> float:
    """Largest ``max_z min(rows[x, z], products[z, y]) - rows[x, y]`` of a block of rows."""
    best, lesser = torch.zeros_like(rows), torch.empty_like(rows)
    for z in range(len(products)):
        torch.minimum(rows[:, z, None], products[z], out=lesser)
        torch.maximum(best, lesser, out=best)
    return (best - rows).max().item()


def nearest_neighbours(distances: Float[Tensor, "n n"], k: int) -> Int[Tensor, "edges 2"]:
    """Edges ``i < j`` of the graph that joins each point to its ``k`` nearest others."""
    n = len(distances)
    if not 0 < k < n:
        raise InputError(f"k is {k}; expected 1 to {n - 1} neighbours among {n} points")
    near = distances.clone().fill_diagonal_(torch.inf).topk(k, largest=False).indices
    edges = torch.stack([torch.arange(n).repeat_interleave(k), near.flatten()], dim=1)
    return edges.sort(dim=1).values.unique(dim=0)


def graph_distances(
    edges: Int[Tensor, "edges 2"], lengths: Float[Tensor, "edges"] | None = None
) -> Float[Tensor, "n n"]:
    """Lengths of the shortest paths between all nodes; infinite between separate parts."""
    i, j = edges.T.numpy()
    weights = np.ones(len(i)) if lengths is None else lengths.double().numpy()
    n = int(edges.max()) + 1
    graph = csr_array((weights, (i, j)), shape=(n, n))
    return torch.from_numpy(shortest_path(graph, directed=False, unweighted=lengths is None))


def ollivier_ricci(
    edges: Int[Tensor, "edges 2"],
    distances: Float[Tensor, "n n"] | None = None,
    idleness: float = 0.5,
    chosen: Int[Tensor, "chosen"] | None = None,
) -> Float[Tensor, "chosen"]:
    """Ollivier-Ricci curvature ``1 - W(m_u, m_v) / d(u, v)`` of a graph's edges.

    ``m_u`` keeps the share ``idleness`` at u and spreads the rest evenly over its neighbours; W is
    the exact optimal transport cost, from POT (Ollivier 2009; Lin, Lu & Yau 2011). Positive where
    neighbourhoods overlap, 0 on a grid, negative where they move apart, as in a tree.
    ``distances`` are those of the shortest paths (by default of unit edges), ``chosen`` picks
    edges by index.
    """
    try:
        import ot
    except ImportError as error:
        raise InputError(
            "Ollivier-Ricci curvature needs optimal transport: pip install 'geodapt[probe]'"
        ) from error
    d = (graph_distances(edges) if distances is None else distances).double().numpy()
    both = torch.cat([edges, edges.flip(1)])
    both = both[both[:, 0].argsort(stable=True)]
    neighbours = both[:, 1].split(torch.bincount(both[:, 0], minlength=len(d)).tolist())
    picked = edges if chosen is None else edges[chosen]
    curvatures = []
    with bar("Ollivier-Ricci curvature", total=len(picked)) as progress:
        for u, v in picked.tolist():
            around_u, around_v = (np.concatenate([[p], neighbours[p].numpy()]) for p in (u, v))
            cost = ot.emd2(
                _lazy_walk(len(around_u), idleness),
                _lazy_walk(len(around_v), idleness),
                np.ascontiguousarray(d[np.ix_(around_u, around_v)]),
            )
            curvatures.append(1 - float(cost) / d[u, v])
            progress.advance()
    return torch.tensor(curvatures, dtype=torch.float64)


def _lazy_walk(size: int, idleness: float) -> np.ndarray:
    measure = np.full(size, (1 - idleness) / (size - 1))
    measure[0] = idleness
    return measure


def radius_profile(distances: Float[Tensor, "n n"]) -> tuple[int, Float[Tensor, "n"]]:
    """The medoid (least sum of squared distances) and every point's distance from it.

    In a space that branches, most points lie near the largest radius.
    """
    check_distances(distances)
    center = int(distances.double().square().sum(1).argmin())
    return center, distances[center]


def embed(
    distances: Float[Tensor, "n n"],
    dim: int = 2,
    c: float = 1.0,
    steps: int = 400,
    seed: int = 0,
) -> Embedding:
    """Points of a ``dim``-dimensional space whose distances are the given ones, as near as can be.

    Metric multidimensional scaling: minimises the mean of ``(d / D - 1)^2`` over all pairs, by Adam
    on the points' tangent vectors at the origin, from the classical solution (Torgerson). ``c=0``
    is Euclidean; :func:`suggest_curvature` looks for the ``c`` that fits best.
    """
    check_distances(distances)
    n = len(distances)
    i, j = torch.triu_indices(n, n, 1)
    goal = distances[i, j].double()
    kept = goal > 0  # points that coincide have no relative error
    if not kept.any():
        raise InputError("all points coincide: there is no distance to keep")
    i, j, goal = i[kept], j[kept], goal[kept]
    unit = goal.mean()
    generator = torch.Generator().manual_seed(seed)
    start = classical_scaling(distances.double() / unit, dim)
    start = start + 1e-3 * torch.randn(start.shape, generator=generator, dtype=torch.float64)
    scale = (c**0.5 * unit).item() if c else 1.0  # in the space of curvature -1, or the flat one
    tangent = (start * scale).float().requires_grad_()
    goal = (goal / unit * scale).float()
    optimizer = torch.optim.Adam([tangent])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)

    def ratios() -> Tensor:
        if not c:
            return (tangent[i] - tangent[j]).norm(dim=-1) / goal
        points = lorentz.exp0(tangent)
        return lorentz.distance(points[i], points[j]) / goal

    with bar("embedding", total=steps) as progress:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (ratios() - 1).square().mean()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.advance()
    with torch.no_grad():
        distortion = (ratios() - 1).abs().mean().item()
        points = lorentz.exp0(tangent) if c else tangent.detach()
        return Embedding(points * (unit / scale), c, distortion)


def suggest_curvature(
    distances: Float[Tensor, "n n"], dim: int = 8, steps: int = 400, seed: int = 0
) -> Embedding:
    """The hyperbolic embedding under the curvature that keeps the distances best.

    Tries curvatures by factors of 4, then of 2 about the best, with a quarter of the steps each.
    ``c`` is in the data's units (1 / distance^2). Compare the distortion with that of
    ``embed(distances, dim, c=0)``: where that is no larger, curvature buys nothing.
    """
    check_distances(distances)
    mean = distances.double().sum().item() / (len(distances) * (len(distances) - 1))
    if not mean:
        raise InputError("all points coincide: there is no distance to keep")
    tried: dict[float, float] = {}
    for refine in (False, True):
        best = min(tried, key=tried.__getitem__) if refine else 16.0
        for relative in (best / 2, best * 2) if refine else (1.0, 4.0, 16.0, 64.0, 256.0):
            found = embed(distances, dim, relative / mean**2, max(1, steps // 4), seed)
            tried[relative] = found.distortion
    best = min(tried, key=tried.__getitem__)
    return embed(distances, dim, best / mean**2, steps, seed)


def classical_scaling(distances: Float[Tensor, "n n"], dim: int) -> Float[Tensor, "n dim"]:
    """Euclidean points by Torgerson's classical scaling, axes by falling variance.

    Points beyond the rank of the data get zeros.
    """
    square = distances.double().square()
    gram = -(square - square.mean(0) - square.mean(1, keepdim=True) + square.mean()) / 2
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0)[:dim], vectors.flip(1)[:, :dim]
    points = vectors * values.clamp_min(0).sqrt()  # negative ones are what is not Euclidean
    return torch.nn.functional.pad(points, (0, dim - points.shape[1]))


def check_distances(distances: Tensor) -> None:
    """Raise :class:`InputError` unless this is a finite metric's matrix of at least two points."""
    shape = tuple(distances.shape)
    if distances.dim() != 2 or shape[0] != shape[1]:
        raise InputError(f"a distance matrix is square; this has the shape {shape}")
    if shape[0] < 2:
        raise InputError(f"{shape[0]} points have no geometry; at least two are needed")
    if not torch.isfinite(distances).all():
        i, j = (~torch.isfinite(distances)).nonzero()[0].tolist()
        raise InputError(f"distance [{i}, {j}] is {distances[i, j].item()}; expected a number")
    if (distances < 0).any():
        i, j = (distances < 0).nonzero()[0].tolist()
        raise InputError(f"distance [{i}, {j}] is {distances[i, j].item()}; expected 0 or more")
    tolerance = 1e-5 * distances.abs().max().item()
    gap = (distances - distances.T).abs()
    if gap.max() > tolerance:
        i, j = divmod(int(gap.argmax()), shape[0])
        raise InputError(
            f"distances are not symmetric: [{i}, {j}] is {distances[i, j].item():g} and "
            f"[{j}, {i}] is {distances[j, i].item():g}"
        )
    if distances.diagonal().abs().max() > tolerance:
        i = int(distances.diagonal().abs().argmax())
        raise InputError(f"distance [{i}, {i}] is {distances[i, i].item():g}; expected 0")
