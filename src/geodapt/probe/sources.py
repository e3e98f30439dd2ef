"""What can be probed: a model's embeddings, a file of vectors or distances, a graph's edges."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from torch import Tensor

from geodapt.errors import InputError
from geodapt.geometry.graphs import graph_distances
from geodapt.geometry.hyperbolicity import check_distances
from geodapt.paths import given
from geodapt.probe import tables
from geodapt.probe.columns import Choice
from geodapt.progress import track

Kind = Literal["vectors", "distances", "edges"]

PLACEHOLDER = re.compile(r"[\[<].*(unused|reserved).*\d+.*[\]>]")  # BERT's, Gemma's, Llama's
THROUGH = 32  # points by which the triangle inequality is tried
BLOCK = 1 << 15  # rows that are checked at once
MATRICES = 12  # of distances that measuring takes at its peak (9 were seen), and some room


@dataclass(frozen=True)
class Source:
    """A finite metric space, or the sample of one, with a label for each point."""

    name: str
    kind: Kind
    total: int  # points that there are, of which the following are the sample
    distances: Tensor  # (n, n)
    labels: list[str]
    edges: Tensor | None = None  # (m, 2) of a graph, between the points
    graph: Tensor | None = None  # (M, 2): all its edges, of the points that were left out too
    notes: list[str] = field(default_factory=list)  # what a reader must be told


def load(
    source: str,
    kind: Kind | None = None,
    tensor: str | None = None,
    sample: int = 1000,
    seed: int = 0,
    *,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    labels: str | None = None,
    header: bool | None = None,
) -> Source:
    """Read a source and sample it down to ``sample`` points.

    ``source`` is ``classes`` (Python's class hierarchy), ``api-calls`` (the built-in data's items
    by module path), a ``.npy``, ``.safetensors``, ``.csv`` or ``.tsv`` file, a text file of edges,
    or a model's name or folder (its token embeddings; with ``tensor="classes"`` its classifier's).
    ``kind`` says what a file holds where that is to be decided, ``tensor`` names the tensor of a
    safetensors file. Of a text table ``columns`` are the coordinates, ``drop`` is left out and
    ``labels`` names the rows: columns by name, by number from 1 or as a range (``"2-5"``);
    ``header`` says whether its first row holds the names. What was taken for what stands in the
    source's ``notes``. Raises :class:`InputError` for what cannot be probed.
    """
    choice = Choice(columns, tuple(drop), labels, header)
    generator = np.random.default_rng(seed)
    path = given(source)
    if choice.any and (source in BUILT_IN or not path.exists() or path.is_dir()):
        raise InputError(
            f"{source} is no text table; --columns, --drop, --labels and --header are for one"
        )
    if source in BUILT_IN:
        return from_edges(source, BUILT_IN[source](), sample, generator)
    if path.exists() and not path.is_dir():
        content = tables.read(path, kind, tensor, choice)
        if content.edges is not None:
            return from_edges(path.name, content.edges, sample, generator)
        assert content.numbers is not None  # a table holds edges or numbers
        take = from_distances if content.kind == "distances" else from_vectors
        found = take(path.name, content.numbers, content.labels, sample, generator)
        return replace(found, notes=[*content.notes, *found.notes])
    if path.suffix in tables.SUFFIXES:
        raise InputError(f"{source} does not exist")
    vectors, tokens = model_embeddings(source, tensor)
    return from_vectors(source, vectors, tokens, sample, generator)


def from_vectors(
    name: str, vectors: np.ndarray, labels: list[str] | None, sample: int, generator
) -> Source:
    """The Euclidean distances of a sample of rows."""
    if vectors.ndim != 2:
        raise InputError(f"{name} has the shape {vectors.shape}; expected rows of vectors (n, d)")
    total = len(vectors)
    for start in track(range(0, total, BLOCK), f"reading {name}"):
        finite = np.isfinite(vectors[start : start + BLOCK]).all(1)
        if not finite.all():
            row = start + int(finite.argmin())
            raise InputError(f"{name}: row {row} holds NaN or infinite values; leave it out")
    chosen, notes = _choose(name, total, sample, generator)
    rows = torch.from_numpy(np.asarray(vectors[chosen], dtype=np.float64))
    direct = "donot_use_mm_for_euclid_dist"  # the fast form loses close points
    distances = torch.cdist(rows, rows, compute_mode=direct)
    names = [labels[i] if labels else str(i) for i in chosen]
    return _checked(Source(name, "vectors", total, distances, names, notes=notes))


def from_distances(
    name: str, matrix: np.ndarray, labels: list[str] | None, sample: int, generator
) -> Source:
    """A sample of rows and columns of a distance matrix."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{name}: a distance matrix is square; this has the shape {matrix.shape}")
    total = len(matrix)
    chosen, notes = _choose(name, total, sample, generator)
    rows = np.asarray(matrix[np.ix_(chosen, chosen)], dtype=np.float64)
    names = [labels[i] if labels else str(i) for i in chosen]
    found = _checked(Source(name, "distances", total, torch.from_numpy(rows), names, notes=notes))
    return replace(found, notes=[*notes, *_no_metric(name, rows, generator)])


def _no_metric(name: str, d: np.ndarray, generator: np.random.Generator) -> list[str]:
    """A note where ``d(i, j) <= d(i, k) + d(k, j)`` does not hold, tried with 32 points k.

    Refused where two points coincide and lie at unlike distances from a third.
    """
    tolerance = 1e-5 * d.max()
    for i, j in np.argwhere(np.triu(d <= 0, 1)):
        gap = np.abs(d[i] - d[j])
        if gap.max() > tolerance:
            k = int(gap.argmax())
            raise InputError(
                f"{name}: distance [{i}, {j}] is 0, but [{i}, {k}] is {d[i, k]:g} and [{j}, {k}] "
                f"is {d[j, k]:g}; points that coincide have one distance from every other"
            )
    through = generator.choice(len(d), min(len(d), THROUGH), replace=False)
    broken, worst = 0, 1.0
    for k in through:
        detour = d[:, k, None] + d[k]
        longer = d > detour + tolerance
        broken += int(longer.sum())
        if longer.any():
            worst = max(worst, float((d[longer] / detour[longer]).max()))
    if not broken:
        return []
    share = broken / (len(through) * d.size)
    return [
        f"these are no distances of a metric: {share:.2%} of the triples tried break the triangle "
        f"inequality, one by a factor of {worst:.3g}; the figures suppose that it holds"
    ]


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
    _must_hold(name, min(sample, total))
    if total > sample:
        hub = int(torch.bincount(graph.flatten()).argmax())
        nodes = connected_sample(graph, total, hub, sample, generator.permutation(total))
        notes.append(f"a connected sample of {sample:,} of {total:,} nodes")
    edges = _among(graph, nodes, total)
    # In a tree the way between two nodes of a connected sample never leaves it.
    tree = len(graph) == total - 1
    distances = graph_distances(edges) if tree else graph_distances(graph, nodes=nodes)
    names = labels[part[nodes].numpy()].tolist()
    return _checked(Source(name, "edges", total, distances, names, edges, graph, notes))


def model_embeddings(base: str, tensor: str | None = None) -> tuple[np.ndarray, list[str]]:
    """A model's token embeddings with their tokens, or its classifier's rows with class names."""
    if tensor == "classes":
        return _class_embeddings(base)
    from geodapt.models import load_base  # transformers is slow to import, and files need none

    model, tokenizer = load_base(base)
    # Of a model that reads sound, transformers says so by this error; of one that reads pictures
    # it gives the patches' module, which has no table.
    try:
        weight: Any = model.get_input_embeddings().weight
    except (NotImplementedError, AttributeError) as error:
        raise InputError(f"model '{base}' has no token embeddings; give a file instead") from error
    if weight.dim() != 2:
        raise InputError(f"model '{base}' has no token embeddings but an input of {weight.shape}")
    words = {index: word for word, index in tokenizer.get_vocab().items()}
    # Rows at the end that no token has and placeholders were never trained: they lie in a heap.
    rows = [i for i in range(len(weight)) if i in words and not PLACEHOLDER.fullmatch(words[i])]
    return weight.detach()[rows].float().numpy(), [words[i] for i in rows]


def _class_embeddings(base: str) -> tuple[np.ndarray, list[str]]:
    from transformers import AutoConfig

    from geodapt.models import as_input_errors, load_weights, locate_base, model_class, pretrained

    location = locate_base(base)
    with as_input_errors(base):
        config = pretrained(AutoConfig, location)
        names = [config.id2label[i] for i in range(config.num_labels)]
        architecture = model_class((config.architectures or ["none"])[0])
        model = load_weights(base, location, kind=architecture) if architecture else None
    heads = [
        layer.weight
        for layer in (model.modules() if model else ())
        if isinstance(layer, torch.nn.Linear) and layer.out_features == len(names)
    ]
    if not heads:
        raise InputError(f"model '{base}' has no classifier over its {len(names)} labels")
    return heads[-1].detach().float().numpy(), names


def class_hierarchy() -> list[tuple[str, str]]:
    """Every class that is loaded, below ``object``: (base, class)."""
    edges, waiting, seen = [], [object], {object}
    while waiting:
        base = waiting.pop()
        for child in type.__subclasses__(base):
            edges.append((_name(base), _name(child)))
            if child not in seen:
                seen.add(child)
                waiting.append(child)
    return edges


def api_items() -> list[tuple[str, str]]:
    """The items of the built-in data by module path: (package or module, what it holds).

    A root joins the packages.
    """
    from geodapt.data.api_calls import ApiCallSettings, load_api_calls, module_tree

    domains = load_api_calls(ApiCallSettings.model_validate({}))
    edges = module_tree(domains)
    packages = {parent for parent, _ in edges} - {child for _, child in edges}
    return [*(("packages", package) for package in sorted(packages)), *edges]


BUILT_IN: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "classes": class_hierarchy,
    "api-calls": api_items,
}


def _name(kind: type) -> str:
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else (f"{kind.__module__}.{kind.__qualname__}")
    )


def _choose(name: str, total: int, sample: int, generator) -> tuple[np.ndarray, list[str]]:
    _must_hold(name, min(total, sample))
    if total <= sample:
        return np.arange(total), []
    chosen = np.sort(generator.choice(total, sample, replace=False))
    return chosen, [f"a random sample of {sample:,} of {total:,} points"]


def _must_hold(name: str, points: int) -> None:
    """Raise :class:`InputError` where the distances of so many points do not fit into memory."""
    needed = MATRICES * 8 * points**2
    tables.must_fit(f"{name}: to measure {points:,} points", needed, "take a smaller --sample")


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
    """The first nodes in ``order`` with their shortest ways to the centre, ``sample`` in all.

    So leaves are as frequent as they are, and what joins them is there.
    """
    graph = csr_array((np.ones(len(edges), dtype=bool), edges.T.numpy()), shape=(total, total))
    _, towards = breadth_first_order(graph, center, directed=False)
    kept = {center}
    for node in order.tolist():
        way = []
        while node not in kept:
            way.append(node)
            node = int(towards[node])
        # Of the last way the beginning, as much as there is room for.
        kept.update(way[::-1][: sample - len(kept)])
        if len(kept) == sample:
            break
    return torch.tensor(sorted(kept))


def _checked(source: Source) -> Source:
    check_distances(source.distances)
    if not (source.distances > 0).any():
        raise InputError(f"{source.name}: all {source.total} points coincide")
    return source
