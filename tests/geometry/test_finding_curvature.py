"""A curvature is found where it is known: of points drawn with it, of trees, and of a task."""

import math

import networkx as nx
import pytest
import torch

from geodapt.errors import InputError
from geodapt.geometry import lorentz
from geodapt.geometry.curvature import find_curvature
from geodapt.geometry.mds import embed_distances


def tree_distances(graph: nx.Graph) -> torch.Tensor:
    return torch.from_numpy(nx.floyd_warshall_numpy(graph)).double()


@pytest.mark.parametrize("c", [0.3, 5.0])
def test_points_of_a_hyperbolic_space(c):
    """Drawn two radii of curvature from the origin, where it is neither flat nor a tree."""
    v = torch.randn(60, 4, generator=torch.manual_seed(0), dtype=torch.float64) / c**0.5
    x = lorentz.exp0(v, c)
    chosen = find_curvature(distances=lorentz.pairwise_distance(x, x, c), dim=4)
    assert c / 1.5 < chosen.c < c * 1.5
    assert not chosen.flat
    assert not chosen.tried


def test_a_grid_is_flat_and_a_tree_is_not():
    flat = torch.randn(40, 5, generator=torch.manual_seed(0))
    tree = tree_distances(nx.balanced_tree(3, 3))
    assert find_curvature(flat).flat
    curved = find_curvature(distances=tree, dim=2)
    assert not curved.flat
    assert curved.c**0.5 * tree.max() > 5  # a tree wants a large one


def test_a_task_decides_where_points_come_from_a_tree():
    """Vectors are the logs of a tree embedded at c = 1. Neighbours are found best with that c."""
    distances = tree_distances(nx.balanced_tree(3, 3))
    x = lorentz.log0(embed_distances(distances, 2, 1.0).points)
    asked = []

    def stress(c: float) -> float:
        asked.append(c)
        at = lorentz.exp0(x, c)
        got = lorentz.pairwise_distance(at, at, c)
        kept = distances > 0
        return ((got - distances)[kept] / distances[kept]).square().mean().item()

    chosen = find_curvature(x, stress, dim=2)
    assert 0.6 < chosen.c < 1.7
    assert list(chosen.tried) == sorted(asked)
    assert len(asked) <= 5 + 3 + 4
    assert chosen.tried[chosen.c] == min(chosen.tried.values())


@pytest.mark.slow
@pytest.mark.parametrize("shift", [1 / 400, 1 / 3, 900])
def test_the_search_reaches_a_minimum_far_from_the_estimate(shift):
    x = torch.randn(20, 3, generator=torch.manual_seed(0))
    estimate = find_curvature(x).c
    chosen = find_curvature(x, lambda c: abs(math.log(c / (estimate * shift))))
    assert chosen.estimate == estimate
    assert abs(math.log2(chosen.c / (estimate * shift))) <= 0.51


def test_scale():
    """Ten times as long vectors: a hundredth of the curvature."""
    x = torch.randn(20, 3, generator=torch.manual_seed(0), dtype=torch.float64)
    assert find_curvature(10 * x).c == pytest.approx(find_curvature(x).c / 100, rel=0.3)


def test_what_is_refused():
    x = torch.randn(20, 3, generator=torch.manual_seed(0))
    with pytest.raises(InputError, match="either vectors or distances"):
        find_curvature()
    with pytest.raises(InputError, match="NaN"):
        find_curvature(x * torch.nan)
    with pytest.raises(InputError, match="all points coincide"):
        find_curvature(torch.ones(20, 3))
    with pytest.raises(InputError, match=r"shape \(4, 3\); expected a square matrix"):
        find_curvature(distances=torch.ones(4, 3))
    with pytest.raises(InputError, match="no finite loss"):
        find_curvature(x, lambda c: math.nan)
    with pytest.raises(InputError, match="factors are"):
        find_curvature(x, abs, factors=())
    # NaN at some curvatures is no reason to stop.
    chosen = find_curvature(x, lambda c: math.nan if c > 0.01 else 1.0, refine=0)
    assert chosen.c <= 0.01
