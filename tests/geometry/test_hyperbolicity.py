"""Known values of graphs, and a brute-force delta over all quadruples."""

from itertools import combinations

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodapt.errors import InputError
from geodapt.geometry import graphs, hyperbolicity, lorentz, mds


def edges_of(graph):
    return torch.tensor(list(nx.convert_node_labels_to_integers(graph).edges))


def four_point_delta(d):
    """The definition: half the gap of the two largest sums, over all quadruples."""
    worst = 0.0
    for i, j, k, m in combinations(range(len(d)), 4):
        sums = sorted([d[i][j] + d[k][m], d[i][k] + d[j][m], d[i][m] + d[j][k]])
        worst = max(worst, (sums[2] - sums[1]) / 2)
    return worst


def cloud(n, d, seed=0):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


KNOWN_DELTA = {
    "path": (nx.path_graph(9), 0),
    "tree": (nx.balanced_tree(2, 4), 0),
    "complete": (nx.complete_graph(7), 0),
    "cycle of 4": (nx.cycle_graph(4), 1),
    "cycle of 12": (nx.cycle_graph(12), 3),
    "cycle of 13": (nx.cycle_graph(13), 2.5),
    "grid of 5 by 5": (nx.grid_2d_graph(5, 5), 4),
    "grid of 3 by 7": (nx.grid_2d_graph(3, 7), 2),
    "grid of 4 by 6": (nx.grid_2d_graph(4, 6), 3),
    "star": (nx.star_graph(9), 0),
    "complete bipartite": (nx.complete_bipartite_graph(4, 5), 1),
    "block graph": (nx.barbell_graph(5, 3), 0),
    "hypercube of 3": (nx.hypercube_graph(3), 1),
    "hypercube of 4": (nx.hypercube_graph(4), 2),
    "hypercube of 5": (nx.hypercube_graph(5), 2),
    "Petersen": (nx.petersen_graph(), 0.5),
}


@pytest.mark.parametrize("name", KNOWN_DELTA)
def test_delta_of_known_graphs(name):
    graph, expected = KNOWN_DELTA[name]
    distances = graphs.graph_distances(edges_of(graph))
    found = hyperbolicity.delta_hyperbolicity(distances)
    assert found.delta == expected
    assert found.exact
    if len(distances) <= 25:
        assert four_point_delta(distances.tolist()) == expected


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 12), st.integers(1, 5))
def test_delta_is_the_four_point_condition(seed, n, d):
    distances = cloud(n, d, seed)
    exact = hyperbolicity.delta_hyperbolicity(distances)
    assert exact.delta == pytest.approx(four_point_delta(distances.tolist()), abs=1e-12)
    bounded = hyperbolicity.delta_hyperbolicity(distances, bases=[0, 1])
    assert bounded.delta <= exact.delta + 1e-12 <= bounded.upper + 2e-12
    assert 0 <= exact.relative <= 1


def test_delta_in_float32():
    distances = cloud(60, 3)
    exact = hyperbolicity.delta_hyperbolicity(distances)
    single = hyperbolicity.delta_hyperbolicity(distances.float())
    assert single.delta == pytest.approx(exact.delta, rel=1e-5)
    tree = graphs.graph_distances(edges_of(nx.balanced_tree(3, 4))).float()
    assert hyperbolicity.delta_hyperbolicity(tree).delta == 0  # halves of whole numbers are exact


def test_delta_of_the_hyperbolic_plane():
    """Gromov: delta of the plane of curvature -1 is log 2 in the four-point sense."""
    directions = torch.nn.functional.normalize(torch.randn(60, 2, dtype=torch.float64), dim=-1)
    points = lorentz.exp0(directions * 12)
    delta = hyperbolicity.delta_hyperbolicity(lorentz.pairwise_distance(points, points)).delta
    assert 0.6 < delta < 0.6932


def test_blocks_of_rows_give_the_whole(monkeypatch):
    distances = cloud(40, 3)
    whole = hyperbolicity.delta_hyperbolicity(distances)
    monkeypatch.setattr(hyperbolicity, "ROWS", 7)
    assert hyperbolicity.delta_hyperbolicity(distances) == whole


def test_average_delta():
    tree = graphs.graph_distances(edges_of(nx.balanced_tree(3, 3)))
    assert hyperbolicity.average_delta(tree) == 0
    square = graphs.graph_distances(edges_of(nx.cycle_graph(4)))
    # Delta is 1 for the 4! of 4^4 draws that are four different corners, and 1/2 or 0 else.
    total = 0.0
    for q in torch.cartesian_prod(*[torch.arange(4)] * 4).tolist():
        i, j, k, m = q
        sums = sorted(
            [square[i, j] + square[k, m], square[i, k] + square[j, m], square[i, m] + square[j, k]]
        )
        total += float(sums[2] - sums[1]) / 2
    expected = total / 256 / (square.sum().item() / 12)
    assert hyperbolicity.average_delta(square) == pytest.approx(expected, rel=0.02)


KNOWN_RICCI = {  # without idleness; Lin, Lu & Yau 2011, Jost & Liu 2014
    "complete of 6": (nx.complete_graph(6), 4 / 5),
    "cycle of 4": (nx.cycle_graph(4), 0),
    "cycle of 5": (nx.cycle_graph(5), 0),
    "cycle of 9": (nx.cycle_graph(9), 0),
    "cube": (nx.hypercube_graph(3), 0),
}


@pytest.mark.parametrize("name", KNOWN_RICCI)
def test_ricci_of_known_graphs(name):
    graph, expected = KNOWN_RICCI[name]
    found = hyperbolicity.ollivier_ricci(edges_of(graph), idleness=0)
    torch.testing.assert_close(found, torch.full_like(found, expected))


def test_ricci_inside_a_tree_and_on_a_grid():
    """Between two inner nodes of degree r the curvature is -2 + 4/r, scaled by 1 - idleness."""
    tree = nx.balanced_tree(2, 5)  # inner nodes have degree 3
    edges = edges_of(tree)
    inner = [i for i, (a, b) in enumerate(edges.tolist()) if a not in (0,) and tree.degree(b) == 3]
    for idleness in (0.0, 0.5):
        found = hyperbolicity.ollivier_ricci(edges, idleness=idleness, chosen=torch.tensor(inner))
        if idleness:
            # The lazy walk's two halves: 1 - W with the idle mass moving one step.
            assert (found < 0).all()
        else:
            torch.testing.assert_close(found, torch.full_like(found, -2 + 4 / 3))
    torus = nx.grid_2d_graph(8, 8, periodic=True)
    found = hyperbolicity.ollivier_ricci(edges_of(torus))
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-12, rtol=0)


def test_radius_profile_of_a_star():
    distances = graphs.graph_distances(edges_of(nx.star_graph(6)))
    center, radii = hyperbolicity.radius_profile(distances)
    assert center == 0
    assert radii.tolist() == [0, *[1] * 6]


def test_embedding_recovers_a_hyperbolic_cloud_and_its_curvature():
    v = torch.nn.functional.normalize(torch.randn(50, 2, dtype=torch.float64), dim=-1)
    points = lorentz.exp0(v * 5 * torch.rand(50, 1).double().sqrt())
    distances = lorentz.pairwise_distance(points, points) * 10  # curvature -1/100
    found = mds.suggest_curvature(distances, dim=2, steps=160)
    assert 0.004 < found.c < 0.025
    flat = mds.embed_distances(distances, dim=2, c=0, steps=160)
    assert found.distortion < 0.05 < flat.distortion
    measured = lorentz.pairwise_distance(found.points, found.points, found.c)
    upper = torch.triu_indices(50, 50, 1).unbind()
    error = (measured[upper] / distances[upper] - 1).abs().mean()
    assert error.item() == pytest.approx(found.distortion, rel=1e-3)


def test_flat_data_needs_no_curvature():
    distances = cloud(50, 2)
    assert mds.embed_distances(distances, dim=2, c=0, steps=100).distortion < 1e-3
    assert mds.embed_distances(distances, dim=2, c=1, steps=100).distortion > 0.02


def test_nearest_neighbours():
    line = torch.tensor([[0.0], [1.0], [2.5], [10.0]])
    edges = graphs.nearest_neighbours(torch.cdist(line, line), 1)
    assert edges.tolist() == [[0, 1], [1, 2], [2, 3]]
    with pytest.raises(InputError, match="expected 1 to 3 neighbours"):
        graphs.nearest_neighbours(torch.cdist(line, line), 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:, :2], "square"),
        (lambda d: d[:1, :1], "at least two"),
        (lambda d: d.index_put((torch.tensor(0), torch.tensor(1)), torch.tensor(torch.nan)), "nan"),
        (lambda d: -d, r"\[0, 1\] is -"),
        (lambda d: d.triu(), "not symmetric"),
        (lambda d: d + torch.eye(4), r"\[0, 0\] is 1; expected 0"),
    ],
)
def test_what_is_no_metric(change, message):
    distances = (1 - torch.eye(4)) * 2
    with pytest.raises(InputError, match=message):
        hyperbolicity.delta_hyperbolicity(change(distances))
    with pytest.raises(InputError):
        mds.embed_distances(torch.zeros(3, 3))


def test_numbers_that_do_not_fit_are_refused():
    d = cloud(6, 2)
    edges = torch.tensor([[0, 1], [1, 2]])
    for wrong, message in (
        (lambda: mds.embed_distances(d, 0), "dim is 0"),
        (lambda: mds.suggest_curvature(d, dim=-1), "dim is -1"),
        (lambda: mds.embed_distances(d, 2, float("nan")), "c is nan"),
        (lambda: mds.embed_distances(d, 2, steps=0), "steps is 0"),
        (lambda: mds.suggest_curvature(d, 2, reach=-1.0), "reach is"),
        (lambda: hyperbolicity.delta_hyperbolicity(d, [9]), "bases are"),
        (lambda: hyperbolicity.delta_hyperbolicity(d, []), "bases are"),
        (lambda: hyperbolicity.average_delta(d, 0), "quadruples is 0"),
        (lambda: hyperbolicity.ollivier_ricci(edges, idleness=2.0), "idleness is"),
        (lambda: mds.classical_scaling(d[:3], 2), "expected a square matrix"),
        (lambda: mds.hydra(d * float("nan"), 2), "expected a square matrix"),
        (lambda: mds.fan(d, 0), "dim is 0"),
    ):
        with pytest.raises(InputError, match=message):
            wrong()
