"""Multidimensional scaling: points whose distances are as close as possible to given ones.

:func:`embed_distances` minimises the :func:`stress`, which has many local minima, from the closed
forms of three nearby problems: :func:`classical_scaling` (exact for Euclidean distances),
:func:`hydra` (exact for hyperbolic ones) and :func:`fan` (nearly so for those of a tree).
:func:`suggest_curvature` looks for the curvature under which the points keep the distances best.
Until they are embedded, hyperbolic points are tangent vectors at the origin of the space of
curvature -1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import Bounds, minimize
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.spatial.distance import cdist
from torch import Tensor

from geodapt.checks import check_count
from geodapt.errors import InputError
from geodapt.geometry import lorentz
from geodapt.geometry.hyperbolicity import check_distances
from geodapt.progress import bar

FARTHEST = 64.0  # what two embedded points may lie apart, in radii of curvature


@dataclass(frozen=True)
class Embedding:
    """Points that keep given distances.

    ``points (n, dim)`` are space components on the hyperboloid of curvature ``-c``, or Euclidean
    where ``c`` is 0. ``distortion`` is the mean of ``|d / D - 1|`` over all pairs.
    """

    points: Tensor
    c: float
    distortion: float


def embed_distances(
    distances: Float[Tensor, "n n"],
    dim: int = 2,
    c: float = 1.0,
    steps: int = 200,
    seed: int = 0,
) -> Embedding:
    """Points of a ``dim``-dimensional space whose distances are as close as possible to given ones.

    Metric multidimensional scaling: minimises the mean of ``(d / D - 1)^2`` over all pairs with
    L-BFGS, at most ``steps`` steps from each of several starts.
    ``c=0`` is Euclidean; :func:`suggest_curvature` looks for the ``c`` that fits best.
    """
    check_distances(distances)
    with bar("embedding", total=steps * (3 if c else 1)) as progress:
        return _embed(distances, dim, c, steps, seed, progress.advance)


def suggest_curvature(
    distances: Float[Tensor, "n n"],
    dim: int = 8,
    steps: int = 200,
    seed: int = 0,
    reach: float = 32.0,
) -> Embedding:
    """The hyperbolic embedding under the curvature that keeps the distances best.

    Tries curvatures by factors of 4, then of 2 about the best, with a quarter of the steps each.
    ``c`` is in the data's units (1 / distance^2). Compare the distortion with that of
    ``embed_distances(distances, dim, c=0)``: where that is no larger, curvature buys nothing.

    A tree fits the better the larger ``c`` is, without end, so the search has one: ``reach`` is
    the largest ``sqrt(c) * diameter``. Much beyond 32, float64 no longer separates neighbours at
    the rim; in a picture of the disk, neighbours stay visibly separate up to about 10.
    """
    check_distances(distances)
    if not 0 < reach < float("inf"):
        raise InputError(f"reach is {reach}; expected a positive number of radii of curvature")
    most = (reach / distances.max().item()) ** 2 if distances.any() else 1.0
    tried: dict[float, float] = {}
    with bar("looking for the curvature") as progress:
        for refine in (False, True):
            best = min(tried, key=tried.__getitem__) if refine else 0.0
            for c in (best / 2, best * 2) if refine else (most / 4**k for k in range(5)):
                if c <= most:
                    found = _embed(distances, dim, c, max(1, steps // 4), seed, progress.advance)
                    tried[c] = found.distortion
        best = min(tried, key=tried.__getitem__)
        return _embed(distances, dim, best, steps, seed, progress.advance)


def _embed(
    distances: Tensor, dim: int, c: float, steps: int, seed: int, each_step: Callable[[], None]
) -> Embedding:
    if not 0 <= c < float("inf"):
        raise InputError(f"c is {c}; expected a number of 0 or more (the curvature is -c)")
    check_count("dim", dim)
    check_count("steps", steps)
    if not distances.any():
        raise InputError("all points coincide: there is no distance to keep")
    n = len(distances)
    goal = distances.double()
    unit = 1 / c**0.5 if c else goal.sum().item() / (n * (n - 1))
    goal = goal / unit  # in the space of curvature -1, or of the order of 1
    if c and goal.max() > FARTHEST:
        raise InputError(
            f"c is {c:g}, by which the points lie up to {goal.max().item():.3g} apart in the space "
            f"of curvature -1; float64 holds no more than {FARTHEST}: expected at most "
            f"{c * (FARTHEST / goal.max().item()) ** 2:.3g}"
        )
    generator = torch.Generator().manual_seed(seed)
    # Coinciding points and empty axes would never leave each other: a gradient there is zero.
    noise = 1e-4 * goal.max() * torch.randn(n, dim, generator=generator, dtype=torch.float64)
    starts = [classical_scaling(goal, dim)]
    if c and dim > 1:
        starts += [hydra(goal, dim), fan(goal, dim)]
    results = [least_stress(start + noise, goal, bool(c), steps, each_step) for start in starts]
    _, points = min(results, key=lambda result: result[0])
    if c:
        points = lorentz.exp0(points)
        reached = lorentz.pairwise_distance(points, points)
    else:
        reached = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    kept = goal > 0  # points that coincide have no relative error
    distortion = (reached[kept] / goal[kept] - 1).abs().mean().item()
    return Embedding(points * unit, c, distortion)


def classical_scaling(distances: Float[Tensor, "n n"], dim: int) -> Float[Tensor, "n dim"]:
    """Euclidean points by Torgerson's classical scaling, axes by falling variance.

    Points beyond the rank of the data get zeros.
    """
    _check(distances, dim)
    square = distances.double().square()
    gram = -(square - square.mean(0) - square.mean(1, keepdim=True) + square.mean()) / 2
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0)[:dim], vectors.flip(1)[:, :dim]
    points = vectors * values.clamp_min(0).sqrt()  # negative ones are what is not Euclidean
    return _widened(points, dim)


def hydra(distances: Float[Tensor, "n n"], dim: int) -> Float[Tensor, "n dim"]:
    """Hyperbolic points by the scaling of ``cosh D``, which for them is ``t t' - x x'``.

    Its negative eigenvalues belong to the space components (Keller-Ressel & Nargang 2020, "Hydra").
    """
    _check(distances, dim)
    values, vectors = torch.linalg.eigh(torch.cosh(distances.double()))
    points = vectors[:, :dim] * (-values[:dim]).clamp_min(0).sqrt()
    return _widened(lorentz.log0(points), dim)


def fan(distances: Float[Tensor, "n n"], dim: int) -> Float[Tensor, "n dim"]:
    """The minimum spanning tree spread about the medoid, each subtree over its share of the angle.

    Radii are the distances from the medoid. In the hyperbolic plane, whose circles grow
    exponentially, this is nearly the solution for a tree.
    """
    _check(distances, dim)
    d = distances.double().numpy()
    root = int(np.square(d).sum(1).argmin())
    # A zero would mean no edge, and points may coincide.
    tree = minimum_spanning_tree(d + 1e-12 * d.max())
    order, parents = breadth_first_order(tree, root, directed=False)
    nodes = np.ones(len(d))  # of the subtree below each point, itself included
    for child in order[:0:-1]:
        nodes[parents[child]] += nodes[child]
    width, begin, free = np.zeros((3, len(d)))  # of each point's share of the angle
    width[root] = 2 * np.pi
    for child in order[1:]:
        parent = parents[child]
        width[child] = width[parent] * nodes[child] / (nodes[parent] - 1)
        begin[child] = free[child] = free[parent]
        free[parent] += width[child]
    angle = torch.from_numpy(begin + width / 2)
    radius = distances[root].double().unsqueeze(-1)
    return _widened(radius * torch.stack([angle.cos(), angle.sin()], dim=-1), dim)


def stress(points: np.ndarray, inverse: np.ndarray, curved: bool) -> tuple[float, np.ndarray]:
    """Mean of ``(d / D - 1)^2`` over all pairs, and its gradient by the points.

    ``points (n, dim)`` lie in Euclidean space or, ``curved``, are tangent vectors at the origin
    of the space of curvature -1; ``inverse (n, n)`` holds 1 / D, or 0 for pairs that do not count.
    In polar coordinates

        cosh d - 1 = 2 sinh^2((r - r') / 2) + sinh r sinh r' (1 - cos angle),

    a sum of two positive terms, which keeps the digits of points that lie far out and close
    together.
    """
    kept = inverse > 0
    if not curved:
        d = cdist(points, points)
        error = d * inverse - kept
        slope = error * inverse / np.where(d > 0, d, np.inf)
        gradient = slope.sum(1)[:, None] * points - slope @ points
    else:
        r = np.maximum(np.linalg.norm(points, axis=1), 1e-12)
        unit = points / r[:, None]
        sinh, cosh, root = np.sinh(r), np.cosh(r), np.exp(r / 2)
        grown = np.outer(root, 1 / root)
        half = (grown - grown.T) / 2  # sinh((r - r') / 2)
        apart = half * (grown + grown.T)  # sinh(r - r')
        turn = cdist(unit, unit, "sqeuclidean") / 2  # 1 - cos of the angle
        arms = np.outer(sinh, sinh)
        u = 2 * half**2 + arms * turn  # cosh d - 1
        sinh_d = np.sqrt(u * (u + 2))
        error = np.log1p(u + sinh_d) * inverse - kept
        slope = error * inverse / np.where(sinh_d > 0, sinh_d, np.inf)  # by u: d(d)/du = 1/sinh d
        by_r = (slope * (apart + np.outer(cosh, sinh) * turn)).sum(1)
        pull = slope * arms
        by_unit = pull.sum(1)[:, None] * unit - pull @ unit
        along = (by_unit * unit).sum(1)
        gradient = (by_r - along / r)[:, None] * unit + by_unit / r[:, None]
    pairs = kept.sum()
    return float(np.vdot(error, error) / pairs), 4 * gradient / pairs


def least_stress(
    start: Float[Tensor, "n dim"],
    goal: Float[Tensor, "n n"],
    curved: bool,
    steps: int,
    each_step: Callable[[], None],
) -> tuple[float, Float[Tensor, "n dim"]]:
    """The least stress and its points, as L-BFGS reaches them from ``start`` in at most ``steps``
    steps."""
    inverse = torch.where(goal > 0, 1 / goal, 0.0).numpy()
    farthest = goal.max().item()
    # No point need lie farther from the centre than two lie from each other: a line search that
    # goes there would overflow.
    found = minimize(
        lambda flat: _flat(stress(flat.reshape(start.shape), inverse, curved)),
        start.numpy().ravel(),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(np.full(start.numel(), -farthest), np.full(start.numel(), farthest)),
        options={"maxiter": steps, "maxcor": 20},
        callback=lambda _: each_step(),
    )
    return float(found.fun), torch.from_numpy(found.x.reshape(start.shape))


def _check(distances: Tensor, dim: int) -> None:
    shape = tuple(distances.shape)
    if len(shape) != 2 or shape[0] != shape[1] or not torch.isfinite(distances).all():
        raise InputError(f"distances of shape {shape}; expected a square matrix of finite numbers")
    check_count("dim", dim)


def _flat(result: tuple[float, np.ndarray]) -> tuple[float, np.ndarray]:
    return result[0], result[1].ravel()


def _widened(points: Tensor, dim: int) -> Tensor:
    return torch.nn.functional.pad(points, (0, dim - points.shape[1]))
