"""Shortest paths beside networkx, and transport beside a linear programme over all mass."""

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from geodapt.geometry import graphs, hyperbolicity


def edges_of(graph):
    return torch.tensor(list(graph.edges))


def by_networkx(graph, weight=None):
    return torch.tensor(nx.floyd_warshall_numpy(graph, sorted(graph), weight=weight or "none"))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 90), density=st.floats(0.5, 3))
def test_hops_are_shortest_paths(seed, n, density):
    graph = nx.gnm_random_graph(n, max(1, int(density * n)), seed=seed)
    graph.add_edge(0, n - 1)  # the last node is named, so that all are counted
    expected = by_networkx(graph)
    assert torch.equal(graphs.graph_distances(edges_of(graph)), expected)
    nodes = torch.tensor(np.random.default_rng(seed).permutation(n)[: n // 2 + 1])
    found = graphs.graph_distances(edges_of(graph), nodes=nodes)
    assert torch.equal(found, expected[nodes][:, nodes])


def test_weighted_paths_and_separate_parts():
    graph = nx.disjoint_union(nx.gnm_random_graph(20, 50, seed=1), nx.path_graph(4))
    generator = np.random.default_rng(0)
    for a, b in graph.edges:
        graph.edges[a, b]["length"] = generator.random() + 0.1
    lengths = torch.tensor([graph.edges[e]["length"] for e in graph.edges])
    expected = by_networkx(graph, "length")
    found = graphs.graph_distances(edges_of(graph), lengths)
    torch.testing.assert_close(found, expected)
    assert found[0, 22].isinf()
    some = torch.tensor([3, 21, 7])
    torch.testing.assert_close(
        graphs.graph_distances(edges_of(graph), lengths, some), expected[some][:, some]
    )


def whole_transport(graph, u, v, idleness):
    """1 - W / d(u, v) with all the mass of both walks in one linear programme."""
    d = dict(nx.all_pairs_shortest_path_length(graph))
    around = [[p, *graph[p]] for p in (u, v)]
    mass = [
        np.array([idleness, *[(1 - idleness) / graph.degree(p)] * graph.degree(p)]) for p in (u, v)
    ]
    cost = np.array([[d[a][b] for b in around[1]] for a in around[0]], dtype=float)
    rows, columns = cost.shape
    equal = np.zeros((rows + columns, rows * columns))
    for i in range(rows):
        equal[i, i * columns : (i + 1) * columns] = 1
    for j in range(columns):
        equal[rows + j, j::columns] = 1
    moved = linprog(cost.ravel(), A_eq=equal, b_eq=np.concatenate(mass))
    return 1 - moved.fun / d[u][v]


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(5, 20),
    density=st.floats(1, 3),
    idleness=st.sampled_from([0.0, 0.3, 0.5]),
)
def test_ricci_is_the_whole_transport(seed, n, density, idleness):
    graph = nx.gnm_random_graph(n, int(density * n), seed=seed)
    graph.add_edge(0, n - 1)
    edges = edges_of(graph)
    chosen = torch.randperm(len(edges), generator=torch.Generator().manual_seed(seed))[:5]
    found = hyperbolicity.ollivier_ricci(edges, idleness=idleness, chosen=chosen)
    expected = [whole_transport(graph, *e, idleness) for e in edges[chosen].tolist()]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    given_distances = hyperbolicity.ollivier_ricci(
        edges, graphs.graph_distances(edges), idleness, chosen
    )
    torch.testing.assert_close(given_distances, found)


def test_ricci_between_hubs_is_near_the_exact(monkeypatch):
    graph = nx.gnp_random_graph(400, 0.4, seed=0)
    chosen = torch.arange(10)
    exact = hyperbolicity.ollivier_ricci(edges_of(graph), chosen=chosen)
    monkeypatch.setattr(hyperbolicity, "LARGEST", 80)
    thinned = hyperbolicity.ollivier_ricci(edges_of(graph), chosen=chosen)
    torch.testing.assert_close(thinned, exact, atol=0.12, rtol=0)
    assert not torch.equal(thinned, exact)  # else nothing was thinned


def test_large_graphs_are_searched_from_many_nodes_at_once():
    graph = nx.barabasi_albert_graph(20_000, 2, seed=0)
    nodes = torch.arange(0, 20_000, 40)
    found = graphs.graph_distances(edges_of(graph), nodes=nodes)
    for place in (0, 250, 499):
        expected = nx.single_source_shortest_path_length(graph, nodes[place].item())
        assert found[place].tolist() == [expected[node] for node in nodes.tolist()]


@pytest.mark.parametrize("joined", [True, False])
def test_hops_of_two_nodes(joined):
    edges = torch.tensor([[0, 1]] if joined else [[0, 1], [2, 3]])
    found = graphs.graph_distances(edges, nodes=torch.tensor([0, 1 if joined else 3]))
    assert found[0, 1].item() == (1 if joined else float("inf"))
