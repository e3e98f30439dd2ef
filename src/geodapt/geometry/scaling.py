"""Multidimensional scaling: points whose distances are the given ones, as near as can be.

What is wanted is the least :func:`stress`, which has many local minima. Three solutions in closed
form, each of a problem a little beside the wanted one, are where to start from:
:func:`classical_scaling` (exact for Euclidean distances), :func:`hydra` (exact for hyperbolic ones)
and :func:`fan` (nearly so for those of a tree). Hyperbolic points are given as tangent vectors at
the origin of the space of curvature -1.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import Bounds, minimize
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.spatial.distance import cdist
from torch import Tensor

from geodapt.errors import InputError
from geodapt.geometry import lorentz


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
    """The stress and the points that L-BFGS reaches from ``start`` in at most ``steps`` steps."""
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


def check_count(name: str, value: int) -> None:
    """Refuse a number of dimensions, steps or samples below 1."""
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}; expected a whole number of 1 or more")


def _flat(result: tuple[float, np.ndarray]) -> tuple[float, np.ndarray]:
    return result[0], result[1].ravel()


def _widened(points: Tensor, dim: int) -> Tensor:
    return torch.nn.functional.pad(points, (0, dim - points.shape[1]))
