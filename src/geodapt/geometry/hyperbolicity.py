"""How hyperbolic is a finite metric space? Three measurements, all on a matrix of distances.

- :func:`delta_hyperbolicity`, :func:`average_delta`: Gromov's four-point delta, 0 for a tree.
- :func:`ollivier_ricci`: curvature of a graph's edges, negative where neighbourhoods move apart.
- :func:`radius_profile`: how far the points lie from their centre.

The fourth is which curvature keeps the distances best: :mod:`geodapt.geometry.mds`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from geodapt.checks import check_count
from geodapt.errors import InputError
from geodapt.extras import missing
from geodapt.geometry.graphs import distances_beside_edges
from geodapt.progress import bar

ROWS = 64  # rows of one block of the (max, min) product: a block stays in the cache
LARGEST = 1000  # points from and to which mass is transported exactly


@dataclass(frozen=True)
class Delta:
    """Gromov's delta. ``delta <= true delta <= upper``; equal where every point was a base."""

    delta: float
    upper: float
    diameter: float

    @property
    def relative(self) -> float:
        """``2 delta / diameter``: 0 for a tree, at most 1; NaN where all points coincide."""
        return 2 * self.delta / self.diameter if self.diameter else float("nan")

    @property
    def exact(self) -> bool:
        return self.delta == self.upper


def delta_hyperbolicity(
    distances: Float[Tensor, "n n"], bases: Sequence[int] | None = None
) -> Delta:
    """Gromov's four-point delta of a metric.

    ``(x|y)_w = (d(x,w) + d(y,w) - d(x,y)) / 2`` and ``delta_w = max over x, y, z of
    min((x|z)_w, (z|y)_w) - (x|y)_w``, a (max, min) matrix product (Fournier, Ismail & Vigneron
    2015); delta is the largest ``delta_w``. One base takes ``n^3`` steps in blocks of rows, so
    thousands of points are no problem; all bases take ``n^4``. Whatever the base,
    ``delta_w <= delta <= 2 delta_w``, which bounds delta when only some bases are given. The
    arithmetic is the distances' own: float32 takes half the time of float64.
    """
    check_distances(distances)
    d = distances if distances.is_floating_point() else distances.double()
    diameter = d.max().item()
    everything = bases is None
    bases = range(len(d)) if bases is None else bases
    if not len(bases) or not all(0 <= w < len(d) for w in bases):
        raise InputError(f"bases are {list(bases)[:5]}; expected one or more of 0 to {len(d) - 1}")
    lower, upper = 0.0, float("inf")
    with bar("Gromov's delta", total=len(bases)) as progress:
        for w in bases:
            products = (d[:, w, None] + d[w] - d) / 2
            at_base = max(_excess(products, start) for start in range(0, len(d), ROWS))
            lower, upper = max(lower, at_base), min(upper, 2 * at_base)
            progress.advance()
    return Delta(lower, lower if everything else max(upper, lower), diameter)


def average_delta(
    distances: Float[Tensor, "n n"], quadruples: int = 100_000, seed: int = 0
) -> float:
    """Mean of the four-point delta over random quadruples, relative to the mean distance.

    Of the three sums of opposite distances among four points, half the difference of the two
    largest. Unlike the maximum it does not depend on the worst four points alone. 0 for a tree.
    """
    check_distances(distances)
    check_count("quadruples", quadruples)
    d, n = distances.double(), len(distances)
    generator = torch.Generator().manual_seed(seed)
    i, j, k, m = torch.randint(n, (4, quadruples), generator=generator)
    sums = torch.stack([d[i, j] + d[k, m], d[i, k] + d[j, m], d[i, m] + d[j, k]])
    largest = sums.sort(0, descending=True).values
    return ((largest[0] - largest[1]).mean() / 2 / d.sum() * (n * (n - 1))).item()


def _excess(products: Tensor, start: int) -> float:
    """Largest ``max_z min((x|z), (z|y)) - (x|y)`` of a block of rows x and the y from there on.

    The other y are those of another block with x and y exchanged.
    """
    rows = products[start : start + ROWS]
    best = torch.zeros_like(rows[:, start:])
    lesser = torch.empty_like(best)
    for z, columns in enumerate(products[:, start:]):
        torch.minimum(rows[:, z, None], columns, out=lesser)
        torch.maximum(best, lesser, out=best)
    return (best - rows[:, start:]).max().item()


def ollivier_ricci(
    edges: Int[Tensor, "edges 2"],
    distances: Float[Tensor, "n n"] | None = None,
    idleness: float = 0.5,
    chosen: Int[Tensor, " chosen"] | None = None,
) -> Float[Tensor, " chosen"]:
    """Ollivier-Ricci curvature ``1 - W(m_u, m_v) / d(u, v)`` of a graph's edges.

    ``m_u`` keeps the share ``idleness`` at u and spreads the rest evenly over its neighbours; W is
    the exact optimal transport cost, from POT (Ollivier 2009; Lin, Lu & Yau 2011). Positive where
    neighbourhoods overlap, 0 on a grid, negative where they move apart, as in a tree.
    ``distances`` are those of the shortest paths (by default of unit edges), ``chosen`` picks
    edges by index. Where mass lies at over 1,000 points, as about a hub, 1,000 random draws from it
    stand for all.
    """
    try:
        import ot
    except ImportError as error:
        raise missing("Ollivier-Ricci curvature needs optimal transport", "probe") from error
    if not 0 <= idleness < 1:
        raise InputError(f"idleness is {idleness}; expected a share of 0 or more, below 1")
    n = int(edges.max()) + 1
    both = np.concatenate([edges.numpy(), edges.flip(1).numpy()])
    graph = csr_array((np.ones(len(both), dtype=np.int32), both.T), shape=(n, n))
    between = distances_beside_edges(graph) if distances is None else _given_distances(distances)
    generator = np.random.default_rng(0)
    curvatures = []
    picked = edges if chosen is None else edges[chosen]
    with bar("Ollivier-Ricci curvature", total=len(picked)) as progress:
        for u, v in picked.tolist():
            gain, loss = _moved(graph, u, v, idleness)
            parts = [_thinned(*part, generator) for part in (gain, loss)]
            (sources, supply), (targets, demand) = parts
            cost = 0.0
            if len(supply):  # else the two walks are the same
                mass = gain[1].sum()
                between_them = between(sources, targets)
                moved = ot.emd2(
                    supply / supply.sum(), demand / demand.sum(), between_them, numItermax=10**7
                )
                cost = mass * float(moved)
            curvatures.append(1 - cost / between(np.array([u]), np.array([v])).item())
            progress.advance()
    return torch.tensor(curvatures, dtype=torch.float64)


Measure = tuple[np.ndarray, np.ndarray]  # points, and the mass at each


def _moved(graph: csr_array, u: int, v: int, idleness: float) -> tuple[Measure, Measure]:
    """What the lazy walk from u has more than that from v, and the other way round.

    Under a metric the mass that both have at a point stays there at no cost.
    """
    around = [graph.indices[graph.indptr[p] : graph.indptr[p + 1]] for p in (u, v)]
    points, place = np.unique(np.concatenate([[u], around[0], [v], around[1]]), return_inverse=True)
    mass = [
        np.concatenate([[idleness], np.full(len(near), (1 - idleness) / len(near))])
        for near in around
    ]
    surplus = np.zeros(len(points))
    np.add.at(surplus, place, np.concatenate([mass[0], -mass[1]]))
    more, less = surplus > 1e-12, surplus < -1e-12
    return (points[more], surplus[more]), (points[less], -surplus[less])


def _thinned(points: np.ndarray, mass: np.ndarray, generator: np.random.Generator) -> Measure:
    """The measure, or where it has too many points the empirical one of as many draws."""
    if len(points) <= LARGEST:
        return points, mass
    drawn = generator.multinomial(LARGEST, mass / mass.sum())
    return points[drawn > 0], drawn[drawn > 0].astype(np.float64)


def _given_distances(distances: Tensor) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    d = distances.double().numpy()
    return lambda sources, targets: d[np.ix_(sources, targets)]


def radius_profile(distances: Float[Tensor, "n n"]) -> tuple[int, Float[Tensor, " n"]]:
    """The medoid (least sum of squared distances) and every point's distance from it.

    In a space that branches, most points lie near the largest radius.
    """
    check_distances(distances)
    center = int(distances.double().square().sum(1).argmin())
    return center, distances[center]


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
