"""Graphs as metric spaces: shortest paths between their nodes, or between a connected sample."""

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from torch import Tensor

from geodapt.errors import InputError
from geodapt.geometry.graphs import graph_distances
from geodapt.probe.source import Source, check_source, require_memory


def from_edges(
    name: str, pairs: list[tuple[str, str]], sample: int, generator: np.random.Generator
) -> Source:
    """Shortest paths between the nodes of a graph's largest part, or of a connected sample.

    The paths of a sample's nodes may lead through nodes that are not in it.
    """
    ends, labels = pd.factorize(np.array(pairs, dtype=object).ravel(), sort=True)
    if len(labels) < 2:
        raise InputError(f"{name} holds {len(labels)} nodes; a graph needs two joined ones")
    graph = torch.from_numpy(ends.reshape(-1, 2)).long().sort(dim=1).values.unique(dim=0)
    graph = graph[graph[:, 0] != graph[:, 1]]
    if not len(graph):
        raise InputError(f"{name} joins no two different nodes")
    part = _largest_part(graph, len(labels))
    graph = _among(graph, part, len(labels))
    total, notes = len(part), []
    if total < len(labels):
        notes.append(f"{len(labels) - total:,} nodes outside the largest connected part left out")
    nodes = torch.arange(total)
    require_memory(name, min(sample, total))
    if total > sample:
        hub = int(torch.bincount(graph.flatten()).argmax())
        nodes = connected_sample(graph, total, hub, sample, generator.permutation(total))
        notes.append(f"a connected sample of {sample:,} of {total:,} nodes")
    edges = _among(graph, nodes, total)
    # In a tree the path between two nodes of a connected sample never leaves it.
    tree = len(graph) == total - 1
    distances = graph_distances(edges) if tree else graph_distances(graph, nodes=nodes)
    names = labels[part[nodes].numpy()].tolist()
    return check_source(Source(name, "edges", total, distances, names, edges, graph, notes))


def _among(edges: Tensor, nodes: Tensor, total: int) -> Tensor:
    """The edges between some of the nodes, which are numbered anew in their order."""
    place = torch.full((total,), -1)
    place[nodes] = torch.arange(len(nodes))
    edges = place[edges]
    return edges[(edges >= 0).all(1)]


def _largest_part(edges: Tensor, nodes: int) -> Tensor:
    i, j = edges.T.numpy()
    graph = csr_array((np.ones(len(i)), (i, j)), shape=(nodes, nodes))
    _, part = connected_components(graph, directed=False)
    return torch.from_numpy(np.flatnonzero(part == np.bincount(part).argmax()))


def connected_sample(
    edges: Tensor, total: int, center: int, sample: int, order: np.ndarray
) -> Tensor:
    """The first nodes in ``order`` with their shortest paths to the centre, ``sample`` in all.

    So leaves keep their frequency, and the nodes that join them are in the sample.
    """
    graph = csr_array((np.ones(len(edges), dtype=bool), edges.T.numpy()), shape=(total, total))
    _, towards = breadth_first_order(graph, center, directed=False)
    kept = {center}
    for node in order.tolist():
        way = []
        while node not in kept:
            way.append(node)
            node = int(towards[node])
        # Of the last path, as much from its beginning as there is room for.
        kept.update(way[::-1][: sample - len(kept)])
        if len(kept) == sample:
            break
    return torch.tensor(sorted(kept))
