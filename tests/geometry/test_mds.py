"""Closed-form starts on data they solve, and the stress beside autograd and 50-digit arithmetic."""

import mpmath
import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodapt.errors import InputError
from geodapt.geometry import graphs, lorentz, mds

DIRECT = "donot_use_mm_for_euclid_dist"


def inverse(distances):
    return np.where(distances > 0, 1 / np.where(distances > 0, distances, 1), 0)


def plain_stress(points, goal, curved):
    """The definition, one pair at a time, by the geometry's own distance."""
    at = lorentz.exp0(points) if curved else points
    terms = []
    for i in range(len(points)):
        for j in range(len(points)):
            if goal[i, j] > 0:
                d = lorentz.distance(at[i], at[j]) if curved else (at[i] - at[j]).norm()
                terms.append((d / goal[i, j] - 1) ** 2)
    return torch.stack(terms).mean()


@pytest.mark.parametrize("curved", [False, True])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 6), dim=st.integers(1, 4))
def test_stress_and_gradient(curved, seed, n, dim):
    generator = torch.Generator().manual_seed(seed)
    points = 2 * torch.randn(n, dim, generator=generator, dtype=torch.float64)
    goal = 0.5 + torch.rand(n, n, generator=generator, dtype=torch.float64)
    goal = (goal + goal.T).fill_diagonal_(0)
    if n > 3:
        goal[0, 1] = goal[1, 0] = 0  # a pair that does not count
    points.requires_grad_()
    expected = plain_stress(points, goal, curved)
    (gradient,) = torch.autograd.grad(expected, points)
    value, found = mds.stress(points.detach().numpy(), inverse(goal.numpy()), curved)
    assert value == pytest.approx(expected.item(), rel=1e-10)
    np.testing.assert_allclose(found, gradient, rtol=1e-8, atol=1e-10)


def test_stress_keeps_the_digits_of_close_points_far_out():
    points = np.array([[16.0, 0.0], [16.0, 1e-7], [15.5, 3e-7]])
    goal = np.ones((3, 3)) - np.eye(3)
    value, _ = mds.stress(points, goal, True)
    with mpmath.workdps(50):
        terms = []
        for i, j in ((0, 1), (0, 2), (1, 2)):
            a, b = ([mpmath.mpf(float(x)) for x in points[k]] for k in (i, j))
            r, s = mpmath.norm(a), mpmath.norm(b)
            cosine = (a[0] * b[0] + a[1] * b[1]) / (r * s)
            d = mpmath.acosh(
                mpmath.cosh(r) * mpmath.cosh(s) - mpmath.sinh(r) * mpmath.sinh(s) * cosine
            )
            terms.append((d - 1) ** 2)
        expected = float(sum(terms) / 3)
    assert value == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("curved", [False, True])
def test_coincident_points_and_the_origin_have_finite_gradients(curved):
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    value, gradient = mds.stress(points, np.ones((3, 3)) - np.eye(3), curved)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_classical_scaling_recovers_euclidean_points():
    x = torch.randn(20, 3, dtype=torch.float64)
    found = mds.classical_scaling(torch.cdist(x, x), 5)
    torch.testing.assert_close(torch.cdist(found, found), torch.cdist(x, x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dim", [2, 5])
def test_hydra_recovers_hyperbolic_points(dim):
    points = lorentz.exp0(torch.randn(30, dim, dtype=torch.float64))
    distances = lorentz.pairwise_distance(points, points)
    found = lorentz.exp0(mds.hydra(distances, dim))
    torch.testing.assert_close(
        lorentz.pairwise_distance(found, found), distances, atol=1e-6, rtol=1e-6
    )


def tree_distances(graph):
    edges = torch.tensor(list(nx.convert_node_labels_to_integers(graph).edges))
    return graphs.graph_distances(edges)


def test_fan_spreads_a_tree_without_crossings():
    graph = nx.balanced_tree(3, 3)
    distances = tree_distances(graph)
    points = mds.fan(distances, 2)
    torch.testing.assert_close(points.norm(dim=1), distances[0])  # about the root
    angles = torch.atan2(points[:, 1], points[:, 0]) % (2 * torch.pi)
    order = [leaf for leaf in angles.argsort().tolist() if graph.degree(leaf) == 1]
    parents = [(leaf - 1) // 3 for leaf in order]
    changes = sum(a != b for a, b in zip(parents, parents[1:] + parents[:1], strict=True))
    assert changes == len(set(parents))  # siblings lie side by side
    assert mds.fan(distances, 5).shape == (40, 5)


@pytest.mark.slow
def test_a_tree_fits_the_hyperbolic_plane_far_better_than_the_flat_one():
    distances = tree_distances(nx.balanced_tree(3, 4))
    flat = mds.embed_distances(distances, 2, c=0)
    curved = mds.suggest_curvature(distances, 2)
    assert curved.distortion < 0.06 < 0.2 < flat.distortion
    assert curved.c**0.5 * 8 <= 32 * (1 + 1e-9)
    within = mds.suggest_curvature(distances, 2, steps=40, reach=10)
    assert within.c**0.5 * 8 <= 10 * (1 + 1e-9)
    assert curved.distortion < within.distortion < flat.distortion


@pytest.mark.slow
def test_the_start_is_the_best_of_several(monkeypatch):
    distances = tree_distances(nx.balanced_tree(3, 4))
    best = mds.embed_distances(distances, 2, c=1.8, steps=100)
    for name in ("hydra", "fan"):
        monkeypatch.setattr(mds, name, mds.classical_scaling)
    alone = mds.embed_distances(distances, 2, c=1.8, steps=100)
    assert best.distortion < 0.8 * alone.distortion


def test_embed_refuses_what_it_cannot_hold():
    distances = torch.cdist(torch.eye(4), torch.eye(4), compute_mode=DIRECT)
    with pytest.raises(InputError, match="expected a number of 0 or more"):
        mds.embed_distances(distances, c=-1)
    with pytest.raises(InputError, match="float64 holds no more than 64"):
        mds.embed_distances(distances, c=1e6)
